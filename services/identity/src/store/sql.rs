//! The statements, which both engines understand; an engine's type is made of them by [`sql_store`].

pub(super) mod accounts;
pub(super) mod api_keys;
pub(super) mod keys;
pub(super) mod links;
pub(super) mod revocations;
pub(super) mod sessions;

use super::StoredKey;
use super::{Audit, StoreError, Stored};
use crate::domain::key_life::Dates;
use crate::domain::links::Link;
use crate::domain::{Account, ApiKey, SealedText, Session};
use std::future::Future;
use stormwire_core::{Pattern, Timestamp};
use stormwire_guard::{Guard, GuardError};
use stormwire_tokens::Role;

/// Runs `work` under the guard and says what went wrong in the words of the port.
pub(super) async fn guarded<T>(
    guard: &Guard,
    operation: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Stored<T> {
    guard.call(operation, work).await.map_err(|error| match error {
        GuardError::Failed(error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))) => {
            StoreError::Unreadable(error.to_string())
        }
        error => StoreError::Unavailable(error.to_string()),
    })
}

/// An account's row.
#[derive(sqlx::FromRow)]
pub(super) struct AccountRow {
    id: String,
    name: Option<String>,
    email: Option<Vec<u8>>,
    email_key: Option<String>,
    email_verified_at: Option<i64>,
    password: String,
    role: String,
    blocked_at: Option<i64>,
    changed_at: i64,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        let email = row.email.zip(row.email_key).map(|(bytes, key)| SealedText { key, bytes });
        Self {
            id: row.id,
            name: row.name,
            email,
            email_verified: row.email_verified_at.is_some(),
            password: row.password,
            // A role of a newer program grants nothing here.
            role: Role::parse(&row.role).unwrap_or(Role::User),
            blocked: row.blocked_at.is_some(),
            changed_at: Timestamp(row.changed_at),
        }
    }
}

/// A session's row.
#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    id: String,
    account: String,
    created_at: i64,
    used_at: i64,
    expires_at: i64,
    ip: String,
    agent: String,
}

impl From<SessionRow> for Session {
    fn from(row: SessionRow) -> Self {
        Self {
            id: row.id,
            account: row.account,
            created_at: Timestamp(row.created_at),
            used_at: Timestamp(row.used_at),
            expires_at: Timestamp(row.expires_at),
            ip: row.ip,
            agent: row.agent,
        }
    }
}

/// A refresh token's row, with what its session says.
#[derive(sqlx::FromRow)]
pub(super) struct TokenRow {
    pub(super) session: String,
    pub(super) account: String,
    pub(super) expires_at: i64,
    pub(super) used_at: Option<i64>,
    pub(super) revoked_at: Option<i64>,
}

/// A backend's key's row.
#[derive(sqlx::FromRow)]
pub(super) struct ApiKeyRow {
    id: String,
    account: String,
    label: String,
    publish: String,
    subscribe: String,
    created_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = sqlx::Error;

    fn try_from(row: ApiKeyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id,
            account: row.account,
            label: row.label,
            publish: patterns(&row.publish)?,
            subscribe: patterns(&row.subscribe)?,
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
            used_at: row.used_at.map(Timestamp),
        })
    }
}

/// Patterns as they stand in a column: a JSON array of text.
pub(super) fn patterns_text(patterns: &[Pattern]) -> String {
    let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    serde_json::json!(texts).to_string()
}

fn patterns(text: &str) -> Result<Vec<Pattern>, sqlx::Error> {
    let texts: Vec<String> =
        serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let parsed: Result<_, _> = texts.iter().map(|text| Pattern::parse(text)).collect();
    parsed.map_err(|error| sqlx::Error::Decode(error.to_string().into()))
}

/// A link's row.
#[derive(sqlx::FromRow)]
pub(super) struct LinkRow {
    id: String,
    authority: String,
    subject: String,
    account: String,
    provider: String,
    created_at: i64,
}

impl From<LinkRow> for Link {
    fn from(row: LinkRow) -> Self {
        Self {
            id: row.id,
            authority: row.authority,
            subject: row.subject,
            account: row.account,
            provider: row.provider,
            created_at: Timestamp(row.created_at),
        }
    }
}

/// A signing key's row.
#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    generation: i64,
    id: String,
    algorithm: String,
    sealed: Vec<u8>,
    sealed_key: String,
    made_at: i64,
    signs_from: i64,
}

impl From<KeyRow> for StoredKey {
    fn from(row: KeyRow) -> Self {
        let dates =
            Dates { made_at: Timestamp(row.made_at), signs_from: Timestamp(row.signs_from) };
        Self {
            generation: row.generation,
            id: row.id,
            algorithm: row.algorithm,
            sealed: SealedText { key: row.sealed_key, bytes: row.sealed },
            dates,
        }
    }
}

/// A line of the audit with the account and the session that were found on the way.
pub(super) fn filled(audit: &Audit, account: &str, session: Option<&str>) -> Audit {
    Audit {
        account: Some(account.to_owned()),
        session: session.map(str::to_owned).or_else(|| audit.session.clone()),
        ..audit.clone()
    }
}

/// Implements the port for a type with a `pool` of `$db`, a `guard` and a method `bring_up`. `$lock` ends
/// a SELECT whose rows are to be locked, where the engine has rows to lock.
macro_rules! sql_store {
    ($store:ty, $db:ty, $lock:literal) => {
        use super::sql::{
            AccountRow, ApiKeyRow, KeyRow, LinkRow, SessionRow, TokenRow, filled, guarded, patterns_text,
        };
        use super::{
            Audit, Counted, Created, Handle, Linked, NewAccount, NewSession, REVOCATIONS_KEPT, Revoked,
            Rotation, SESSIONS_KEPT, Stored, StoredKey, TokenHash, Unlinked,
        };
        use crate::domain::links::Link;
        use crate::domain::lockout::{Attempts, FORGOTTEN_AFTER};
        use crate::domain::passwords::NO_PASSWORD;
        use crate::domain::rotation::{Shown, Verdict, judge};
        use crate::domain::{Account, ApiKey, Purpose, SealedText, Session};
        use stormwire_core::Timestamp;
        use stormwire_tokens::Role;

        /// Writes a line of the audit.
        async fn write(
            connection: &mut <$db as sqlx::Database>::Connection,
            audit: &Audit,
        ) -> Result<(), sqlx::Error> {
            let kind = audit.kind;
            tracing::info!(kind, account = audit.account.as_deref(), session = audit.session.as_deref(), ip = audit.ip, detail = audit.detail, "audit");
            sqlx::query("INSERT INTO identity_audit (id, at, kind, account, session, ip, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)")
                .bind(uuid::Uuid::now_v7().to_string())
                .bind(audit.at.0)
                .bind(kind)
                .bind(&audit.account)
                .bind(&audit.session)
                .bind(&audit.ip)
                .bind(&audit.detail)
                .execute(connection)
                .await?;
            Ok(())
        }

        super::sql::accounts::sql_accounts!($store);
        super::sql::sessions::sql_sessions!($store, $lock);
        super::sql::api_keys::sql_api_keys!($store);
        super::sql::links::sql_links!($store, $db);
        super::sql::revocations::sql_revocations!($store);
        super::sql::keys::sql_keys!($store);
    };
}

pub(super) use sql_store;
