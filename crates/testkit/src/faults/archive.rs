//! An archive whose answers are lost or late, around one that is right, and the record of its commits.

use super::World;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{
    Archive, ArchiveError, Batch, ChannelInfo, ChannelQuery, Counted, DeadLetter, DeadLetterFilter,
    HistoryPage, HistoryQuery, KeyQuery, LatestPage, Lease, LedgerEntry, Missing, PersistError,
    Retained, Retention, Roster,
};
use stormwire_core::{Channel, FrameSeq, Partition, PartitionCount, Position, Timestamp};

/// Usual time of a call, and that of one whose caller was paused on the way.
const QUICK: Duration = Duration::from_millis(30);
const PAUSED: Duration = Duration::from_secs(8);
/// Longest time that a commit may come after its caller has given it up.
const LATE: Duration = Duration::from_secs(2);

/// Calls fail before or after they were made; a persist may come long after it was asked for, when its
/// lease is over. Commits are checked as they are made: by the newest holder alone, and each where the
/// one before ended. That the store's own keys refuse a batch is no check: it must not come so far.
pub struct FaultyArchive {
    archive: Arc<dyn Archive>,
    world: Arc<World>,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    newest_token: HashMap<Partition, u64>,
    ledger: HashMap<Partition, FrameSeq>,
    commits: u64,
    stale: u64,
    violations: Vec<String>,
}

impl Record {
    fn add(&mut self, lease: &Lease, batch: &Batch, outcome: &Result<(), PersistError>) {
        match outcome {
            Ok(()) => self.commits += 1,
            Err(PersistError::LeaseLost(_) | PersistError::LedgerMoved { .. }) => {
                self.stale += 1;
                return;
            }
            Err(PersistError::Archive(error)) => {
                // The ledger's check comes first: a batch that meets rows of its own was let past it.
                if error.to_string().contains("constraint") {
                    let (from, to) = (batch.expected_last, batch.through);
                    self.violations.push(format!("{from} to {to} met their own rows: {error}"));
                }
                return;
            }
        }
        let newest = self.newest_token.get(&lease.partition);
        let ledger = self.ledger.insert(lease.partition, batch.through).unwrap_or(0);
        if newest != Some(&lease.token) {
            self.violations.push(format!("{lease:?} has committed; the newest is {newest:?}"));
        }
        if ledger != batch.expected_last || batch.through <= ledger {
            let (expected, through) = (batch.expected_last, batch.through);
            self.violations.push(format!("{expected} to {through} committed at {ledger}"));
        }
    }
}

impl FaultyArchive {
    /// Around `archive`, which must be used through this alone.
    pub fn new(world: &Arc<World>, archive: Arc<dyn Archive>) -> Arc<Self> {
        Arc::new(Self { archive, world: Arc::clone(world), record: Arc::default() })
    }

    /// How many batches were committed.
    pub fn commits(&self) -> u64 {
        self.record.lock().commits
    }

    /// How many were refused because their lease or their place was another's.
    pub fn stale(&self) -> u64 {
        self.record.lock().stale
    }

    async fn call<T, F>(&self, call: F) -> Result<T, ArchiveError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ArchiveError>> + Send + 'static,
    {
        self.around(|| self.world.engine(call)).await
    }

    async fn around<T>(
        &self,
        call: impl FnOnce() -> Result<T, ArchiveError>,
    ) -> Result<T, ArchiveError> {
        let fault = |what: &str| Err(ArchiveError::Unavailable(what.to_owned()));
        self.world.dawdle(QUICK).await;
        if self.world.fault(0.04) {
            return fault("it was not asked");
        }
        let answer = call();
        self.world.dawdle(QUICK).await;
        if self.world.fault(0.04) { fault("the answer was lost") } else { answer }
    }

    /// A commit whose caller has been told nothing, on its way for a while.
    fn commit_late(&self, lease: &Lease, batch: &Batch) {
        let (world, archive) = (Arc::clone(&self.world), Arc::clone(&self.archive));
        let (record, lease, batch) = (Arc::clone(&self.record), lease.clone(), batch.clone());
        drop(tokio::spawn(async move {
            world.dawdle(LATE).await;
            let (kept, kept_batch) = (lease.clone(), batch.clone());
            let outcome = world.engine(async move { archive.persist(&kept, &kept_batch).await });
            record.lock().add(&lease, &batch, &outcome);
        }));
    }

    /// What has happened that must never happen.
    pub fn violations(&self) -> Vec<String> {
        self.record.lock().violations.clone()
    }
}

#[async_trait]
impl Archive for FaultyArchive {
    async fn migrate(&self) -> Result<(), ArchiveError> {
        Ok(())
    }

    async fn ledger(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        let archive = Arc::clone(&self.archive);
        self.call(async move { archive.ledger(partition).await }).await
    }

