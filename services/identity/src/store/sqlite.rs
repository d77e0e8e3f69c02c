//! The store in a file of its own, for one process.

use super::StoreError;
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;
use stormwire_guard::{Guard, GuardConfig};
use stormwire_sql::{Pool, PoolConfig};

/// Longest time for one operation, the wait for a command that has the file included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SqliteStore {
    /// One connection: each transaction sees what the one before has done.
    pool: Pool<Sqlite>,
    guard: Guard,
}

impl SqliteStore {
    /// Opens no connection yet.
    pub(super) fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .thread_name(|_| "stormwire-identity-sqlite".to_owned());
        let config =
            PoolConfig { connections: 1, acquire_timeout: DEADLINE, ..PoolConfig::default() };
        let guard = GuardConfig { deadline: DEADLINE, ..GuardConfig::default() };
        Self {
            pool: Pool::lazy("sqlite_identity", config.options(), options),
            guard: Guard::new("sqlite_identity", guard),
        }
    }

    async fn bring_up(&self) -> Stored<()> {
        let unavailable = |error: String| StoreError::Unavailable(error);
        let mut connection =
            self.pool.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        let migrator = sqlx::migrate!("./migrations/sqlite");
        stormwire_sql::migrate(&migrator, &mut *connection)
            .await
            .map_err(|error| unavailable(error.to_string()))
    }
}

super::sql::sql_store!(SqliteStore, Sqlite, "");

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_does_what_the_port_says() {
        let folder = stormwire_testkit::Folder::temporary("identity-store").unwrap();
        let store = SqliteStore::open(&folder.path().join("identity.db"));
        crate::store::suite::run(std::sync::Arc::new(store)).await;
    }
}
