//! Making accounts and changing what belongs to them.

use super::sign_in::account_key;
use super::{Origin, Shared};
use crate::config::Registration;
use crate::domain::lockout::Rule;
use crate::domain::names::UserName;
use crate::domain::{Account, Purpose, addresses, passwords};
use crate::post::Letter;
use crate::secrets;
use crate::store::{Counted, Created, NewAccount};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_tokens::{Claims, Role};

/// Accounts made and mails asked for from one address.
pub(super) const ASKED: Rule =
    Rule { free: 30, first: Duration::from_secs(1), longest: Duration::from_secs(15 * 60) };

/// A new account.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) user: String,
    pub(crate) username: Option<String>,
}

impl Shared {
    /// Makes an account: by name, by address, or by both.
    pub(crate) async fn register(
        &self,
        name: Option<&str>,
        email: Option<&str>,
        password: SecretString,
        from: &Origin,
    ) -> Result<Registered, Refusal> {
        if self.config.registration == Registration::Closed {
            let message =
                "this server makes no accounts by request: identity.registration is closed";
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        let name = name.map(UserName::parse).transpose()?;
        let email = email.map(addresses::email).transpose()?;
        if name.is_none() && email.is_none() {
            let message = "username: give a username, an email, or both";
            return Err(Refusal::new(ErrorCode::InvalidField, message));
        }
        let own = [name.as_ref().map(|name| name.folded.as_str()), email.as_deref()];
        let own: Vec<_> = own.into_iter().flatten().collect();
        passwords::check("password", password.expose_secret(), &own)?;
        let turn = self.hasher.enter()?;
        self.count(format!("register:{}", from.network()), ASKED).await?;
        let password = turn.hash(password).await?;
        let id = uuid::Uuid::now_v7().to_string();
        let sealed = |email: &String| Ok((self.seal_email(email, &id)?, self.ring.index_of(email)));
        let sealed: Option<Result<_, Refusal>> = email.as_ref().map(sealed);
        let username = name.as_ref().map(|name| name.shown.clone());
        let new = NewAccount {
            name: name.map(|name| (name.shown, name.folded, name.key)),
            email: sealed.transpose()?,
            email_verified: false,
            link: None,
            password,
            role: Role::User,
            created_at: self.clock.now(),
            id: id.clone(),
        };
        let taken = |message| Err(Refusal::new(ErrorCode::Conflict, message));
        match self.store.create_account(&new, &self.audit("registered", Some(&id), from)).await? {
            Created::Done => {}
            Created::NameTaken | Created::LinkTaken => {
                return taken("username: it is taken, or looks like one that is; choose another");
            }
            Created::EmailTaken => {
                return taken(
                    "email: there is an account with it; sign in, or ask for a new password",
                );
            }
        }
        if email.is_some() && self.config.mailer.is_some() {
            // The account is made; if the queue is full, the mail can be asked for again.
            let _ = self.post.take(Letter::Verify { account: id.clone() });
        }
        Ok(Registered { user: id, username })
    }

    /// Sets a new password for who knows the old one; every other session ends.
    pub(crate) async fn change_password(
        &self,
        claims: &Claims,
        current: SecretString,
        new: SecretString,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let account = self.account_of(claims).await?;
        passwords::check("new", new.expose_secret(), &[account.name.as_deref().unwrap_or("")])?;
        let key = account_key(&account);
        let refused = "password_change_refused";
        let account = self.prove(Some(account), key, current, refused, from).await?;
        self.set_password(&account.id, new, claims.session.as_deref(), "password_changed", from)
            .await
    }

    /// Asks for a mail with which a new password can be set. The answer does not tell whether there is
    /// anybody of that address.
    pub(crate) async fn ask_for_reset(&self, email: &str, from: &Origin) -> Result<(), Refusal> {
        let email = addresses::email(email)?;
        self.count(format!("reset:{}", from.network()), ASKED).await?;
        self.post.take(Letter::Reset { email })
    }

    /// Sets a new password for who has the mail; every session ends.
    pub(crate) async fn reset_password(
        &self,
        token: &SecretString,
        new: SecretString,
        from: &Origin,
    ) -> Result<(), Refusal> {
        passwords::check("password", new.expose_secret(), &[])?;
        self.count(format!("reset:{}", from.network()), ASKED).await?;
        let account = self.take_ticket(token, Purpose::Reset).await?;
        self.set_password(&account, new, None, "password_reset", from).await?;
        // Whoever reads the address's mail is its owner, and is not to wait for the guesses of others.
        self.store.attempt_was_right(&format!("account:{account}"), "").await?;
        Ok(())
    }

    /// Sends the mail once more with which an account shows that its address is its own.
    pub(crate) async fn ask_for_verification(&self, claims: &Claims) -> Result<(), Refusal> {
        let account = self.account_of(claims).await?;
        if account.email.is_none() {
            let message = "this account has no mail address";
            return Err(Refusal::new(ErrorCode::NotFound, message));
        }
        if account.email_verified {
            return Ok(());
        }
        self.post.take(Letter::Verify { account: account.id })
    }

    /// Takes what the mail said.
    pub(crate) async fn verify_email(
        &self,
        token: &SecretString,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let account = self.take_ticket(token, Purpose::Verify).await?;
        let audit = self.audit("email_verified", Some(&account), from);
        Ok(self.store.verify_email(&account, &audit).await?)
    }

    /// Gives a role. It is in the tokens that are signed from now on.
    pub(crate) async fn give_role(
        &self,
        by: &Claims,
        account: &str,
        role: Role,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let mut audit = self.audit("role_given", Some(account), from);
        audit.detail = format!("{role} by {}", by.user);
        if self.store.set_role(account, role, &audit).await? {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::NotFound, "there is no such account"))
    }

    /// The account of a token.
    pub(crate) async fn account_of(&self, claims: &Claims) -> Result<Account, Refusal> {
        self.require_session(claims).await?;
        self.store.account(&claims.user).await?.ok_or_else(|| {
            let message = "this token is not of an account of this server";
            Refusal::new(ErrorCode::NotFound, message)
        })
    }

    async fn set_password(
        &self,
        account: &str,
        new: SecretString,
        keep: Option<&str>,
        kind: &'static str,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let hash = self.hasher.enter()?.hash(new).await?;
        let audit = self.audit(kind, Some(account), from);
        if !self.store.set_password(account, &hash, keep, &audit).await? {
            return Err(Refusal::new(ErrorCode::NotFound, "there is no such account"));
        }
        // Without mail, or with a full queue, nobody is told; the password is changed all the same.
        let _ = self.post.take(Letter::Changed { account: account.to_owned() });
        Ok(())
    }

    async fn take_ticket(&self, token: &SecretString, purpose: Purpose) -> Result<String, Refusal> {
        let now = self.clock.now();
        let account = self.store.take_ticket(&secrets::hash(token), purpose, now).await?;
        account.ok_or_else(|| {
            let message = "token: unknown, used or too old; ask for another mail";
            Refusal::new(ErrorCode::InvalidField, message)
        })
    }

    pub(super) async fn count(&self, key: String, rule: Rule) -> Result<(), Refusal> {
        let counted = [Counted { key, rule }];
        let Err(wait) = self.store.attempt(&counted, self.clock.now()).await? else {
            return Ok(());
        };
        let message =
            format!("too many requests from this address; try again in {} s", wait.as_secs() + 1);
        Err(Refusal::new(ErrorCode::Limited, message).retry_after(wait))
    }
}
