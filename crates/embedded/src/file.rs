//! The one file: who may open it, and how its connections are set up.

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement waits for a lock that somebody outside the process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch touches a page a channel, so small pages are what keeps it small.
const PAGE_BYTES: u32 = 4096;
/// Pages in the write-ahead log before the writer moves them into the file (64 MiB): a channel's
/// newest page changes with every batch and is moved once for all of them.
const CHECKPOINT_PAGES: &str = "16384";
/// The page cache of the writer, in KiB (negative by SQLite's convention).
const WRITER_CACHE: &str = "-65536";

/// Why the file could not be opened; the text names it and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error(
        "{} is in use by another stormwire process{holder}; stop that one first, or give this one another data directory (--data-dir)",
        path.display()
    )]
    InUse {
        /// The database file.
        path: PathBuf,
        /// ` (process 123)`, or nothing if it is not known.
        holder: String,
    },
    /// The directory or the lock file could not be made.
    #[error("{} cannot be opened: {source}; check that the directory exists and is writable", path.display())]
    Directory {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tables could not be brought up to this program's version.
    #[error("{} cannot be used: {source}", path.display())]
    Schema {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        source: stormwire_sql::MigrationError,
    },
    /// SQLite refused the file.
    #[error("{} cannot be opened as a database: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

/// The right to be the one process that writes the file; given back when dropped, or by the system
/// when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FileLock(#[expect(dead_code, reason = "held for its lock")] File);

impl FileLock {
    /// Takes the lock beside `path`, making the directory if it is not there.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = file.open(beside).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // The number is for the other process's error message alone.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::InUse { path: path.to_owned(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    }
}

/// The connection that writes: every commit is on disk before it returns.
pub(crate) fn writer_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("cache_size", WRITER_CACHE)
        // What a failed statement would take back is kept in memory, not in a file of its own.
        .pragma("temp_store", "MEMORY")
        .busy_timeout(BUSY_TIMEOUT)
        .thread_name(|_| "stormwire-sqlite-writer".to_owned())
        .disable_statement_logging()
}

/// A connection that reads; `rows` bounds what it reads ahead of its reader.
pub(crate) fn reader_options(path: &Path, rows: usize) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(rows)
        .thread_name(|id| format!("stormwire-sqlite-reader-{id}"))
        .disable_statement_logging()
}
