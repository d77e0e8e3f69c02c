//! One frame under way: sent, asked after and sent again until it is settled (rules A1 to A3).

use crate::port::{AppendError, JournalError, SavedTable, StoredFrame, Tip};
use bytes::Bytes;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq};
use stormwire_wire::frame::{Frame, FrameId, rewound};

/// How long one attempt may take. A3: asking without an end would wait for ever.
pub const ATTEMPT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a frame that every attempt was refused for is tried before it counts as refused.
const REFUSED_AFTER: Duration = Duration::from_secs(8);

/// What an appender wants of the journal. One at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// [`crate::Journal::open`].
    Open,
    /// [`crate::Journal::load_table`].
    LoadTable,
    /// [`crate::Journal::read`] from this sequence on.
    Read {
        /// The log's incarnation.
        epoch: Epoch,
        /// The first frame wanted.
        from: FrameSeq,
    },
    /// [`crate::Journal::append`]; no answer within [`ATTEMPT`] is [`AppendError::Unknown`].
    Append {
        /// The log's incarnation.
        epoch: Epoch,
        /// A1: the last sequence that the appender knows.
        expected_last: FrameSeq,
        /// The frame.
        frame: Bytes,
    },
    /// [`crate::Journal::begin`]: the log ends with a close that names this epoch.
    Begin {
        /// The epoch that follows.
        epoch: Epoch,
        /// Its first frame.
        first: FrameSeq,
    },
    /// [`crate::Journal::frame`], and if it is not there [`crate::Journal::tip`].
    Find {
        /// The log's incarnation.
        epoch: Epoch,
        /// The frame wanted.
        seq: FrameSeq,
    },
}

/// What a [`Op::Find`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The frame.
    Frame(StoredFrame),
    /// It is not there; this is where the log stands.
    Absent(Tip),
}

/// What the journal answered to an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// To [`Op::Open`] and [`Op::Begin`].
    Opened(Result<Tip, JournalError>),
    /// To [`Op::LoadTable`].
    Loaded(Result<Option<SavedTable>, JournalError>),
    /// To [`Op::Read`].
    Read(Result<Vec<StoredFrame>, JournalError>),
    /// To [`Op::Append`].
    Appended(Result<FrameSeq, AppendError>),
    /// To [`Op::Find`].
    Found(Result<Found, JournalError>),
}

impl OpResult {
    /// Whether somebody who keeps the log has answered, be it with a refusal.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Opened(result) => result.is_ok(),
            Self::Loaded(result) => result.is_ok(),
            Self::Read(result) => result.is_ok(),
            Self::Found(result) => result.is_ok(),
            Self::Appended(result) => {
                matches!(result, Ok(_) | Err(AppendError::WrongLast { .. } | AppendError::Full))
            }
        }
    }
}

/// How a frame ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is in the log at expected + 1.
    Stored,
    /// It is not and will not be, because another's frame stands in its place.
    Fenced,
    /// Nobody can tell: its place has been trimmed away.
    FencedUnknown,
    /// It is not there: every attempt was refused.
    Refused(AppendError),
    /// E1: the log has gone back behind frames that this appender knows, and says so itself now.
    Rewound,
}

/// What a flight does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Send,
    Ask,
    /// E1: the log seems to end here, before the expected frame. Whether that is so, or the one who
    /// answered is cut off from the others, only a write can tell.
    Prove(FrameSeq),
}

/// E1: the write that proves that a log has gone back: it can only be stored behind `last`, and says that
/// the log once reached `seen`.
pub(crate) fn proof(epoch: Epoch, last: FrameSeq, lost_from: FrameSeq, seen: FrameSeq) -> Op {
    Op::Append { epoch, expected_last: last, frame: rewound(lost_from, seen) }
}

/// One frame between its first attempt and its settlement.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) epoch: Epoch,
    pub(crate) expected: FrameSeq,
    pub(crate) id: FrameId,
    frame: Bytes,
    pub(crate) since: Duration,
    /// Whether some attempt may still land.
    copy_unknown: bool,
    next: Next,
    attempts: u32,
    not_before: Duration,
}

