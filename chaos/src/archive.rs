//! The archive at the end: has it everything, and what is in it.

use crate::cluster::Cluster;
use crate::control::Ends;
use crate::recorder::{Recorder, recorded};
use crate::{Failure, Outcome, journal};
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::collections::HashMap;
use std::time::Duration;
use stormwire_checker::{Position, Row};
use tokio::time::Instant;

/// How long the workers may take to bring the archive to the journal's tips.
const DRAINED_WITHIN: Duration = Duration::from_secs(180);
const ROWS_A_PAGE: i64 = 5_000;

async fn open(cluster: &Cluster) -> Outcome<PgPool> {
    PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(30))
        .connect(&cluster.database_url())
        .await
        .map_err(Failure::doing("opening the archive"))
}

/// Waits until the ledger of every partition stands at its log's end.
pub(crate) async fn drained(cluster: &Cluster) -> Outcome {
    let pool = open(cluster).await?;
    let until = Instant::now() + DRAINED_WITHIN;
    loop {
        let behind = behind(cluster, &pool).await?;
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            let behind = behind.join("; ");
            return Err(Failure::of(format!("not drained within {DRAINED_WITHIN:?}: {behind}")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Which partitions are not stored to their ends.
async fn behind(cluster: &Cluster, pool: &PgPool) -> Outcome<Vec<String>> {
    let ledger: Vec<(i16, i32, i64)> =
        sqlx::query_as("SELECT partition, epoch, last_seq FROM ledger")
            .fetch_all(pool)
            .await
            .map_err(Failure::doing("reading the ledger"))?;
    let ledger: HashMap<u16, (u32, u64)> = ledger
        .into_iter()
        .map(|(partition, epoch, last)| {
            (partition.cast_unsigned(), (epoch.cast_unsigned(), last.cast_unsigned()))
        })
        .collect();
    let streams = journal::streams(&cluster.nats).await;
    let mut newest: HashMap<u16, (u32, u64)> = HashMap::new();
    for stream in streams.into_values() {
        let end = newest.entry(stream.partition).or_default();
        *end = (*end).max((stream.epoch, stream.last_seq));
    }
    let mut behind = Vec::new();
    for partition in 0..crate::PARTITIONS {
        let (Some(end), Some(stored)) = (newest.get(&partition), ledger.get(&partition)) else {
            behind.push(format!("partition {partition} has no leader or no ledger"));
            continue;
        };
        if stored < end {
            behind.push(format!("partition {partition} is stored to {stored:?} of {end:?}"));
        }
    }
    Ok(behind)
}

/// Writes every row to the history; where each channel ends.
pub(crate) async fn dump(cluster: &Cluster, mut recorder: Recorder) -> Outcome<Ends> {
    let pool = open(cluster).await?;
    let mut ends = Ends::new();
    let mut transaction = pool.begin().await.map_err(Failure::doing("dumping"))?;
    sqlx::query(
        "DECLARE rows CURSOR FOR SELECT partition, channel, epoch, \"offset\", data FROM events
         WHERE channel LIKE 'chaos:%'",
    )
    .execute(&mut *transaction)
    .await
    .map_err(Failure::doing("dumping"))?;
    loop {
        let fetch = sqlx::AssertSqlSafe(format!("FETCH {ROWS_A_PAGE} FROM rows"));
        let rows: Vec<(i16, String, i32, i64, Option<String>)> = sqlx::query_as(fetch)
            .fetch_all(&mut *transaction)
            .await
            .map_err(Failure::doing("dumping"))?;
        if rows.is_empty() {
            break;
        }
        for (partition, channel, epoch, offset, data) in rows {
            let position =
                Position { epoch: epoch.cast_unsigned(), offset: offset.cast_unsigned() };
            let end = ends.entry(channel.clone()).or_insert(position);
            *end = position.max(*end);
            let text: String = data
                .and_then(|data| serde_json::from_str(&data).ok())
                .unwrap_or_else(|| "not a text".to_owned());
            let partition = partition.cast_unsigned();
            recorder.note(&Row { partition, channel, position, data: recorded(&text) });
        }
    }
    recorder.finish()?;
    Ok(ends)
}
