//! The one writer of a partition, as a state machine: what happened goes in, what to do comes out.
//!
//! It reads the log, claims the partition, writes one frame at a time, and ends when another has claimed.
//! `docs/appender.md` explains the rules that the comments name.

mod batch;
mod leave;
mod save;
mod settle;
mod words;

pub use settle::rewound_refusal;
pub use words::{Answer, AppenderConfig, Event};

use crate::flight::{Flight, Op, OpResult};
use crate::known::Known;
use crate::owner::Claim;
use crate::publish::{Now, Outcome, Publish};
use crate::rebuild::{LogEnd, Rebuild};
use crate::repeats::Repeats;
use batch::{Batch, Part};
use leave::Unanswered;
use save::Saves;
use std::collections::VecDeque;
use std::time::Duration;
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, FrameSeq};
use stormwire_wire::frame::{FrameBuilder, FrameId, claim};

/// How often the table of producers is trimmed to its horizon.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// One that has grown over its bytes is trimmed as soon as this after the last time.
const KEEP_OVER_EVERY: Duration = Duration::from_secs(1);
/// With [`AppenderConfig::linger`], as many events do not wait any longer.
const LINGER_EVENTS: usize = 100;
/// Bytes of events that may wait in an appender for all lanes together.
const WAITING_BYTES_MAX: usize = 32 << 20;

#[derive(Debug)]
enum State {
    /// Another's, or nobody's, for all that is known here.
    Follower,
    /// Reading the log, or done with it and waiting for the word to claim.
    Reading(Rebuild),
    Claiming(Rebuild, Flight),
    Owner(Owner),
}

#[derive(Debug)]
struct Owner {
    epoch: Epoch,
    claim: FrameSeq,
    last: FrameSeq,
    repeats: Repeats,
    flight: Option<(Flight, FrameSize)>,
    /// The identity of frame `last`.
    last_id: FrameId,
    kept: Duration,
    /// When the log was last seen to end with frame `last`.
    looked: Duration,
    saves: Saves,
    releasing: bool,
}

#[derive(Debug, Clone, Copy)]
struct FrameSize {
    events: usize,
    bytes: usize,
}

/// The appender of one partition. `O` is the caller's word for where a batch came from.
#[derive(Debug)]
pub struct Appender<O> {
    config: AppenderConfig,
    state: State,
    /// E1: what must be in the log, also while the partition is another's.
    known: Known,
    /// Whether an [`Op`] was given out and its result is due.
    busy: bool,
    /// Whether that result is for a reading that was given up.
    discard: bool,
    appender: [u8; 16],
    counter: u64,
    builder: FrameBuilder,
    batches: VecDeque<Batch<O>>,
    /// The number of the first of `batches`.
    base: u64,
    parts: Vec<Part>,
    waiting_bytes: usize,
    /// When the first of what waits came, while nothing is under way.
    waiting_since: Option<Duration>,
    /// What is pushed right after a settlement comes from a busy lane and does not linger.
    just_settled: bool,
    unanswered: Unanswered,
    answers: Vec<Answer<O>>,
    events: Vec<Event>,
}

