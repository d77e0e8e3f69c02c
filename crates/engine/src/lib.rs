//! ENGINE CHOICE: turns URLs into ports. The only code that names engines.
//!
//! A configuration holds URLs alone; the scheme chooses the engine here, once, where a process is put
//! together. Behind this crate everybody holds `Arc<dyn Port>` and nobody can ask which engine it is.
//!
//! | port | URL | engine |
//! | --- | --- | --- |
//! | journal, peers | `sqlite:` | embedded, one file, alone |
//! | journal, peers | `nats://host:4222[,nats://…]`, `tls://…` | JetStream |
//! | archive | `sqlite:` | embedded, the same file |
//! | archive | `postgres://user:password@host[,host…]/database` | Postgres |
//! | limits | `local:` | in this process |
//! | limits | `redis://host:6379`, `rediss://…` | Redis |
//! | presence | `local:` | in this process |
//! | presence | `redis://host:6379`, `rediss://…` | Redis |
//! | signals | with the journal: `sqlite:` | in this process |
//! | signals | with the journal: `nats://…` | core NATS |

mod url;

pub use stormwire_archive_postgres::{Inspection, inspect as inspect_postgres};
pub use stormwire_embedded::{CopyError, OpenError, copy_database};
pub use url::{ArchiveUrl, JournalUrl, LimitsUrl, PresenceUrl, UrlError, redact};

use std::path::PathBuf;
use std::sync::Arc;
use stormwire_archive::{Archive, ArchiveError, Settings};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::Clock;
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME, PoolConfig};
use stormwire_journal::{Journal, Peers};
use stormwire_journal_nats::{NatsConfig, NatsError, NatsJournal, NatsPeers, NatsSignals};
use stormwire_limits::{Limiter, SlidingWindow};
use stormwire_presence::{LEASE, LocalPresence, LocalSignals, Presence};
pub use stormwire_presence::{Message, Sender, SignalMessage, Signals};
use stormwire_redis::{ConnectError, RedisConfig, RedisLimiter, RedisPresence};

/// Users, addresses and channels that the limiter in this process counts at a time.
const LIMITS_KEYS_MAX: usize = 300_000;

/// Which engines, and what they need to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Who connects: shown in the servers' lists of connections.
    pub name: String,
    /// The folder of the embedded engine's file.
    pub data_dir: PathBuf,
    /// Where the journal is.
    pub journal: JournalUrl,
    /// Copies of each JetStream stream.
    pub journal_replicas: u8,
    /// Bytes that one partition's log may take before appends are refused.
    pub journal_bytes_max: u64,
    /// Bytes that JetStream's stream of the tables of producers may take.
    pub journal_tables_bytes_max: u64,
    /// Where the archive is.
    pub archive: ArchiveUrl,
    /// A replica of it, for reads.
    pub archive_replica_url: Option<String>,
    /// Whether the journal keeps what that replica does not have.
    pub archive_replica_keeps_all: bool,
    /// Most connections to the archive.
    pub archive_connections: u32,
    /// Whether the archive's schema is brought up to date as soon as it answers.
    pub migrate_at_start: bool,
    /// Who counts limits.
    pub limits: LimitsUrl,
    /// Who knows who is there.
    pub presence: PresenceUrl,
}

/// Why an engine cannot be opened. A dependency that is only away now is no error: its engine keeps
/// trying.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The embedded engine's file.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The journal on NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The archive on Postgres.
    #[error("the archive cannot be used: {0}")]
    Postgres(ArchiveError),
    /// The limiter on Redis.
    #[error("the limiter cannot be used: {0}")]
    Redis(String),
    /// Presence on Redis.
    #[error("presence cannot be used: {0}")]
    Presence(String),
}

/// All that a server needs.
#[derive(Clone)]
pub struct Ports {
    /// The short durable log.
    pub journal: Arc<dyn Journal>,
    /// The long store.
    pub archive: Arc<dyn Archive>,
    /// Who counts limits.
    pub limiter: Arc<dyn Limiter>,
    /// What operators set, in the archive's database.
    pub settings: Arc<dyn Settings>,
    /// The way to other gateways.
    pub peers: Arc<dyn Peers>,
    /// Who is there.
    pub presence: Arc<dyn Presence>,
    /// The way of signals between gateways.
    pub signals: Arc<dyn Signals>,
}

/// Opens engines when they are asked for, and closes what must be closed.
pub struct Engines {
    config: EngineConfig,
    clock: Arc<dyn Clock>,
    embedded: Option<Embedded>,
    postgres: Option<PostgresArchive>,
}

