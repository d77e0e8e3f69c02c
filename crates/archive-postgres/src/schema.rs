//! The schema: brought up to date at start, by command, and by as many processes at once as there are.

use crate::error::answered;
use crate::server::Server;
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions as _, Connection as _};
use std::sync::Weak;
use std::time::Duration;
use stormwire_archive::ArchiveError;
use stormwire_sql::MigrationError;
use tokio::time::{sleep, timeout};

/// Longest time for a migration of a filled database.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(600);
/// Bounds of the wait between two attempts at start.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(10);

/// The archive's own list of what was applied, beside those of other services in the same database.
const TABLE: &str = "archive_migrations";

pub(crate) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// Brings the schema up to date on a connection of its own: statements of the pool have a bound.
pub(crate) async fn migrate(server: &Server) -> Result<(), ArchiveError> {
    let work = async {
        let mut connection = server.options().connect().await.map_err(|error| answered(&error))?;
        let outcome = stormwire_sql::migrate(&migrator(), &mut connection).await;
        let _ = connection.close().await;
        outcome.map_err(told)
    };
    timeout(MIGRATION_DEADLINE, work).await.unwrap_or_else(|_| {
        Err(ArchiveError::Unavailable(format!("no migration within {MIGRATION_DEADLINE:?}")))
    })
}

fn told(error: MigrationError) -> ArchiveError {
    match &error {
        MigrationError::Newer(_) | MigrationError::Changed(_) | MigrationError::Unfinished(_) => {
            ArchiveError::Protocol(error.to_string())
        }
        MigrationError::Forbidden(_) | MigrationError::Failed(_) => {
            ArchiveError::Unavailable(error.to_string())
        }
    }
}

/// Tries until the schema is there or the archive is gone. The database may be absent for as long as it likes.
pub(crate) async fn migrate_until_done(server: Weak<Server>) {
    let mut pause = *BACKOFF.start();
    while let Some(server) = server.upgrade() {
        match migrate(&server).await {
            Ok(()) => {
                tracing::info!("the archive's schema is up to date");
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = %error,
                    retry_ms = pause.as_millis(),
                    "the archive is not ready; events stay in the journal until it is"
                );
            }
        }
        drop(server);
        sleep(pause).await;
        pause = (pause * 2).min(*BACKOFF.end());
    }
}