impl<O> Appender<O> {
    /// An appender that does nothing yet.
    #[must_use]
    pub fn new(config: AppenderConfig) -> Self {
        Self {
            config,
            state: State::Follower,
            known: Known::default(),
            busy: false,
            discard: false,
            appender: [0; 16],
            counter: 0,
            builder: FrameBuilder::default(),
            batches: VecDeque::new(),
            base: 0,
            parts: Vec::new(),
            waiting_bytes: 0,
            waiting_since: None,
            just_settled: false,
            unanswered: Unanswered::default(),
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Begins to read the log, or reads on.
    pub fn read_log(&mut self) {
        match &mut self.state {
            State::Follower => {
                let bytes_max = self.config.repeats_bytes_max;
                self.state = State::Reading(Rebuild::new(bytes_max, self.known));
            }
            State::Reading(rebuild) => rebuild.refresh(),
            State::Claiming(..) | State::Owner(_) => {}
        }
    }

    /// E1: takes what somebody else knows of the log: a tail, or the archive.
    pub fn learn(&mut self, known: &Known) {
        self.known.learn(known);
        match &mut self.state {
            State::Reading(rebuild) => rebuild.learn(known),
            State::Claiming(rebuild, _) => rebuild.known.learn(known),
            State::Follower | State::Owner(_) => {}
        }
    }

    /// E1: whether the log has gone back and says so: it waits for a new epoch.
    #[must_use]
    pub fn is_rewound(&self) -> bool {
        matches!(&self.state, State::Reading(rebuild) if rebuild.is_rewound())
    }

    /// Forgets what was read, but for how far that reached.
    pub fn stand_down(&mut self) {
        if let State::Reading(rebuild) = &self.state {
            self.known.learn(&rebuild.reached());
            self.state = State::Follower;
            self.discard = self.busy;
        }
    }

    /// Where the log ends, once all of it is read.
    #[must_use]
    pub fn log_end(&self) -> Option<LogEnd> {
        match &self.state {
            State::Reading(rebuild) => rebuild.end(),
            _ => None,
        }
    }

    /// Claims the partition behind the frames that were read; `appender` was never used before. Does
    /// nothing unless all is read.
    pub fn claim(&mut self, now: Now, appender: [u8; 16]) {
        let State::Reading(rebuild) = &mut self.state else { return };
        let Some(end) = rebuild.end() else { return };
        (self.appender, self.counter) = (appender, 1);
        let id = FrameId { appender, counter: 1 };
        let frame = claim(id, &self.config.gateway);
        let flight = Flight::new(now.mono, end.epoch, end.last, id, frame);
        let rebuild = std::mem::replace(rebuild, Rebuild::new(0, Known::default()));
        self.state = State::Claiming(rebuild, flight);
    }

    /// The epoch and the sequence of the claim, while the partition is this appender's.
    #[must_use]
    pub fn owned(&self) -> Option<(Epoch, FrameSeq)> {
        match &self.state {
            State::Owner(owner) if !owner.releasing => Some((owner.epoch, owner.claim)),
            _ => None,
        }
    }

    /// D4: whether a request that names this gateway, epoch and claim is for this appender as it is now.
    #[must_use]
    pub fn serves(&self, claim: &Claim) -> bool {
        *claim.gateway == *self.config.gateway && self.owned() == Some((claim.epoch, claim.seq))
    }

    /// Whether a claim is under way, or a release that has still to write something.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        match &self.state {
            State::Claiming(..) => true,
            State::Owner(owner) => owner.releasing,
            _ => false,
        }
    }

    /// The last frame that it knows of; 0 while it is nobody's.
    #[must_use]
    pub const fn last(&self) -> FrameSeq {
        if let State::Owner(owner) = &self.state { owner.last } else { 0 }
    }

    /// Since when the frame under way has waited for its settlement.
    #[must_use]
    pub fn unsettled_since(&self) -> Option<Duration> {
        match &self.state {
            State::Owner(Owner { flight: Some((flight, _)), .. }) | State::Claiming(_, flight) => {
                Some(flight.since)
            }
            _ => None,
        }
    }

