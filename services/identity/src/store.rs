//! The store: a port of this service alone, on SQLite or Postgres, chosen once.
//!
//! Each operation is one transaction, with the line of the audit that belongs to it. What decides is in
//! `domain`; what is read is locked until the decision is written, so that of many who come at once each
//! sees what the one before has done.

mod pg;
mod sql;
mod sqlite;
#[cfg(test)]
mod suite;

use crate::domain::key_life::Dates;
use crate::domain::links::Link;
use crate::domain::lockout::Rule;
use crate::domain::{Account, ApiKey, Purpose, SealedText, Session};
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal, Timestamp};
use stormwire_tokens::Role;

/// Where accounts are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A Postgres database; the tables begin with `identity_`.
    Postgres(String),
}

/// The database did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// It does not answer; the same may succeed later.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// It holds what this program cannot read.
    #[error("the database holds what this program does not understand: {0}")]
    Unreadable(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "accounts cannot be reached");
        let message = "accounts cannot be reached now; whoever is signed in stays so";
        Self::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(2))
    }
}

/// A line of the audit.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    pub(crate) at: Timestamp,
    pub(crate) kind: &'static str,
    pub(crate) account: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) ip: String,
    pub(crate) detail: String,
}

/// An account that is to be.
#[derive(Debug, Clone)]
pub(crate) struct NewAccount {
    pub(crate) id: String,
    /// As shown, as looked up, and the key of look-alikes.
    pub(crate) name: Option<(String, String, String)>,
    /// Sealed, and what it is found by.
    pub(crate) email: Option<(SealedText, Vec<u8>)>,
    /// Whether somebody trusted has said that the address is its own.
    pub(crate) email_verified: bool,
    pub(crate) password: String,
    pub(crate) role: Role,
    pub(crate) created_at: Timestamp,
    /// The identity elsewhere that it is made for.
    pub(crate) link: Option<Link>,
}

/// What became of a [`NewAccount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Done,
    NameTaken,
    EmailTaken,
    /// The identity elsewhere has an account.
    LinkTaken,
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    /// It is there, now or from before.
    Done,
    /// The identity is another account's.
    Taken,
    TooMany,
}

/// What became of a link that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlinked {
    Done,
    Nothing,
    /// It is the only way into its account, and stays.
    Last,
}

/// What an account is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handle {
    /// The folded name.
    Name(String),
    /// The index of the address.
    Email(Vec<u8>),
}

/// The hash of a token that is itself never stored.
pub(crate) type TokenHash = Vec<u8>;

/// A sign-in that is to be, with its first refresh token.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    pub(crate) session: Session,
    pub(crate) token: TokenHash,
    /// Sessions that an account may have; the oldest ones end.
    pub(crate) sessions_max: u32,
}

/// What became of a refresh token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// Exchanged.
    Done { account: String, session: String },
    /// It had been exchanged before; the session is revoked from now on.
    Reused { account: String, session: String },
    /// Unknown, too old, or of a session that has ended.
    Refused,
}

/// A signing key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub(crate) generation: i64,
    pub(crate) id: String,
    pub(crate) algorithm: String,
    pub(crate) sealed: SealedText,
    pub(crate) dates: Dates,
}

/// An attempt at a password: what it counts against, and by which rule.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) key: String,
    pub(crate) rule: Rule,
}

pub(crate) type Stored<T> = Result<T, StoreError>;

