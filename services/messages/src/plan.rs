//! What to do next with a partition, decided from what is known and without IO.
//!
//! The one rule: the next frame is last + 1, or it is repaired first. "Not there" means, by the state of
//! the journal's leader: below its first frame, trimmed; between first and last, a hole; above last,
//! nobody knows, ask again.

use bytes::Bytes;
use stormwire_archive::{Batch, Gap, LedgerEntry, Undecodable};
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, FrameSeq, MAX_EVENTS_PER_FRAME, Offset, Timestamp};
use stormwire_journal::{StoredFrame, Tip};
use stormwire_wire::frame::{Body, Frame, FrameError, FrameId};

/// Why frames are missing that a journal once had.
pub(crate) const REWOUND: &str = "the journal had gone back";

/// Where a worker stands in a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: Epoch,
    /// The next frame that is due.
    pub(crate) next: FrameSeq,
}

/// Why a partition must not be persisted further. Looked at again from time to time: what an operator or
/// an upgrade mends goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The journal is not the one that was persisted: it has gone back.
    Rewound,
    /// A frame of a newer version; it is never skipped.
    NewerVersion { seq: FrameSeq, version: u8 },
    /// The log has settings that this program would not give it.
    Settings,
}

impl Stop {
    /// The label of the metric.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Rewound => "rewound",
            Self::NewerVersion { .. } => "newer_version",
            Self::Settings => "settings",
        }
    }
}

/// What the ledger and the journal's tip mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Go on here, once the frame at `verify` has been compared with the ledger (if there is one).
    At { place: Place, verify: Option<FrameSeq> },
    /// The journal has less than the archive: gone back, or a leader cut off from the others.
    Behind,
}

pub(crate) fn start(ledger: Option<LedgerEntry>, tip: Tip) -> Start {
    let Some(ledger) = ledger else {
        return Start::At { place: Place { epoch: tip.epoch, next: 1 }, verify: None };
    };
    let place = Place { epoch: ledger.epoch, next: ledger.last_seq + 1 };
    match ledger.epoch.cmp(&tip.epoch) {
        std::cmp::Ordering::Greater => Start::Behind,
        // What is left of an epoch that has ended is read first; its close frame says what follows.
        std::cmp::Ordering::Less => Start::At { place, verify: None },
        std::cmp::Ordering::Equal if tip.last < ledger.last_seq => Start::Behind,
        std::cmp::Ordering::Equal => {
            let there = ledger.last_frame.is_some() && ledger.last_seq >= tip.first;
            Start::At { place, verify: there.then_some(ledger.last_seq) }
        }
    }
}

/// Whether the frame found at the ledger's place is the one that was persisted. One that cannot be read
/// or is no longer there proves nothing.
pub(crate) fn is_same(ledger: Option<FrameId>, found: Option<&Bytes>) -> bool {
    let found = found.and_then(|bytes| Frame::peek_id(bytes).ok());
    match (ledger, found) {
        (Some(ledger), Some(found)) => ledger == found,
        _ => true,
    }
}

/// What a missing frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// All up to here was trimmed.
    Trimmed(FrameSeq),
    /// It is a hole, provided that the leader, asked for this one frame, does not have it.
    Hole,
    /// The epoch is over and this is what was never read of it; the present one begins after `through`.
    Ended { epoch: Epoch, through: FrameSeq },
    /// It is not written yet.
    NotYet,
    /// Neither it nor frames before it that were there: the log has gone back, or this is not its leader.
    Shorter,
}

/// In an epoch that is over, `logs` being all there are: what is left of it is read first.
pub(crate) fn missing_of_ended(place: Place, logs: &[Tip]) -> Missing {
    let log = logs.iter().find(|log| log.epoch == place.epoch);
    let next = logs.iter().find(|log| log.epoch > place.epoch);
    match (log, next) {
        (Some(log), _) if place.next < log.first && log.first <= log.last => {
            Missing::Trimmed(log.first - 1)
        }
        (Some(log), _) if place.next <= log.last => Missing::Hole,
        (_, Some(next)) => {
            let through = next.first.max(place.next) - 1;
            Missing::Ended { epoch: next.epoch, through }
        }
        (_, None) => Missing::NotYet,
    }
}

pub(crate) fn missing(place: Place, tip: Tip) -> Missing {
    if place.epoch < tip.epoch {
        return missing_of_ended(place, &[tip]);
    }
    if place.epoch > tip.epoch || place.next == tip.last + 1 {
        return Missing::NotYet;
    }
    if place.next > tip.last {
        return Missing::Shorter;
    }
    if place.next < tip.first { Missing::Trimmed(tip.first - 1) } else { Missing::Hole }
}

/// A batch that grows frame by frame, without a hole.
#[derive(Debug)]
pub(crate) struct Pending {
    batch: Batch,
    place: Place,
    events: usize,
    bytes: usize,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    sealed: bool,
    stop: Option<Stop>,
}

