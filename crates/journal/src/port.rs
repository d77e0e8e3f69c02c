//! The port itself: what an engine promises.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};

/// A frame as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrame {
    /// The partition whose log it is in.
    pub partition: Partition,
    /// That log's incarnation.
    pub epoch: Epoch,
    /// Its number there: 1, 2, 3 … without a hole.
    pub seq: FrameSeq,
    /// When the journal took it, by the journal's clock. This is the `ts` of all its events.
    pub ts: Timestamp,
    /// The packed frame, `stormwire_wire::frame`.
    pub bytes: Bytes,
}

/// The ends of a partition's log, by the state of the one who may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The current incarnation.
    pub epoch: Epoch,
    /// The oldest frame that is still there; `last + 1` when there is none.
    pub first: FrameSeq,
    /// The newest frame; 0 before the first.
    pub last: FrameSeq,
    /// Bytes that the log takes now.
    pub bytes: u64,
    /// Bytes it may take before appends are refused.
    pub bytes_max: u64,
}

/// Why a frame was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This attempt was refused because the log's last sequence is another one. An earlier attempt of
    /// the same frame may still land, or may be what moved the log.
    #[error("the log's last frame is not {expected}")]
    WrongLast {
        /// What this attempt expected.
        expected: FrameSeq,
    },
    /// This attempt was refused because the journal is full; workers must persist and trim first.
    #[error("the journal is full")]
    Full,
    /// This attempt was refused before it could be stored (nobody answers, the breaker is open).
    #[error("the journal does not take frames: {0}")]
    Refused(String),
    /// Nobody knows: the attempt may be stored now, later or never.
    #[error("no answer from the journal: {0}")]
    Unknown(String),
}

/// Why another call to the journal failed. All of them may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// No answer, or not in time.
    #[error("the journal does not answer: {0}")]
    Unavailable(String),
    /// The partition's log exists with settings that this program would not give it.
    #[error(
        "the log of partition {partition} has other settings than this configuration: {difference}; change the configuration, or the log by hand"
    )]
    Settings {
        /// Whose log.
        partition: Partition,
        /// Setting, value found, value expected.
        difference: String,
    },
    /// What the journal answered makes no sense to this program.
    #[error("the journal answered something unexpected: {0}")]
    Protocol(String),
}

/// A table of producers as the journal keeps it beside the logs: what an appender knows after frame
/// `through`. The content is the appender's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTable {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The last frame that the table counts.
    pub through: FrameSeq,
    /// The table, at most [`TABLE_BYTES_MAX`].
    pub bytes: Bytes,
}

/// Bytes of the largest table that an engine keeps.
pub const TABLE_BYTES_MAX: usize = 64 << 20;

/// What a tail tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailEvent {
    /// A frame was stored. Frames come in order, but one may be missing or come twice: the reader
    /// compares sequence numbers and fetches what is missing by [`Journal::read`].
    Frame(StoredFrame),
    /// Frames may have been lost (reconnect, overflow, a change of leader): compare tips now.
    Check,
}

/// Live frames of some partitions, for as long as it is held.
pub type Tail = BoxStream<'static, TailEvent>;

/// The short durable log of every partition.
///
/// All calls are safe to cancel: a dropped future leaves at most an append of unknown outcome. Every
/// call ends within the engine's deadline.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// How long one that may not write the log any more can go on answering beside the one that may, as a
    /// leader does that is cut off from the others: what is said to be missing is believed when it has
    /// stayed so for longer.
    fn stale_max(&self) -> Duration;

    /// Makes the partition's log if it is not there, checks its settings, and says where it stands.
    ///
    /// # Errors
    /// [`JournalError::Settings`] is final; the others may be tried again.
    async fn open(&self, partition: Partition) -> Result<Tip, JournalError>;

    /// Where the log stands, by the state of the one who may write it (a leader, not any replica).
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError>;

    /// Every log of the partition that there is, one an epoch, ascending; none before the first
    /// [`Journal::open`]. Each by the state of the one who may write it.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError>;

    /// Makes the log of `epoch`, whose first frame will be number `first`, and says where it stands. One
    /// that is there already is left as it is, so that whoever finds an epoch closed may do it, twice as
    /// well. The highest epoch is the partition's current one from then on.
    ///
    /// # Errors
    /// [`JournalError`].
    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError>;

    /// Removes the log of an epoch with all its frames. Removing one that is not there does no harm.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`].
    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError>;

    /// Stores `frame` as number `expected_last + 1`, durably, or not at all; two appends with the same
    /// `expected_last` can never both succeed.
    ///
    /// # Errors
    /// [`AppendError`] says what is known about this attempt alone, never about an earlier one.
    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError>;

    /// Frames from `from` on, ascending, at most `frames` and about `bytes` (at least one frame if there
    /// is one). An empty answer says nothing by itself: compare with [`Journal::tip`], or for an epoch that
    /// has ended with [`Journal::epochs`]. Frames that are missing in the middle are left out.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError>;

    /// The one frame `seq`, asked of the one who may write the log; `None` if it is not there now.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError>;

    /// Live frames of `partitions` from about now on.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`].
    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError>;

    /// Keeps `table` in place of the partition's table before it, all of it or nothing. An older one than
    /// is kept (by epoch, then `through`) is dropped: to save it late does no harm.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`]: the one before may be gone as well.
    async fn save_table(&self, partition: Partition, table: SavedTable)
    -> Result<(), JournalError>;

    /// The partition's table that was saved last; `None` if there is none, or none that is whole.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError>;

    /// Epoch and last frame of the table that was saved last. A log is never trimmed past that frame, and
    /// the frame itself stays: with it a reader sees that table and log belong together.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`], [`JournalError::Protocol`].
    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError>;

    /// Removes all frames up to and including `through`. The worker alone calls it.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`]; calling it again does no harm.
    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError>;

    /// Tells the journal how far a worker has persisted, so that its backlog can be seen from outside
    /// (autoscaling). Decides nothing; errors are the engine's to count.
    async fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq);

    /// Answers if the journal can be reached now.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`] with the reason.
    async fn ping(&self) -> Result<(), JournalError>;
}
