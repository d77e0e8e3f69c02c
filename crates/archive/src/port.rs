//! The port itself: what an engine promises.

use crate::dead_letter::{DeadLetter, DeadLetterFilter};
use crate::latest::{KeyQuery, LatestPage};
use crate::retention::{Retained, Retention};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use stormwire_core::{
    Channel, Epoch, FrameSeq, Offset, Partition, PartitionCount, Position, Timestamp,
};
use stormwire_wire::frame::{Frame, FrameId};

/// How far the archive has a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// The last frame whose events are stored; 0 before the first.
    pub last_seq: FrameSeq,
    /// Who wrote that frame: a journal that holds another frame there has gone back.
    pub last_frame: Option<FrameId>,
}

/// The right to persist one partition, until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose right.
    pub partition: Partition,
    /// Who holds it: one worker's life.
    pub worker: String,
    /// Grows with every change of holder; a stale token cannot commit.
    pub token: u64,
}

/// Who lives, as one worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roster {
    /// Living workers, the one who asks included (unless it has just left): at least 1.
    pub living: usize,
    /// How many of the others come before it, by name.
    pub before: usize,
}

/// A stretch of the log whose events are not there and never will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// First offset that is missing.
    pub from: Offset,
    /// Last offset that is missing.
    pub to: Offset,
    /// Why, for people: `hole`, `undecodable`, `refused by the database` …
    pub reason: String,
}

/// A frame that cannot be decoded: it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Its number.
    pub seq: FrameSeq,
    /// When the journal took it.
    pub ts: Timestamp,
    /// What is wrong with it.
    pub error: String,
    /// All of its bytes.
    pub bytes: Bytes,
}

/// Contiguous frames to be persisted in one transaction.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// What the ledger must say for this batch to be right.
    pub expected_last: FrameSeq,
    /// What it says afterwards.
    pub through: FrameSeq,
    /// Who wrote frame `through`, where it could be read.
    pub last_frame: Option<FrameId>,
    /// The frames that hold events, ascending: number, the journal's time, and the frame.
    pub frames: Vec<(FrameSeq, Timestamp, Frame)>,
    /// Holes among them, proved.
    pub gaps: Vec<Gap>,
    /// Frames among them that cannot be decoded.
    pub undecodable: Vec<Undecodable>,
}

/// Why a batch was not persisted; in every case nothing of it is there, unless it says `Unknown`.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Another worker holds the partition now: stop.
    #[error("the lease of partition {0} is no longer ours")]
    LeaseLost(Partition),
    /// The ledger says something else than expected: read it again and go on from there.
    #[error("the ledger of partition {partition} stands at {found}, not at {expected}")]
    LedgerMoved {
        /// Whose ledger.
        partition: Partition,
        /// What the batch expected.
        expected: FrameSeq,
        /// What it says.
        found: FrameSeq,
    },
    /// Try again; whether the commit went through is told by the ledger.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Why a call to the archive failed. It may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// No answer, not in time, or the breaker is open.
    #[error("the archive does not answer: {0}")]
    Unavailable(String),
    /// What it answered makes no sense to this program.
    #[error("the archive answered something unexpected: {0}")]
    Protocol(String),
}

/// One event as the archive gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Whose log it is in.
    pub channel: Channel,
    /// The journal's incarnation and the place in it.
    pub position: Position,
    /// When the journal took it.
    pub ts: Timestamp,
    /// The client's id, or none (then it is derived: `partition-epoch-offset`).
    pub id: Option<String>,
    /// What kind of event.
    pub kind: Option<String>,
    /// What it is about.
    pub key: Option<String>,
    /// Who published it.
    pub user: String,
    /// JSON text as it came in, or bytes.
    pub data: Bytes,
    /// Whether `data` is bytes.
    pub binary: bool,
}

