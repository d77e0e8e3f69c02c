//! The lane's batches on their way to the owner, here or elsewhere.

use super::super::cell::{Cell, Ticket};
use super::super::remote::Settled;
use super::{Actor, Origin};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use stormwire_journal::PeerError;
use stormwire_journal::lane::Answer;
use stormwire_journal::owner::Claim;
use stormwire_journal::publish::Now;

impl Actor {
    /// Carries the lane's next batch to the owner, and answers what has waited too long. Says when the
    /// lane has to be looked at again.
    pub(super) fn feed(&mut self, now: Now) -> Duration {
        // Also of an owner: what it asked of the one before may never be answered.
        self.give_up_remote(now);
        let mine = self.appender.owned().is_some();
        let owner = if mine { None } else { self.other_owner(now) };
        let refusal = self.unreachable(now, mine || owner.is_some() || self.remote.is_busy());
        let mut lane = self.cell.lane.lock();
        if lane.expires().is_some_and(|at| at <= now.mono) {
            lane.expire(now);
        }
        if let Some(refusal) = refusal {
            lane.set_unavailable(refusal);
        }
        let mut wake = lane.expires();
        if mine {
            if let Some(batch) = lane.take() {
                self.appender.push(now, Origin::Lane, batch);
            }
        } else if let Some(owner) = owner.filter(|_| lane.is_ready()) {
            if now.mono < self.remote.not_before() {
                wake = Some(self.remote.not_before());
            } else if let Some(batch) = lane.take() {
                let (peers, partition) = (&self.peers, self.cell.partition);
                self.remote.ask(now, peers, &self.me, partition, owner, batch);
            }
        }
        if lane.has_answers() {
            self.outbox.append(&mut lane.answers());
        }
        wake.unwrap_or(Duration::MAX)
    }

    /// D4: takes back what another gateway was asked and does not answer.
    fn give_up_remote(&mut self, now: Now) {
        let (members, partition) = (self.shared.members.lock(), self.cell.partition);
        let deadline = self.shared.config.publish_deadline;
        if let Some(settled) = self.remote.give_up(now, deadline, partition, &members) {
            settle_lane(&self.cell, &mut self.outbox, settled);
        }
    }

    /// The living gateway that the lane can ask.
    fn other_owner(&self, now: Now) -> Option<Claim> {
        let (members, partition) = (self.shared.members.lock(), self.cell.partition);
        let owner = members.owner(partition)?;
        let other = owner.gateway != self.me && members.is_alive(&owner.gateway, now.mono);
        other.then(|| owner.clone())
    }

    pub(super) fn remote_answered(&mut self, answer: Result<Bytes, PeerError>) {
        let (shared, partition) = (Arc::clone(&self.shared), self.cell.partition);
        let settled = self.remote.settle(shared.now(), answer, |asked, owner| {
            let mut members = shared.members.lock();
            members.note_end(partition, asked);
            if let Some(owner) = owner {
                members.note_claim(partition, owner);
            }
        });
        if let Some(settled) = settled {
            settle_lane(&self.cell, &mut self.outbox, settled);
        }
    }
}

fn settle_lane(cell: &Cell, outbox: &mut Vec<Answer<Ticket>>, settled: Settled) {
    let mut lane = cell.lane.lock();
    lane.settle(settled.epoch, settled.batch, settled.outcomes);
    outbox.append(&mut lane.answers());
}