    async fn acquire(
        &self,
        worker: &str,
        count: PartitionCount,
        want: usize,
        ttl: Duration,
    ) -> Result<Vec<Lease>, ArchiveError> {
        let (archive, worker) = (Arc::clone(&self.archive), worker.to_owned());
        self.around(|| {
            let acquire = async move { archive.acquire(&worker, count, want, ttl).await };
            let leases = self.world.engine(acquire)?;
            let mut record = self.record.lock();
            for lease in &leases {
                let newest = record.newest_token.insert(lease.partition, lease.token);
                if newest.is_some_and(|newest| newest >= lease.token) {
                    record.violations.push(format!("{lease:?} after {newest:?}"));
                }
            }
            Ok(leases)
        })
        .await
    }

    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, ArchiveError> {
        let (archive, leases) = (Arc::clone(&self.archive), leases.to_vec());
        self.call(async move { archive.renew(&leases, ttl).await }).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ArchiveError> {
        let (archive, lease) = (Arc::clone(&self.archive), lease.clone());
        self.call(async move { archive.release(&lease).await }).await
    }

    async fn free(&self, count: PartitionCount) -> Result<usize, ArchiveError> {
        let archive = Arc::clone(&self.archive);
        self.call(async move { archive.free(count).await }).await
    }

    async fn workers(&self, worker: &str, ttl: Duration) -> Result<Roster, ArchiveError> {
        let (archive, worker) = (Arc::clone(&self.archive), worker.to_owned());
        self.call(async move { archive.workers(&worker, ttl).await }).await
    }

    async fn persist(&self, lease: &Lease, batch: &Batch) -> Result<(), PersistError> {
        let world = &self.world;
        let fault = |what: &str| Err(ArchiveError::Unavailable(what.to_owned()).into());
        world.dawdle(if world.fault(0.04) { PAUSED } else { QUICK }).await;
        if world.fault(0.05) {
            return fault("nothing was committed");
        }
        if world.fault(0.05) {
            self.commit_late(lease, batch);
            return fault("the commit is still on its way");
        }
        let archive = Arc::clone(&self.archive);
        let (kept, kept_batch) = (lease.clone(), batch.clone());
        let outcome = world.engine(async move { archive.persist(&kept, &kept_batch).await });
        self.record.lock().add(lease, batch, &outcome);
        world.dawdle(if world.fault(0.03) { PAUSED } else { QUICK }).await;
        if world.fault(0.06) { fault("whether it was committed is not known") } else { outcome }
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
        let (archive, channel) = (Arc::clone(&self.archive), channel.clone());
        self.call(async move {
            archive.history(&channel, partition, query, limit, bytes, journal_from).await
        })
        .await
    }

    async fn replicated(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError> {
        let archive = Arc::clone(&self.archive);
        self.call(async move { archive.replicated(partition).await }).await
    }

    async fn maintain(&self, worker: &str, ttl: Duration) -> Result<bool, ArchiveError> {
        let (archive, worker) = (Arc::clone(&self.archive), worker.to_owned());
        self.call(async move { archive.maintain(&worker, ttl).await }).await
    }

    async fn retain(
        &self,
        worker: &str,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Retained, ArchiveError> {
        let (archive, worker) = (Arc::clone(&self.archive), worker.to_owned());
        let retention = retention.clone();
        self.call(async move { archive.retain(&worker, &retention, now).await }).await
    }

    // What no worker asks goes straight through.

    async fn ledgers(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError> {
        self.archive.ledgers(partitions).await
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
        self.archive.latest(channel, partition, query, limit, bytes, journal_from).await
    }

    async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        journal_from: Position,
    ) -> Result<Counted, ArchiveError> {
        self.archive.count_after(channel, partition, after, bound, journal_from).await
    }

    async fn missing(
        &self,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError> {
        self.archive.missing(partition, from, to).await
    }

    async fn read_position(
        &self,
        user: &str,
        channel: &Channel,
    ) -> Result<Option<Position>, ArchiveError> {
        self.archive.read_position(user, channel).await
    }

    async fn set_read_position(
        &self,
        user: &str,
        channel: &Channel,
        position: Position,
        force: bool,
    ) -> Result<Position, ArchiveError> {
        self.archive.set_read_position(user, channel, position, force).await
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
        let (archive, prefix) = (Arc::clone(&self.archive), prefix.to_owned());
        self.call(async move {
            archive.history_of_prefix(partition, &prefix, after, limit, bytes, journal_from).await
        })
        .await
    }

    async fn position_of_prefix_at(
        &self,
        partition: Partition,
        prefix: &str,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.archive.position_of_prefix_at(partition, prefix, since).await
    }

    async fn position_at(
        &self,
        channel: &Channel,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        self.archive.position_at(channel, partition, since).await
    }

    async fn channel(&self, channel: &Channel) -> Result<Option<ChannelInfo>, ArchiveError> {
        self.archive.channel(channel).await
    }

    async fn channels(&self, query: &ChannelQuery) -> Result<Vec<ChannelInfo>, ArchiveError> {
        self.archive.channels(query).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.archive.dead_letters(filter).await
    }

    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
        self.archive.dead_letter(id).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<bool, ArchiveError> {
        self.archive.drop_dead_letter(id).await
    }

    async fn ping(&self) -> Result<(), ArchiveError> {
        self.archive.ping().await
    }
}
