//! The service: what can be asked of it, by routes and by commands.

mod accounts;
mod api_keys;
mod external;
mod revocations;
mod sessions;
mod sign_in;

pub(crate) use api_keys::Wanted;
pub(crate) use external::{Finished, Returned};
pub(crate) use revocations::look;
pub(crate) use sign_in::{Login, Tokens};

use crate::config::IdentityConfig;
use crate::domain::SealedText;
use crate::domain::addresses::network;
use crate::hashing::Hasher;
use crate::key_ring::{KeyRing, KeyRingError};
use crate::keys::{Keys, KeysError};
use crate::post::Post;
use crate::providers::{Providers, SecretError};
use crate::store::{self, Audit, Database, Handle, Store, StoreError};
use crate::upkeep;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stormwire_core::{Clock, ErrorCode, Refusal, Timestamp};
use stormwire_telemetry::Tasks;
use stormwire_tokens::Role;
use tokio::sync::watch;

/// Addresses that are sealed anew in one turn.
const RESEAL_PAGE: i64 = 500;

/// Why the service cannot start or a command cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key ring.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// A provider's client secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The database or what is in it.
    #[error("{0}")]
    Database(String),
    /// What was asked for is refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<KeysError> for IdentityError {
    fn from(error: KeysError) -> Self {
        Self::Database(error.to_string())
    }
}

/// Where a request came from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) ip: IpAddr,
    /// What the client calls itself.
    pub(crate) agent: String,
}

impl Origin {
    /// What its attempts are counted by.
    pub(crate) fn network(&self) -> String {
        network(self.ip)
    }
}

/// The service. Clones share everything.
#[derive(Clone)]
pub struct Identity {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: IdentityConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) keys: Keys,
    pub(crate) hasher: Hasher,
    pub(crate) post: Post,
    pub(crate) providers: Providers,
    pub(crate) clock: Arc<dyn Clock>,
    ready: AtomicBool,
    /// The number of the newest line of what is revoked.
    pub(crate) newest: watch::Sender<i64>,
}

impl Identity {
    /// Opens everything that needs no waiting, and gets ready in the background: until then whoever wants
    /// to sign in is told to come back.
    ///
    /// # Errors
    /// [`IdentityError`]: the key ring cannot be read, or the database's URL is none.
    pub fn start(
        config: IdentityConfig,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, IdentityError> {
        let identity = Self::open(config, clock, tasks)?;
        upkeep::start(&identity, tasks);
        Ok(identity)
    }

    /// Opens the service for one command: tables and keys are there when it returns.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn for_command(
        config: IdentityConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityError> {
        let identity = Self::open(config, clock, &Tasks::new())?;
        identity.prepare().await?;
        Ok(identity)
    }

    fn open(
        config: IdentityConfig,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, IdentityError> {
        let ring = Arc::new(KeyRing::open(config.key_ring.as_deref(), &config.data_dir)?);
        let store = store::open(&config.database)?;
        let (store_too, ring_too) = (Arc::clone(&store), Arc::clone(&ring));
        let keys = Keys::new(&config, store_too, ring_too, Arc::clone(&clock));
        let hasher = Hasher::new(config.hash_places);
        let post = Post::start(
            config.mailer.clone(),
            Arc::clone(&store),
            Arc::clone(&ring),
            Arc::clone(&clock),
            tasks,
        );
        let providers = Providers::new(&config.providers, &clock)?;
        let ready = AtomicBool::new(false);
        let newest = watch::Sender::new(0);
        let shared =
            Shared { config, store, ring, keys, hasher, post, providers, clock, ready, newest };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Brings the tables up to this program's version, for a service that may not do so itself.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn migrate(database: &Database) -> Result<(), IdentityError> {
        Ok(store::open(database)?.migrate().await?)
    }

    /// Whether the tables are up to date and there is a key to sign with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What it says instead.
    pub async fn ping(&self) -> Result<(), IdentityError> {
        Ok(self.shared.store.ping().await?)
    }

    /// The public keys, as they change.
    #[must_use]
    pub fn jwks(&self) -> watch::Receiver<String> {
        self.shared.keys.jwks()
    }

    /// Makes a new signing key; its name, and from when it signs.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn rotate_key(&self) -> Result<(String, Timestamp), IdentityError> {
        Ok(self.shared.keys.rotate("command").await?)
    }

    /// Seals anew, under the key ring's first key, whatever is sealed under another one; how much.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn reseal(&self) -> Result<u64, IdentityError> {
        let Shared { store, ring, keys, .. } = &*self.shared;
        let mut count = keys.reseal().await?;
        loop {
            let page = store.sealed_elsewhere(ring.current(), RESEAL_PAGE).await?;
            if page.is_empty() {
                return Ok(count);
            }
            for (account, old) in page {
                let place = email_place(&account);
                let new = ring.seal(&ring.open_sealed(&old, &place)?, &place)?;
                store.reseal(&account, &old, &new).await?;
                count += 1;
            }
        }
    }

    /// Gives the account of that user name a role: how the first admin comes to be.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] if there is no such account.
    pub async fn grant(&self, name: &str, role: Role) -> Result<(), IdentityError> {
        let folded = crate::domain::names::folded(name);
        let account = self.shared.store.account_by(&Handle::Name(folded)).await?;
        let account = account.ok_or_else(|| {
            let message = format!("there is no account called {name:?}");
            IdentityError::Refused(Refusal::new(ErrorCode::NotFound, message))
        })?;
        let audit = Audit {
            at: self.shared.clock.now(),
            kind: "role_given",
            account: Some(account.id.clone()),
            session: None,
            ip: String::new(),
            detail: format!("{role} by command"),
        };
        self.shared.store.set_role(&account.id, role, &audit).await?;
        Ok(())
    }

    pub(crate) async fn prepare(&self) -> Result<(), IdentityError> {
        self.shared.store.migrate().await?;
        self.shared.keys.refresh().await?;
        self.shared.ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn refresh_keys(&self) -> Result<(), IdentityError> {
        Ok(self.shared.keys.refresh().await?)
    }

    pub(crate) async fn prune(&self) -> Result<(), IdentityError> {
        let Shared { store, keys, clock, .. } = &*self.shared;
        Ok(store.prune(clock.now(), keys.oldest_needed()).await?)
    }
}

impl Shared {
    /// A line of the audit about a request.
    pub(crate) fn audit(&self, kind: &'static str, account: Option<&str>, from: &Origin) -> Audit {
        Audit {
            at: self.clock.now(),
            kind,
            account: account.map(str::to_owned),
            session: None,
            ip: from.ip.to_string(),
            detail: String::new(),
        }
    }

    /// Seals an address for its account.
    pub(crate) fn seal_email(&self, email: &str, account: &str) -> Result<SealedText, Refusal> {
        self.ring.seal(email.as_bytes(), &email_place(account)).map_err(|error| {
            tracing::error!(%error, "an address could not be sealed");
            Refusal::new(ErrorCode::Internal, "the address could not be sealed")
        })
    }
}

/// Where the address of an account is sealed for.
pub(crate) fn email_place(account: &str) -> String {
    format!("email:{account}")
}
