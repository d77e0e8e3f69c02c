//! Reading a partition's log before a claim: the table of producers comes from the one that was saved last
//! and the frames behind it, or from all frames since the horizon; the end of the log says who wrote last.

mod saved;

use crate::flight::{Found, Op, OpResult, proof};
use crate::known::Known;
use crate::port::{StoredFrame, Tip};
use crate::publish::{Now, ProducerKey};
use crate::repeats::{HORIZON, Repeats};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Offset, Timestamp};
use stormwire_wire::frame::{Body, Frame, FrameError, FrameId};

const RETRY: Duration = Duration::from_millis(100);
/// How often a log that cannot be gone on with is looked at: an operator begins a new epoch.
const STUCK_RETRY: Duration = Duration::from_secs(1);
/// Below this many frames a search for the horizon costs more than it saves.
const SEARCH_MIN: u64 = 64;

/// The end of the log, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The last frame; 0 if there is none.
    pub last: FrameSeq,
    /// When it was written, if it was there to be read.
    pub written: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Ask where the log stands.
    Open,
    /// Ask for the table that was saved last.
    Load,
    /// Is the last frame that it counts the one in the log?
    Compare,
    /// Find the first frame since the horizon, between `low` (older) and `high` (not older).
    Search { low: FrameSeq, high: FrameSeq },
    /// Read on.
    Read,
    /// The frame that is due was not among those read: is it there? `jumped`: a later one was.
    Missing { jumped: bool },
    /// E1: all is read; is a frame that is known from elsewhere the one in the log?
    Hold { seq: FrameSeq, id: FrameId },
    /// E1: the log seems to end at `last` although it once reached `seen`: only a write can tell.
    Prove { last: FrameSeq, lost_from: FrameSeq, seen: FrameSeq },
    /// E3: the log ends with a close that names this epoch.
    Next { epoch: Epoch, first: FrameSeq },
    /// All is read.
    Done,
    /// A frame of a newer version: this process may not write behind it.
    Newer,
    /// E1: the log has gone back, and says so at its end.
    Rewound,
}

/// What the log itself says of having gone back.
#[derive(Debug, Clone, Copy)]
struct Told {
    lost_from: FrameSeq,
    seen: FrameSeq,
    /// The last frame that says so.
    at: FrameSeq,
}

/// The reading of one log.
#[derive(Debug)]
pub(crate) struct Rebuild {
    step: Step,
    epoch: Epoch,
    /// The next frame to read; 0 before the log was opened.
    next: FrameSeq,
    /// Where the log began and ended when it was opened.
    first: FrameSeq,
    last: FrameSeq,
    loads: u32,
    /// A table that was loaded: its last frame, by number and by identity.
    loaded: Option<(FrameSeq, FrameId, Repeats)>,
    cutoff: Timestamp,
    written: Option<Timestamp>,
    /// Set when frames were passed over: the next one that is read begins what is covered.
    passed_over: bool,
    not_before: Duration,
    bytes_max: usize,
    /// E1: what must be in the log.
    pub(crate) known: Known,
    held: bool,
    told: Option<Told>,
    pub(crate) repeats: Repeats,
    pub(crate) problem: Option<String>,
}

impl Rebuild {
    pub(crate) const fn new(bytes_max: usize, known: Known) -> Self {
        Self {
            step: Step::Open,
            epoch: Epoch::FIRST,
            next: 0,
            first: 0,
            last: 0,
            loads: 0,
            loaded: None,
            cutoff: Timestamp(i64::MIN),
            written: None,
            passed_over: false,
            not_before: Duration::ZERO,
            bytes_max,
            known,
            held: false,
            told: None,
            repeats: Repeats::new(Timestamp(i64::MIN), bytes_max),
            problem: None,
        }
    }

    /// D3: reads on from where it stands; nothing is read twice.
    pub(crate) const fn refresh(&mut self) {
        if matches!(self.step, Step::Done | Step::Newer | Step::Rewound) {
            (self.step, self.loads) = (Step::Open, 0);
        }
    }

