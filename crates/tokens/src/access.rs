//! The one decision: whether a bearer may do something on a channel.
//!
//! Two have a say. The namespace says who may at all ([`Access`], for each action); the token says where
//! its bearer may, where the namespace leaves it to tokens. Whatever neither grants is denied.
//! WebSocket, Server-Sent Events and REST all ask [`Claims::require`](crate::Claims::require), and that
//! asks [`decide`].

use crate::{Action, Rights};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_core::{ErrorCode, Pattern, Refusal, Timestamp};

/// The namespace of the server itself. Its rules are not anybody's to change.
pub const SYSTEM: &str = "system";

/// Who may do something in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Whoever's token grants it, or a channel token.
    #[default]
    Granted,
    /// Whoever has a token.
    Everyone,
    /// Whoever has a channel token for it; what the bearer's own token grants does not count.
    ChannelToken,
    /// Whoever operates the server.
    Operators,
    /// Nobody.
    Nobody,
}

impl Access {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Granted, Self::Everyone, Self::ChannelToken, Self::Operators, Self::Nobody];
}

/// A namespace's rules: who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// See [`Action::Publish`].
    pub publish: Access,
    /// See [`Action::Subscribe`].
    pub subscribe: Access,
    /// See [`Action::History`].
    pub history: Access,
    /// See [`Action::Presence`].
    pub presence: Access,
    /// See [`Action::Signal`].
    pub signal: Access,
}

impl Rules {
    /// The same for every action.
    #[must_use]
    pub const fn all(access: Access) -> Self {
        Self {
            publish: access,
            subscribe: access,
            history: access,
            presence: access,
            signal: access,
        }
    }

    /// The rule for `action`.
    #[must_use]
    pub const fn of(&self, action: Action) -> Access {
        match action {
            Action::Publish => self.publish,
            Action::Subscribe => self.subscribe,
            Action::History => self.history,
            Action::Presence => self.presence,
            Action::Signal => self.signal,
        }
    }

    /// Those of [`SYSTEM`]: operators listen, the server alone speaks.
    const fn system() -> Self {
        Self { publish: Access::Nobody, signal: Access::Nobody, ..Self::all(Access::Operators) }
    }
}

/// What a channel token grants, for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelGrant {
    /// What.
    pub rights: Rights,
    /// Until when.
    pub expires: Timestamp,
}

