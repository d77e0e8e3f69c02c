//! Where every log stands. The writer is the only one that changes a log, so memory says it and the
//! file follows: an append is judged without asking the file, and counts here once it is committed.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Clock, Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::{AppendError, StoredFrame, Tip};
use tokio::sync::oneshot;

/// Bits of a frame's key that hold its sequence number; an offset holds as many.
const SEQ_BITS: u32 = 41;
/// Bits that hold its epoch.
const EPOCH_BITS: u32 = 16;
/// Largest sequence number.
pub(crate) const SEQ_MAX: FrameSeq = (1 << SEQ_BITS) - 1;
/// Most bytes of one frame: what the frame's format allows, and as much again.
pub(crate) const FRAME_BYTES_MAX: usize = 2 * stormwire_wire::frame::FRAME_BYTES_MAX;

/// The key of a frame in the file; `None` where the numbers do not fit.
pub(crate) fn key(partition: Partition, epoch: Epoch, seq: FrameSeq) -> Option<i64> {
    let fits = partition.0 < 64 && epoch.0 < 1 << EPOCH_BITS && seq <= SEQ_MAX;
    let (partition, epoch) = (i64::from(partition.0), i64::from(epoch.0));
    let seq = i64::try_from(seq).ok()?;
    fits.then_some((partition << EPOCH_BITS | epoch) << SEQ_BITS | seq)
}

/// The sequence number in a key.
pub(crate) fn seq_of(key: i64) -> FrameSeq {
    key.cast_unsigned() & SEQ_MAX
}

/// One log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) epoch: Epoch,
    pub(crate) first: FrameSeq,
    pub(crate) last: FrameSeq,
    pub(crate) bytes: u64,
}

/// Logs by partition and epoch; the last one of a partition is its current one.
pub(crate) type Map = BTreeMap<(Partition, Epoch), Log>;

fn of(logs: &Map, partition: Partition) -> impl DoubleEndedIterator<Item = &Log> {
    logs.range((partition, Epoch(0))..=(partition, Epoch(u32::MAX))).map(|(_, log)| log)
}

/// An append on its way to the writer.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    pub(crate) expected_last: FrameSeq,
    pub(crate) bytes: Bytes,
    pub(crate) answer: oneshot::Sender<Result<FrameSeq, AppendError>>,
}

/// An append that may be stored, and who waits for it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) key: i64,
    pub(crate) frame: StoredFrame,
    pub(crate) answer: oneshot::Sender<Result<FrameSeq, AppendError>>,
}

/// All logs, and the journal's time.
pub(crate) struct Logs {
    state: Mutex<State>,
    bytes_max: u64,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    logs: Map,
    /// The newest timestamp given out.
    ts: Timestamp,
}

impl Logs {
    /// The logs as the file has them, each of which may take `bytes_max`, and the newest timestamp
    /// found in it.
    pub(crate) fn new(logs: Map, newest: Timestamp, bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::new(State { logs, ts: newest }), bytes_max, clock }
    }

    /// Where a partition's logs stand, ascending by epoch.
    pub(crate) fn tips(&self, partition: Partition) -> Vec<Tip> {
        let tip = |log: &Log| {
            let Log { epoch, first, last, bytes } = *log;
            Tip { epoch, first, last, bytes, bytes_max: self.bytes_max }
        };
        of(&self.state.lock().logs, partition).map(tip).collect()
    }

    /// Where the current log stands, if one was made.
    pub(crate) fn tip(&self, partition: Partition) -> Option<Tip> {
        self.tips(partition).pop()
    }

    /// One log.
    pub(crate) fn log(&self, partition: Partition, epoch: Epoch) -> Option<Log> {
        self.state.lock().logs.get(&(partition, epoch)).copied()
    }

    /// The journal's time: the clock's, but never before what was given out.
    pub(crate) fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        state.ts = state.ts.max(self.clock.now());
        state.ts
    }

    /// Judges appends in the order in which they came, each as if those before it were stored. Those
    /// that are refused have their answer afterwards; the others are to be stored in one transaction.
    pub(crate) fn plan(&self, appends: Vec<Append>) -> Vec<Planned> {
        let ts = self.now();
        let mut logs = self.state.lock().logs.clone();
        let mut planned = Vec::with_capacity(appends.len());
        for append in appends {
            match self.judge(&mut logs, &append) {
                Ok((key, seq)) => {
                    let Append { partition, epoch, bytes, answer, .. } = append;
                    let frame = StoredFrame { partition, epoch, seq, ts, bytes };
                    planned.push(Planned { key, frame, answer });
                }
                Err(error) => drop(append.answer.send(Err(error))),
            }
        }
        planned
    }

    fn judge(&self, logs: &mut Map, append: &Append) -> Result<(i64, FrameSeq), AppendError> {
        let refused = |why: String| AppendError::Refused(why);
        let Some(log) = logs.get_mut(&(append.partition, append.epoch)) else {
            let Append { partition, epoch, .. } = append;
            return Err(refused(format!("partition {partition} has no log of epoch {epoch}")));
        };
        let fenced = log.last != append.expected_last;
        if fenced && !injected(Fault::AppendWithoutExpectedSequence) {
            return Err(AppendError::WrongLast { expected: append.expected_last });
        }
        if append.bytes.len() > FRAME_BYTES_MAX {
            let len = append.bytes.len();
            return Err(refused(format!("a frame has at most {FRAME_BYTES_MAX} bytes, not {len}")));
        }
        let bytes = log.bytes + append.bytes.len() as u64;
        if bytes > self.bytes_max {
            return Err(AppendError::Full);
        }
        let seq = log.last + 1;
        let key = key(append.partition, append.epoch, seq)
            .ok_or_else(|| refused("the log has used up its sequence numbers".to_owned()))?;
        (log.last, log.bytes) = (seq, bytes);
        Ok((key, seq))
    }

    /// A frame was committed.
    pub(crate) fn stored(&self, frame: &StoredFrame) {
        if let Some(log) = self.state.lock().logs.get_mut(&(frame.partition, frame.epoch)) {
            log.last = frame.seq;
            log.bytes += frame.bytes.len() as u64;
        }
    }

    /// A log was made whose first frame will be number `first`.
    pub(crate) fn made(&self, partition: Partition, epoch: Epoch, first: FrameSeq) {
        let log = Log { epoch, first, last: first - 1, bytes: 0 };
        self.state.lock().logs.entry((partition, epoch)).or_insert(log);
    }

    /// A log was removed.
    pub(crate) fn removed(&self, partition: Partition, epoch: Epoch) {
        self.state.lock().logs.remove(&(partition, epoch));
    }

    /// Frames up to `through`, of `bytes` in all, were trimmed.
    pub(crate) fn trimmed(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
        bytes: u64,
    ) {
        if let Some(log) = self.state.lock().logs.get_mut(&(partition, epoch)) {
            log.first = log.first.max(through + 1);
            log.bytes = log.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_log_are_one_range_and_ascend() {
        let key_of = |p, e, s| key(Partition(p), Epoch(e), s).unwrap();
        assert!(key_of(0, 1, SEQ_MAX) < key_of(0, 2, 0));
        assert!(key_of(0, 65_535, SEQ_MAX) < key_of(1, 1, 0));
        assert!(key_of(63, 65_535, SEQ_MAX) > 0);
        assert_eq!(seq_of(key_of(63, 65_535, 77)), 77);
        assert_eq!(key(Partition(64), Epoch(1), 1), None);
        assert_eq!(key(Partition(0), Epoch(65_536), 1), None);
        assert_eq!(key(Partition(0), Epoch(1), SEQ_MAX + 1), None);
    }
}
