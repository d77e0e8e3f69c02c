//! The ports, each call of which is made as the role whose process makes it.

use async_trait::async_trait;
use std::time::Duration;
use stormwire_archive::{
    Archive, ArchiveError, Batch, ChannelInfo, ChannelQuery, Counted, DeadLetter, DeadLetterFilter,
    HistoryPage, HistoryQuery, KeyQuery, LatestPage, Lease, LedgerEntry, Missing, OperatorLine,
    PersistError, Retained, Retention, Roster, Setting, Settings,
};
use stormwire_archive_postgres::PostgresArchive;
use stormwire_core::{Channel, Partition, PartitionCount, Position, Timestamp};

pub(super) struct ByRole {
    pub(super) gateway: PostgresArchive,
    pub(super) messages: PostgresArchive,
}

#[async_trait]
impl Archive for ByRole {
    async fn migrate(&self) -> Result<(), ArchiveError> {
        self.gateway.migrate().await?;
        self.messages.migrate().await
    }

    async fn ledger(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        let seen = self.gateway.ledger(partition).await?;
        assert_eq!(seen.is_some(), self.messages.ledger(partition).await?.is_some());
        Ok(seen)
    }

    async fn acquire(
        &self,
        worker: &str,
        count: PartitionCount,
        want: usize,
        ttl: Duration,
    ) -> Result<Vec<Lease>, ArchiveError> {
        self.messages.acquire(worker, count, want, ttl).await
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, ArchiveError> {
        self.messages.renew(leases, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ArchiveError> {
        self.messages.release(lease).await
    }

    async fn free(&self, count: PartitionCount) -> Result<usize, ArchiveError> {
        self.messages.free(count).await
    }

    async fn workers(&self, worker: &str, ttl: Duration) -> Result<Roster, ArchiveError> {
        self.messages.workers(worker, ttl).await
    }

    async fn persist(&self, lease: &Lease, batch: &Batch) -> Result<(), PersistError> {
        self.messages.persist(lease, batch).await
    }

    async fn ledgers(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError> {
        self.gateway.ledgers(partitions).await
    }

    async fn replicated(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        self.messages.replicated(partition).await
    }

    async fn history(
        &self,
        channel: &Channel,
        partition: Partition,
        query: HistoryQuery,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        self.gateway.history(channel, partition, query, limit, bytes, journal_from).await
    }

    async fn latest(
        &self,
        channel: &Channel,
        partition: Partition,
        query: &KeyQuery,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<LatestPage, ArchiveError> {
        self.gateway.latest(channel, partition, query, limit, bytes, journal_from).await
    }

    async fn history_of_prefix(
        &self,
        partition: Partition,
        prefix: &str,
        after: Position,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        self.gateway.history_of_prefix(partition, prefix, after, limit, bytes, journal_from).await
    }

    async fn position_of_prefix_at(
        &self,
        partition: Partition,
        prefix: &str,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.gateway.position_of_prefix_at(partition, prefix, since).await
    }

    async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        journal_from: Position,
    ) -> Result<Counted, ArchiveError> {
        self.gateway.count_after(channel, partition, after, bound, journal_from).await
    }

    async fn missing(
        &self,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError> {
        self.gateway.missing(partition, from, to).await
    }

    async fn position_at(
        &self,
        channel: &Channel,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.gateway.position_at(channel, partition, since).await
    }

    async fn channel(&self, channel: &Channel) -> Result<Option<ChannelInfo>, ArchiveError> {
        self.gateway.channel(channel).await
    }

    async fn channels(&self, query: &ChannelQuery) -> Result<Vec<ChannelInfo>, ArchiveError> {
        self.gateway.channels(query).await
    }

    async fn read_position(
        &self,
        user: &str,
        channel: &Channel,
    ) -> Result<Option<Position>, ArchiveError> {
        self.gateway.read_position(user, channel).await
    }

    async fn set_read_position(
        &self,
        user: &str,
        channel: &Channel,
        position: Position,
        force: bool,
    ) -> Result<Position, ArchiveError> {
        self.gateway.set_read_position(user, channel, position, force).await
    }

    async fn maintain(&self, worker: &str, ttl: Duration) -> Result<bool, ArchiveError> {
        self.messages.maintain(worker, ttl).await
    }

    async fn retain(
        &self,
        worker: &str,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Retained, ArchiveError> {
        self.messages.retain(worker, retention, now).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.messages.dead_letters(filter).await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
        self.messages.dead_letter(id).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<bool, ArchiveError> {
        self.messages.drop_dead_letter(id).await
    }

    async fn ping(&self) -> Result<(), ArchiveError> {
        self.gateway.ping().await?;
        self.messages.ping().await
    }
}

#[async_trait]
impl Settings for ByRole {
    async fn settings(&self) -> Result<Vec<Setting>, ArchiveError> {
        self.gateway.settings().await
    }

    async fn set(
        &self,
        kind: &str,
        name: &str,
        body: Option<&str>,
        expected: Option<u64>,
        line: &OperatorLine,
    ) -> Result<Option<u64>, ArchiveError> {
        self.gateway.set(kind, name, body, expected, line).await
    }

    async fn note(&self, line: &OperatorLine) -> Result<u64, ArchiveError> {
        self.gateway.note(line).await
    }

    async fn lines(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OperatorLine)>, ArchiveError> {
        self.gateway.lines(before, limit).await
    }

    async fn newest_line(&self) -> Result<u64, ArchiveError> {
        self.gateway.newest_line().await
    }
}
