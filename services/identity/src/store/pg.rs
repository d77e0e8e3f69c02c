//! The store on Postgres, beside whatever else is in the database.

use super::StoreError;
use sqlx::postgres::{PgConnectOptions, Postgres};
use sqlx::{ConnectOptions as _, Connection as _};
use std::str::FromStr as _;
use std::time::Duration;
use stormwire_guard::{Guard, GuardConfig};
use stormwire_sql::{Pool, PoolConfig};

/// Connections: sign-ins wait for their hashes, not for these.
const CONNECTIONS: u32 = 10;
/// Longest time for one operation.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for a migration.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(600);
/// The list of what was applied, beside those of others in the same database.
const TABLE: &str = "identity_migrations";

pub(super) struct PostgresStore {
    pool: Pool<Postgres>,
    guard: Guard,
    options: PgConnectOptions,
}

impl PostgresStore {
    /// Opens no connection yet.
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| {
            // Not the URL itself: it may hold a password.
            StoreError::Unreadable(format!("its URL: {error}"))
        })?;
        let options = options.application_name("stormwire-identity").options([
            ("standard_conforming_strings", "on"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("client_min_messages", "warning"),
        ]);
        let pooled = options.clone().options([("statement_timeout", "10s")]);
        let config = PoolConfig {
            connections: CONNECTIONS,
            acquire_timeout: DEADLINE,
            ..PoolConfig::default()
        };
        Ok(Self { pool: Pool::lazy("postgres", config.options(), pooled), guard: guard(), options })
    }

    async fn bring_up(&self) -> Stored<()> {
        let work = async {
            let mut connection = self.options.connect().await.map_err(unavailable)?;
            let mut migrator = sqlx::migrate!("./migrations/pg");
            migrator.dangerous_set_table_name(TABLE);
            let outcome = stormwire_sql::migrate(&migrator, &mut connection).await;
            let _ = connection.close().await;
            outcome.map_err(unavailable)
        };
        tokio::time::timeout(MIGRATION_DEADLINE, work)
            .await
            .unwrap_or_else(|late| Err(unavailable(late)))
    }
}

fn guard() -> Guard {
    Guard::new("postgres", GuardConfig { deadline: DEADLINE, ..GuardConfig::default() })
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

super::sql::sql_store!(PostgresStore, Postgres, " FOR UPDATE");

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_testkit::postgres::Postgres as Server;

    #[tokio::test]
    async fn it_does_what_the_port_says() {
        let Some(server) = Server::start().await else { return };
        let store = PostgresStore::open(&server.url()).unwrap();
        crate::store::suite::run(std::sync::Arc::new(store)).await;
    }

    /// As a role that may do this and no more, once the owner has made the tables.
    #[tokio::test]
    async fn it_does_so_with_the_rights_of_its_own_role() {
        let Some(server) = Server::start().await else { return };
        let Some(server) = server.with_roles().await else { return };
        let store = PostgresStore::open(&server.url_as("identity_a")).unwrap();
        let told = store.bring_up().await.unwrap_err().to_string();
        assert!(told.contains("`stormwire migrate`"), "{told}");
        PostgresStore::open(&server.url_as("owner_a")).unwrap().bring_up().await.unwrap();
        crate::store::suite::run_on_tables(std::sync::Arc::new(store)).await;
    }
}
