//! The port Archive on the one file. It writes through the one writer, beside the journal's appends,
//! and reads from a pool of its own.

mod channels;
mod dead_letters;
mod history;
mod latest;
mod leases;
mod persist;
mod positions;
mod prefix;
mod retention;
mod settings;

use crate::reads::Reads;
use crate::writer::{WriteError, Writer};
use async_trait::async_trait;
use futures::future::BoxFuture;
use persist::Verdict;
use sqlx::SqliteConnection;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{
    Archive, ArchiveError, Batch, ChannelInfo, ChannelQuery, Counted, DeadLetter, DeadLetterFilter,
    HistoryPage, HistoryQuery, KeyQuery, LatestPage, Lease, LedgerEntry, Missing, PersistError,
    Retained, Retention, Roster,
};
use stormwire_core::{Channel, Clock, Partition, PartitionCount, Position, Timestamp};

pub(crate) struct EmbeddedArchive {
    pub(crate) writer: Writer,
    pub(crate) reads: Reads,
    pub(crate) clock: Arc<dyn Clock>,
}

impl EmbeddedArchive {
    /// Writes something small.
    async fn write<T, W>(&self, work: W) -> Result<T, ArchiveError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
            + Send
            + 'static,
    {
        self.writer.write(0, work, |_| ()).await.map_err(unavailable)
    }

    async fn read<T>(
        &self,
        operation: &'static str,
        read: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, ArchiveError> {
        self.reads.call(operation, read).await.map_err(ArchiveError::Unavailable)
    }
}

fn unavailable(error: WriteError) -> ArchiveError {
    ArchiveError::Unavailable(error.to_string())
}

#[async_trait]
impl Archive for EmbeddedArchive {
    /// The tables were brought up to date when the file was opened, before there was an archive.
    async fn migrate(&self) -> Result<(), ArchiveError> {
        self.ping().await
    }

    async fn ledger(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            persist::ledger(&mut connection, partition).await
        };
        self.read("archive_ledger", read).await
    }