    /// What keeps it from its work, if something does.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match &self.state {
            State::Reading(rebuild) | State::Claiming(rebuild, _) => rebuild.problem.as_deref(),
            _ => None,
        }
    }

    /// Takes a batch: publishes of one lane, in order. It is answered as a whole.
    pub fn push(&mut self, now: Now, origin: O, items: Vec<Publish>) {
        let bytes: usize = items.iter().map(|item| item.events.as_bytes().len()).sum();
        if self.owned().is_none() || self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            let outcomes = vec![Outcome::NotStored; items.len()];
            let epoch = Epoch::FIRST;
            self.answers.push(Answer { origin, epoch, items, outcomes });
            return;
        }
        self.waiting_bytes += bytes;
        if !self.just_settled {
            self.waiting_since.get_or_insert(now.mono);
        }
        self.batches.push_back(Batch::new(origin, items, bytes));
    }

    /// What to ask of the journal now, and when to come again without an event.
    pub fn poll(&mut self, now: Now) -> (Option<Op>, Option<Duration>) {
        if self.busy {
            return (None, None);
        }
        if let State::Owner(owner) = &mut self.state
            && owner.flight.is_none()
        {
            let every = if owner.repeats.is_over() { KEEP_OVER_EVERY } else { KEEP_EVERY };
            if now.mono.saturating_sub(owner.kept) >= every {
                owner.kept = now.mono;
                owner.repeats.keep_within(now.wall);
            }
            if let Some(until) = self.lingers_until(now.mono) {
                return (None, Some(until));
            }
            self.just_settled = false;
            self.build(now);
            self.released_if_idle();
        }
        let op = match &self.state {
            State::Follower => return (None, None),
            State::Owner(owner @ Owner { flight: None, .. }) => owner.look(now.mono).ok_or(None),
            State::Reading(rebuild) => rebuild.op(now.mono),
            State::Claiming(_, flight) | State::Owner(Owner { flight: Some((flight, _)), .. }) => {
                flight.op(now.mono).map_err(Some)
            }
        };
        match op {
            Ok(op) => {
                self.busy = true;
                self.unanswered.asked(now.mono);
                (Some(op), None)
            }
            Err(until) => (None, until),
        }
    }

    /// Takes the journal's answer to the last [`Op`].
    pub fn complete(&mut self, now: Now, result: OpResult) {
        self.busy = false;
        if result.is_answer() {
            self.unanswered = Unanswered::default();
        }
        if std::mem::take(&mut self.discard) {
            return;
        }
        let flight = match &mut self.state {
            State::Follower => return,
            State::Owner(Owner { flight: None, .. }) => return self.has_looked(now.mono, &result),
            State::Reading(rebuild) => return rebuild.complete(now, result),
            State::Claiming(_, flight) | State::Owner(Owner { flight: Some((flight, _)), .. }) => {
                flight
            }
        };
        let settled = match result {
            OpResult::Appended(result) => flight.appended(now.mono, result),
            OpResult::Found(result) => flight.found(now.mono, result),
            OpResult::Opened(_) | OpResult::Loaded(_) | OpResult::Read(_) => None,
        };
        if let Some(settled) = settled {
            if matches!(self.state, State::Claiming(..)) {
                self.claim_settled(now, &settled);
            } else {
                self.frame_settled(now, &settled);
            }
        }
    }

    /// Whether there are answers or events to take.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        !self.answers.is_empty() || !self.events.is_empty()
    }

    /// Batches that are answered.
    pub fn answers(&mut self) -> std::vec::Drain<'_, Answer<O>> {
        self.answers.drain(..)
    }

    /// What has happened.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    /// Judges what waits and puts it into the next frame, until that is full.
    fn build(&mut self, now: Now) {
        let State::Owner(owner) = &mut self.state else { return };
        let mut duplicates = 0;
        for (batch, number) in self.batches.iter_mut().zip(self.base..) {
            let mut frame = batch::Filling {
                repeats: &mut owner.repeats,
                builder: &mut self.builder,
                parts: &mut self.parts,
                batch: number,
                wall: now.wall,
                duplicates: 0,
            };
            let full = batch.fill(&mut frame);
            duplicates += frame.duplicates;
            if full {
                break;
            }
        }
        if duplicates > 0 {
            self.events.push(Event::Duplicates(duplicates));
        }
        if !self.builder.is_empty() {
            self.counter += 1;
            let id = FrameId { appender: self.appender, counter: self.counter };
            let events = self.builder.len();
            let bytes = self.builder.finish(id);
            let size = FrameSize { events, bytes: bytes.len() };
            let flight = Flight::new(now.mono, owner.epoch, owner.last, id, bytes);
            owner.flight = Some((flight, size));
            if injected(Fault::EarlyAcknowledgement) {
                self.acknowledge_early(now);
            }
        }
        self.answer_finished();
    }

    fn lingers_until(&self, now: Duration) -> Option<Duration> {
        let until = self.waiting_since? + self.config.linger;
        let few = || {
            let waiting = self.batches.iter().flat_map(Batch::waiting);
            waiting.map(|item| item.events.len()).sum::<usize>() < LINGER_EVENTS
        };
        (now < until && few()).then_some(until)
    }
}

#[cfg(test)]
mod tests;