/// Which events of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryQuery {
    /// The oldest after this position (all, if it is before the first).
    After(Position),
    /// The newest before this position; answered ascending as well.
    Before(Position),
    /// The newest ones; answered ascending.
    Last,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// The events, ascending by position.
    pub events: Vec<StoredEvent>,
    /// Whether there is more in the direction that was asked for, in the archive.
    pub more: bool,
    /// How far the archive had the partition, in the same snapshot as the events.
    pub ledger: Option<LedgerEntry>,
    /// Stretches in the range of this page that are missing.
    pub gaps: Vec<Gap>,
}

/// A stretch that is missing, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The stretch.
    pub gap: Gap,
    /// The one channel whose events are missing there; `None`: those of every channel.
    pub channel: Option<String>,
}

/// How many events of a channel lie behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// So many are in the archive, counted up to a bound.
    pub events: u64,
    /// How far the archive had the partition, in the same snapshot.
    pub ledger: Option<LedgerEntry>,
}

/// A channel as the archive knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub channel: Channel,
    /// When its first event was stored, by the journal's clock.
    pub created_at: Timestamp,
    /// Who published that event.
    pub created_by: String,
    /// A title for people.
    pub title: Option<String>,
    /// Its newest stored event.
    pub last: Position,
    /// When the journal took that one.
    pub last_at: Timestamp,
    /// How many events are stored.
    pub count: u64,
}

/// Which channels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only names (after the colon) that begin so.
    pub prefix: Option<String>,
    /// Only names after this one, by byte order: the last of the page before.
    pub after: Option<Channel>,
    /// At most so many.
    pub limit: usize,
}

/// Most stretches in one answer of [`Archive::missing`].
pub const MISSING_MAX: usize = 1000;