impl Engines {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(config: EngineConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, embedded: None, postgres: None }
    }

    /// Everything.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn ports(&mut self) -> Result<Ports, EngineError> {
        Ok(Ports {
            journal: self.journal().await?,
            archive: self.archive().await?,
            settings: self.settings().await?,
            limiter: self.limiter().await?,
            peers: self.peers().await?,
            presence: self.presence().await?,
            signals: self.signals().await?,
        })
    }

    /// The journal.
    ///
    /// # Errors
    /// [`EngineError::Embedded`], [`EngineError::Nats`].
    pub async fn journal(&mut self) -> Result<Arc<dyn Journal>, EngineError> {
        match self.nats() {
            Some(config) => Ok(Arc::new(Box::pin(NatsJournal::connect(config)).await?)),
            None => Ok(self.embedded().await?.journal()),
        }
    }

    /// The way to other gateways; it goes with the journal.
    ///
    /// # Errors
    /// [`EngineError::Embedded`], [`EngineError::Nats`].
    pub async fn peers(&mut self) -> Result<Arc<dyn Peers>, EngineError> {
        match self.nats() {
            Some(config) => Ok(Arc::new(Box::pin(NatsPeers::connect(config)).await?)),
            None => Ok(self.embedded().await?.peers()),
        }
    }

    /// The archive.
    ///
    /// # Errors
    /// [`EngineError::Embedded`], [`EngineError::Postgres`].
    pub async fn archive(&mut self) -> Result<Arc<dyn Archive>, EngineError> {
        match self.postgres().await? {
            Some(archive) => Ok(Arc::new(archive)),
            None => Ok(self.embedded().await?.archive()),
        }
    }

    /// What operators set, in the archive's database.
    ///
    /// # Errors
    /// As [`Engines::archive`].
    pub async fn settings(&mut self) -> Result<Arc<dyn Settings>, EngineError> {
        match self.postgres().await? {
            Some(archive) => Ok(Arc::new(archive)),
            None => Ok(self.embedded().await?.settings()),
        }
    }

    /// The archive on Postgres, opened once; clones share its pools.
    async fn postgres(&mut self) -> Result<Option<PostgresArchive>, EngineError> {
        let ArchiveUrl::Postgres(url) = &self.config.archive else { return Ok(None) };
        if let Some(archive) = &self.postgres {
            return Ok(Some(archive.clone()));
        }
        let mut config = PostgresConfig::new(url.clone());
        config.replica_url.clone_from(&self.config.archive_replica_url);
        config.replica_keeps_all = self.config.archive_replica_keeps_all;
        config.pool.connections = self.config.archive_connections;
        config.readers = readers(self.config.archive_connections);
        config.migrate_at_start = self.config.migrate_at_start;
        let archive =
            Box::pin(PostgresArchive::connect(config)).await.map_err(EngineError::Postgres)?;
        self.postgres = Some(archive.clone());
        Ok(Some(archive))
    }

    /// Who counts limits.
    ///
    /// # Errors
    /// [`EngineError::Redis`].
    pub async fn limiter(&mut self) -> Result<Arc<dyn Limiter>, EngineError> {
        match &self.config.limits {
            LimitsUrl::Local => Ok(Arc::new(SlidingWindow::new(LIMITS_KEYS_MAX))),
            LimitsUrl::Redis(url) => {
                let limiter = Box::pin(RedisLimiter::connect(RedisConfig::new(url.clone()))).await;
                Ok(Arc::new(limiter.map_err(|error| EngineError::Redis(error.to_string()))?))
            }
        }
    }

    /// Who is there.
    ///
    /// # Errors
    /// [`EngineError::Presence`].
    pub async fn presence(&mut self) -> Result<Arc<dyn Presence>, EngineError> {
        match &self.config.presence {
            PresenceUrl::Local => Ok(Arc::new(LocalPresence::new(LEASE))),
            PresenceUrl::Redis(url) => {
                let presence = Box::pin(RedisPresence::connect(url.clone(), LEASE)).await;
                let unusable = |error: ConnectError| EngineError::Presence(error.to_string());
                Ok(Arc::new(presence.map_err(unusable)?))
            }
        }
    }

    /// The way of signals between gateways; it goes with the journal.
    ///
    /// # Errors
    /// [`EngineError::Nats`].
    pub async fn signals(&mut self) -> Result<Arc<dyn Signals>, EngineError> {
        match self.nats() {
            Some(config) => Ok(Arc::new(Box::pin(NatsSignals::connect(config)).await?)),
            None => Ok(Arc::new(LocalSignals::default())),
        }
    }

    /// Writes what is queued and gives the embedded engine's file back.
    pub async fn close(self) {
        if let Some(embedded) = self.embedded {
            embedded.close().await;
        }
    }

    fn nats(&self) -> Option<NatsConfig> {
        let JournalUrl::Nats(urls) = &self.config.journal else { return None };
        Some(NatsConfig {
            urls: urls.clone(),
            name: self.config.name.clone(),
            replicas: self.config.journal_replicas,
            max_bytes: self.config.journal_bytes_max,
            tables_max_bytes: self.config.journal_tables_bytes_max,
            ..NatsConfig::default()
        })
    }

    async fn embedded(&mut self) -> Result<&Embedded, EngineError> {
        let embedded = match self.embedded.take() {
            Some(embedded) => embedded,
            None => {
                let defaults = EmbeddedConfig::default();
                let config = EmbeddedConfig {
                    log_bytes_max: self.config.journal_bytes_max,
                    archive_pool: PoolConfig {
                        connections: self.config.archive_connections,
                        ..defaults.archive_pool.clone()
                    },
                    ..defaults
                };
                let file = self.config.data_dir.join(FILE_NAME);
                // Boxed: what opens an engine is large, and every start is made of it.
                Box::pin(Embedded::open(file, config, Arc::clone(&self.clock))).await?
            }
        };
        Ok(self.embedded.insert(embedded))
    }
}

/// Of so many connections, how many history pages may use at a time: persisting keeps the others.
fn readers(connections: u32) -> usize {
    (connections as usize * 3 / 5).max(1)
}
