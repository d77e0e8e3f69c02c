//! What an appender asks of the journal, done.

use super::super::cell::Cell;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::{
    ATTEMPT, AppendError, Found, Journal, JournalError, Op, OpResult, SavedTable, rewind,
};

/// How long opening or reading a log may take.
const READ: Duration = Duration::from_secs(10);
/// How long loading a saved table may take; the log says the same, only slower.
const LOAD_TABLE: Duration = Duration::from_secs(3);
/// How long saving a table may take.
const SAVE_TABLE: Duration = Duration::from_secs(10);
/// How long a gateway that takes over waits for the table of the one that lets go.
const HAND_TABLE_OVER: Duration = Duration::from_secs(1);
/// How much of a log is read at once.
const READ_FRAMES: usize = 1024;
const READ_BYTES: usize = 4 << 20;

/// Does `op`, for a bounded time.
pub(super) fn perform(
    journal: &Arc<dyn Journal>,
    partition: Partition,
    op: Op,
) -> BoxFuture<'static, OpResult> {
    let journal = Arc::clone(journal);
    Box::pin(async move {
        match op {
            Op::Open => OpResult::Opened(within(READ, journal.open(partition)).await),
            Op::LoadTable => {
                OpResult::Loaded(within(LOAD_TABLE, journal.load_table(partition)).await)
            }
            Op::Begin { epoch, first } => {
                OpResult::Opened(within(READ, journal.begin(partition, epoch, first)).await)
            }
            Op::Read { epoch, from } => {
                let frames = journal.read(partition, epoch, from, READ_FRAMES, READ_BYTES);
                OpResult::Read(within(READ, frames).await)
            }
            Op::Append { epoch, expected_last, frame } => {
                let append = journal.append(partition, epoch, expected_last, frame);
                let unknown = |_| Err(AppendError::Unknown("no answer within 2 s".to_owned()));
                let result = tokio::time::timeout(ATTEMPT, append).await;
                OpResult::Appended(result.unwrap_or_else(unknown))
            }
            Op::Find { epoch, seq } => {
                OpResult::Found(within(ATTEMPT, find(&*journal, partition, epoch, seq)).await)
            }
        }
    })
}

/// B7: saves a table beside the appends.
pub(super) fn save(
    journal: &Arc<dyn Journal>,
    partition: Partition,
    table: SavedTable,
) -> BoxFuture<'static, Result<(), JournalError>> {
    let journal = Arc::clone(journal);
    Box::pin(async move { within(SAVE_TABLE, journal.save_table(partition, table)).await })
}

/// D3: saves the table of a partition that was let go, then answers those who wait for it. Late or not at
/// all, the table that was saved before and the log say the same.
pub(super) fn hand_over(
    journal: &Arc<dyn Journal>,
    partition: Partition,
    table: Option<SavedTable>,
    answer: impl FnOnce() + Send + 'static,
) {
    let journal = Arc::clone(journal);
    tokio::spawn(async move {
        if let Some(table) = table {
            let saved = within(HAND_TABLE_OVER, journal.save_table(partition, table)).await;
            if let Err(error) = saved {
                tracing::info!(%partition, %error, "the table of producers was not handed over");
            }
        }
        answer();
    });
}

async fn find(
    journal: &dyn Journal,
    partition: Partition,
    epoch: Epoch,
    seq: FrameSeq,
) -> Result<Found, JournalError> {
    if let Some(frame) = journal.frame(partition, epoch, seq).await? {
        return Ok(Found::Frame(frame));
    }
    journal.tip(partition).await.map(Found::Absent)
}

/// E1: whether the log says at its end that it has gone back.
pub(super) fn is_rewound(
    journal: &Arc<dyn Journal>,
    partition: Partition,
) -> BoxFuture<'static, bool> {
    let journal = Arc::clone(journal);
    Box::pin(async move {
        let told = async {
            let tip = journal.tip(partition).await?;
            rewind::told(&*journal, partition, tip).await
        };
        within(ATTEMPT, told).await.is_ok_and(|told| told.is_some())
    })
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, JournalError>>,
) -> Result<T, JournalError> {
    let late = |_| Err(JournalError::Unavailable(format!("no answer within {limit:?}")));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

/// B4: compares this machine's clock with the journal's timestamp of a claim that was made between
/// `began` and `ended`, and shows by how much they differ.
pub(super) fn measure_skew(
    journal: &Arc<dyn Journal>,
    cell: &Arc<Cell>,
    epoch: Epoch,
    claim: FrameSeq,
    began: Timestamp,
    ended: Timestamp,
) {
    let (journal, cell) = (Arc::clone(journal), Arc::clone(cell));
    tokio::spawn(async move {
        let frame = journal.frame(cell.partition, epoch, claim);
        if let Ok(Ok(Some(frame))) = tokio::time::timeout(ATTEMPT, frame).await {
            let skew = frame.ts.0 - frame.ts.0.clamp(began.0.min(ended.0), ended.0);
            cell.view.lock().clock_skew_ms = Some(skew);
        }
    });
}
