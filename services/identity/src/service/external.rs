//! Signing in through another provider, and links between its users and accounts.

use super::accounts::ASKED;
use super::{Origin, Shared, Tokens};
use crate::config::Registration;
use crate::domain::links::{External, FLOW_TTL, Flow, Link, Proof, TICKET_TTL, Wish, opens};
use crate::domain::names::UserName;
use crate::domain::passwords::NO_PASSWORD;
use crate::domain::{Account, SealedText};
use crate::providers::{Code, ProviderError};
use crate::secrets;
use crate::store::{Audit, Created, Handle, Linked, NewAccount, Unlinked};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use metrics::counter;
use secrecy::SecretString;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal, Timestamp};
use stormwire_telemetry::metrics::SIGN_INS;
use stormwire_tokens::{Claims, Role};

/// Links of an account.
const LINKS_MAX: u32 = 20;
/// Where cookies and tickets are sealed for.
const FLOW_PLACE: &str = "sign-in-flow";
const PROOF_PLACE: &str = "sign-in-proof";
/// When to come back to a provider that is away.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// What a browser that begins is given.
pub(crate) struct Begun {
    /// Where it goes.
    pub(crate) url: String,
    /// What it brings back.
    pub(crate) cookie: String,
}

/// What the provider's redirect brought.
pub(crate) struct Returned {
    pub(crate) state: Option<String>,
    pub(crate) code: Option<String>,
    /// RFC 9207: who sent it, where the provider says so.
    pub(crate) issuer: Option<String>,
}

/// What a sign-in ends in.
pub(crate) enum Finished {
    Tokens(Tokens),
    Ticket(String),
}

impl Shared {
    /// Begins a sign-in at the provider, whose redirect is to come to `base`.
    pub(crate) async fn begin_external(
        &self,
        provider: &str,
        base: &str,
        wish: Wish,
    ) -> Result<Begun, Refusal> {
        let provider = self.providers.get(provider)?;
        wish.check(&self.config.return_urls)?;
        let name = provider.config.name.clone();
        let redirect = format!("{}/v1/auth/oidc/{name}/callback", base.trim_end_matches('/'));
        let begun = provider.begin(&redirect).await.map_err(|error| self.told(&name, &error))?;
        let flow = Flow {
            provider: name,
            state: begun.state,
            nonce: begun.nonce,
            verifier: begun.verifier,
            redirect,
            wish,
            until: self.clock.now().plus(FLOW_TTL).0,
        };
        Ok(Begun { url: begun.url, cookie: self.seal_flow(&flow)? })
    }

    /// The sign-in that a cookie carries, if it is one of that provider's and has not taken too long.
    pub(crate) fn flow(&self, provider: &str, cookie: &str) -> Result<Flow, Refusal> {
        let flow = self
            .open_flow(cookie)
            .filter(|flow| flow.provider == provider && self.clock.now() < Timestamp(flow.until));
        flow.ok_or_else(|| {
            let message =
                "this browser has begun no sign-in at that provider, or too long ago; begin again";
            Refusal::new(ErrorCode::Unauthenticated, message)
        })
    }

    /// Takes who came back from the provider: signs them in, or keeps a ticket for whoever asked for one.
    pub(crate) async fn finish_external(
        &self,
        flow: &Flow,
        returned: Returned,
        from: &Origin,
    ) -> Result<Finished, Refusal> {
        let provider = self.providers.get(&flow.provider)?;
        let refused = |message: &'static str| Refusal::new(ErrorCode::Unauthenticated, message);
        if returned.state.as_deref() != Some(&flow.state) {
            return Err(refused(
                "the answer is not of the sign-in that this browser began; begin again",
            ));
        }
        if returned.issuer.is_some_and(|issuer| !provider.is_issuer(&issuer)) {
            return Err(refused("the answer is of another provider than was asked"));
        }
        let code = returned.code.ok_or_else(|| refused("the provider did not sign anybody in"))?;
        let external = provider.finish(flow, Code(&code)).await;
        let external = match external {
            Ok(external) => external,
            Err(error) => {
                let mut audit = self.audit("sign_in_refused", None, from);
                audit.detail = format!("by {}", flow.provider);
                self.store.audit(&audit).await?;
                return Err(self.told(&flow.provider, &error));
            }
        };
        let Some(challenge) = flow.wish.challenge.clone() else {
            return self.sign_in_external(&external, from).await.map(Finished::Tokens);
        };
        let proof = serde_json::json!(Proof { external, challenge }).to_string();
        let (ticket, hash) = secrets::draw()?;
        let sealed = self.sealed(proof.as_bytes(), PROOF_PLACE)?;
        self.store.put_proof(&hash, &sealed, self.clock.now().plus(TICKET_TTL)).await?;
        Ok(Finished::Ticket(ticket))
    }

