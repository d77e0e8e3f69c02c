//! Whether this gateway should own the partition, and what it does about it.

use super::super::remote;
use super::{Actor, Asking, LOOK_EVERY, UNREACHABLE, perform};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_journal::PeerError;
use stormwire_journal::appender::rewound_refusal;
use stormwire_journal::message::{Ask, Reply};
use stormwire_journal::owner::{Claim, Decision};
use stormwire_journal::publish::Now;

/// What is known of a log is asked for anew after so long.
const KNOWN_EVERY: Duration = Duration::from_secs(5);
/// How long, and then how often, the end of a log that nobody writes is looked at.
const LOOK_AT_END_EVERY: Duration = Duration::from_secs(1);
/// How often a partition that waits for its turn among the others of this gateway tries again.
const TURN_RETRY: Duration = Duration::from_millis(20);

impl Actor {
    /// D: whether to read the log, to ask for the partition or to claim it. Says when to look again.
    pub(super) fn decide(&mut self, now: Now) -> Duration {
        let later =
            now.mono + if self.peers.is_alone() { Duration::from_secs(1) } else { LOOK_EVERY };
        if let Some(asking) = &self.asking
            && !self.shared.members.lock().is_alive(&asking.of.gateway, now.mono)
        {
            self.asking = None;
        }
        if let Some((epoch, seq)) = self.appender.owned()
            && self.shared.members.lock().is_outdated(self.cell.partition, epoch, seq)
        {
            // Another has claimed since, and an owner with nothing to write does not find out by itself.
            self.appender.release();
        }
        if self.appender.is_cut_off(now) {
            // D5: left to a gateway that can do better, if there is one.
            let mut members = self.shared.members.lock();
            if members.another_reaches_journal(now.mono) {
                members.give_up(self.cell.partition, now.mono);
                drop(members);
                self.appender.give_up();
            }
        }
        if self.appender.owned().is_some() || self.appender.is_between() || self.asking.is_some() {
            return later;
        }
        if !self.ownership.is_granted(now.mono) {
            self.handing = None;
        }
        let log = self.appender.log_end();
        let decision = self.ownership.decide(now, &self.shared.members.lock(), log);
        match decision {
            Decision::StandDown => {
                self.appender.stand_down();
                self.claiming = None;
            }
            Decision::Wait => {
                if log.is_some() {
                    self.claiming = None;
                }
            }
            Decision::ReadLog => {
                if self.appender.is_rewound() {
                    // E1: it waits for an operator, and keeps no other partition from being claimed.
                    self.claiming = None;
                } else if !self.may_claim() {
                    return now.mono + TURN_RETRY;
                }
                self.ask_known(now.mono);
                self.appender.read_log();
            }
            Decision::Claim => {
                if !self.may_claim() {
                    return now.mono + TURN_RETRY;
                }
                // E1: a claim is held against all that is known of the log.
                if self.knowing.is_none() {
                    self.appender.claim(now, rand::random());
                }
            }
            Decision::Ask(of) => return self.ask_for_it(now, of),
        }
        later
    }

    /// E1: whether the log has gone back and waits for an operator, as far as is known here.
    pub(super) fn is_rewound(&self) -> bool {
        self.appender.is_rewound() || (self.appender.owned().is_none() && self.seen_rewound)
    }

    /// E1: asks the others in this process, and the archive, what they know of the log.
    fn ask_known(&mut self, now: Duration) {
        if self.knowing.is_none()
            && self.asked_known.is_none_or(|at| now.saturating_sub(at) >= KNOWN_EVERY)
        {
            self.asked_known = Some(now);
            let (witness, partition) = (Arc::clone(&self.witness), self.cell.partition);
            self.knowing = Some(Box::pin(async move { witness.known(partition).await }));
        }
    }

    /// E1: where nobody writes the log, perhaps it is because it has gone back: its end says so.
    fn look_at_end(&mut self, now: Duration, waited: Duration) {
        let is_due = self.looked.is_none_or(|at| now.saturating_sub(at) >= LOOK_AT_END_EVERY);
        if waited >= LOOK_AT_END_EVERY && is_due && self.looking.is_none() {
            self.looked = Some(now);
            self.looking = Some(perform::is_rewound(&self.journal, self.cell.partition));
        }
    }

    /// D5: what the lane's state of being refused changes to, if it changes.
    pub(super) fn unreachable(&mut self, now: Now, reachable: bool) -> Option<Option<Refusal>> {
        if reachable {
            (self.unreachable_since, self.seen_rewound) = (None, false);
            return self.unavailable.take().map(|_| None);
        }
        let since = *self.unreachable_since.get_or_insert(now.mono);
        let waited = now.mono.saturating_sub(since);
        self.look_at_end(now.mono, waited);
        let refusal = if self.is_rewound() {
            rewound_refusal()
        } else if waited >= UNREACHABLE {
            let text = match self.appender.problem() {
                Some(problem) => format!("no gateway can write to this partition now: {problem}"),
                None => "no gateway can write to this partition now".to_owned(),
            };
            let refusal = Refusal::new(ErrorCode::JournalUnavailable, text);
            refusal.retry_after(Duration::from_secs(1))
        } else {
            // What was refused with another code is looked at anew.
            return self.unavailable.take().map(|_| None);
        };
        self.unavailable = Some(refusal.code);
        Some(Some(refusal))
    }

    /// D3: whoever was granted the partition has the right to it already, and only the owner's last frames
    /// to read.
    fn may_claim(&mut self) -> bool {
        if self.handing.is_some() {
            return true;
        }
        if self.claiming.is_none() {
            self.claiming = Arc::clone(&self.shared.claims).try_acquire_owned().ok();
        }
        self.claiming.is_some()
    }

    fn ask_for_it(&mut self, now: Now, of: Claim) -> Duration {
        self.claiming = None;
        let Ok(permit) = Arc::clone(&self.shared.hand_overs).try_acquire_owned() else {
            return now.mono + TURN_RETRY;
        };
        self.ownership.asked(now.mono);
        let body = Ask::encode(now.wall, &self.me, &of, None);
        let answer = remote::ask(&self.peers, self.cell.partition, &of, body);
        self.asking = Some(Asking { of, answer, permit });
        now.mono + LOOK_EVERY
    }

    pub(super) fn hand_over_answered(&mut self, answer: Result<Bytes, PeerError>) {
        let Some(Asking { of, permit, .. }) = self.asking.take() else { return };
        match answer.map(|bytes| Reply::decode(&bytes)) {
            Ok(Ok(Reply::Moved(None))) => {
                // D3: the owner has let go. Only what it wrote since is read, then the claim goes out.
                self.shared.members.lock().note_end(self.cell.partition, &of);
                self.ownership.granted(self.shared.now().mono);
                self.handing = Some(permit);
                self.appender.read_log();
            }
            Ok(Ok(Reply::Moved(Some(owner)))) => {
                self.shared.members.lock().note_claim(self.cell.partition, owner);
            }
            _ => {}
        }
    }
}