/// What something is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// One channel.
    Channel(&'a str),
    /// Every channel of a pattern.
    Pattern(&'a Pattern),
}

impl Target<'_> {
    /// The namespace; none for a pattern over all of them.
    fn namespace(&self) -> Option<&str> {
        let text = match self {
            Self::Channel(channel) => channel,
            Self::Pattern(Pattern::Exact(channel)) => channel.as_str(),
            Self::Pattern(Pattern::Prefix(prefix)) => prefix,
        };
        text.split_once(':').map(|(namespace, _)| namespace)
    }

    fn is_within(&self, rights: &Rights, action: Action) -> bool {
        match self {
            Self::Channel(channel) => rights.may(action, channel),
            Self::Pattern(pattern) => rights.may_pattern(action, pattern),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => f.write_str(channel),
            Self::Pattern(Pattern::Exact(channel)) => channel.fmt(f),
            Self::Pattern(pattern) => write!(f, "all of {pattern}"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// What its own token grants.
    pub rights: &'a Rights,
    /// What channel tokens grant it beside.
    pub channels: &'a [ChannelGrant],
    /// Whether one of its roles permits to operate the server.
    pub operates: bool,
}

/// Whether `bearer` may do `action` on `target`, in whose namespace `access` says who may.
///
/// # Errors
/// `forbidden`, naming action, target and who could.
pub fn decide(
    bearer: Bearer<'_>,
    access: Access,
    action: Action,
    target: Target<'_>,
) -> Result<(), Refusal> {
    let by_channel_token =
        || bearer.channels.iter().any(|grant| target.is_within(&grant.rights, action));
    let may = match access {
        Access::Everyone => true,
        Access::Granted => target.is_within(bearer.rights, action) || by_channel_token(),
        Access::ChannelToken => by_channel_token(),
        Access::Operators => bearer.operates,
        Access::Nobody => false,
    };
    if may {
        return Ok(());
    }
    let message = match access {
        Access::Granted | Access::Everyone => {
            format!("this token does not grant {action} on {target}")
        }
        Access::ChannelToken => {
            format!("{action} on {target} needs a channel token; ask your application for one")
        }
        Access::Operators => format!("{action} on {target} is for operators (the role admin)"),
        Access::Nobody => format!("nobody is granted {action} on {target}"),
    };
    Err(Refusal::new(ErrorCode::Forbidden, message))
}

/// The rules of all namespaces, as they are now. Clones are the same.
#[derive(Clone)]
pub struct Namespaces {
    shared: Arc<Shared>,
}

struct Shared {
    rules: RwLock<HashMap<String, Rules>>,
    /// The rules of a namespace that nobody declared.
    undeclared: Rules,
    /// Moves with every change.
    version: AtomicU64,
}

impl Default for Namespaces {
    /// Nothing is declared, and undeclared namespaces are left to tokens.
    fn default() -> Self {
        Self::new(Rules::default())
    }
}

impl PartialEq for Namespaces {
    /// Whether they are the same ones.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespaces").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Namespaces {
    /// Nothing is declared yet; `undeclared` says what holds elsewhere.
    #[must_use]
    pub fn new(undeclared: Rules) -> Self {
        let shared = Shared { rules: RwLock::default(), undeclared, version: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Declares exactly these.
    pub fn declare(&self, rules: HashMap<String, Rules>) {
        let mut known = self.shared.rules.write();
        if *known != rules {
            *known = rules;
            self.shared.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Moves with every change: whoever remembers a decision asks whether it still holds.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Who may do `action` on `target`.
    #[must_use]
    pub fn access(&self, action: Action, target: Target<'_>) -> Access {
        match target.namespace() {
            Some(SYSTEM) => Rules::system().of(action),
            // All namespaces at once have no rule of their own, and nothing is read or written so.
            None => Access::Granted,
            Some(namespace) => {
                let rules = self.shared.rules.read();
                rules.get(namespace).unwrap_or(&self.shared.undeclared).of(action)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rights(patterns: &[&str]) -> Rights {
        let parsed: Vec<_> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Rights::new(|_| parsed.clone())
    }

    /// Own token, channel token, operator: who of them is let in by which rule.
    #[test]
    fn the_table_of_who_may() {
        // What they bear: own token names it, a channel token does, operates.
        let bearers = [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
        ];
        let table = [
            (Access::Granted, [false, true, true, false]),
            (Access::Everyone, [true, true, true, true]),
            (Access::ChannelToken, [false, false, true, false]),
            (Access::Operators, [false, false, false, true]),
            (Access::Nobody, [false, false, false, false]),
        ];
        assert_eq!(table.map(|(access, _)| access), Access::ALL);
        let (named, other) = (rights(&["room:a"]), rights(&["room:b"]));
        for (access, expected) in table {
            for (bearer, expected) in bearers.into_iter().zip(expected) {
                let (own, channel, operates) = bearer;
                let granted = if channel { &named } else { &other };
                let grant = ChannelGrant { rights: granted.clone(), expires: Timestamp(1) };
                let who = Bearer {
                    rights: if own { &named } else { &other },
                    channels: &[grant],
                    operates,
                };
                for action in Action::ALL {
                    let exact = Pattern::parse("room:a").unwrap();
                    for target in [Target::Channel("room:a"), Target::Pattern(&exact)] {
                        let decided = decide(who, access, action, target);
                        assert_eq!(decided.is_ok(), expected, "{access:?} {bearer:?} {action}");
                        if let Err(refusal) = decided {
                            assert_eq!(refusal.code, ErrorCode::Forbidden);
                            assert!(refusal.message.contains("room:a"), "{refusal}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_namespace_of_the_target_has_the_rules() {
        let namespaces = Namespaces::new(Rules::all(Access::Nobody));
        let open = Rules { subscribe: Access::Everyone, ..Rules::default() };
        let before = namespaces.version();
        let declare = || namespaces.declare(HashMap::from([("news".to_owned(), open)]));
        declare();
        let pattern = |text| Pattern::parse(text).unwrap();
        let (news, sub, all) = (pattern("news:*"), pattern("news:eu.*"), pattern("*"));
        let table = [
            (Action::Subscribe, Target::Channel("news:x"), Access::Everyone),
            (Action::Publish, Target::Channel("news:x"), Access::Granted),
            (Action::Subscribe, Target::Pattern(&news), Access::Everyone),
            (Action::Subscribe, Target::Pattern(&sub), Access::Everyone),
            (Action::Subscribe, Target::Channel("newsx:x"), Access::Nobody),
            (Action::Subscribe, Target::Pattern(&all), Access::Granted),
            (Action::Subscribe, Target::Channel("system:stats"), Access::Operators),
            (Action::Publish, Target::Channel("system:stats"), Access::Nobody),
            (Action::Signal, Target::Channel("system:stats"), Access::Nobody),
        ];
        for (action, target, access) in table {
            assert_eq!(namespaces.access(action, target), access, "{action} {target}");
        }
        let declared = namespaces.version();
        assert_ne!(before, declared);
        declare();
        assert_eq!(namespaces.version(), declared, "nothing has changed");
        // What was declared for the server's own namespace is not listened to.
        namespaces.declare(HashMap::from([("system".to_owned(), Rules::all(Access::Everyone))]));
        assert_eq!(namespaces.access(Action::Publish, Target::Channel("system:x")), Access::Nobody);
        assert_eq!(namespaces.access(Action::Subscribe, Target::Channel("news:x")), Access::Nobody);
    }

    proptest! {
        /// A pattern is granted only where each of its channels is.
        #[test]
        fn a_pattern_is_no_way_around_a_rule(
            access in prop::sample::select(Access::ALL.to_vec()),
            granted in "[ab]:([ab]\\.){0,2}\\*", also in "[ab]:([ab]\\.){0,2}\\*",
            wanted in "[ab]:([ab]\\.){0,2}\\*", tail in "[ab.]{1,4}", operates: bool,
        ) {
            let (own, channels) = (rights(&[&granted]), [ChannelGrant {
                rights: rights(&[&also]), expires: Timestamp(1) }]);
            let bearer = Bearer { rights: &own, channels: &channels, operates };
            let pattern = Pattern::parse(&wanted).unwrap();
            let channel = wanted.replace('*', &tail);
            if decide(bearer, access, Action::Subscribe, Target::Pattern(&pattern)).is_ok() {
                prop_assert!(
                    decide(bearer, access, Action::Subscribe, Target::Channel(&channel)).is_ok());
            }
        }
    }
}
