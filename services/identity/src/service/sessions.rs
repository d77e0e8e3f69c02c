//! The sign-ins of an account.

use super::{Origin, Shared};
use crate::domain::Session;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_tokens::Claims;

impl Shared {
    /// The sessions of `owner` that have not ended, the newest first.
    pub(crate) async fn list_sessions(
        &self,
        by: &Claims,
        owner: &str,
    ) -> Result<Vec<Session>, Refusal> {
        self.require_session(by).await?;
        Ok(self.store.sessions(owner, self.clock.now()).await?)
    }

    /// Ends one of them.
    pub(crate) async fn end_session(
        &self,
        by: &Claims,
        owner: &str,
        session: &str,
        from: &Origin,
    ) -> Result<(), Refusal> {
        self.require_session(by).await?;
        let mut audit = self.audit("session_revoked", Some(owner), from);
        audit.detail = format!("by {}", by.user);
        if self.store.revoke_session(owner, session, &audit).await? {
            return Ok(());
        }
        let message = "this account has no such session, or it has ended";
        Err(Refusal::new(ErrorCode::NotFound, message))
    }

    /// Refuses a token whose session has ended, which the signature alone does not tell.
    pub(crate) async fn require_session(&self, claims: &Claims) -> Result<(), Refusal> {
        let Some(session) = claims.session.as_deref() else { return Ok(()) };
        let open = self.store.sessions(&claims.user, self.clock.now()).await?;
        if open.iter().any(|one| one.id == *session) {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::Unauthenticated, "the session has ended; sign in again"))
    }
}
