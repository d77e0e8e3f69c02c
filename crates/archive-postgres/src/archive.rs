//! The port, put together.

use crate::config::PostgresConfig;
use crate::memory::Memories;
use crate::partitions::Partitions;
use crate::readers::Readers;
use crate::server::Server;
use crate::{
    channels, dead_letters, history, hosts, latest, leases, persist, positions, prefix, retention,
    schema,
};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{
    Archive, ArchiveError, Batch, ChannelInfo, ChannelQuery, Counted, DeadLetter, DeadLetterFilter,
    HistoryPage, HistoryQuery, KeyQuery, LatestPage, Lease, LedgerEntry, Missing, PersistError,
    Retained, Retention, Roster,
};
use stormwire_core::{Channel, Epoch, Partition, PartitionCount, Position, Timestamp};
use stormwire_guard::BreakerState;
use stormwire_sql::PoolState;
use tokio::sync::Semaphore;

/// The archive on Postgres. Clones share pools, guards and memory.
#[derive(Clone)]
pub struct PostgresArchive {
    inner: Arc<Inner>,
}

struct Inner {
    primary: Arc<Server>,
    readers: Readers,
    replica_keeps_all: bool,
    partitions: Partitions,
    memories: Memories,
    persist_deadline: Duration,
}

impl PostgresArchive {
    /// Opens pools without waiting for the database: absent or not, this succeeds. The schema is brought
    /// up to date in the background as soon as the database answers (unless
    /// [`PostgresConfig::migrate_at_start`] is off); until then every call says what is missing. To be
    /// called inside a runtime.
    ///
    /// # Errors
    /// [`ArchiveError::Protocol`] if a URL cannot be read.
    pub async fn connect(config: PostgresConfig) -> Result<Self, ArchiveError> {
        let primary = Arc::new(Server::new("postgres", &config.url, &config)?);
        let replica = config.replica_url.as_ref();
        let replica =
            replica.map(|url| Server::new("postgres_replica", url, &config)).transpose()?;
        if replica.as_ref().is_some_and(|replica| replica.hosts().len() > 1) {
            let text = "the replica's URL names several servers; one is due".to_owned();
            return Err(ArchiveError::Protocol(text));
        }
        if primary.hosts().len() > 1 {
            tokio::spawn(hosts::follow_primary(Arc::downgrade(&primary)));
        }
        if config.migrate_at_start {
            let primary = Arc::downgrade(&primary);
            tokio::spawn(schema::migrate_until_done(primary));
        }
        let inner = Inner {
            readers: Readers {
                primary: Arc::clone(&primary),
                replica,
                permits: Semaphore::new(config.readers.max(1)),
            },
            replica_keeps_all: config.replica_keeps_all,
            primary,
            partitions: Partitions::new(config.span),
            memories: Memories::default(),
            persist_deadline: config.persist_deadline,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn primary(&self) -> &Server {
        &self.inner.primary
    }

    /// The use of the primary's pool now.
    #[must_use]
    pub fn pool(&self) -> PoolState {
        self.inner.primary.pool().state()
    }

    /// The breaker of the primary.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.inner.primary.guard.state()
    }

    /// Closes all connections, after those in use have come back.
    pub async fn close(&self) {
        self.inner.primary.pool().close().await;
        if let Some(replica) = &self.inner.readers.replica {
            replica.pool().close().await;
        }
    }
}

#[async_trait]
impl Archive for PostgresArchive {
    async fn migrate(&self) -> Result<(), ArchiveError> {
        schema::migrate(&self.inner.primary).await
    }

    async fn ledger(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        leases::ledger(&self.inner.primary, partition).await
    }

