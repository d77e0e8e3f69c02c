//! Shutting out: blocked accounts, sign-outs by others, and the list that gateways follow.

use super::{Identity, Origin, Shared};
use async_trait::async_trait;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_tokens::{Claims, Permission, Revocation, RevocationFeed, RevocationPage, Role};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How often the database is asked whether the list has grown, here or by another process: it bounds how
/// long a revoked socket stays open.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The same while the database does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Lines in one answer.
const PAGE: i64 = 1000;
/// How much longer than it is valid a token may be accepted.
const MARGIN: Duration = Duration::from_secs(60);

impl Shared {
    /// Blocks an account or lets it in again. Its sessions end with the block.
    pub(crate) async fn block(
        &self,
        by: &Claims,
        account: &str,
        blocked: bool,
        from: &Origin,
    ) -> Result<(), Refusal> {
        self.require_session(by).await?;
        let target = self.store.account(account).await?.ok_or_else(nobody)?;
        if target.role != Role::User && !by.permits(Permission::ManageRoles) {
            let message = format!("a {} is blocked by an admin alone", target.role);
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        let kind = if blocked { "account_blocked" } else { "account_unblocked" };
        let mut audit = self.audit(kind, Some(account), from);
        audit.detail = format!("by {}", by.user);
        if self.store.set_blocked(account, blocked, &audit).await? { Ok(()) } else { Err(nobody()) }
    }

    /// Ends every session of an account; how many.
    pub(crate) async fn sign_out_everywhere(
        &self,
        by: &Claims,
        account: &str,
        from: &Origin,
    ) -> Result<u64, Refusal> {
        self.require_session(by).await?;
        self.store.account(account).await?.ok_or_else(nobody)?;
        let mut audit = self.audit("signed_out_everywhere", Some(account), from);
        audit.detail = format!("by {}", by.user);
        Ok(self.store.end_sessions(account, &audit).await?)
    }

    async fn page(&self, after: i64) -> Result<RevocationPage, String> {
        let valid = self.config.access_ttl + MARGIN;
        let now = self.clock.now();
        let millis = i64::try_from(valid.as_millis()).unwrap_or(i64::MAX);
        let since = stormwire_core::Timestamp(now.0.saturating_sub(millis));
        let rows = self.store.revocations(after, since, PAGE).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let line = |row: crate::store::Revoked| Revocation {
            seq: row.seq,
            user: row.account,
            session: row.session,
            at: row.at.0,
            until: row.at.plus(valid).0,
        };
        Ok(RevocationPage { revocations: rows.into_iter().map(line).collect() })
    }
}

fn nobody() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such account")
}

/// Looks whether the list has grown, for all who wait for it.
pub(crate) async fn look(identity: &Identity) {
    let Shared { store, newest, .. } = &*identity.shared;
    loop {
        let pause = match store.newest_revocation().await {
            Ok(seq) => {
                newest.send_if_modified(|known| std::mem::replace(known, seq) != seq);
                LOOK_EVERY
            }
            // Whoever reads the list is told by its own call.
            Err(_) => LOOK_AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

#[async_trait]
impl RevocationFeed for Identity {
    async fn after(&self, after: i64, wait: Duration) -> Result<RevocationPage, String> {
        let deadline = Instant::now() + wait;
        let mut newest: watch::Receiver<i64> = self.shared.newest.subscribe();
        loop {
            newest.mark_unchanged();
            let page = self.shared.page(after).await?;
            if !page.revocations.is_empty() {
                return Ok(page);
            }
            match timeout_at(deadline, newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(page),
            }
        }
    }
}