/// The long store. Every call ends within the engine's deadline and may be cancelled.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Brings the schema up to this program's version. Safe to call by many at once.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn migrate(&self) -> Result<(), ArchiveError>;

    /// How far the archive has the partition; `None` before its first batch.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn ledger(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError>;

    /// Takes up to `want` partitions of `count` that nobody holds or whose lease has expired, for `ttl`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn acquire(
        &self,
        worker: &str,
        count: PartitionCount,
        want: usize,
        ttl: Duration,
    ) -> Result<Vec<Lease>, ArchiveError>;

    /// Extends the leases that are still this worker's by `ttl` from now and says which those are.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, ArchiveError>;

    /// Gives a lease back, so that another worker need not wait for it to expire.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn release(&self, lease: &Lease) -> Result<(), ArchiveError>;

    /// How many partitions of `count` nobody holds now: never taken, given back, or expired. Cheap, to be
    /// asked several times a second, so that what is given back is taken at once.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn free(&self, count: PartitionCount) -> Result<usize, ArchiveError>;

    /// Registers the worker as living for `ttl` and says how many live and where it stands among them;
    /// each worker's fair share follows from that. A `ttl` of zero takes it out at once.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn workers(&self, worker: &str, ttl: Duration) -> Result<Roster, ArchiveError>;

    /// Stores the events of a batch and moves the ledger, in one transaction that checks the lease and
    /// the ledger last. Rows that the store refuses for their data become dead letters with a gap; the
    /// rest is stored.
    ///
    /// # Errors
    /// [`PersistError`].
    async fn persist(&self, lease: &Lease, batch: &Batch) -> Result<(), PersistError>;

    /// The ledgers of some partitions; those without a batch are left out.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn ledgers(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError>;

    /// Through which frame the copy has the partition without which nothing may be forgotten elsewhere;
    /// `None` where there is no such copy, and what is persisted is safe.
    ///
    /// # Errors
    /// [`ArchiveError`]: it is not known, so nothing may be forgotten.
    async fn replicated(&self, partition: Partition) -> Result<Option<LedgerEntry>, ArchiveError>;

    /// A page of a channel's history: at most `limit` events and about `bytes` of data, at least one if
    /// there is one. Events and ledger are read in one snapshot of one server. Stretches in its range
    /// that are missing, or that retention has removed, are told as gaps.
    ///
    /// `journal_from` is where the journal goes on by itself: a copy of the archive that reaches less far
    /// is passed over unless what it has is the whole answer.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn history(
        &self,
        channel: &Channel,
        partition: Partition,
        query: HistoryQuery,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError>;

    /// The newest event of one key of a channel, or of each key: ascending by the keys' bytes, at most
    /// `limit` and about `bytes` of data, at least one if there is one. Events and ledger are read in
    /// one snapshot of one server; `journal_from` is as in [`Archive::history`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn latest(
        &self,
        channel: &Channel,
        partition: Partition,
        query: &KeyQuery,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<LatestPage, ArchiveError>;

    /// A page over all channels of a partition whose names begin with `prefix`, in the partition's own
    /// order: the oldest events behind `after`, at most `limit` and about `bytes` of data, at least one
    /// if there is one. Read in one snapshot as [`Archive::history`]. `more` may be said of a page
    /// behind which there is nothing, never the other way round.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn history_of_prefix(
        &self,
        partition: Partition,
        prefix: &str,
        after: Position,
        limit: usize,
        bytes: usize,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError>;

    /// A position of the partition behind which everything stands that was taken at or after `since`
    /// by the journal's clock on channels that begin with `prefix`. It may be early, by some minutes at
    /// most; `None` if there is nothing so late.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn position_of_prefix_at(
        &self,
        partition: Partition,
        prefix: &str,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError>;

    /// Counts a channel's events behind `after`, up to `bound`. `journal_from` is as in
    /// [`Archive::history`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        journal_from: Position,
    ) -> Result<Counted, ArchiveError>;

    /// What is missing of a partition from `from` through `to`, ascending: holes, dead letters. At most
    /// [`MISSING_MAX`] stretches; a full answer goes on behind its last one.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn missing(
        &self,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError>;

    /// The first position of `channel` at or after `since` by the journal's clock; `None` if there is none.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn position_at(
        &self,
        channel: &Channel,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError>;

    /// One channel.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn channel(&self, channel: &Channel) -> Result<Option<ChannelInfo>, ArchiveError>;

    /// Channels by name, ascending.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn channels(&self, query: &ChannelQuery) -> Result<Vec<ChannelInfo>, ArchiveError>;

    /// How far a user has read a channel; `None` if that was never said.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn read_position(
        &self,
        user: &str,
        channel: &Channel,
    ) -> Result<Option<Position>, ArchiveError>;

    /// Notes how far a user has read a channel, and says what is noted now. A position goes back only
    /// by `force`: of two devices the one that has read further wins.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn set_read_position(
        &self,
        user: &str,
        channel: &Channel,
        position: Position,
        force: bool,
    ) -> Result<Position, ArchiveError>;

    /// Takes the right to maintain the archive for `ttl`, or extends it; `false` while another worker
    /// has it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn maintain(&self, worker: &str, ttl: Duration) -> Result<bool, ArchiveError>;

    /// Removes a bounded part of what is past its namespace's bounds at `now`, oldest first, and notes in
    /// the same transactions up to where each channel is removed: who asks for older events is told a
    /// gap. Nothing is removed by a worker that has lost the right of [`Archive::maintain`].
    ///
    /// # Errors
    /// [`ArchiveError`]; what was removed so far stays removed, and noted.
    async fn retain(
        &self,
        worker: &str,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Retained, ArchiveError>;

    /// Dead letters by number, ascending.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, ArchiveError>;

    /// One dead letter.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, ArchiveError>;

    /// Removes one dead letter; `false` if there is none of that number.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn drop_dead_letter(&self, id: i64) -> Result<bool, ArchiveError>;

    /// Answers if the archive can be reached now.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`] with the reason.
    async fn ping(&self) -> Result<(), ArchiveError>;
}