    async fn ledgers(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            persist::ledgers(&mut snapshot, partitions).await
        };
        self.read("archive_ledgers", read).await
    }

    /// There is one copy, and a commit is on its disk.
    async fn replicated(&self, _: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        Ok(None)
    }

    async fn acquire(
        &self,
        worker: &str,
        count: PartitionCount,
        want: usize,
        ttl: Duration,
    ) -> Result<Vec<Lease>, ArchiveError> {
        let (worker, now) = (worker.to_owned(), self.clock.now());
        self.write(move |connection| {
            Box::pin(leases::acquire(connection, worker, count, want, now, now.plus(ttl)))
        })
        .await
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, ArchiveError> {
        let (leases, until) = (leases.to_vec(), self.clock.now().plus(ttl));
        self.write(move |connection| Box::pin(leases::renew(connection, leases, until))).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ArchiveError> {
        let lease = lease.clone();
        self.write(move |connection| Box::pin(leases::release(connection, lease))).await
    }

    async fn free(&self, count: PartitionCount) -> Result<usize, ArchiveError> {
        let now = self.clock.now();
        let read = async {
            let mut connection = self.reads.connection().await?;
            leases::free(&mut connection, count, now).await
        };
        self.read("archive_free", read).await
    }

    async fn workers(&self, worker: &str, ttl: Duration) -> Result<Roster, ArchiveError> {
        let (worker, now) = (worker.to_owned(), self.clock.now());
        self.write(move |connection| {
            Box::pin(leases::workers(connection, worker, now, now.plus(ttl)))
        })
        .await
    }

    async fn persist(&self, lease: &Lease, batch: &Batch) -> Result<(), PersistError> {
        let (partition, expected) = (lease.partition, batch.expected_last);
        let weight = persist::weight(batch);
        let (lease, batch, now) = (lease.clone(), batch.clone(), self.clock.now());
        let persisted = self.writer.write(
            weight,
            move |connection| {
                Box::pin(async move { persist::persist(connection, &lease, &batch, now).await })
            },
            |_| (),
        );
        match persisted.await.map_err(unavailable)? {
            Verdict::Stored => Ok(()),
            Verdict::LeaseLost => Err(PersistError::LeaseLost(partition)),
            Verdict::LedgerMoved(found) => {
                Err(PersistError::LedgerMoved { partition, expected, found })
            }
        }
    }

    async fn history(
        &self,
        channel: &Channel,
        partition: Partition,
        query: HistoryQuery,
        limit: usize,
        bytes: usize,
        _journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            history::page(&mut snapshot, channel, partition, &query, limit, bytes).await
        };
        self.read("archive_history", read).await
    }

    async fn latest(
        &self,
        channel: &Channel,
        partition: Partition,
        query: &KeyQuery,
        limit: usize,
        bytes: usize,
        _journal_from: Position,
    ) -> Result<LatestPage, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            latest::page(&mut snapshot, channel, partition, query, limit, bytes).await
        };
        self.read("archive_latest", read).await
    }

    async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        _journal_from: Position,
    ) -> Result<Counted, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            history::count(&mut snapshot, channel, partition, after, bound).await
        };
        self.read("archive_count_after", read).await
    }

    async fn missing(
        &self,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            history::missing(&mut connection, partition, from, to).await
        };
        self.read("archive_missing", read).await
    }

    async fn history_of_prefix(
        &self,
        partition: Partition,
        prefix: &str,
        after: Position,
        limit: usize,
        bytes: usize,
        _journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            prefix::page(&mut snapshot, (partition, prefix), after, limit, bytes).await
        };
        self.read("archive_history_of_prefix", read).await
    }

    async fn position_of_prefix_at(
        &self,
        partition: Partition,
        prefix: &str,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            prefix::position_at(&mut snapshot, (partition, prefix), since).await
        };
        self.read("archive_position_of_prefix_at", read).await
    }

    async fn position_at(
        &self,
        channel: &Channel,
        _partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        let read = async {
            let mut snapshot = self.reads.snapshot().await?;
            history::position_at(&mut snapshot, channel, since).await
        };
        self.read("archive_position_at", read).await
    }

    async fn channel(&self, channel: &Channel) -> Result<Option<ChannelInfo>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            channels::one(&mut connection, channel).await
        };
        self.read("archive_channel", read).await
    }

    async fn channels(&self, query: &ChannelQuery) -> Result<Vec<ChannelInfo>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            channels::page(&mut connection, query).await
        };
        self.read("archive_channels", read).await
    }

    async fn read_position(
        &self,
        user: &str,
        channel: &Channel,
    ) -> Result<Option<Position>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            positions::get(&mut connection, user, channel).await
        };
        self.read("archive_read_position", read).await
    }

    async fn set_read_position(
        &self,
        user: &str,
        channel: &Channel,
        position: Position,
        force: bool,
    ) -> Result<Position, ArchiveError> {
        let (user, channel) = (user.to_owned(), channel.clone());
        self.write(move |connection| {
            Box::pin(positions::set(connection, user, channel, position, force))
        })
        .await
    }

    async fn maintain(&self, worker: &str, ttl: Duration) -> Result<bool, ArchiveError> {
        let (worker, now) = (worker.to_owned(), self.clock.now());
        self.write(move |connection| {
            Box::pin(retention::maintain(connection, worker, now, now.plus(ttl)))
        })
        .await
    }

    async fn retain(
        &self,
        worker: &str,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Retained, ArchiveError> {
        retention::retain(self, worker, retention, now).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            dead_letters::page(&mut connection, filter).await
        };
        self.read("archive_dead_letters", read).await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
        let read = async {
            let mut connection = self.reads.connection().await?;
            dead_letters::one(&mut connection, id).await
        };
        self.read("archive_dead_letter", read).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<bool, ArchiveError> {
        self.write(move |connection| Box::pin(dead_letters::remove(connection, id))).await
    }

    async fn ping(&self) -> Result<(), ArchiveError> {
        self.reads.ping("archive_ping").await.map_err(ArchiveError::Unavailable)
    }
}
