//! How an owner ends: it lets go, it was fenced, or it gives up; and what becomes of what it has.

use super::{Appender, Event, Owner, State};
use crate::flight::{Found, Op, OpResult};
use crate::publish::{Now, Outcome};
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};

/// D5: an owner that has had no answer of any kind for so long gives its partition up, if another
/// can do better.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// How often an owner with nothing to write looks whether another has claimed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the journal was asked since it last answered anything.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    first_and_last: Option<(Duration, Duration)>,
}

impl Unanswered {
    pub(super) fn asked(&mut self, now: Duration) {
        // After a while in which nothing was asked, silence says nothing.
        let idle = |last: Duration| now.saturating_sub(last) >= GIVE_UP_AFTER / 2;
        let going_on = self.first_and_last.filter(|(_, last)| !idle(*last));
        self.first_and_last = Some((going_on.map_or(now, |(first, _)| first), now));
    }

    fn since(&self) -> Option<Duration> {
        self.first_and_last.map(|(first, _)| first)
    }
}

impl<O> Appender<O> {
    /// D3: writes what waits, takes nothing more, then ends with [`Event::Released`].
    pub fn release(&mut self) {
        match &mut self.state {
            State::Owner(owner) => owner.releasing = true,
            _ => self.stand_down(),
        }
        self.released_if_idle();
    }

    /// D5: whether the journal has answered nothing for so long that another gateway, which reaches it,
    /// should own the partition.
    #[must_use]
    pub fn is_cut_off(&self, now: Now) -> bool {
        matches!(&self.state, State::Owner(Owner { flight: Some(_), .. }))
            && self
                .unanswered
                .since()
                .is_some_and(|since| now.mono.saturating_sub(since) >= GIVE_UP_AFTER)
    }

    /// D5: lets go without an answer. The frame under way may be stored, now or before another claims: the
    /// next owner finds it in the log or never, so what is in it is unknown here and a repeat there.
    pub fn give_up(&mut self) {
        if !matches!(self.state, State::Owner(_)) {
            return;
        }
        self.discard = self.busy;
        self.fail(&Outcome::Unknown, &Outcome::NotStored);
        self.state = State::Follower;
        self.events.push(Event::GaveUp);
    }

    pub(super) fn released_if_idle(&mut self) {
        if let State::Owner(owner @ Owner { releasing: true, flight: None, .. }) = &self.state
            && self.batches.is_empty()
        {
            // D3: the table goes along with the partition.
            let table = owner.unsaved_table();
            self.discard = self.busy;
            self.state = State::Follower;
            self.events.push(Event::Released { table });
        }
    }

    /// D1: the last claim in the log says who owns. An owner with nothing to write that has not heard of a
    /// newer claim, of a gateway that has gone since, finds out here: else nobody would write.
    pub(super) fn has_looked(&mut self, now: Duration, result: &OpResult) {
        let State::Owner(owner) = &mut self.state else { return };
        owner.looked = now;
        let fenced = match result {
            OpResult::Found(Ok(Found::Frame(_))) => true,
            OpResult::Found(Ok(Found::Absent(tip))) => {
                (tip.epoch, tip.last) > (owner.epoch, owner.last)
            }
            _ => false,
        };
        if fenced {
            self.fenced(&Outcome::NotStored);
        }
    }

    pub(super) fn fenced(&mut self, in_flight: &Outcome) {
        self.fail(in_flight, &Outcome::NotStored);
        self.state = State::Follower;
        self.events.push(Event::Fenced);
    }

    /// Ends all that is in the frame under way with `in_flight` and all that waits behind it with
    /// `waiting`: nothing of a connection is taken after something of it was not.
    pub(super) fn fail(&mut self, in_flight: &Outcome, waiting: &Outcome) {
        for part in self.parts.drain(..) {
            if let State::Owner(owner) = &mut self.state {
                owner.repeats.release(part.slot);
            }
            let at = usize::try_from(part.batch - self.base).unwrap_or(usize::MAX);
            if let Some(batch) = self.batches.get_mut(at) {
                // A5: of a cut publish an earlier part is stored, whatever becomes of this one.
                let outcome = if part.has_head() { in_part(in_flight) } else { in_flight.clone() };
                batch.finish(part.item, outcome);
            }
        }
        for batch in &mut self.batches {
            batch.finish_all(waiting);
        }
        self.answer_finished();
    }
}

impl Owner {
    /// Whether another's frame stands behind its last one, asked now and then.
    pub(super) fn look(&self, now: Duration) -> Option<Op> {
        let due = now.saturating_sub(self.looked) >= LOOK_EVERY;
        due.then_some(Op::Find { epoch: self.epoch, seq: self.last + 1 })
    }
}

/// The outcome of a publish of which a part is stored, where the rest ended like this.
fn in_part(rest: &Outcome) -> Outcome {
    match rest {
        Outcome::Refused(refusal) => {
            let text = "a part of these events is stored; send them again with `again`";
            let mut unknown = Refusal::new(ErrorCode::UnknownOutcome, text);
            unknown.retry_after = refusal.retry_after;
            Outcome::Refused(unknown)
        }
        Outcome::NotStored | Outcome::Unknown | Outcome::Stored(_) => Outcome::Unknown,
    }
}
