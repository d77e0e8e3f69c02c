//! ENGINE: everything in one process and one file, so that a durable server starts in a fraction of a
//! second with nothing else installed.
//!
//! Journal and archive share one SQLite database in WAL mode with `synchronous=FULL`. One writer
//! puts all that waits into one transaction; readers have bounded pools of their
//! own and never stand behind it. Frames that were committed go to the tails in this process. Limits
//! are counted in memory, and there are no peers.
//!
//! ```text
//! appends ─┐                              ┌─▶ answers
//! persists ┼─▶ writer: one transaction ───┼─▶ tails
//! trims …  ┘        └─▶ stormwire.db ◀────┴── readers (journal, archive)
//! ```
//! One process at a time: a lock beside the file keeps a second one out, and the system frees it
//! however the first one ends.

mod archive;
mod copy;
mod file;
mod journal;
mod logs;
mod peers;
mod reads;
mod tables;
mod tail;
mod values;
mod writer;

pub use copy::{CopyError, copy_database};
pub use file::OpenError;
pub use peers::Alone;
pub use stormwire_sql::PoolConfig;

use crate::archive::EmbeddedArchive;
use crate::file::{FileLock, writer_options};
use crate::journal::EmbeddedJournal;
use crate::logs::Logs;
use crate::reads::Reads;
use crate::tail::Tails;
use crate::writer::Writer;
use sqlx::ConnectOptions as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, Settings};
use stormwire_core::Clock;
use stormwire_guard::GuardConfig;
use stormwire_journal::{Journal, Peers};
use stormwire_limits::{Limiter, SlidingWindow};

/// The name of the database in a data directory.
pub const FILE_NAME: &str = "stormwire.db";

/// Rows that a reader of frames reads ahead: a frame may have 256 KiB.
const FRAMES_AHEAD: usize = 4;
/// Rows that a reader of events reads ahead: an event may have 64 KiB.
const EVENTS_AHEAD: usize = 16;
/// Users, addresses and channels whose units are counted at a time.
const LIMIT_KEYS_MAX: usize = 500_000;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Called with the reason when the process must end because nobody knows what is on disk.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How the embedded engine is set up. The defaults suit a laptop and a small server.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Bytes that the log of one partition may take before appends are refused.
    pub log_bytes_max: u64,
    /// Bytes that one tail may hold before it loses frames and is told to compare tips.
    pub tail_bytes_max: usize,
    /// How long a caller waits for a write; the write itself goes on.
    pub write_deadline: Duration,
    /// Deadline and breaker of reads.
    pub read_guard: GuardConfig,
    /// Connections that read the journal.
    pub journal_pool: PoolConfig,
    /// Connections that read the archive.
    pub archive_pool: PoolConfig,
    /// What ends the process after a commit that failed.
    pub fatal: Fatal,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            log_bytes_max: 64 * 1024 * 1024,
            tail_bytes_max: 16 * 1024 * 1024,
            write_deadline: Duration::from_secs(10),
            read_guard: GuardConfig { deadline: Duration::from_secs(5), ..GuardConfig::default() },
            journal_pool: PoolConfig { connections: 4, ..PoolConfig::default() },
            archive_pool: PoolConfig { connections: 8, ..PoolConfig::default() },
            // The code of an input or output error in sysexits.h.
            fatal: Arc::new(|_| std::process::exit(74)),
        }
    }
}

/// The engine: the ports of one open file.
pub struct Embedded {
    journal: Arc<EmbeddedJournal>,
    archive: Arc<EmbeddedArchive>,
    limiter: Arc<SlidingWindow>,
    writer: Writer,
    task: tokio::task::JoinHandle<()>,
}

impl Embedded {
    /// Opens the database file at `path`, making it and its directory where they are not there, and
    /// brings its tables up to this program's version.
    ///
    /// # Errors
    /// [`OpenError`] names the file and the remedy.
    pub async fn open(
        path: impl AsRef<Path>,
        config: EmbeddedConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let lock = FileLock::take(path)?;
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        let mut connection = writer_options(path).connect().await.map_err(failed)?;
        stormwire_sql::migrate(&MIGRATIONS, &mut connection)
            .await
            .map_err(|source| OpenError::Schema { path: path.to_owned(), source })?;
        let (logs, newest) = journal::load(&mut connection).await.map_err(failed)?;
        let logs = Logs::new(logs, newest, config.log_bytes_max, Arc::clone(&clock));
        let (logs, tails) = (Arc::new(logs), Arc::new(Tails::new(config.tail_bytes_max)));
        let (writer, task) = Writer::start(
            connection,
            lock,
            Arc::clone(&logs),
            Arc::clone(&tails),
            config.write_deadline,
            config.fatal,
        );
        let readers =
            |dependency, rows, pool| Reads::new(dependency, path, rows, pool, &config.read_guard);
        let reads = readers("sqlite_journal", FRAMES_AHEAD, &config.journal_pool);
        let journal = EmbeddedJournal { writer: writer.clone(), logs, tails, reads };
        let reads = readers("sqlite_archive", EVENTS_AHEAD, &config.archive_pool);
        let archive = EmbeddedArchive { writer: writer.clone(), reads, clock };
        Ok(Self {
            journal: Arc::new(journal),
            archive: Arc::new(archive),
            limiter: Arc::new(SlidingWindow::new(LIMIT_KEYS_MAX)),
            writer,
            task,
        })
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::clone(&self.journal) as Arc<dyn Journal>
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> Arc<dyn Archive> {
        Arc::clone(&self.archive) as Arc<dyn Archive>
    }

    /// What operators set.
    #[must_use]
    pub fn settings(&self) -> Arc<dyn Settings> {
        Arc::clone(&self.archive) as Arc<dyn Settings>
    }

    /// The limiter, which counts in this process: here that is everybody.
    #[must_use]
    pub fn limiter(&self) -> Arc<dyn Limiter> {
        Arc::clone(&self.limiter) as Arc<dyn Limiter>
    }

    /// Nobody.
    #[must_use]
    pub fn peers(&self) -> Arc<dyn Peers> {
        Arc::new(Alone)
    }

    /// Writes what is queued, closes the file and gives its lock back. The ports refuse afterwards.
    pub async fn close(self) {
        self.journal.reads.close().await;
        self.archive.reads.close().await;
        self.writer.stop();
        // It ends by itself; a panic in it was logged and closed the connection.
        let _ = self.task.await;
    }
}