    /// E1: whether the log has gone back and says so, for all that was read.
    pub(crate) const fn is_rewound(&self) -> bool {
        self.told.is_some()
    }

    /// E1: takes what others know; a log that was read to its end is held against it before a claim.
    pub(crate) fn learn(&mut self, known: &Known) {
        let before = self.known;
        self.known.learn(known);
        if self.known != before {
            self.held = false;
            self.refresh();
        }
    }

    /// E1: what is known of the log, with what was read of it.
    pub(crate) fn reached(&self) -> Known {
        let mut known = self.known;
        if self.next > 1 {
            known.saw(self.epoch, self.next - 1);
        }
        known
    }

    /// Forgets the log that was read, not what is known of it.
    fn restart(&mut self) {
        // A log of which nothing was read yet is the same attempt.
        let loads = if self.next == 0 { self.loads } else { 0 };
        *self = Self { loads, ..Self::new(self.bytes_max, self.reached()) };
    }

    /// The end of the log, once all of it is read.
    pub(crate) fn end(&self) -> Option<LogEnd> {
        // E1: what was read may reach further than the log was said to; a claim follows all of it.
        let last = self.next.saturating_sub(1);
        let end = LogEnd { epoch: self.epoch, last, written: self.written };
        (self.step == Step::Done).then_some(end)
    }

    pub(crate) fn op(&self, now: Duration) -> Result<Op, Option<Duration>> {
        if matches!(self.step, Step::Done | Step::Newer | Step::Rewound) {
            return Err(None);
        }
        if now < self.not_before {
            return Err(Some(self.not_before));
        }
        Ok(match self.step {
            Step::Open | Step::Done | Step::Newer | Step::Rewound => Op::Open,
            Step::Load => Op::LoadTable,
            Step::Compare => {
                let seq = self.loaded.as_ref().map_or(self.last, |(through, ..)| *through);
                Op::Find { epoch: self.epoch, seq }
            }
            Step::Search { low, high } => {
                Op::Find { epoch: self.epoch, seq: low + (high - low) / 2 }
            }
            Step::Read => Op::Read { epoch: self.epoch, from: self.next },
            Step::Missing { .. } => Op::Find { epoch: self.epoch, seq: self.next },
            Step::Hold { seq, .. } => Op::Find { epoch: self.epoch, seq },
            Step::Prove { last, lost_from, seen } => proof(self.epoch, last, lost_from, seen),
            Step::Next { epoch, first } => Op::Begin { epoch, first },
        })
    }

    pub(crate) fn complete(&mut self, now: Now, result: OpResult) {
        self.take_result(now, result);
        if self.step == Step::Newer {
            self.not_before = now.mono + STUCK_RETRY;
        }
    }

    fn take_result(&mut self, now: Now, result: OpResult) {
        let error = match result {
            OpResult::Opened(Ok(tip)) => return self.opened(now, tip),
            OpResult::Read(Ok(frames)) => return self.read(now, frames),
            OpResult::Found(Ok(found)) => return self.found(now, found),
            OpResult::Loaded(Ok(table)) => return self.load(now, table),
            OpResult::Loaded(Err(error)) => return self.load_again(now, &error.to_string()),
            OpResult::Opened(Err(error))
            | OpResult::Read(Err(error))
            | OpResult::Found(Err(error)) => error.to_string(),
            OpResult::Appended(Ok(_)) => return self.restart(),
            OpResult::Appended(Err(error)) => {
                self.step = Step::Open;
                format!("the log is shorter than it was, which is not proved: {error}")
            }
        };
        self.problem = Some(error);
        self.not_before = now.mono + RETRY;
    }

