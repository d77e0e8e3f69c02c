//! What follows from the end of a frame: for its events, for what waits behind it, for the appender.

use super::batch::Batch;
use super::{Appender, Event, FrameSize, Owner, Saves, State};
use crate::appender::Answer;
use crate::flight::Settled;
use crate::publish::{Now, Outcome};
use crate::rebuild::Rebuild;
use std::time::Duration;
use stormwire_core::{Epoch, ErrorCode, FrameSeq, Offset, Refusal};

impl<O> Appender<O> {
    pub(super) fn claim_settled(&mut self, now: Now, settled: &Settled) {
        let State::Claiming(rebuild, flight) = std::mem::replace(&mut self.state, State::Follower)
        else {
            return;
        };
        if *settled == Settled::Stored {
            let (epoch, claim) = (flight.epoch, flight.expected + 1);
            self.state = State::Owner(Owner {
                epoch,
                claim,
                last: claim,
                repeats: rebuild.repeats,
                flight: None,
                last_id: flight.id,
                kept: now.mono,
                looked: now.mono,
                saves: Saves::since(now.mono),
                releasing: false,
            });
            self.known.keep(epoch, claim, flight.id);
            self.events.push(Event::Claimed { epoch, claim });
            return;
        }
        if *settled == Settled::Rewound {
            // E1: nothing of what was read can be relied on.
            self.known.learn(&rebuild.reached());
            return self.rewound(flight.epoch, flight.expected);
        }
        // D3: after a refused claim only the new frames are read.
        let mut rebuild = rebuild;
        rebuild.refresh();
        self.state = State::Reading(rebuild);
        self.events.push(Event::ClaimRefused);
    }

    pub(super) fn frame_settled(&mut self, now: Now, settled: &Settled) {
        let State::Owner(owner) = &mut self.state else { return };
        let Some((flight, size)) = owner.flight.take() else { return };
        match settled {
            Settled::Stored => {
                (owner.last, owner.last_id) = (flight.expected + 1, flight.id);
                owner.looked = now.mono;
                self.known.keep(owner.epoch, owner.last, flight.id);
                let took = now.mono.saturating_sub(flight.since);
                let uncertain = flight.is_uncertain();
                let FrameSize { events, bytes } = size;
                self.events.push(Event::Written { events, bytes, took, uncertain });
                self.just_settled = true;
                self.stored(now);
                self.waiting_since = None;
            }
            Settled::Refused(error) => {
                let after = Duration::from_secs(1);
                let text = format!("the events were not stored: {error}");
                let refusal = Refusal::new(ErrorCode::JournalUnavailable, text).retry_after(after);
                let refused = Outcome::Refused(refusal);
                self.fail(&refused, &refused);
                self.released_if_idle();
            }
            // A2: another's frame stands where mine should: mine will never be stored.
            Settled::Fenced => self.fenced(&Outcome::NotStored),
            Settled::FencedUnknown => self.fenced(&Outcome::Unknown),
            Settled::Rewound => {
                let refused = Outcome::Refused(rewound_refusal());
                // A2: if the log lacks just one frame, an earlier copy may still land.
                let uncertain = flight.is_uncertain();
                let in_flight = if uncertain { Outcome::Unknown } else { refused.clone() };
                self.fail(&in_flight, &refused);
                self.rewound(flight.epoch, flight.expected);
            }
        }
    }

    /// E1: the log has gone back behind frame `seen`. It says so itself now, and is read anew.
    fn rewound(&mut self, epoch: Epoch, seen: FrameSeq) {
        self.known.saw(epoch, seen);
        self.state = State::Reading(Rebuild::new(self.config.repeats_bytes_max, self.known));
        self.events.push(Event::Rewound { epoch, seen });
    }

    /// The table moves here and nowhere else (A4), with the frame's answers.
    fn stored(&mut self, now: Now) {
        let State::Owner(owner) = &mut self.state else { return };
        for part in self.parts.drain(..) {
            let offset = Offset::new(owner.last, part.index);
            owner.repeats.settle(part.slot, part.seq, u32::from(part.count), offset, now.wall);
            let at = usize::try_from(part.batch - self.base).unwrap_or(usize::MAX);
            if let Some(batch) = self.batches.get_mut(at) {
                batch.stored(&part, offset);
            }
        }
        self.answer_finished();
    }

    /// [`Fault::EarlyAcknowledgement`]: answers as if the frame under way were stored.
    pub(super) fn acknowledge_early(&mut self, now: Now) {
        let State::Owner(owner) = &mut self.state else { return };
        let last = owner.last;
        owner.last += 1;
        self.stored(now);
        if let State::Owner(owner) = &mut self.state {
            owner.last = last;
        }
    }

    pub(super) fn answer_finished(&mut self) {
        let epoch = match &self.state {
            State::Owner(owner) => owner.epoch,
            _ => Epoch::FIRST,
        };
        for batch in &mut self.batches {
            let Some((origin, items, outcomes)) = batch.take_finished() else { continue };
            self.waiting_bytes -= batch.bytes;
            self.answers.push(Answer { origin, epoch, items, outcomes });
        }
        while self.batches.front().is_some_and(Batch::is_answered) {
            self.batches.pop_front();
            self.base += 1;
        }
        if self.batches.is_empty() {
            self.waiting_since = None;
        }
    }
}

/// What publishes are refused with while the log waits for a new epoch.
#[must_use]
pub fn rewound_refusal() -> Refusal {
    let text = "the journal of this partition has gone back in time; an operator has to begin a new \
                epoch with `stormwire journal new-epoch`";
    Refusal::new(ErrorCode::JournalRewound, text).retry_after(Duration::from_secs(5))
}