    /// Signs in whoever a ticket stands for.
    pub(crate) async fn exchange_ticket(
        &self,
        ticket: &SecretString,
        verifier: &str,
        from: &Origin,
    ) -> Result<Tokens, Refusal> {
        let external = self.take_proof(ticket, verifier).await?;
        self.sign_in_external(&external, from).await
    }

    /// Links whoever a ticket stands for to the account that asks.
    pub(crate) async fn link(
        &self,
        claims: &Claims,
        ticket: &SecretString,
        verifier: &str,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let account = self.account_of(claims).await?;
        let external = self.take_proof(ticket, verifier).await?;
        self.add_link(&account, &external, from).await
    }

    /// The account's links, the newest first.
    pub(crate) async fn list_links(&self, claims: &Claims) -> Result<Vec<Link>, Refusal> {
        let account = self.account_of(claims).await?;
        Ok(self.store.links(&account.id).await?)
    }

    /// Removes one of them.
    pub(crate) async fn unlink(
        &self,
        claims: &Claims,
        link: &str,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let account = self.account_of(claims).await?;
        let audit = self.audit("link_removed", Some(&account.id), from);
        match self.store.remove_link(&account.id, link, &audit).await? {
            Unlinked::Done => Ok(()),
            Unlinked::Nothing => {
                Err(Refusal::new(ErrorCode::NotFound, "this account has no such link"))
            }
            Unlinked::Last => {
                let message = "it is the only way into this account; link another provider first, or set a password by mail";
                Err(Refusal::new(ErrorCode::Conflict, message))
            }
        }
    }

    async fn sign_in_external(
        &self,
        external: &External,
        from: &Origin,
    ) -> Result<Tokens, Refusal> {
        self.keys.signer()?;
        let account = match self.store.linked(&external.authority, &external.subject).await? {
            Some(account) => account,
            None => self.first_time(external, from).await?,
        };
        if account.blocked {
            self.store.audit(&self.audit("sign_in_refused", Some(&account.id), from)).await?;
            return Err(Refusal::new(ErrorCode::Forbidden, "this account is blocked"));
        }
        let tokens = self.open_session(&account, &external.provider, from).await?;
        counter!(SIGN_INS, "outcome" => "ok").increment(1);
        Ok(tokens)
    }