    fn opened(&mut self, now: Now, tip: Tip) {
        if self.next == 0 || tip.epoch != self.epoch {
            self.restart();
            return self.begin(now, tip);
        }
        self.problem = None;
        self.last = tip.last;
        if tip.last + 1 < self.next {
            // E1: frames were read that are not there.
            let (last, seen) = (tip.last, self.known.due(self.epoch).max(self.next - 1));
            self.step = Step::Prove { last, lost_from: last + 1, seen };
        } else if self.next > tip.last {
            self.finish(now);
        } else {
            self.step = Step::Read;
        }
    }

    /// All that there is was read: may a claim follow it?
    fn finish(&mut self, now: Now) {
        let due = self.known.due(self.epoch);
        let last = self.next - 1;
        self.step = match (self.told, self.known.kept(self.epoch)) {
            // Who knows of a higher number adds it, for the next epoch begins above; and should a frame
            // have landed late behind the word of it, it is said again.
            (Some(told), _) if due > told.seen.max(last) || told.at < last => {
                let seen = due.max(told.seen);
                Step::Prove { last, lost_from: told.lost_from, seen }
            }
            (Some(_), _) => {
                self.not_before = now.mono + STUCK_RETRY;
                Step::Rewound
            }
            (None, _) if due > last => Step::Prove { last, lost_from: self.next, seen: due },
            (None, Some((seq, id))) if !self.held => Step::Hold { seq, id },
            (None, _) => Step::Done,
        };
        if self.told.is_some() {
            self.problem = Some("the journal has gone back and waits for a new epoch".to_owned());
        }
    }

    /// E1: one frame at a number where another was known: the log has gone back, and has been written
    /// since.
    fn hold(&mut self, now: Now, seq: FrameSeq, id: FrameId, found: &Found) {
        self.held = true;
        if let Found::Frame(frame) = found
            && Frame::peek_id(&frame.bytes).is_ok_and(|found| found != id)
        {
            let last = self.next - 1;
            self.step = Step::Prove { last, lost_from: seq + 1, seen: last.max(seq) };
        } else {
            self.finish(now);
        }
    }

    fn begin(&mut self, now: Now, tip: Tip) {
        (self.epoch, self.first, self.last) = (tip.epoch, tip.first.max(1), tip.last);
        if tip.last == 0 {
            self.read_from_horizon(now);
        } else {
            self.step = Step::Load;
        }
    }

    fn read_from_horizon(&mut self, now: Now) {
        let horizon = i64::try_from(HORIZON.as_millis()).unwrap_or(i64::MAX);
        self.cutoff = Timestamp(now.wall.0 - horizon);
        self.next = self.first;
        if self.first > 1 {
            // B3: what was trimmed is not covered; the first frame read says since when.
            self.passed_over = true;
        }
        if self.last < self.next {
            self.raise_if_passed_over(now.wall);
            self.finish(now);
        } else if self.last - self.next >= SEARCH_MIN {
            self.step = Step::Search { low: self.next, high: self.last };
        } else {
            self.step = Step::Read;
        }
    }

    /// Halves the part of the log in which the horizon lies. A frame that is not there counts as younger,
    /// so that at worst too much is read.
    fn search(&mut self, low: FrameSeq, high: FrameSeq, found: Found) {
        let middle = low + (high - low) / 2;
        let older = match &found {
            Found::Frame(frame) => frame.ts < self.cutoff,
            Found::Absent(tip) => tip.first > middle,
        };
        let (low, high) = if older { (middle + 1, high) } else { (low, middle) };
        if low < high {
            self.step = Step::Search { low, high };
            return;
        }
        if low > self.next {
            // B3: every frame before this one is older than the cutoff.
            self.passed_over = false;
            self.repeats.raise_horizon(self.cutoff);
        }
        self.next = low;
        self.step = Step::Read;
    }