    async fn ledgers(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError> {
        leases::ledgers(&self.inner.primary, partitions).await
    }

    async fn replicated(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        if !self.inner.replica_keeps_all {
            return Ok(None);
        }
        let Some(replica) = &self.inner.readers.replica else {
            let text = "the replica that must keep all has no URL".to_owned();
            return Err(ArchiveError::Unavailable(text));
        };
        let nothing = LedgerEntry { epoch: Epoch(0), last_seq: 0, last_frame: None };
        Ok(Some(leases::ledger(replica, partition).await?.unwrap_or(nothing)))
    }

    async fn acquire(
        &self,
        worker: &str,
        count: PartitionCount,
        want: usize,
        ttl: Duration,
    ) -> Result<Vec<Lease>, ArchiveError> {
        leases::acquire(&self.inner.primary, worker, count, want, ttl).await
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, ArchiveError> {
        leases::renew(&self.inner.primary, leases, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ArchiveError> {
        self.inner.memories.forget(lease.partition);
        leases::release(&self.inner.primary, lease).await
    }

    async fn free(&self, count: PartitionCount) -> Result<usize, ArchiveError> {
        leases::free(&self.inner.primary, count).await
    }

    async fn workers(&self, worker: &str, ttl: Duration) -> Result<Roster, ArchiveError> {
        let (roster, now) = leases::workers(&self.inner.primary, worker, ttl).await?;
        self.inner.partitions.keep_ahead(&self.inner.primary, now).await;
        Ok(roster)
    }

    async fn persist(&self, lease: &Lease, batch: &Batch) -> Result<(), PersistError> {
        let Inner { primary, partitions, memories, persist_deadline, .. } = &*self.inner;
        if let Some((_, (first, last))) = persist::ends(batch) {
            partitions.make_for(primary, first, last).await;
        }
        let mut memory = memories.take(lease, batch.expected_last);
        persist::persist(primary, *persist_deadline, lease, batch, &mut memory).await?;
        memories.put(lease.partition, memory, batch.through);
        Ok(())
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
        let ask = history::Ask { channel, partition, query: &query, limit, bytes };
        self.inner.readers.page(&ask, journal_from).await
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
        let ask = latest::Ask { channel, partition, query, limit, bytes };
        self.inner.readers.latest(&ask, journal_from).await
    }

    async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        journal_from: Position,
    ) -> Result<Counted, ArchiveError> {
        self.inner.readers.count_after(channel, partition, after, bound, journal_from).await
    }

    async fn missing(
        &self,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError> {
        history::missing(&self.inner.primary, partition, from, to).await
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
        let ask = prefix::Ask { partition, prefix, after, limit, bytes };
        self.inner.readers.prefix_page(&ask, journal_from).await
    }

    async fn position_of_prefix_at(
        &self,
        partition: Partition,
        _prefix: &str,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.inner.readers.place_at(partition, since).await
    }

    async fn position_at(
        &self,
        channel: &Channel,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.inner.readers.position_at(channel, partition, since).await
    }

    async fn channel(&self, channel: &Channel) -> Result<Option<ChannelInfo>, ArchiveError> {
        channels::one(&self.inner.primary, channel).await
    }

    async fn channels(&self, query: &ChannelQuery) -> Result<Vec<ChannelInfo>, ArchiveError> {
        channels::page(&self.inner.primary, query).await
    }

    async fn read_position(
        &self,
        user: &str,
        channel: &Channel,
    ) -> Result<Option<Position>, ArchiveError> {
        positions::get(&self.inner.primary, user, channel).await
    }

    async fn set_read_position(
        &self,
        user: &str,
        channel: &Channel,
        position: Position,
        force: bool,
    ) -> Result<Position, ArchiveError> {
        positions::set(&self.inner.primary, user, channel, position, force).await
    }

    async fn maintain(&self, worker: &str, ttl: Duration) -> Result<bool, ArchiveError> {
        retention::maintain(&self.inner.primary, worker, ttl).await
    }

    async fn retain(
        &self,
        worker: &str,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Retained, ArchiveError> {
        let span = self.inner.partitions.span();
        retention::retain(&self.inner.primary, worker, retention, now, span).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, ArchiveError> {
        dead_letters::page(&self.inner.primary, filter).await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
        dead_letters::one(&self.inner.primary, id).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<bool, ArchiveError> {
        dead_letters::drop(&self.inner.primary, id).await
    }

    async fn ping(&self) -> Result<(), ArchiveError> {
        let schema = self.inner.primary.probe().await?;
        if schema {
            return Ok(());
        }
        Err(ArchiveError::Unavailable("Postgres answers, its schema is not there yet".to_owned()))
    }
}