impl Flight {
    pub(crate) const fn new(
        now: Duration,
        epoch: Epoch,
        expected: FrameSeq,
        id: FrameId,
        frame: Bytes,
    ) -> Self {
        Self {
            epoch,
            expected,
            id,
            frame,
            since: now,
            copy_unknown: false,
            next: Next::Send,
            attempts: 0,
            not_before: now,
        }
    }

    /// What to do now, or when there is something to do.
    pub(crate) fn op(&self, now: Duration) -> Result<Op, Duration> {
        if now < self.not_before {
            return Err(self.not_before);
        }
        Ok(match self.next {
            Next::Ask => Op::Find { epoch: self.epoch, seq: self.expected + 1 },
            // A1: the expected last sequence goes with every attempt.
            Next::Send => Op::Append {
                epoch: self.epoch,
                expected_last: self.expected,
                frame: self.frame.clone(),
            },
            Next::Prove(last) => proof(self.epoch, last, last + 1, self.expected),
        })
    }

    pub(crate) fn appended(
        &mut self,
        now: Duration,
        result: Result<FrameSeq, AppendError>,
    ) -> Option<Settled> {
        if let Next::Prove(last) = self.next {
            self.next = Next::Send;
            self.back_off(now);
            return (result == Ok(last + 1)).then_some(Settled::Rewound);
        }
        let again = self.attempts > 0;
        match result {
            // A2: an acknowledgement settles the frame only as expected + 1.
            Ok(seq) if seq == self.expected + 1 => return Some(Settled::Stored),
            Ok(_) => self.copy_unknown = true,
            Err(AppendError::Unknown(_)) => {
                self.copy_unknown = true;
                if !again {
                    // A3: send the same frame again, then read.
                    self.attempts += 1;
                    return None;
                }
            }
            // A2: no refusal of any kind settles a frame while an earlier copy is unknown.
            Err(AppendError::WrongLast { .. }) => {}
            Err(_) if self.copy_unknown => {}
            Err(full @ AppendError::Full) => return Some(Settled::Refused(full)),
            Err(refused @ AppendError::Refused(_)) => {
                if now.saturating_sub(self.since) >= REFUSED_AFTER {
                    return Some(Settled::Refused(refused));
                }
                self.back_off(now);
                return None;
            }
        }
        self.attempts += 1;
        self.next = Next::Ask;
        None
    }

    pub(crate) fn found(
        &mut self,
        now: Duration,
        result: Result<Found, JournalError>,
    ) -> Option<Settled> {
        match result {
            Ok(Found::Frame(stored)) => {
                // A2: the frame's identity says whose it is, never its content.
                let mine = Frame::peek_id(&stored.bytes).is_ok_and(|id| id == self.id);
                Some(if mine { Settled::Stored } else { Settled::Fenced })
            }
            // A3: below the first sequence, or its log is gone: what stood here cannot be read.
            Ok(Found::Absent(tip)) if tip.first > self.expected + 1 || tip.epoch != self.epoch => {
                Some(if self.copy_unknown { Settled::FencedUnknown } else { Settled::Fenced })
            }
            Ok(Found::Absent(tip)) if tip.last < self.expected => {
                self.next = Next::Prove(tip.last);
                None
            }
            // A3: above the last: it may still land, so it is sent again. And in turn, so a journal that
            // only answers one of the two questions is enough.
            Ok(Found::Absent(_)) | Err(_) => {
                self.next = Next::Send;
                self.back_off(now);
                None
            }
        }
    }

    fn back_off(&mut self, now: Duration) {
        self.attempts += 1;
        self.not_before = now + (BACKOFF_MIN * (1 << self.attempts.min(8))).min(BACKOFF_MAX);
    }

    pub(crate) const fn is_uncertain(&self) -> bool {
        self.copy_unknown
    }
}

#[cfg(test)]
mod tests;