    fn read(&mut self, now: Now, frames: Vec<StoredFrame>) {
        for frame in frames {
            if frame.seq < self.next {
                continue;
            }
            if frame.seq > self.next {
                self.step = Step::Missing { jumped: true };
                return;
            }
            if !self.take(&frame) {
                return;
            }
        }
        if self.repeats.is_over() {
            self.repeats.keep_within(now.wall);
        }
        if !self.finish_if_read(now) && self.step == Step::Read {
            // Nothing came, or not all: whoever answered may be behind, so the next frame is asked for.
            self.step = Step::Missing { jumped: false };
        }
    }

    fn found(&mut self, now: Now, found: Found) {
        if let Step::Search { low, high } = self.step {
            return self.search(low, high, found);
        }
        if self.step == Step::Compare {
            return self.compared(now, &found);
        }
        if let Step::Hold { seq, id } = self.step {
            return self.hold(now, seq, id, &found);
        }
        match found {
            Found::Frame(frame) => {
                self.step = Step::Read;
                if frame.seq != self.next || !self.take(&frame) {
                    return;
                }
            }
            Found::Absent(tip) if tip.first > self.next => {
                if self.load_anew() {
                    return;
                }
                self.passed_over = true;
                self.next = tip.first;
            }
            // A hole: one reader has the frame behind it, and the one who may write the log has not this
            // one either. Without the first it may be that two answered who know differently much.
            Found::Absent(tip)
                if tip.last > self.next && self.step == (Step::Missing { jumped: true }) =>
            {
                self.next += 1;
            }
            Found::Absent(tip) => {
                self.last = tip.last;
                self.step = Step::Open;
                self.not_before = now.mono + RETRY;
                return;
            }
        }
        self.step = Step::Read;
        self.finish_if_read(now);
    }

    fn finish_if_read(&mut self, now: Now) -> bool {
        if self.next <= self.last {
            return false;
        }
        self.raise_if_passed_over(now.wall);
        self.repeats.keep_within(now.wall);
        self.finish(now);
        true
    }

    fn raise_if_passed_over(&mut self, to: Timestamp) {
        if std::mem::take(&mut self.passed_over) {
            self.repeats.raise_horizon(to);
        }
    }

    /// Takes the frame that is due; `false` if it may not be passed.
    fn take(&mut self, stored: &StoredFrame) -> bool {
        self.raise_if_passed_over(stored.ts);
        self.written = Some(stored.ts);
        match Frame::decode(&stored.bytes) {
            Ok(Frame { body: Body::Close { next, first_seq, .. }, .. }) => {
                // E3: nothing follows in this log.
                self.step = Step::Next { epoch: next, first: first_seq };
                return false;
            }
            Ok(Frame { body: Body::Rewound { lost_from, seen }, .. }) => {
                let (lost_from, seen) = self.told.map_or((lost_from, seen), |told| {
                    (told.lost_from.min(lost_from), told.seen.max(seen))
                });
                self.told = Some(Told { lost_from, seen, at: stored.seq });
            }
            Ok(frame) => replay(&mut self.repeats, stored, &frame),
            Err(error @ FrameError::NewerVersion(_)) => {
                // A reader that meets a newer version stops; it never skips.
                self.problem = Some(format!("frame {}: {error}", stored.seq));
                self.step = Step::Newer;
                return false;
            }
            Err(error) => {
                tracing::error!(seq = stored.seq, %error, "a frame of the journal cannot be read");
            }
        }
        self.next = stored.seq + 1;
        true
    }
}

fn replay(repeats: &mut Repeats, stored: &StoredFrame, frame: &Frame) {
    let Body::Events(events) = &frame.body else { return };
    let mut known: Option<(&str, &str, ProducerKey)> = None;
    for run in events.runs() {
        let Some(producer) = run.producer else { continue };
        let key = match known {
            Some((user, name, key)) if user == run.user && name == producer => key,
            _ => ProducerKey::of(run.user, producer),
        };
        known = Some((run.user, producer, key));
        let offset = Offset::new(stored.seq, run.first);
        repeats.replay(key, run.seq, u32::from(run.count), offset, stored.ts);
    }
}

#[cfg(test)]
mod tests;
