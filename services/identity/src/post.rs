//! Outgoing mail: asked for by requests, worked off in the background, so that an answer takes the same
//! time whether there is somebody to write to or not.

use crate::domain::lockout::Rule;
use crate::domain::{Account, Purpose, addresses};
use crate::key_ring::KeyRing;
use crate::mail::{self, Mail, Mailer};
use crate::secrets;
use crate::service::email_place;
use crate::store::{Counted, Handle, Store};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Clock, ErrorCode, Refusal};
use stormwire_telemetry::Tasks;
use tokio::sync::mpsc;

/// Mails that may wait.
const QUEUE_MAX: usize = 256;
/// How long a mail's token is good.
const VERIFY_TTL: Duration = Duration::from_secs(24 * 3600);
const RESET_TTL: Duration = Duration::from_secs(3600);
/// Mails to one address: three at once, then fewer and fewer.
const MAILS: Rule =
    Rule { free: 3, first: Duration::from_secs(60), longest: Duration::from_secs(50 * 60) };
/// Attempts to hand a mail over, and the pause between them.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Letter {
    /// To an account that is to show that its address is its own.
    Verify { account: String },
    /// To whoever has this address, if it is somebody's.
    Reset { email: String },
    /// To an account whose password was changed.
    Changed { account: String },
}

/// The queue's front.
#[derive(Clone)]
pub(crate) struct Post {
    queue: Option<mpsc::Sender<Letter>>,
}

impl Post {
    /// Starts writing; without a mailer nothing is ever taken.
    pub(crate) fn start(
        mailer: Option<Arc<dyn Mailer>>,
        store: Arc<dyn Store>,
        ring: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Self {
        let Some(mailer) = mailer else { return Self { queue: None } };
        let (queue, mut letters) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { mailer, store, ring, clock };
        let stop = tasks.token();
        tasks.spawn("mail", async move {
            while let Some(Some(letter)) = stop.run_until_cancelled(letters.recv()).await {
                if let Err(refusal) = writer.write(letter).await {
                    tracing::warn!(error = %refusal, "a mail was not written");
                }
            }
        });
        Self { queue: Some(queue) }
    }

    /// Puts a letter in the queue.
    ///
    /// # Errors
    /// `not_found` where there is no mail, `overloaded` if the queue is full.
    pub(crate) fn take(&self, letter: Letter) -> Result<(), Refusal> {
        let Some(queue) = &self.queue else {
            let message = "this server sends no mail: identity.mail is empty";
            return Err(Refusal::new(ErrorCode::NotFound, message));
        };
        queue.try_send(letter).map_err(|_| {
            let message = "too many mails wait to be sent; try again";
            Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(10))
        })
    }
}

struct Writer {
    mailer: Arc<dyn Mailer>,
    store: Arc<dyn Store>,
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    async fn write(&self, letter: Letter) -> Result<(), Refusal> {
        let account = match &letter {
            Letter::Verify { account } | Letter::Changed { account } => {
                self.store.account(account).await?
            }
            Letter::Reset { email } => {
                let index = self.ring.index_of(&addresses::email(email)?);
                self.store.account_by(&Handle::Email(index)).await?
            }
        };
        let Some((account, to)) = account.and_then(|account| self.address(account)) else {
            return Ok(());
        };
        let mail = match letter {
            Letter::Changed { .. } => mail::changed(to),
            Letter::Verify { .. } => {
                let token = self.ticket(&account, Purpose::Verify, VERIFY_TTL).await?;
                mail::verification(to, &token)
            }
            Letter::Reset { .. } => {
                let token = self.ticket(&account, Purpose::Reset, RESET_TTL).await?;
                mail::reset(to, &token)
            }
        };
        self.hand_over(mail).await
    }

    fn address(&self, account: Account) -> Option<(Account, String)> {
        let opened = self.ring.open_sealed(account.email.as_ref()?, &email_place(&account.id));
        match opened.map(String::from_utf8) {
            Ok(Ok(to)) => Some((account, to)),
            Ok(Err(_)) => None,
            Err(error) => {
                tracing::error!(%error, account = account.id, "an address cannot be opened");
                None
            }
        }
    }

    async fn ticket(
        &self,
        account: &Account,
        purpose: Purpose,
        ttl: Duration,
    ) -> Result<String, Refusal> {
        let now = self.clock.now();
        let counted = Counted { key: format!("mail:{}", account.id), rule: MAILS };
        if self.store.attempt(&[counted], now).await?.is_err() {
            let message = "too many mails to one account";
            return Err(Refusal::new(ErrorCode::Limited, message));
        }
        let (token, hash) = secrets::draw()?;
        self.store.put_ticket(&hash, &account.id, purpose, now.plus(ttl)).await?;
        Ok(token)
    }

    async fn hand_over(&self, mail: Mail) -> Result<(), Refusal> {
        let mut attempt = 1;
        loop {
            match self.mailer.send(mail.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == ATTEMPTS => {
                    return Err(Refusal::new(ErrorCode::Internal, error.to_string()));
                }
                Err(_) => attempt += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
