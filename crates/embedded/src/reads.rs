//! Reading: a bounded pool of connections that only read, behind a guard. A reader sees what was
//! committed when it began and never waits for the writer, nor the writer for it.

use crate::file::reader_options;
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use std::future::Future;
use std::path::Path;
use stormwire_guard::{Guard, GuardConfig};
use stormwire_sql::{Pool, PoolConfig};

/// A pool and its guard. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    pool: Pool<Sqlite>,
    guard: Guard,
}

impl Reads {
    /// Readers of the file at `path`. `dependency` labels their metrics, `rows` bounds what one reads
    /// ahead.
    pub(crate) fn new(
        dependency: &'static str,
        path: &Path,
        rows: usize,
        pool: &PoolConfig,
        guard: &GuardConfig,
    ) -> Self {
        let pool = Pool::lazy(dependency, pool.options(), reader_options(path, rows));
        Self { pool, guard: Guard::new(dependency, guard.clone()) }
    }

    /// A connection; to be used inside [`Reads::call`].
    pub(crate) async fn connection(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.pool.acquire().await
    }

    /// A transaction, so that all its statements see one state; to be used inside [`Reads::call`].
    pub(crate) async fn snapshot(&self) -> Result<sqlx::Transaction<'static, Sqlite>, sqlx::Error> {
        self.pool.begin().await
    }

    /// Runs a read within the deadline, if the breaker lets it; the error is for people.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        read: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, String> {
        self.guard.call(operation, read).await.map_err(|error| error.to_string())
    }

    /// Reads something small.
    pub(crate) async fn ping(&self, operation: &'static str) -> Result<(), String> {
        let read = async {
            let mut connection = self.connection().await?;
            sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").execute(&mut *connection).await
        };
        self.call(operation, read).await.map(drop)
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