/// A batch to be persisted, and what is known of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) batch: Batch,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// The times of its first and last frame.
    pub(crate) oldest: Option<Timestamp>,
    pub(crate) newest: Option<Timestamp>,
}

impl Pending {
    pub(crate) fn at(place: Place) -> Self {
        let last = place.next - 1;
        let batch = Batch {
            epoch: place.epoch,
            expected_last: last,
            through: last,
            last_frame: None,
            frames: Vec::new(),
            gaps: Vec::new(),
            undecodable: Vec::new(),
        };
        Self {
            batch,
            place,
            events: 0,
            bytes: 0,
            oldest: None,
            newest: None,
            sealed: false,
            stop: None,
        }
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.batch.through == self.batch.expected_last
    }

    /// Whether another frame may be added.
    pub(crate) const fn has_room(&self, events: usize, bytes: usize) -> bool {
        !self.sealed && self.stop.is_none() && self.events < events && self.bytes < bytes
    }

    /// Why nothing may follow this batch.
    pub(crate) const fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Adds the frame that is due; another one is left alone (`false`).
    pub(crate) fn push(&mut self, frame: StoredFrame) -> bool {
        let due = frame.epoch == self.place.epoch
            && (frame.seq == self.place.next
                || injected(Fault::ContiguityCheckOff) && frame.seq > self.place.next);
        if !due || self.sealed || self.stop.is_some() {
            return false;
        }
        let StoredFrame { seq, ts, bytes, .. } = frame;
        let size = bytes.len();
        match Frame::decode(&bytes) {
            Ok(decoded) => self.decoded(seq, ts, decoded),
            Err(FrameError::NewerVersion(version)) => {
                self.stop = Some(Stop::NewerVersion { seq, version });
                return true;
            }
            Err(error) => {
                self.batch.last_frame = Frame::peek_id(&bytes).ok();
                let error = error.to_string();
                self.batch.undecodable.push(Undecodable { seq, ts, error, bytes });
            }
        }
        self.bytes += size;
        self.oldest.get_or_insert(ts);
        self.newest = Some(ts);
        self.through(seq);
        true
    }

    fn decoded(&mut self, seq: FrameSeq, ts: Timestamp, frame: Frame) {
        self.batch.last_frame = Some(frame.id);
        match &frame.body {
            Body::Events(events) => {
                self.events += usize::from(events.len());
                self.batch.frames.push((seq, ts, frame));
            }
            Body::Claim { .. } | Body::Rewound { .. } => {}
            Body::Close { next, first_seq, lost_from } => {
                if let Some(lost_from) = lost_from {
                    // E3: what was acknowledged and is lost is known to be so for ever.
                    self.batch.gaps.push(Gap {
                        epoch: self.place.epoch,
                        from: Offset::new(*lost_from, 0),
                        to: Offset::new(first_seq.saturating_sub(1), LAST_INDEX),
                        reason: REWOUND.to_owned(),
                    });
                }
                // The ledger moves to the end of this epoch first; the next batch steps over.
                self.place.epoch = *next;
                self.place.next = (*first_seq).max(seq + 1);
                self.sealed = true;
            }
        }
    }

    fn through(&mut self, seq: FrameSeq) {
        self.batch.through = seq;
        if !self.sealed {
            self.place.next = seq + 1;
        }
    }

    /// Adds a stretch that is proved to be missing: `place.next` to `through`.
    pub(crate) fn push_gap(&mut self, through: FrameSeq, reason: &str) {
        let from = Offset::new(self.place.next, 0);
        let to = Offset::new(through, LAST_INDEX);
        if through < self.place.next || self.sealed || self.stop.is_some() {
            return;
        }
        self.batch.gaps.push(Gap { epoch: self.place.epoch, from, to, reason: reason.to_owned() });
        self.batch.last_frame = None;
        self.through(through);
    }

    /// Steps over to `epoch`, whose first frame is `through` + 1; what the old one still had is a gap.
    pub(crate) fn step(&mut self, epoch: Epoch, through: FrameSeq, reason: &str) {
        self.push_gap(through, reason);
        self.place = Place { epoch, next: through + 1 };
        if self.is_empty() {
            *self = Self::at(self.place);
        } else {
            self.sealed = true;
        }
    }

    /// The batch, and an empty one after it. Between two epochs that is a batch of its own, which moves
    /// the ledger over the numbers that were never used.
    pub(crate) fn take(&mut self) -> Prepared {
        let mut next = Self::at(self.place);
        next.batch.expected_last = self.batch.through;
        next.stop = self.stop;
        let Self { batch, events, bytes, oldest, newest, .. } = std::mem::replace(self, next);
        Prepared { batch, events, bytes, oldest, newest }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "4095")]
const LAST_INDEX: u16 = (MAX_EVENTS_PER_FRAME - 1) as u16;

#[cfg(test)]
mod tests;
