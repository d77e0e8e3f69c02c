//! Reads of the journal, one for all who wait for the same frames.
//!
//! A partition is read by one at a time. Who waited meanwhile takes the frames that were read if they
//! are those that it needs, so that a thousand readers of quiet channels cost two reads, not a thousand.

use super::doubt::Doubts;
use super::journal_refusal;
use crate::hub::{RecentFrame, after_frame, next_frame};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use stormwire_core::{Epoch, FrameSeq, Partition, PartitionCount, Position, Refusal};
use stormwire_journal::{Journal, StoredFrame, Tip};
use stormwire_wire::frame::{Body, Frame, FrameError};
use tokio::time::Instant;

/// Frames and bytes read from the journal at once.
const SCAN_FRAMES: usize = 256;
pub(super) const SCAN_BYTES: usize = 4 * 1024 * 1024;
/// Reads that are remembered: this times [`SCAN_BYTES`] is all that they may hold.
const KEPT: usize = 4;

/// A place in the log.
#[derive(Debug)]
pub(super) enum Scanned {
    /// What stands there.
    Frame(RecentFrame),
    /// Nothing that anybody can read: nothing at all by the word of the one who may write the log, or what
    /// is there is none.
    Missing { seq: FrameSeq, is_there: bool },
    /// The end of the epoch: readers go on at `onward`. With `lost_from`, what stood from there on is
    /// lost; so is, for whoever stands behind `seq`, what it has not seen. Unless a frame that is there says
    /// so, the log has gone or ends before `seq`.
    End { seq: FrameSeq, onward: Position, lost_from: Option<FrameSeq>, is_there: bool },
}

impl Scanned {
    const fn seq(&self) -> FrameSeq {
        match self {
            Self::Frame(frame) => frame.seq,
            Self::Missing { seq, .. } | Self::End { seq, .. } => *seq,
        }
    }
}

/// A stretch of a log without a hole, and where the log ended then.
#[derive(Debug)]
pub(super) struct Scan {
    partition: Partition,
    pub(super) epoch: Epoch,
    /// The first place that was asked for.
    first: FrameSeq,
    places: Vec<Scanned>,
    pub(super) tip: Position,
    begun: Instant,
}

/// A scan as one reader sees it.
pub(super) struct Seen {
    scan: Arc<Scan>,
    /// It began before this reader asked: the log may have grown since.
    pub(super) is_stale: bool,
}

impl std::ops::Deref for Seen {
    type Target = Scan;

    fn deref(&self) -> &Scan {
        &self.scan
    }
}

impl Scan {
    /// The places from `seq` on.
    pub(super) fn from(&self, seq: FrameSeq) -> impl Iterator<Item = &Scanned> {
        self.places.iter().skip_while(move |place| place.seq() < seq)
    }

    /// Whether the log ends without having said so.
    pub(super) fn has_gone(&self) -> bool {
        matches!(self.places.first(), Some(Scanned::End { is_there: false, .. }))
    }

    /// The first place behind those that were read.
    fn next(&self) -> FrameSeq {
        self.places.last().map_or(self.first, |place| place.seq() + 1)
    }

    /// Whether it answers one who needs frame `due` and asked at `asked`: with frames it always does,
    /// with their absence only if it was asked later than that.
    fn answers(&self, partition: Partition, epoch: Epoch, due: FrameSeq, asked: Instant) -> bool {
        let covers =
            self.first <= due && (due < self.next() || due == self.next() && self.begun > asked);
        self.partition == partition && self.epoch == epoch && covers
    }
}

/// All reads of the journal for history.
pub(super) struct Scans {
    gates: Box<[tokio::sync::Mutex<()>]>,
    kept: Mutex<VecDeque<Arc<Scan>>>,
}

impl Scans {
    pub(super) fn new(count: PartitionCount) -> Self {
        let gates = count.all().map(|_| tokio::sync::Mutex::new(())).collect();
        Self { gates, kept: Mutex::default() }
    }

    /// The frames behind `from`, at least one if there was one when it was asked for.
    pub(super) async fn read(
        &self,
        (journal, doubts): (&dyn Journal, &Doubts),
        partition: Partition,
        from: Position,
        asked: Instant,
    ) -> Result<Seen, Refusal> {
        let due = next_frame(from).max(1);
        let _gate = self.gates[usize::from(partition.0)].lock().await;
        let answers = |scan: &&Arc<Scan>| scan.answers(partition, from.epoch, due, asked);
        let known = self.kept.lock().iter().rev().find(answers).cloned();
        if let Some(scan) = known {
            let is_stale = scan.begun <= asked;
            return Ok(Seen { scan, is_stale });
        }
        let scan = Arc::new(scan((journal, doubts), partition, from.epoch, due).await?);
        let mut kept = self.kept.lock();
        kept.push_back(Arc::clone(&scan));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        drop(kept);
        Ok(Seen { scan, is_stale: false })
    }
}

