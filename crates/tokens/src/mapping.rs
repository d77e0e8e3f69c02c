//! From a provider's claims to ours: where each of them stands, and what a role grants.

use crate::{Action, ChannelClaims, Claims, Namespaces, Rights, TokenLimits};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use stormwire_core::{ErrorCode, Pattern, Refusal, Timestamp};

/// Longest user or session, in bytes.
const ID_BYTES_MAX: usize = 256;
/// Most roles read from a token.
const ROLES_MAX: usize = 256;

/// Where a token keeps what. A path is a claim's name, or names divided by dots
/// (`realm_access.roles`). The default is the form of our own tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimMapping {
    /// Path of the user.
    pub user: String,
    /// Path of the session.
    pub session: String,
    /// Path of the roles: a list, or text divided by spaces.
    pub roles: String,
    /// Path of the channel patterns by action.
    pub channels: String,
    /// Path of the limits.
    pub limits: String,
    /// What each role grants, beside the token's own channels.
    pub role_rights: BTreeMap<String, RoleRights>,
}

/// Patterns by action; `{user}` in one stands for the token's user.
pub type RoleRights = ChannelClaims;

impl Default for ClaimMapping {
    fn default() -> Self {
        Self {
            user: "sub".to_owned(),
            session: "sid".to_owned(),
            roles: "roles".to_owned(),
            channels: "channels".to_owned(),
            limits: "limits".to_owned(),
            role_rights: BTreeMap::new(),
        }
    }
}

impl ClaimMapping {
    /// Reads verified claims.
    pub(crate) fn read(
        &self,
        claims: &Value,
        issued: Option<Timestamp>,
        expires: Timestamp,
        namespaces: &Namespaces,
    ) -> Result<Claims, Refusal> {
        let user = text(claims, &self.user)?.ok_or_else(|| {
            bad(format!("the token names no user: claim {} is missing", self.user))
        })?;
        let session = text(claims, &self.session)?.map(Arc::from);
        let roles = self.roles(claims)?;
        let own: ChannelClaims = self.part(claims, &self.channels)?;
        let limits: TokenLimits = self.part(claims, &self.limits)?;
        let mut granted = Vec::with_capacity(Action::ALL.len());
        for action in Action::ALL {
            granted.push(self.patterns(action, user, &own, &roles)?);
        }
        let mut granted = granted.into_iter();
        Ok(Claims {
            user: Arc::from(user),
            session,
            rights: Rights::new(|_| granted.next().unwrap_or_default()),
            roles: roles.into(),
            issued,
            expires,
            channels: Arc::from([]),
            limits,
            namespaces: namespaces.clone(),
        })
    }

    fn patterns(
        &self,
        action: Action,
        user: &str,
        own: &ChannelClaims,
        roles: &[String],
    ) -> Result<Vec<Pattern>, Refusal> {
        let mut patterns = Vec::with_capacity(own.of(action).len());
        for text in own.of(action) {
            let pattern = Pattern::parse(text).map_err(|error| {
                bad(format!("the token's claim {}.{action}: {error}", self.channels))
            })?;
            patterns.push(pattern);
        }
        let of_roles = roles.iter().filter_map(|role| self.role_rights.get(role));
        for text in of_roles.flat_map(|rights| rights.of(action)) {
            // A user whose name cannot stand in a channel simply has no channel of that kind. The name
            // must be one segment: `*` and `:` are refused by the parser, dots here.
            let named = text.contains("{user}");
            if named && user.contains(['.', '*', ':']) {
                continue;
            }
            patterns.extend(Pattern::parse(&text.replace("{user}", user)).ok());
        }
        Ok(patterns)
    }

    fn roles(&self, claims: &Value) -> Result<Vec<String>, Refusal> {
        let roles: Vec<String> = match find(claims, &self.roles) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(items)) => {
                items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(_) => {
                return Err(bad(format!("the token's claim {} is not a list of text", self.roles)));
            }
        };
        if roles.len() > ROLES_MAX {
            return Err(bad(format!("the token has {} roles, more than {ROLES_MAX}", roles.len())));
        }
        Ok(roles)
    }

    fn part<T: Default + for<'de> Deserialize<'de>>(
        &self,
        claims: &Value,
        path: &str,
    ) -> Result<T, Refusal> {
        match find(claims, path) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => T::deserialize(value)
                .map_err(|error| bad(format!("the token's claim {path}: {error}"))),
        }
    }
}

