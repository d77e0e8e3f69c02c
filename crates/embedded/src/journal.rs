//! The port Journal on the one file.

use crate::logs::{Append, Log, Logs, Map, SEQ_MAX, key, seq_of};
use crate::reads::Reads;
use crate::tables;
use crate::tail::Tails;
use crate::writer::{WriteError, Writer};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::{Row as _, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, PartitionCount, Timestamp};
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, Tip};

/// Frames that one transaction removes, so that no append waits long for a trim.
const TRIM_FRAMES: u64 = 256;

pub(crate) struct EmbeddedJournal {
    pub(crate) writer: Writer,
    pub(crate) logs: Arc<Logs>,
    pub(crate) tails: Arc<Tails>,
    pub(crate) reads: Reads,
}

impl EmbeddedJournal {
    async fn select(
        &self,
        operation: &'static str,
        partition: Partition,
        epoch: Epoch,
        (from, through): (FrameSeq, FrameSeq),
        (frames, bytes): (usize, usize),
    ) -> Result<Vec<StoredFrame>, JournalError> {
        let (from, through) = (from.min(SEQ_MAX + 1), through.min(SEQ_MAX));
        let range = key(partition, epoch, from).zip(key(partition, epoch, through));
        let Some((low, high)) = range else { return Ok(Vec::new()) };
        let limit = i64::try_from(frames).unwrap_or(i64::MAX);
        let select = async {
            let mut connection = self.reads.connection().await?;
            let mut rows = sqlx::query(
                "SELECT id, ts, bytes FROM frames WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            )
            .bind(low)
            .bind(high)
            .bind(limit)
            .fetch(&mut *connection);
            let (mut found, mut size) = (Vec::new(), 0);
            while let Some(row) = rows.try_next().await? {
                let frame = StoredFrame {
                    partition,
                    epoch,
                    seq: seq_of(row.try_get(0)?),
                    ts: Timestamp(row.try_get(1)?),
                    bytes: Bytes::from(row.try_get::<Vec<u8>, _>(2)?),
                };
                size += frame.bytes.len();
                found.push(frame);
                if size >= bytes {
                    break;
                }
            }
            Ok(found)
        };
        self.reads.call(operation, select).await.map_err(JournalError::Unavailable)
    }

    async fn trim_some(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        let keys = key(partition, epoch, 0).zip(key(partition, epoch, through));
        let Some((low, high)) = keys else { return Ok(()) };
        let logs = Arc::clone(&self.logs);
        let trimmed = self.writer.write(
            0,
            move |connection| Box::pin(trim(connection, (partition, epoch), low, high)),
            move |bytes| logs.trimmed(partition, epoch, through, *bytes),
        );
        trimmed.await.map(drop).map_err(unavailable)
    }
}

/// Removes the frames between two keys and says how many bytes they had.
async fn trim(
    connection: &mut SqliteConnection,
    (partition, epoch): (Partition, Epoch),
    low: i64,
    high: i64,
) -> Result<u64, sqlx::Error> {
    let (bytes, ts): (i64, Option<i64>) = sqlx::query_as(
        "SELECT coalesce(sum(length(bytes)), 0), max(ts) FROM frames WHERE id BETWEEN ? AND ?",
    )
    .bind(low)
    .bind(high)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM frames WHERE id BETWEEN ? AND ?")
        .bind(low)
        .bind(high)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE logs SET trimmed = max(trimmed, ?), ts = max(ts, ?)
         WHERE partition = ? AND epoch = ?",
    )
    .bind(seq_of(high).cast_signed())
    .bind(ts.unwrap_or(0))
    .bind(i64::from(partition.0))
    .bind(i64::from(epoch.0))
    .execute(connection)
    .await?;
    Ok(bytes.cast_unsigned())
}

/// Notes a new log; one that is there is left as it is.
async fn insert_log(
    connection: &mut SqliteConnection,
    partition: Partition,
    epoch: Epoch,
    first: FrameSeq,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO logs (partition, epoch, trimmed, ts) VALUES (?, ?, ?, 0)
         ON CONFLICT DO NOTHING",
    )
    .bind(i64::from(partition.0))
    .bind(i64::from(epoch.0))
    .bind((first - 1).cast_signed())
    .execute(connection)
    .await
    .map(drop)
}

