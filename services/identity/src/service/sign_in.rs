//! Signing in, going on, signing out.

use super::{Origin, Shared};
use crate::domain::lockout::{ACCOUNT, ADDRESS};
use crate::domain::{Account, Session, addresses, names};
use crate::hashing::Checked;
use crate::secrets;
use crate::store::{Counted, Handle, NewSession, Rotation};
use metrics::counter;
use secrecy::SecretString;
use std::time::Duration;
use stormwire_core::{ErrorCode, Pattern, Refusal};
use stormwire_telemetry::metrics::{REFRESHES, SIGN_INS};
use stormwire_tokens::{Action, ChannelClaims, Rights, Role, TokenClaims};

/// Who would like to sign in.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    Name(String),
    Email(String),
}

/// What a client gets.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) access: String,
    pub(crate) access_ttl: Duration,
    pub(crate) refresh: String,
    pub(crate) refresh_ttl: Duration,
}

impl Shared {
    /// Signs in by password. Whether there is no such account or the password is another one, the answer
    /// is the same, after the same work.
    pub(crate) async fn sign_in(
        &self,
        login: Login,
        password: SecretString,
        from: &Origin,
    ) -> Result<Tokens, Refusal> {
        self.keys.signer()?;
        let handle = match &login {
            Login::Name(name) => Handle::Name(names::folded(name)),
            Login::Email(email) => Handle::Email(self.ring.index_of(&addresses::email(email)?)),
        };
        let account = self.store.account_by(&handle).await?;
        let key = account.as_ref().map_or_else(|| nobody(&handle, self), account_key);
        let account = self.prove(account, key, password, "sign_in_refused", from).await?;
        if account.blocked {
            // Told to whoever knows the password, and to nobody else.
            self.store.audit(&self.audit("sign_in_refused", Some(&account.id), from)).await?;
            return Err(Refusal::new(ErrorCode::Forbidden, "this account is blocked"));
        }
        let tokens = self.open_session(&account, "", from).await?;
        counter!(SIGN_INS, "outcome" => "ok").increment(1);
        Ok(tokens)
    }

    /// Lets through who knows the account's password; counts who does not.
    pub(super) async fn prove(
        &self,
        account: Option<Account>,
        key: String,
        password: SecretString,
        refused: &'static str,
        from: &Origin,
    ) -> Result<Account, Refusal> {
        // First the turn: an attempt that is not made for want of room does not count.
        let turn = self.hasher.enter()?;
        let network = format!("network:{}", from.network());
        let counted = [
            Counted { key: key.clone(), rule: ACCOUNT },
            Counted { key: network.clone(), rule: ADDRESS },
        ];
        if let Err(wait) = self.store.attempt(&counted, self.clock.now()).await? {
            counter!(SIGN_INS, "outcome" => "locked").increment(1);
            let message = format!("too many attempts; try again in {} s", wait.as_secs() + 1);
            return Err(Refusal::new(ErrorCode::Limited, message).retry_after(wait));
        }
        let known = account.as_ref().map(|account| account.password.clone());
        let checked = turn.check(password, known.clone()).await?;
        let (account, upgraded) = match (account, checked) {
            (Some(account), Checked::Right) => (account, None),
            (Some(account), Checked::RightAndOld(hash)) => (account, Some(hash)),
            (account, _) => {
                counter!(SIGN_INS, "outcome" => "refused").increment(1);
                let id = account.as_ref().map(|account| account.id.as_str());
                self.store.audit(&self.audit(refused, id, from)).await?;
                let message = "there is no such account, or its password is another one";
                return Err(Refusal::new(ErrorCode::Unauthenticated, message));
            }
        };
        self.store.attempt_was_right(&key, &network).await?;
        if let (Some(from), Some(to)) = (known, upgraded) {
            self.store.upgrade_password(&account.id, &from, &to).await?;
        }
        Ok(account)
    }

    /// Opens a session; `with` is the provider that vouched, if it was not a password.
    pub(super) async fn open_session(
        &self,
        account: &Account,
        with: &str,
        from: &Origin,
    ) -> Result<Tokens, Refusal> {
        let now = self.clock.now();
        let (refresh, hash) = secrets::draw()?;
        let session = Session {
            id: uuid::Uuid::now_v7().to_string(),
            account: account.id.clone(),
            created_at: now,
            used_at: now,
            expires_at: now.plus(self.config.refresh_ttl),
            ip: from.ip.to_string(),
            agent: from.agent.clone(),
        };
        let mut audit = self.audit("signed_in", Some(&account.id), from);
        audit.session = Some(session.id.clone());
        if !with.is_empty() {
            audit.detail = format!("with {with}");
        }
        let id = session.id.clone();
        let new = NewSession { session, token: hash, sessions_max: self.config.sessions_max };
        self.store.open_session(&new, &audit).await?;
        self.tokens(account, id, refresh)
    }

