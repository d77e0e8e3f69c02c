//! What an operator wants to know about a Postgres server before trusting it with the archive.

use crate::{hosts, schema};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::str::FromStr as _;
use std::time::Duration;
use stormwire_archive::ArchiveError;
use stormwire_core::Timestamp;

/// How one server is set up and how it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `server_version`.
    pub version: String,
    /// The server's clock.
    pub now: Timestamp,
    /// Whether it is a replica.
    pub is_replica: bool,
    /// For a replica: how far behind the primary what it shows is; `None` where it has replayed nothing.
    pub replica_lag: Option<Duration>,
    /// Whether this user may make tables in its schema.
    pub may_create: bool,
    /// Whether its schema lacks none of this program's migrations.
    pub has_schema: bool,
    /// Whether commits survive a power cut (`fsync` and `full_page_writes` on, `synchronous_commit` not off).
    pub is_durable: bool,
    /// `max_connections`.
    pub connections_max: i32,
}

const QUESTION: &str = "
SELECT current_setting('server_version'),
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
       pg_is_in_recovery(),
       CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
       current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'
           AND current_setting('synchronous_commit') <> 'off',
       current_setting('max_connections')::int";

/// Asks the server at `url`, once, with a connection of its own; of several that the URL names the one
/// that takes writes.
///
/// # Errors
/// [`ArchiveError`]: the URL cannot be read, or nobody answers in time.
pub async fn inspect(url: &str, deadline: Duration) -> Result<Inspection, ArchiveError> {
    let mut found = Err(ArchiveError::Protocol("its URL names no server".to_owned()));
    for host in hosts::split(url) {
        found = inspect_one(&host, deadline).await;
        if found.as_ref().is_ok_and(|inspection| !inspection.is_replica) {
            break;
        }
    }
    found
}

async fn inspect_one(url: &str, deadline: Duration) -> Result<Inspection, ArchiveError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        // Not the URL itself: it may hold a password.
        ArchiveError::Protocol(format!("its URL cannot be read: {error}"))
    })?;
    let work = async {
        let mut connection = options.application_name("stormwire doctor").connect().await?;
        type Row = (String, i64, bool, Option<i64>, bool, bool, i32);
        let row: Row = sqlx::query_as(QUESTION).fetch_one(&mut connection).await?;
        let lacking = stormwire_sql::lacking(&schema::migrator(), &mut connection).await;
        let _ = connection.close().await;
        Ok::<_, sqlx::Error>((row, !matches!(lacking, Ok(Some(_)))))
    };
    let unavailable = |reason: String| ArchiveError::Unavailable(reason);
    let row = tokio::time::timeout(deadline, Box::pin(work)).await;
    let row = row.map_err(|_| unavailable(format!("no answer within {deadline:?}")))?;
    let (row, has_schema) = row.map_err(|error| unavailable(error.to_string()))?;
    let (version, now, is_replica, lag, may_create, is_durable, connections_max) = row;
    let replica_lag = lag.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    Ok(Inspection {
        version,
        now: Timestamp(now),
        is_replica,
        replica_lag: replica_lag.filter(|_| is_replica),
        may_create,
        has_schema,
        is_durable,
        connections_max,
    })
}
