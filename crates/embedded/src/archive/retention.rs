//! What is past its namespace's bounds, removed channel by channel from the oldest on. The journal's
//! time never goes back along a channel, so what is too old is always the head of it.

use super::{EmbeddedArchive, unavailable};
use metrics::counter;
use sqlx::SqliteConnection;
use std::time::Duration;
use stormwire_archive::{ArchiveError, Retained, Retention};
use stormwire_core::Timestamp;
use stormwire_telemetry::metrics as names;
use tokio::time::{Instant, timeout};

/// Rows that one job removes: some milliseconds of the one writer's time.
const BATCH: u32 = 2_000;
/// Channels looked at together.
const CHANNELS: i64 = 500;
/// A call begins no new job after this time.
const CALL: Duration = Duration::from_secs(2);
/// Longest time for the look at all of a namespace that takes too much.
const LOOK: Duration = Duration::from_secs(60);
/// Where a namespace is above its bytes, this part of them more is removed: not every new event is to
/// cost a removal.
const SLACK: u64 = 16;

/// Takes or extends the right to remove.
pub(crate) async fn maintain(
    connection: &mut SqliteConnection,
    worker: String,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query(
        "INSERT INTO maintenance (only_row, worker, expires_at) VALUES (1, ?1, ?2)
         ON CONFLICT DO UPDATE SET worker = excluded.worker, expires_at = excluded.expires_at
         WHERE worker = ?1 OR expires_at <= ?3",
    )
    .bind(worker)
    .bind(until.0)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// A call of [`Archive::retain`](stormwire_archive::Archive::retain).
pub(crate) async fn retain(
    archive: &EmbeddedArchive,
    worker: &str,
    retention: &Retention,
    now: Timestamp,
) -> Result<Retained, ArchiveError> {
    let mut round = Round { archive, worker, until: Instant::now() + CALL, events: 0 };
    let more = match round.by_age(retention, now).await {
        Ok(false) => round.by_bytes(retention).await,
        other => other,
    };
    counter!(names::RETENTION_EVENTS).increment(round.events);
    Ok(Retained { events: round.events, tables: 0, more: more? })
}

struct Round<'a> {
    archive: &'a EmbeddedArchive,
    worker: &'a str,
    until: Instant,
    events: u64,
}

/// A channel, its namespace, and the time of its oldest event.
type Oldest = (i64, String, Option<i64>);

