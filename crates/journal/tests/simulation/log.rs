//! The journal of the simulation: one log with the check of the expected last sequence, and its faults.

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::{
    AppendError, Found, JournalError, Op, OpResult, SavedTable, StoredFrame, Tip,
};

/// A log that never forgets: what is trimmed is only out of reach.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) frames: Vec<StoredFrame>,
    pub(crate) first: FrameSeq,
    pub(crate) full: bool,
    /// The table of producers that was saved last.
    pub(crate) table: Option<SavedTable>,
    /// Its last frame, also after it was torn: nothing from here on is trimmed.
    pub(crate) saved_through: FrameSeq,
    /// How often somebody who did not know has answered a reader.
    pub(crate) misled: usize,
}

/// What happens to an operation.
pub(crate) struct Fate {
    /// When it reaches the journal; `None`: never.
    pub(crate) arrives: Option<u64>,
    /// When its answer reaches the appender; `None`: not in time.
    pub(crate) answers: Option<u64>,
    /// An answer made by somebody who does not know.
    pub(crate) wrong: Option<OpResult>,
}

const ATTEMPT_MS: u64 = 2000;

impl Fate {
    pub(crate) fn draw(rng: &mut StdRng, now: u64, op: &Op, log: &mut Log, calm: bool) -> Self {
        let there = now + rng.random_range(1..15);
        let back = there + rng.random_range(1..15);
        let sound = Self { arrives: Some(there), answers: Some(back), wrong: None };
        if calm {
            return sound;
        }
        let fate = Self::spoil(rng, now, op, log, sound);
        if !matches!(op, Op::Append { .. }) && (fate.wrong.is_some() || fate.answers.is_none()) {
            log.misled += 1;
        }
        fate
    }

    fn spoil(rng: &mut StdRng, now: u64, op: &Op, log: &Log, sound: Self) -> Self {
        match (rng.random_range(0..100), op) {
            (0..60, _) => sound,
            (60..68, _) => Self { answers: None, ..sound },
            // The attempt has long timed out when it lands.
            (68..76, _) => {
                let late = now + ATTEMPT_MS + rng.random_range(0..12_000);
                Self { arrives: Some(late), answers: None, wrong: None }
            }
            (76..82, _) => Self { arrives: None, answers: None, wrong: None },
            (82..86, Op::Append { expected_last, .. }) => {
                let wrong = AppendError::WrongLast { expected: *expected_last };
                Self { arrives: None, wrong: Some(OpResult::Appended(Err(wrong))), ..sound }
            }
            // Refused by somebody who does not know of the copy that is still under way.
            (86..90, Op::Append { .. }) => {
                let wrong = AppendError::Refused("nobody answers".to_owned());
                Self { arrives: None, wrong: Some(OpResult::Appended(Err(wrong))), ..sound }
            }
            (82..88, Op::Find { .. }) => {
                let tip = log.stale_tip(rng);
                Self { wrong: Some(OpResult::Found(Ok(Found::Absent(tip)))), ..sound }
            }
            (82..86, Op::Open) => {
                Self { wrong: Some(OpResult::Opened(Ok(log.stale_tip(rng)))), ..sound }
            }
            _ => sound,
        }
    }
}

/// The answer of an operation that had none in time.
pub(crate) fn timed_out(op: &Op) -> OpResult {
    let unavailable = || JournalError::Unavailable("no answer".to_owned());
    match op {
        Op::Open | Op::Begin { .. } => OpResult::Opened(Err(unavailable())),
        Op::LoadTable => OpResult::Loaded(Err(unavailable())),
        Op::Read { .. } => OpResult::Read(Err(unavailable())),
        Op::Find { .. } => OpResult::Found(Err(unavailable())),
        Op::Append { .. } => OpResult::Appended(Err(AppendError::Unknown("no answer".to_owned()))),
    }
}

impl Log {
    pub(crate) fn last(&self) -> FrameSeq {
        self.frames.len() as u64
    }

    fn tip(&self) -> Tip {
        let first = self.first.max(1);
        Tip { epoch: Epoch::FIRST, first, last: self.last(), bytes: 0, bytes_max: 0 }
    }

    /// What a leader without its quorum would say: a shorter log.
    fn stale_tip(&self, rng: &mut StdRng) -> Tip {
        let tip = self.tip();
        let last = tip.last.saturating_sub(rng.random_range(0..3)).max(tip.first - 1);
        Tip { last, ..tip }
    }

    /// The operation reaches the journal at `now`.
    pub(crate) fn take(&mut self, rng: &mut StdRng, now: u64, op: &Op) -> OpResult {
        match self.answer(now, op) {
            OpResult::Read(Ok(mut frames)) => {
                // A replica may be behind, and answers are cut somewhere.
                frames.truncate(rng.random_range(0..=frames.len().min(40)));
                OpResult::Read(Ok(frames))
            }
            result => result,
        }
    }

    /// What a journal without faults does and says.
    pub(crate) fn answer(&mut self, now: u64, op: &Op) -> OpResult {
        match op {
            Op::Open | Op::Begin { .. } => OpResult::Opened(Ok(self.tip())),
            Op::LoadTable => OpResult::Loaded(Ok(self.table.clone())),
            Op::Append { expected_last, frame, .. } => {
                OpResult::Appended(self.append(now, *expected_last, frame))
            }
            Op::Find { seq, .. } => OpResult::Found(Ok(match self.get(*seq) {
                Some(frame) => Found::Frame(frame.clone()),
                None => Found::Absent(self.tip()),
            })),
            Op::Read { from, .. } => {
                let from = (*from).max(self.first.max(1));
                let all = self.frames.get(from as usize - 1..).unwrap_or_default();
                OpResult::Read(Ok(all.to_vec()))
            }
        }
    }

    /// A table reaches the journal; an older one than is there is dropped.
    pub(crate) fn save(&mut self, table: SavedTable) {
        self.saved_through = self.saved_through.max(table.through);
        if self.table.as_ref().is_none_or(|kept| kept.through < table.through) {
            self.table = Some(table);
        }
    }

    fn append(&mut self, now: u64, expected: FrameSeq, frame: &Bytes) -> Result<u64, AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        if expected != self.last() {
            return Err(AppendError::WrongLast { expected });
        }
        self.frames.push(StoredFrame {
            partition: Partition(0),
            epoch: Epoch::FIRST,
            seq: expected + 1,
            ts: Timestamp(now as i64),
            bytes: frame.clone(),
        });
        Ok(self.last())
    }

    fn get(&self, seq: FrameSeq) -> Option<&StoredFrame> {
        if seq < self.first.max(1) {
            return None;
        }
        self.frames.get(seq as usize - 1)
    }
}