/// Accounts, their passwords, and who tries to guess them.
#[async_trait]
pub(crate) trait Accounts: Send + Sync + 'static {
    /// Makes an account unless its name or its address is somebody's.
    async fn create_account(&self, account: &NewAccount, audit: &Audit) -> Stored<Created>;
    async fn account(&self, id: &str) -> Stored<Option<Account>>;
    async fn account_by(&self, handle: &Handle) -> Stored<Option<Account>>;
    /// Sets a password and ends every session but `keep`; false if there is no such account.
    async fn set_password(
        &self,
        account: &str,
        password: &str,
        keep: Option<&str>,
        audit: &Audit,
    ) -> Stored<bool>;
    /// Replaces the hash `from` by one of the same password; nothing if it has changed meanwhile.
    async fn upgrade_password(&self, account: &str, from: &str, to: &str) -> Stored<()>;
    /// Notes that the address is its owner's.
    async fn verify_email(&self, account: &str, audit: &Audit) -> Stored<()>;
    /// Gives a role; false if there is no such account.
    async fn set_role(&self, account: &str, role: Role, audit: &Audit) -> Stored<bool>;
    /// Counts an attempt against all of `counted` or, if one has to wait, against none.
    async fn attempt(&self, counted: &[Counted], now: Timestamp) -> Stored<Result<(), Duration>>;
    /// Takes back an attempt that was right: all of `forget`, one of `lessen`.
    async fn attempt_was_right(&self, forget: &str, lessen: &str) -> Stored<()>;
    /// Keeps what a mail carries; earlier ones of the same purpose are good no longer.
    async fn put_ticket(
        &self,
        ticket: &TokenHash,
        account: &str,
        purpose: Purpose,
        expires_at: Timestamp,
    ) -> Stored<()>;
    /// Takes a ticket: good once. The account.
    async fn take_ticket(
        &self,
        ticket: &TokenHash,
        purpose: Purpose,
        now: Timestamp,
    ) -> Stored<Option<String>>;
}

/// Sign-ins and their refresh tokens.
#[async_trait]
pub(crate) trait Sessions: Send + Sync + 'static {
    /// Begins a session; the account's oldest ones end where it has too many.
    async fn open_session(&self, session: &NewSession, audit: &Audit) -> Stored<()>;
    /// Exchanges the token `shown` for `next`. `audit` is written if it had been exchanged before.
    async fn rotate(
        &self,
        shown: &TokenHash,
        next: &TokenHash,
        expires_at: Timestamp,
        audit: &Audit,
    ) -> Stored<Rotation>;
    /// The account's sessions that have not ended, the newest first.
    async fn sessions(&self, account: &str, now: Timestamp) -> Stored<Vec<Session>>;
    /// Ends a session of the account; false if it has none of that name that is open.
    async fn revoke_session(&self, account: &str, session: &str, audit: &Audit) -> Stored<bool>;
    /// Ends the session of a refresh token, used or not; the session.
    async fn revoke_by_token(&self, token: &TokenHash, audit: &Audit) -> Stored<Option<String>>;
}

/// Signing keys, the audit, and the upkeep of all.
#[async_trait]
pub(crate) trait Keys: Send + Sync + 'static {
    /// Brings the tables up to this program's version.
    async fn migrate(&self) -> Stored<()>;
    /// Whether the database answers and has the tables.
    async fn ping(&self) -> Stored<()>;
    /// Accounts whose address is sealed under another key than `current`, at most `limit`.
    async fn sealed_elsewhere(
        &self,
        current: &str,
        limit: i64,
    ) -> Stored<Vec<(String, SealedText)>>;
    /// Replaces a sealed address, if it still is `from`.
    async fn reseal(&self, account: &str, from: &SealedText, to: &SealedText) -> Stored<()>;
    /// The signing keys, oldest first.
    async fn signing_keys(&self) -> Stored<Vec<StoredKey>>;
    /// Adds a key; false if its generation is taken.
    async fn add_signing_key(&self, key: &StoredKey, audit: &Audit) -> Stored<bool>;
    /// Replaces a sealed key.
    async fn reseal_signing_key(&self, generation: i64, to: &SealedText) -> Stored<()>;
    /// Writes a line that belongs to no other operation.
    async fn audit(&self, audit: &Audit) -> Stored<()>;
    /// Removes what has ended: tokens, tickets, attempts, sessions, and signing keys below `generation`.
    async fn prune(&self, now: Timestamp, generation: i64) -> Stored<()>;
}