impl Round<'_> {
    /// Whether there is more to do.
    async fn by_age(
        &mut self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<bool, ArchiveError> {
        let ages = retention.namespaces.values().chain([&retention.default]);
        if ages.clone().all(|rule| rule.age.is_none()) {
            return Ok(false);
        }
        let mut after = 0;
        loop {
            let channels = self.oldest(after).await?;
            let Some((last, ..)) = channels.last() else { return Ok(false) };
            after = *last;
            for (channel, namespace, oldest) in channels {
                let Some(age) = retention.of(&namespace).age else { continue };
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                let before = Timestamp(now.0.saturating_sub(age));
                if oldest.is_some_and(|oldest| oldest < before.0)
                    && self.expire(channel, before).await?
                {
                    return Ok(true);
                }
            }
        }
    }

    async fn by_bytes(&mut self, retention: &Retention) -> Result<bool, ArchiveError> {
        for (namespace, used) in self.used().await? {
            let Some(most) = retention.of(&namespace).bytes.filter(|most| used > *most) else {
                continue;
            };
            let Some(cut) = self.cut(&namespace, used - most + most / SLACK).await? else {
                continue;
            };
            let mut after = 0;
            loop {
                let channels = self.oldest(after).await?;
                let Some((last, ..)) = channels.last() else { break };
                after = *last;
                for (channel, of, oldest) in channels {
                    if of == namespace
                        && oldest.is_some_and(|oldest| oldest < cut.0)
                        && self.expire(channel, cut).await?
                    {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Some channels with events, by number.
    async fn oldest(&self, after: i64) -> Result<Vec<Oldest>, ArchiveError> {
        let read = async {
            sqlx::query_as(
                "SELECT c.id, c.namespace,
                        (SELECT ts FROM events WHERE channel = c.id ORDER BY epoch, \"offset\" LIMIT 1)
                 FROM channels c WHERE c.id > ? ORDER BY c.id LIMIT ?",
            )
            .bind(after)
            .bind(CHANNELS)
            .fetch_all(&mut *self.archive.reads.connection().await?)
            .await
        };
        self.archive.read("archive_oldest", read).await
    }

    async fn used(&self) -> Result<Vec<(String, u64)>, ArchiveError> {
        let read = async {
            let rows: Vec<(String, i64)> =
                sqlx::query_as("SELECT namespace, sum(bytes) FROM channels GROUP BY namespace")
                    .fetch_all(&mut *self.archive.reads.connection().await?)
                    .await?;
            Ok(rows.into_iter().map(|(name, bytes)| (name, bytes.cast_unsigned())).collect())
        };
        self.archive.read("archive_used", read).await
    }

    /// The time before which a namespace has just `excess` bytes. Looks at all of it, beyond the deadline
    /// of the other reads.
    async fn cut(&self, namespace: &str, excess: u64) -> Result<Option<Timestamp>, ArchiveError> {
        let look = async {
            let cut: Option<i64> = sqlx::query_scalar(
                "WITH summed AS (
                     SELECT e.ts AS ts, sum(length(e.data)) OVER (ORDER BY e.ts) AS through
                     FROM channels c JOIN events e ON e.channel = c.id WHERE c.namespace = ?)
                 SELECT min(ts) FROM summed WHERE through >= ?",
            )
            .bind(namespace)
            .bind(i64::try_from(excess).unwrap_or(i64::MAX))
            .fetch_one(&mut *self.archive.reads.connection().await?)
            .await?;
            Ok::<_, sqlx::Error>(cut.map(|at| Timestamp(at.saturating_add(1))))
        };
        match timeout(LOOK, look).await {
            Ok(cut) => cut.map_err(|error| ArchiveError::Unavailable(error.to_string())),
            Err(_) => Err(ArchiveError::Unavailable(format!("no answer within {LOOK:?}"))),
        }
    }

    /// Removes a channel's events from before a time; whether some may be left.
    async fn expire(&mut self, channel: i64, before: Timestamp) -> Result<bool, ArchiveError> {
        loop {
            let (worker, now) = (self.worker.to_owned(), self.archive.clock.now());
            let job = self.archive.writer.write(
                BATCH as usize,
                move |connection| Box::pin(expire(connection, worker, now, channel, before)),
                |_| (),
            );
            let Some(gone) = job.await.map_err(unavailable)? else {
                let text = "another worker maintains the archive".to_owned();
                return Err(ArchiveError::Unavailable(text));
            };
            self.events += u64::from(gone);
            if gone < BATCH {
                return Ok(false);
            }
            if Instant::now() >= self.until {
                return Ok(true);
            }
        }
    }
}

/// One job; `None` if the worker has lost the right.
async fn expire(
    connection: &mut SqliteConnection,
    worker: String,
    now: Timestamp,
    channel: i64,
    before: Timestamp,
) -> Result<Option<u32>, sqlx::Error> {
    let maintains: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM maintenance WHERE worker = ? AND expires_at > ?)",
    )
    .bind(worker)
    .bind(now.0)
    .fetch_one(&mut *connection)
    .await?;
    if !maintains {
        return Ok(None);
    }
    let head: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT epoch, \"offset\", ts, length(data) FROM events WHERE channel = ?
         ORDER BY epoch, \"offset\" LIMIT ?",
    )
    .bind(channel)
    .bind(BATCH)
    .fetch_all(&mut *connection)
    .await?;
    let old: Vec<_> = head.into_iter().take_while(|(.., ts, _)| *ts < before.0).collect();
    let Some((epoch, offset, ..)) = old.last() else { return Ok(Some(0)) };
    let bytes: i64 = old.iter().map(|(.., bytes)| bytes).sum();
    let count = u32::try_from(old.len()).unwrap_or(BATCH);
    sqlx::query("DELETE FROM events WHERE channel = ? AND (epoch, \"offset\") <= (?, ?)")
        .bind(channel)
        .bind(epoch)
        .bind(offset)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO removed (channel, epoch, \"offset\") VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, \"offset\" = excluded.\"offset\"",
    )
    .bind(channel)
    .bind(epoch)
    .bind(offset)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE channels SET count = count - ?, bytes = bytes - ? WHERE id = ?")
        .bind(count)
        .bind(bytes)
        .bind(channel)
        .execute(connection)
        .await?;
    Ok(Some(count))
}