    /// The account of somebody who has none linked: the one of their address, if both sides have confirmed
    /// it, or a new one.
    async fn first_time(&self, external: &External, from: &Origin) -> Result<Account, Refusal> {
        if let Some(email) = &external.email {
            let handle = Handle::Email(self.ring.index_of(email));
            if let Some(account) = self.store.account_by(&handle).await? {
                // Whoever wrote down an address without confirming it may not be its owner.
                if !account.email_verified {
                    let message = "email: an account has this address and has not confirmed it; sign in to it and link this provider, or set a new password by mail";
                    return Err(Refusal::new(ErrorCode::Conflict, message));
                }
                self.add_link(&account, external, from).await?;
                return Ok(account);
            }
        }
        let own = self.providers.get(&external.provider)?.config.registration;
        if own.unwrap_or(self.config.registration) == Registration::Closed {
            let message = "nobody has an account here for this sign-in, and none is made: link it to an account first";
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        self.count(format!("register:{}", from.network()), ASKED).await?;
        self.make_account(external, from).await
    }

    async fn make_account(&self, external: &External, from: &Origin) -> Result<Account, Refusal> {
        for name in names(external)? {
            let id = uuid::Uuid::now_v7().to_string();
            let email = match &external.email {
                Some(email) => Some((self.seal_email(email, &id)?, self.ring.index_of(email))),
                None => None,
            };
            let new = NewAccount {
                name: Some((name.shown, name.folded, name.key)),
                email_verified: email.is_some(),
                email,
                password: NO_PASSWORD.to_owned(),
                role: Role::User,
                created_at: self.clock.now(),
                link: Some(self.new_link(&id, external)),
                id: id.clone(),
            };
            let audit = self.with_provider("registered", &id, external, from);
            match self.store.create_account(&new, &audit).await? {
                Created::NameTaken => {}
                Created::EmailTaken => {
                    let message = "email: there is an account with it by now; begin again";
                    return Err(Refusal::new(ErrorCode::Conflict, message));
                }
                // Another request of the same person was here first.
                Created::Done | Created::LinkTaken => {
                    let found = self.store.linked(&external.authority, &external.subject).await?;
                    return found.ok_or_else(|| {
                        Refusal::new(ErrorCode::Conflict, "the account is gone again; begin again")
                    });
                }
            }
        }
        let message = "username: no free name was found; register first and link the provider then";
        Err(Refusal::new(ErrorCode::Conflict, message))
    }

    async fn add_link(
        &self,
        account: &Account,
        external: &External,
        from: &Origin,
    ) -> Result<(), Refusal> {
        let link = self.new_link(&account.id, external);
        let audit = self.with_provider("link_added", &account.id, external, from);
        let conflict = |message: &'static str| Err(Refusal::new(ErrorCode::Conflict, message));
        match self.store.add_link(&link, LINKS_MAX, &audit).await? {
            Linked::Done => Ok(()),
            Linked::Taken => conflict("this sign-in is linked to another account"),
            Linked::TooMany => conflict("this account has 20 links; remove one that is not needed"),
        }
    }

    fn new_link(&self, account: &str, external: &External) -> Link {
        Link {
            id: uuid::Uuid::now_v7().to_string(),
            authority: external.authority.clone(),
            subject: external.subject.clone(),
            account: account.to_owned(),
            provider: external.provider.clone(),
            created_at: self.clock.now(),
        }
    }

    fn with_provider(
        &self,
        kind: &'static str,
        account: &str,
        external: &External,
        from: &Origin,
    ) -> Audit {
        Audit {
            detail: format!("with {}", external.provider),
            ..self.audit(kind, Some(account), from)
        }
    }

    async fn take_proof(&self, ticket: &SecretString, verifier: &str) -> Result<External, Refusal> {
        let taken = self.store.take_proof(&secrets::hash(ticket), self.clock.now()).await?;
        let proof = taken.and_then(|sealed| {
            let plain = self.ring.open_sealed(&sealed, PROOF_PLACE).ok()?;
            serde_json::from_slice::<Proof>(&plain).ok()
        });
        let good = proof.filter(|proof| opens(&proof.challenge, verifier));
        good.map(|proof| proof.external).ok_or_else(|| {
            let message = "the ticket is unknown, used or too old, or the verifier is another one; begin again";
            Refusal::new(ErrorCode::Unauthenticated, message)
        })
    }

    fn seal_flow(&self, flow: &Flow) -> Result<String, Refusal> {
        let plain = serde_json::json!(flow).to_string();
        let sealed = self.sealed(plain.as_bytes(), FLOW_PLACE)?;
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(format!("{}.{}", encode(sealed.key.as_bytes()), encode(&sealed.bytes)))
    }

    fn open_flow(&self, cookie: &str) -> Option<Flow> {
        let (key, bytes) = cookie.split_once('.')?;
        let key = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(key).ok()?).ok()?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
        let plain = self.ring.open_sealed(&SealedText { key, bytes }, FLOW_PLACE).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    fn sealed(&self, plain: &[u8], place: &str) -> Result<SealedText, Refusal> {
        self.ring.seal(plain, place).map_err(|error| {
            tracing::error!(%error, "a sign-in could not be sealed");
            Refusal::new(ErrorCode::Internal, "the sign-in could not be kept")
        })
    }

    /// What a client is told of a provider's failure; what exactly it was is in the log.
    fn told(&self, provider: &str, error: &ProviderError) -> Refusal {
        tracing::warn!(provider, %error, "a provider vouched for nobody");
        match error {
            ProviderError::Away(_) => {
                counter!(SIGN_INS, "outcome" => "provider_away").increment(1);
                let message = format!("{provider} does not answer as it should; try again");
                Refusal::new(ErrorCode::Overloaded, message).retry_after(COME_BACK_AFTER)
            }
            ProviderError::Refused(_) => {
                counter!(SIGN_INS, "outcome" => "refused").increment(1);
                let message = format!("{provider} vouched for nobody; begin again");
                Refusal::new(ErrorCode::Unauthenticated, message)
            }
        }
    }
}

/// Names for a new account: the one that is wished for, if it may be one, then others like it.
fn names(external: &External) -> Result<Vec<UserName>, Refusal> {
    let digits = |count: usize| -> Result<String, Refusal> {
        let (_, hash) = secrets::draw()?;
        Ok(hash.iter().take(count).map(|byte| char::from(b'0' + byte % 10)).collect())
    };
    let wish = external.name.as_deref().and_then(|name| UserName::parse(name).ok());
    let other = match &wish {
        Some(wish) => UserName::parse(&format!("{}-{}", wish.shown, digits(4)?)).ok(),
        None => None,
    };
    let last = UserName::parse(&format!("user-{}", digits(12)?)).ok();
    Ok([wish, other, last].into_iter().flatten().collect())
}
