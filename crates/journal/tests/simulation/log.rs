//! The journal of the simulation: one log with the check of the expected last sequence, and its faults.

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::{
    AppendError, Found, JournalError, Op, OpResult, SavedTable, StoredFrame, Tip,
};
use stormwire_wire::frame::{Body, Frame};

/// A log that never forgets: what is trimmed is only out of reach.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) frames: Vec<StoredFrame>,
    pub(crate) first: FrameSeq,
    pub(crate) full: bool,
    /// How many epochs have ended.
    pub(crate) ended: Vec<Ended>,
    /// The number before the first one of this epoch.
    base: FrameSeq,
    /// Times at which it has gone back.
    pub(crate) rewinds: Vec<Rewind>,
    /// The table of producers that was saved last.
    pub(crate) table: Option<SavedTable>,
    /// Its last frame, also after it was torn: nothing from here on is trimmed.
    pub(crate) saved_through: FrameSeq,
    /// How often somebody who did not know has answered a reader.
    pub(crate) misled: usize,
}

/// The log of an epoch that is over.
pub(crate) struct Ended {
    pub(crate) frames: Vec<StoredFrame>,
    pub(crate) tip: Tip,
}

/// An older store was restored.
pub(crate) struct Rewind {
    pub(crate) epoch: Epoch,
    /// Where the log ends since.
    pub(crate) last: FrameSeq,
    /// What is gone.
    pub(crate) lost: Vec<StoredFrame>,
    /// Whether somebody who stays remembers a frame that is gone.
    pub(crate) is_known: bool,
    /// Whether it was written over before anybody had found it out.
    pub(crate) is_written_over: bool,
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
        self.base + self.frames.len() as u64
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(Epoch::FIRST.0 + self.ended.len() as u32)
    }

    pub(crate) fn tip(&self) -> Tip {
        let first = self.first.max(self.base + 1);
        Tip { epoch: self.epoch(), first, last: self.last(), bytes: 0, bytes_max: 0 }
    }

    pub(crate) fn tips(&self) -> Vec<Tip> {
        self.ended.iter().map(|ended| ended.tip).chain([self.tip()]).collect()
    }

    /// What a leader without its quorum would say: a shorter log.
    fn stale_tip(&self, rng: &mut StdRng) -> Tip {
        let tip = self.tip();
        let last = tip.last.saturating_sub(rng.random_range(0..3)).max(tip.first - 1);
        Tip { last, ..tip }
    }

    /// What one has that was cut off when the log ended at `last`.
    pub(crate) fn as_of(&self, last: FrameSeq) -> Self {
        Self { frames: self.read(self.epoch(), 0)[..last as usize].to_vec(), ..Self::default() }
    }

    /// An older store is restored, and perhaps the table that was in it.
    pub(crate) fn go_back(&mut self, frames: usize, with_table: bool, known: Option<FrameSeq>) {
        let kept = self.frames.len().saturating_sub(frames);
        let kept = kept.max((self.tip().first - 1 - self.base) as usize);
        let lost = self.frames.split_off(kept);
        let (epoch, last) = (self.epoch(), self.last());
        if with_table {
            self.table = self.table.take().filter(|table| table.through <= last);
        }
        self.saved_through = self.saved_through.min(last);
        if !lost.is_empty() {
            let is_known = known.is_some_and(|seen| seen > last);
            self.rewinds.push(Rewind { epoch, last, lost, is_known, is_written_over: false });
        }
    }

    /// Makes the log of an epoch, unless it is there.
    pub(crate) fn begin(&mut self, epoch: Epoch, first: FrameSeq) -> Tip {
        if epoch <= self.epoch() {
            return self.tips()[(epoch.0 - Epoch::FIRST.0) as usize];
        }
        assert_eq!(epoch.0, self.epoch().0 + 1, "epochs follow each other");
        let highest = self.all().map(|frame| frame.seq).max().unwrap_or(0);
        let gone = self.rewinds.iter().flat_map(|rewind| &rewind.lost);
        let gone = gone.map(|frame| frame.seq).max().unwrap_or(0);
        assert!(first > highest.max(gone), "E2: numbers below {first} were handed out");
        let tip = self.tip();
        self.ended.push(Ended { frames: std::mem::take(&mut self.frames), tip });
        (self.base, self.first, self.saved_through) = (first - 1, first, 0);
        self.tip()
    }

    /// Every frame of every epoch that is there.
    pub(crate) fn all(&self) -> impl Iterator<Item = &StoredFrame> {
        self.ended.iter().flat_map(|ended| &ended.frames).chain(&self.frames)
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
            Op::Open => OpResult::Opened(Ok(self.tip())),
            Op::Begin { epoch, first } => OpResult::Opened(Ok(self.begin(*epoch, *first))),
            Op::LoadTable => OpResult::Loaded(Ok(self.table.clone())),
            Op::Append { epoch, expected_last, frame } => {
                OpResult::Appended(self.append(now, *epoch, *expected_last, frame))
            }
            Op::Find { epoch, seq } => OpResult::Found(Ok(match self.get(*epoch, *seq) {
                Some(frame) => Found::Frame(frame.clone()),
                None => Found::Absent(self.tip()),
            })),
            Op::Read { epoch, from } => OpResult::Read(Ok(self.read(*epoch, *from))),
        }
    }

    pub(crate) fn read(&self, epoch: Epoch, from: FrameSeq) -> Vec<StoredFrame> {
        let first = self.tip().first;
        let there = |frame: &&StoredFrame| {
            frame.epoch == epoch
                && frame.seq >= from
                && (epoch < self.epoch() || frame.seq >= first)
        };
        self.all().filter(there).cloned().collect()
    }

    /// A table reaches the journal; an older one than is there is dropped.
    pub(crate) fn save(&mut self, table: SavedTable) {
        if table.epoch == self.epoch() {
            // Of a log that has gone back it may be ahead.
            self.saved_through = self.saved_through.max(table.through.min(self.last()));
        }
        let at = |table: &SavedTable| (table.epoch, table.through);
        if self.table.as_ref().is_none_or(|kept| at(kept) < at(&table)) {
            self.table = Some(table);
        }
    }

    pub(crate) fn append(
        &mut self,
        now: u64,
        epoch: Epoch,
        expected: FrameSeq,
        frame: &Bytes,
    ) -> Result<u64, AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        if epoch != self.epoch() || expected != self.last() {
            return Err(AppendError::WrongLast { expected });
        }
        self.note_write(frame);
        self.frames.push(StoredFrame {
            partition: Partition(0),
            epoch,
            seq: expected + 1,
            ts: Timestamp(now as i64),
            bytes: frame.clone(),
        });
        Ok(self.last())
    }

    /// A log that has gone back is written: does the log say so?
    fn note_write(&mut self, frame: &Bytes) {
        let epoch = self.epoch();
        if self.rewinds.last().is_none_or(|rewind| rewind.epoch != epoch) || self.is_told() {
            return;
        }
        if matches!(Frame::decode(frame).unwrap().body, Body::Rewound { .. }) {
            return;
        }
        for rewind in self.rewinds.iter_mut().filter(|rewind| rewind.epoch == epoch) {
            rewind.is_written_over = true;
        }
    }

    /// Whether this epoch's log ends with a close.
    pub(crate) fn is_closed(&self) -> bool {
        self.frames.last().is_some_and(|frame| {
            matches!(Frame::decode(&frame.bytes).unwrap().body, Body::Close { .. })
        })
    }

    /// Whether this epoch's log says that it has gone back.
    pub(crate) fn is_told(&self) -> bool {
        let is_word = |frame: &StoredFrame| {
            matches!(Frame::decode(&frame.bytes).unwrap().body, Body::Rewound { .. })
        };
        self.frames.iter().rev().take(64).any(is_word)
    }

    pub(crate) fn get(&self, epoch: Epoch, seq: FrameSeq) -> Option<&StoredFrame> {
        if epoch == self.epoch() && seq < self.tip().first {
            return None;
        }
        // The numbers of an epoch lie above those of the one before.
        self.all().find(|frame| frame.epoch == epoch && frame.seq == seq)
    }
}
