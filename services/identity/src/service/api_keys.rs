//! Keys of backends: a key stands for some of its account's rights and is exchanged for access tokens.

use super::{Origin, Shared};
use crate::domain::ApiKey;
use crate::secrets;
use secrecy::SecretString;
use std::time::Duration;
use stormwire_core::{ErrorCode, Pattern, Refusal};
use stormwire_tokens::{Action, Claims, Rights};

/// What a key begins with, so that a scanner of sources finds one that was left in them.
pub(crate) const PREFIX: &str = "swk_";
/// Keys that an account may have at a time.
const KEYS_MAX: u32 = 20;
/// How long a key may be good.
const DAYS: std::ops::RangeInclusive<u32> = 1..=366;
/// Patterns of a key, for each of its two lists.
const PATTERNS_MAX: usize = 50;
/// Letters of a label.
const LABEL_MAX: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A key that is to be.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) label: String,
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
    pub(crate) days: u32,
}

/// What a backend gets for its key.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) user: String,
    pub(crate) access: String,
    pub(crate) access_ttl: Duration,
}

impl Shared {
    /// Makes a key with rights that its owner has; the key is shown this once.
    pub(crate) async fn make_api_key(
        &self,
        claims: &Claims,
        wanted: Wanted,
        from: &Origin,
    ) -> Result<(ApiKey, String), Refusal> {
        let account = self.account_of(claims).await?;
        if wanted.label.chars().any(char::is_control) || wanted.label.chars().count() > LABEL_MAX {
            return Err(Refusal::invalid_field(
                "label",
                "at most 64 letters, no control characters",
            ));
        }
        if !DAYS.contains(&wanted.days) {
            return Err(Refusal::invalid_field("days", "a key is good for 1 to 366 days"));
        }
        let rights = self.rights_of(account.role);
        let publish = granted("publish", wanted.publish, &rights, Action::Publish)?;
        let subscribe = granted("subscribe", wanted.subscribe, &rights, Action::Subscribe)?;
        let now = self.clock.now();
        let (secret, _) = secrets::draw()?;
        let secret = format!("{PREFIX}{secret}");
        let key = ApiKey {
            id: uuid::Uuid::now_v7().to_string(),
            account: account.id.clone(),
            label: wanted.label,
            publish,
            subscribe,
            created_at: now,
            expires_at: now.plus(DAY * wanted.days),
            used_at: None,
        };
        let mut audit = self.audit("api_key_made", Some(&account.id), from);
        audit.session = Some(key.id.clone());
        let hash = secrets::hash(&secret.clone().into());
        if self.store.add_api_key(&key, &hash, KEYS_MAX, &audit).await? {
            return Ok((key, secret));
        }
        let message = format!("this account has {KEYS_MAX} keys; end one that is not needed");
        Err(Refusal::new(ErrorCode::Conflict, message))
    }

    /// The account's keys that are good, the newest first.
    pub(crate) async fn list_api_keys(&self, claims: &Claims) -> Result<Vec<ApiKey>, Refusal> {
        let account = self.account_of(claims).await?;
        Ok(self.store.api_keys(&account.id, self.clock.now()).await?)
    }

    /// Ends one of them.
    pub(crate) async fn end_api_key(
        &self,
        claims: &Claims,
        key: &str,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let account = self.account_of(claims).await?;
        let audit = self.audit("api_key_revoked", Some(&account.id), from);
        if self.store.revoke_api_key(&account.id, key, &audit).await? {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::NotFound, "this account has no such key, or it has ended"))
    }

    /// Gives an access token for a key: what the key grants and its owner still has.
    pub(crate) async fn exchange_api_key(
        &self,
        shown: &SecretString,
    ) -> Result<Exchanged, Refusal> {
        let now = self.clock.now();
        let refused = || {
            let message = "the key is unknown, has ended or is too old";
            Refusal::new(ErrorCode::Unauthenticated, message)
        };
        let key = self.store.use_api_key(&secrets::hash(shown), now).await?.ok_or_else(refused)?;
        let account = self.store.account(&key.account).await?.filter(|one| !one.blocked);
        let account = account.ok_or_else(refused)?;
        let rights = self.rights_of(account.role);
        let still = |patterns: &[Pattern], action| -> Vec<Pattern> {
            let had = patterns.iter().filter(|pattern| rights.may_pattern(action, pattern));
            had.cloned().collect()
        };
        let publish = still(&key.publish, Action::Publish);
        let subscribe = still(&key.subscribe, Action::Subscribe);
        let access_ttl = self.config.access_ttl.min(key.expires_at.since(now));
        // Its id stands for a session, so that it can be told apart and ended like one; no role comes
        // with it, and no way to the account itself.
        let access = self.sign(&account, &key.id, &[], (&publish, &subscribe), access_ttl)?;
        Ok(Exchanged { user: account.id, access, access_ttl })
    }
}

fn granted(
    field: &str,
    texts: Vec<String>,
    rights: &Rights,
    action: Action,
) -> Result<Vec<Pattern>, Refusal> {
    if texts.len() > PATTERNS_MAX {
        return Err(Refusal::invalid_field(field, "at most 50 channels or patterns"));
    }
    let parse = |text: String| {
        let pattern =
            Pattern::parse(&text).map_err(|error| Refusal::invalid_field(field, error))?;
        if rights.may_pattern(action, &pattern) {
            return Ok(pattern);
        }
        let message = format!("{field}: {text:?} is more than this account may itself");
        Err(Refusal::new(ErrorCode::Forbidden, message))
    };
    texts.into_iter().map(parse).collect()
}