    /// Exchanges a refresh token for the next one and a fresh access token. One that was exchanged before
    /// ends its session, for whoever has it.
    pub(crate) async fn refresh(
        &self,
        shown: &SecretString,
        from: &Origin,
    ) -> Result<Tokens, Refusal> {
        self.keys.signer()?;
        let (refresh, next) = secrets::draw()?;
        let shown = secrets::hash(shown);
        let expires_at = self.clock.now().plus(self.config.refresh_ttl);
        let audit = self.audit("refresh_token_reused", None, from);
        let count = |outcome| counter!(REFRESHES, "outcome" => outcome).increment(1);
        // One answer for every refusal: who holds a copy learns nothing from it.
        let refused = || {
            let message = "the refresh token is unknown, used or too old, or its session was ended; sign in again";
            Refusal::new(ErrorCode::Unauthenticated, message)
        };
        match self.store.rotate(&shown, &next, expires_at, &audit).await? {
            Rotation::Done { account, session } => {
                let account = self.store.account(&account).await?.filter(|one| !one.blocked);
                let account = account.ok_or_else(refused)?;
                count("ok");
                self.tokens(&account, session, refresh)
            }
            Rotation::Reused { account, session } => {
                count("reused");
                tracing::warn!(
                    account,
                    session,
                    "a refresh token came a second time; its session is ended"
                );
                Err(refused())
            }
            Rotation::Refused => {
                count("refused");
                Err(refused())
            }
        }
    }

    /// Ends the session of a refresh token. Whether there was one is not told.
    pub(crate) async fn sign_out(
        &self,
        shown: &SecretString,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let audit = self.audit("signed_out", None, from);
        self.store.revoke_by_token(&secrets::hash(shown), &audit).await?;
        Ok(())
    }

    /// What an account of that role may do on channels.
    pub(super) fn rights_of(&self, role: Role) -> Rights {
        let config = &self.config;
        match role {
            Role::Admin => Rights::all(),
            Role::User | Role::Moderator => Rights::new(|action| match action {
                Action::Publish | Action::Signal => config.publish.clone(),
                Action::Subscribe | Action::History | Action::Presence => config.subscribe.clone(),
            }),
        }
    }

    fn tokens(
        &self,
        account: &Account,
        session: String,
        refresh: String,
    ) -> Result<Tokens, Refusal> {
        let rights = self.rights_of(account.role);
        let patterns = (rights.patterns(Action::Publish), rights.patterns(Action::Subscribe));
        let access_ttl = self.config.access_ttl;
        let access = self.sign(account, &session, &[account.role], patterns, access_ttl)?;
        Ok(Tokens {
            user: account.id.clone(),
            session,
            access,
            access_ttl,
            refresh,
            refresh_ttl: self.config.refresh_ttl,
        })
    }

    /// An access token that grants to publish on the first `patterns` and to subscribe to the second.
    pub(super) fn sign(
        &self,
        account: &Account,
        session: &str,
        roles: &[Role],
        patterns: (&[Pattern], &[Pattern]),
        ttl: Duration,
    ) -> Result<String, Refusal> {
        let now = self.clock.now().0.div_euclid(1000);
        // What was signed up to the account's last change is revoked, and `iat` has seconds alone.
        let issued = now.max(account.changed_at.0.div_euclid(1000).saturating_add(1));
        let texts = |patterns: &[Pattern]| -> Vec<String> {
            patterns.iter().map(ToString::to_string).collect()
        };
        let (publish, subscribe) = (texts(patterns.0), texts(patterns.1));
        let claims = TokenClaims {
            iss: self.config.issuer.clone(),
            aud: self.config.audience.clone(),
            sub: account.id.clone(),
            sid: Some(session.to_owned()),
            preferred_username: account.name.clone(),
            jti: uuid::Uuid::now_v7().to_string(),
            iat: issued,
            nbf: now,
            exp: now.saturating_add_unsigned(ttl.as_secs()),
            roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
            channels: ChannelClaims {
                history: subscribe.clone(),
                presence: subscribe.clone(),
                signal: publish.clone(),
                publish,
                subscribe,
            },
            limits: None,
        };
        self.keys.signer()?.sign(&claims).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            Refusal::new(ErrorCode::Internal, "the token could not be signed")
        })
    }
}

/// What attempts at an account are counted by.
pub(super) fn account_key(account: &Account) -> String {
    format!("account:{}", account.id)
}

/// What attempts at nobody's account are counted by: never the name itself.
fn nobody(handle: &Handle, shared: &Shared) -> String {
    let index = match handle {
        Handle::Name(name) => shared.ring.index_of(&format!("name:{name}")),
        Handle::Email(index) => index.clone(),
    };
    index.iter().fold("nobody:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