/// The value at `path`: a claim of exactly that name (some providers name claims by URLs, which have
/// dots of their own), else one name after the other.
fn find<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, name| value.get(name)))
}

fn text<'a>(claims: &'a Value, path: &str) -> Result<Option<&'a str>, Refusal> {
    match find(claims, path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=ID_BYTES_MAX).contains(&text.len()) => {
            if text.chars().any(char::is_control) {
                return Err(bad(format!("the token's claim {path} has control characters")));
            }
            Ok(Some(text))
        }
        Some(_) => {
            Err(bad(format!("the token's claim {path} is not text of 1 to {ID_BYTES_MAX} bytes")))
        }
    }
}

fn bad(message: String) -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(mapping: &ClaimMapping, claims: &Value) -> Result<Claims, Refusal> {
        mapping.read(claims, None, Timestamp(1), &Namespaces::default())
    }

    #[test]
    fn our_own_tokens_need_no_mapping() {
        let claims = json!({
            "sub": "alice", "sid": "s-1", "roles": ["admin"],
            "channels": {"publish": ["orders:*"], "history": ["orders:eu"]},
            "limits": {"events_per_second": 5}
        });
        let claims = read(&ClaimMapping::default(), &claims).unwrap();
        assert_eq!((&*claims.user, claims.session.as_deref()), ("alice", Some("s-1")));
        assert_eq!(&*claims.roles, ["admin"]);
        assert!(claims.rights.may(Action::Publish, "orders:x"));
        assert!(claims.rights.may(Action::History, "orders:eu"));
        assert!(!claims.rights.may(Action::Subscribe, "orders:eu"));
        assert_eq!(claims.limits.events_per_second, Some(5));
    }

    #[test]
    fn a_foreign_token_is_mapped_by_paths_and_roles() {
        let mapping: ClaimMapping = serde_json::from_value(json!({
            "user": "preferred_username", "session": "session_state", "roles": "realm_access.roles",
            "role_rights": {
                "clerk": {"publish": ["orders:*"], "subscribe": ["orders:*", "inbox:{user}"]},
                "guest": {"subscribe": ["news:*"]}
            }
        }))
        .unwrap();
        let token = |user: &str| json!({"preferred_username": user, "realm_access": {"roles": ["clerk", "unknown"]}});
        let rights = read(&mapping, &token("bob")).unwrap().rights;
        assert!(rights.may(Action::Publish, "orders:eu"));
        assert!(rights.may(Action::Subscribe, "inbox:bob"));
        assert!(!rights.may(Action::Subscribe, "inbox:bo"));
        assert!(!rights.may(Action::Subscribe, "news:x"));
        for odd in ["*", "a.*", "bob.eve", "x:y", "sp ace"] {
            let rights = read(&mapping, &token(odd)).unwrap().rights;
            assert_eq!(rights.patterns(Action::Subscribe).len(), 1, "{odd} widened its rights");
        }
    }

    #[test]
    fn claims_named_by_urls_and_roles_as_text_are_found() {
        let mapping = ClaimMapping {
            roles: "https://example.com/roles".to_owned(),
            ..ClaimMapping::default()
        };
        let claims = json!({"sub": "a", "https://example.com/roles": "one two"});
        assert_eq!(&*read(&mapping, &claims).unwrap().roles, ["one", "two"]);
    }

    #[test]
    fn a_bad_claim_is_named() {
        let many: Vec<_> = (0..300).map(|n| n.to_string()).collect();
        for (claims, named) in [
            (json!({}), "sub"),
            (json!({"sub": 7}), "sub"),
            (json!({"sub": ""}), "sub"),
            (json!({"sub": "a\u{0}"}), "sub"),
            (json!({"sub": "x".repeat(300)}), "sub"),
            (json!({"sub": "a", "roles": 7}), "roles"),
            (json!({"sub": "a", "roles": many}), "roles"),
            (json!({"sub": "a", "channels": {"publish": "x"}}), "channels"),
            (json!({"sub": "a", "channels": {"publish": ["x*"]}}), "channels.publish"),
            (json!({"sub": "a", "limits": {"events_per_second": -1}}), "limits"),
            (json!({"sub": "a", "limits": {"evnts": 1}}), "limits"),
        ] {
            let refusal = read(&ClaimMapping::default(), &claims).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::Unauthenticated);
            assert!(refusal.message.contains(named), "{refusal}");
        }
    }
}