async fn scan(
    (journal, doubts): (&dyn Journal, &Doubts),
    partition: Partition,
    epoch: Epoch,
    first: FrameSeq,
) -> Result<Scan, Refusal> {
    let begun = Instant::now();
    let frames = journal.read(partition, epoch, first, SCAN_FRAMES, SCAN_BYTES).await;
    let frames = frames.map_err(journal_refusal)?;
    let current = super::log(journal, partition).await?;
    let tip = after_frame(current.epoch, current.last);
    let (log, onward) = if epoch < current.epoch {
        ended(journal, partition, epoch).await?
    } else {
        (current, None)
    };
    let (mut places, mut due) = (Vec::with_capacity(frames.len()), first);
    for frame in frames {
        if frame.seq < due {
            continue;
        }
        if !fill(journal, &log, (partition, epoch), &mut places, due, frame.seq).await? {
            break;
        }
        due = frame.seq + 1;
        if !push(&mut places, frame)? {
            break;
        }
    }
    if places.is_empty() && epoch == log.epoch && (log.first..=log.last).contains(&first) {
        // Nothing was read though there is something: a hole, until the one who knows says otherwise.
        fill(journal, &log, (partition, epoch), &mut places, first, first + 1).await?;
    } else if let Some(onward) = onward.filter(|_| places.is_empty() && first > log.last) {
        let lost_from = (first > log.last + 1).then_some(first);
        places.push(Scanned::End { seq: first, onward, lost_from, is_there: false });
    }
    believe(doubts, (partition, epoch), &mut places, begun)?;
    // Where the log ends may be said before a frame that was read already.
    let last = places.last().map(|place| after_frame(epoch, place.seq()));
    let tip = last.map_or(tip, |last| tip.max(last));
    Ok(Scan { partition, epoch, first, places, tip, begun })
}

/// Cuts the places off where something is called missing and that is not proved: one that may not write
/// the log any more may have said so.
fn believe(
    doubts: &Doubts,
    (partition, epoch): (Partition, Epoch),
    places: &mut Vec<Scanned>,
    begun: Instant,
) -> Result<(), Refusal> {
    let is_told_missing = |place: &Scanned| match place {
        Scanned::Missing { seq, is_there: false } => Some(*seq),
        Scanned::End { seq, is_there: false, .. } => Some(*seq),
        _ => None,
    };
    let (Some(from), Some(to)) = (places.first(), places.last()) else { return Ok(()) };
    let seen = (epoch, from.seq()..=to.seq());
    let missing: Vec<_> = places.iter().filter_map(is_told_missing).collect();
    let Some(first) = doubts.missing(partition, seen, &missing, begun) else { return Ok(()) };
    places.retain(|place| place.seq() < first);
    if places.is_empty() { Err(doubts.refusal()) } else { Ok(()) }
}

/// An epoch that is over: its log, an empty one if that was removed, and where the next one begins.
async fn ended(
    journal: &dyn Journal,
    partition: Partition,
    epoch: Epoch,
) -> Result<(Tip, Option<Position>), Refusal> {
    let logs = journal.epochs(partition).await.map_err(journal_refusal)?;
    let removed = Tip { epoch, first: 1, last: 0, bytes: 0, bytes_max: 0 };
    let log = logs.iter().find(|log| log.epoch == epoch).copied().unwrap_or(removed);
    let next = logs.iter().find(|log| log.epoch > epoch);
    Ok((log, next.map(|next| after_frame(next.epoch, next.first.saturating_sub(1)))))
}

/// Fetches, or proves missing, the places from `due` up to `end`; `false` if the log was trimmed there.
async fn fill(
    journal: &dyn Journal,
    log: &Tip,
    (partition, epoch): (Partition, Epoch),
    places: &mut Vec<Scanned>,
    due: FrameSeq,
    end: FrameSeq,
) -> Result<bool, Refusal> {
    for seq in due..end {
        match journal.frame(partition, epoch, seq).await.map_err(journal_refusal)? {
            Some(frame) => {
                if !push(places, frame)? {
                    return Ok(false);
                }
            }
            // Of an epoch that has ended the archive knows what there was.
            None if epoch != log.epoch || seq < log.first => return Ok(false),
            None => places.push(Scanned::Missing { seq, is_there: false }),
        }
    }
    Ok(true)
}

/// Takes a frame; one that nobody can read is missing for everybody. `false` before a frame that a
/// newer program wrote: this one never skips it.
fn push(places: &mut Vec<Scanned>, stored: StoredFrame) -> Result<bool, Refusal> {
    match Frame::decode(&stored.bytes) {
        Ok(Frame { body: Body::Close { next, first_seq, lost_from }, .. }) => {
            let onward = after_frame(next, first_seq.saturating_sub(1));
            places.push(Scanned::End { seq: stored.seq, onward, lost_from, is_there: true });
            return Ok(false);
        }
        Ok(frame) => places.push(Scanned::Frame(RecentFrame {
            seq: stored.seq,
            ts: stored.ts,
            events: frame.events().cloned(),
            bytes: stored.bytes.len(),
        })),
        Err(error @ FrameError::NewerVersion(_)) if places.is_empty() => {
            return Err(journal_refusal(stormwire_journal::JournalError::Protocol(
                error.to_string(),
            )));
        }
        Err(FrameError::NewerVersion(_)) => return Ok(false),
        Err(_) => places.push(Scanned::Missing { seq: stored.seq, is_there: true }),
    }
    Ok(true)
}