/// Keys of backends.
#[async_trait]
pub(crate) trait ApiKeys: Send + Sync + 'static {
    /// Adds a key that is found by `hash`; false if its account has `keys_max` that are good.
    async fn add_api_key(
        &self,
        key: &ApiKey,
        hash: &TokenHash,
        keys_max: u32,
        audit: &Audit,
    ) -> Stored<bool>;
    /// The account's keys that are good, the newest first.
    async fn api_keys(&self, account: &str, now: Timestamp) -> Stored<Vec<ApiKey>>;
    /// The key of that hash, if it is good; notes that it was used.
    async fn use_api_key(&self, hash: &TokenHash, now: Timestamp) -> Stored<Option<ApiKey>>;
    /// Ends a key of the account; false if it has none of that name that is good.
    async fn revoke_api_key(&self, account: &str, key: &str, audit: &Audit) -> Stored<bool>;
}

/// Identities elsewhere that stand for accounts.
#[async_trait]
pub(crate) trait Links: Send + Sync + 'static {
    /// The account of an identity elsewhere.
    async fn linked(&self, authority: &str, subject: &str) -> Stored<Option<Account>>;
    /// Adds a link to an account that has fewer than `links_max`.
    async fn add_link(&self, link: &Link, links_max: u32, audit: &Audit) -> Stored<Linked>;
    /// The account's links, the newest first.
    async fn links(&self, account: &str) -> Stored<Vec<Link>>;
    /// Removes a link, unless nothing else leads into its account.
    async fn remove_link(&self, account: &str, link: &str, audit: &Audit) -> Stored<Unlinked>;
    /// Keeps what a ticket stands for.
    async fn put_proof(
        &self,
        ticket: &TokenHash,
        proof: &SealedText,
        expires_at: Timestamp,
    ) -> Stored<()>;
    /// Takes it: good once.
    async fn take_proof(&self, ticket: &TokenHash, now: Timestamp) -> Stored<Option<SealedText>>;
}

/// A line of the list of what is good no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) seq: i64,
    pub(crate) account: String,
    /// Or all that was signed for the account up to `at`.
    pub(crate) session: Option<String>,
    pub(crate) at: Timestamp,
}

/// Shutting out, and the list of it. Whatever ends a session or a key, or changes an account's role or
/// block, is in the list when it is committed; the numbers are committed in their order.
#[async_trait]
pub(crate) trait Revocations: Send + Sync + 'static {
    /// Blocks an account, which ends its sessions, or lets it in again; false if there is no such account.
    async fn set_blocked(&self, account: &str, blocked: bool, audit: &Audit) -> Stored<bool>;
    /// Ends every session of the account; how many.
    async fn end_sessions(&self, account: &str, audit: &Audit) -> Stored<u64>;
    /// Lines behind number `after` of what happened after `since`, in the order of their numbers.
    async fn revocations(&self, after: i64, since: Timestamp, limit: i64) -> Stored<Vec<Revoked>>;
    /// The number of the newest line, 0 if there is none.
    async fn newest_revocation(&self) -> Stored<i64>;
}

/// The whole port. `suite` says what both engines do.
pub(crate) trait Store: Accounts + Sessions + ApiKeys + Links + Revocations + Keys {}

impl<T: Accounts + Sessions + ApiKeys + Links + Revocations + Keys> Store for T {}

/// How long a line of what is revoked is kept: longer than any access token is valid.
pub(crate) const REVOCATIONS_KEPT: Duration = Duration::from_secs(25 * 3600);

/// How long a session that ended is kept, for whoever asks what happened.
pub(crate) const SESSIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The one match on the engine. Nothing is connected to yet.
pub(crate) fn open(database: &Database) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match database {
        Database::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path)),
        Database::Postgres(url) => Arc::new(pg::PostgresStore::open(url)?),
    })
}