/// Forgets a log; a frame that came meanwhile goes with it.
async fn delete_log(
    connection: &mut SqliteConnection,
    partition: Partition,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    if let Some((low, high)) = key(partition, epoch, 0).zip(key(partition, epoch, SEQ_MAX)) {
        sqlx::query("DELETE FROM frames WHERE id BETWEEN ? AND ?")
            .bind(low)
            .bind(high)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM logs WHERE partition = ? AND epoch = ?")
        .bind(i64::from(partition.0))
        .bind(i64::from(epoch.0))
        .execute(connection)
        .await
        .map(drop)
}

/// Reads where the logs stand, and the newest timestamp among them.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
) -> Result<(Map, Timestamp), sqlx::Error> {
    let rows: Vec<(u16, u32, i64, i64)> =
        sqlx::query_as("SELECT partition, epoch, trimmed, ts FROM logs")
            .fetch_all(&mut *connection)
            .await?;
    let (mut logs, mut newest) = (Map::new(), 0);
    for (partition, epoch, trimmed, ts) in rows {
        let (partition, epoch) = (Partition(partition), Epoch(epoch));
        let range = key(partition, epoch, 0).zip(key(partition, epoch, SEQ_MAX));
        let Some((low, high)) = range else { continue };
        let (first, last, bytes, frame_ts): (Option<i64>, Option<i64>, i64, Option<i64>) =
            sqlx::query_as(
                "SELECT min(id), max(id), coalesce(sum(length(bytes)), 0), max(ts)
                 FROM frames WHERE id BETWEEN ? AND ?",
            )
            .bind(low)
            .bind(high)
            .fetch_one(&mut *connection)
            .await?;
        newest = newest.max(ts).max(frame_ts.unwrap_or(0));
        let trimmed = trimmed.cast_unsigned();
        let last = last.map_or(trimmed, seq_of);
        let first = first.map_or(trimmed + 1, seq_of);
        let log = Log { epoch, first, last, bytes: bytes.cast_unsigned() };
        logs.insert((partition, epoch), log);
    }
    Ok((logs, Timestamp(newest)))
}

fn unavailable(error: WriteError) -> JournalError {
    JournalError::Unavailable(error.to_string())
}

#[async_trait]
impl Journal for EmbeddedJournal {
    fn stale_max(&self) -> Duration {
        // There is one who answers.
        Duration::ZERO
    }

    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        if let Some(tip) = self.logs.tip(partition) {
            return Ok(tip);
        }
        self.begin(partition, Epoch::FIRST, 1).await
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.logs.tip(partition).ok_or_else(|| {
            JournalError::Protocol(format!("the log of partition {partition} was not made"))
        })
    }

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        Ok(self.logs.tips(partition))
    }

    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        let first = first.max(1);
        if key(partition, epoch, first).is_none() || partition.0 >= PartitionCount::MAX {
            return Err(JournalError::Protocol(format!(
                "partition {partition}, epoch {epoch}, frame {first}: a number is too large"
            )));
        }
        let logs = Arc::clone(&self.logs);
        let made = self.writer.write(
            0,
            move |connection| Box::pin(insert_log(connection, partition, epoch, first)),
            move |()| logs.made(partition, epoch, first),
        );
        made.await.map_err(unavailable)?;
        let tips = self.logs.tips(partition);
        tips.into_iter().find(|tip| tip.epoch == epoch).ok_or_else(|| {
            JournalError::Unavailable(format!("the log of epoch {epoch} was removed meanwhile"))
        })
    }

    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        if let Some(log) = self.logs.log(partition, epoch) {
            // In steps, so that no append waits long.
            self.trim(partition, epoch, log.last).await?;
        }
        let logs = Arc::clone(&self.logs);
        let removed = self.writer.write(
            0,
            move |connection| Box::pin(delete_log(connection, partition, epoch)),
            move |()| logs.removed(partition, epoch),
        );
        removed.await.map_err(unavailable)
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        let make = |answer| Append { partition, epoch, expected_last, bytes: frame, answer };
        self.writer.append(make).await
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.select("journal_read", partition, epoch, (from, SEQ_MAX), (frames, bytes)).await
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        let found = self.select("journal_frame", partition, epoch, (seq, seq), (1, 1)).await?;
        Ok(found.into_iter().next())
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        Ok(self.tails.subscribe(partitions))
    }

    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        tables::save(&self.writer, partition, table).await.map_err(unavailable)
    }

    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        tables::load(&self.reads, partition).await.map_err(JournalError::Unavailable)
    }

    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        tables::through(&self.reads, partition).await.map_err(JournalError::Unavailable)
    }

    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        while let Some(log) = self.logs.log(partition, epoch) {
            let through = through.min(log.last);
            if log.first > through {
                break;
            }
            let step = through.min(log.first + TRIM_FRAMES - 1);
            self.trim_some(partition, epoch, step).await?;
        }
        Ok(())
    }

    /// Archive and journal are one process here: its backlog is the worker's own metric.
    async fn persisted(&self, _partition: Partition, _epoch: Epoch, _through: FrameSeq) {}

    async fn ping(&self) -> Result<(), JournalError> {
        self.reads.ping("journal_ping").await.map_err(JournalError::Unavailable)
    }
}
