//! Who should own a partition, who does, and when to claim it (rules D1 to D3).
//!
//! Nothing here protects the log: the journal does, by its check of the expected last sequence. This
//! only keeps gateways from claiming against each other without need.

mod notices;

use crate::message::Heartbeat;
use crate::publish::Now;
use crate::rebuild::LogEnd;
use hashbrown::HashMap;
use notices::Noticed;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, PartitionCount, Timestamp};

/// How often a gateway says that it lives.
pub const BEAT_EVERY: Duration = Duration::from_millis(300);
/// D2: after this long without a heartbeat a gateway counts as gone, if the log is silent as well. D3: a
/// joiner listens as long before it does anything.
pub const SILENCE: Duration = Duration::from_millis(1500);
/// D1: a frame younger than this says that its writer lives.
pub const LOG_SILENCE: Duration = Duration::from_secs(3);
/// How often the end of the log is looked at while waiting for its silence.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A hand-over that was not granted is asked for again after this long.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// D5: how long a partition that was given up is left to others.
pub const GIVEN_UP: Duration = Duration::from_secs(30);
/// How long a grant holds.
const GRANT: Duration = Duration::from_secs(3);

/// One gateway's claim to a partition: which gateway, and the claim frame by epoch and sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who claimed.
    pub gateway: Arc<str>,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The sequence of the claim frame.
    pub seq: FrameSeq,
}

#[derive(Debug)]
struct Member {
    process: [u8; 16],
    heard: Now,
    leaving: bool,
    noticed: Option<Noticed>,
}

/// The gateways that are known, by their heartbeats.
#[derive(Debug)]
pub struct Members {
    me: Arc<str>,
    process: [u8; 16],
    alone: bool,
    leaving: bool,
    since: Duration,
    others: HashMap<Arc<str>, Member>,
    /// The latest claim of each partition that was heard of, and whether it still stands.
    claims: Vec<Option<(Claim, bool)>>,
    /// D5: what this gateway leaves to others, and until when.
    given_up: Vec<(Partition, Duration)>,
}

impl Members {
    /// Only this gateway, `me`, from `now` on. `alone`: there can be no other.
    #[must_use]
    pub fn new(
        me: &str,
        process: [u8; 16],
        partitions: PartitionCount,
        alone: bool,
        now: Duration,
    ) -> Self {
        Self {
            me: Arc::from(me),
            process,
            alone,
            leaving: false,
            since: now,
            others: HashMap::new(),
            claims: vec![None; usize::from(partitions.get())],
            given_up: Vec::new(),
        }
    }

    /// Takes a heartbeat; `true` if it changed who lives or who owns what. `Err`: another process uses
    /// this gateway's name.
    ///
    /// # Errors
    /// The other process's number.
    pub fn hear(&mut self, now: Now, beat: &Heartbeat) -> Result<bool, [u8; 16]> {
        if *beat.gateway == *self.me {
            return if beat.process == self.process { Ok(false) } else { Err(beat.process) };
        }
        let name: Arc<str> = Arc::from(&*beat.gateway);
        let (process, leaving) = (beat.process, beat.leaving);
        let member = Member { process, heard: now, leaving, noticed: None };
        let mut changed = match self.others.insert(Arc::clone(&name), member) {
            None => true,
            Some(before) => {
                if let Some(member) =
                    self.others.get_mut(&name).filter(|_| before.process == process)
                {
                    member.noticed = before.noticed;
                }
                before.process != beat.process
                    || before.leaving != beat.leaving
                    || now.mono.saturating_sub(before.heard.mono) >= SILENCE
            }
        };
        for (partition, epoch, seq) in &beat.owned {
            let claim = Claim { gateway: Arc::clone(&name), epoch: *epoch, seq: *seq };
            changed |= self.note_claim(*partition, claim);
        }
        for (at, known) in self.claims.iter_mut().enumerate() {
            if let Some((claim, stands)) = known
                && *stands
                && claim.gateway == name
                && !beat.owned.iter().any(|owned| usize::from(owned.0.0) == at)
            {
                *stands = false;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Notes a claim that was heard of; an older one than the latest is no news.
    pub fn note_claim(&mut self, partition: Partition, claim: Claim) -> bool {
        let Some(known) = self.claims.get_mut(usize::from(partition.0)) else { return false };
        if let Some((latest, stands)) = known {
            if *latest == claim {
                return !std::mem::replace(stands, true);
            }
            if (latest.epoch, latest.seq) >= (claim.epoch, claim.seq) {
                return false;
            }
        }
        *known = Some((claim, true));
        true
    }

    /// Notes that `claim` does not stand any longer.
    pub fn note_end(&mut self, partition: Partition, claim: &Claim) {
        if let Some(Some((latest, stands))) = self.claims.get_mut(usize::from(partition.0))
            && latest == claim
        {
            *stands = false;
        }
    }

    /// From now on this gateway gives its partitions away.
    pub const fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether this gateway gives its partitions away.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether there can be no other gateway.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// How many other gateways live and are not leaving.
    #[must_use]
    pub fn others(&self, now: Duration) -> usize {
        self.others.values().filter(|other| !other.leaving && lives(other, now)).count()
    }

    /// Whether `gateway` was heard lately.
    #[must_use]
    pub fn is_alive(&self, gateway: &str, now: Duration) -> bool {
        *self.me == *gateway || self.others.get(gateway).is_some_and(|other| lives(other, now))
    }

    /// The latest claim to `partition`, if it stands.
    #[must_use]
    pub fn owner(&self, partition: Partition) -> Option<&Claim> {
        let (claim, stands) = self.claims.get(usize::from(partition.0))?.as_ref()?;
        stands.then_some(claim)
    }

    /// Whether a claim newer than `(epoch, seq)` was heard of, whether or not it stands.
    #[must_use]
    pub fn is_outdated(&self, partition: Partition, epoch: Epoch, seq: FrameSeq) -> bool {
        let latest = self.claims.get(usize::from(partition.0)).and_then(Option::as_ref);
        latest.is_some_and(|(latest, _)| (latest.epoch, latest.seq) > (epoch, seq))
    }

    /// D1: who should own `partition`: the highest hash among the living, D5: but for those who have given
    /// it up. `None` if nobody stays.
    #[must_use]
    pub fn should_own(&self, partition: Partition, now: Duration) -> Option<&str> {
        let others = self
            .others
            .iter()
            .filter(|(_, other)| !other.leaving && lives(other, now))
            .filter(|(_, other)| {
                !other.noticed.as_ref().is_some_and(|noticed| noticed.has_given_up(partition))
            })
            .map(|(name, _)| &**name);
        let me = (!self.leaving && !self.has_given_up(partition, now)).then_some(&*self.me);
        others.chain(me).max_by_key(|name| (weight(name, partition), *name))
    }

    fn heard(&self, gateway: &str) -> Option<Timestamp> {
        self.others.get(gateway).map(|other| other.heard.wall)
    }
}

fn lives(member: &Member, now: Duration) -> bool {
    now.saturating_sub(member.heard.mono) < SILENCE
}

/// The weight of a gateway for a partition; the same everywhere and in every version.
fn weight(gateway: &str, partition: Partition) -> u64 {
    let bytes = gateway.bytes().chain(partition.0.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV alone leaves names that differ in their last letter close together.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// What a gateway that does not own a partition should do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is another's.
    StandDown,
    /// Nothing yet.
    Wait,
    /// Read the log, or read it on.
    ReadLog,
    /// Ask this owner to hand it over, and say so by [`Ownership::asked`].
    Ask(Claim),
    /// Claim it.
    Claim,
}

/// When this gateway claims one partition.
#[derive(Debug)]
pub struct Ownership {
    partition: Partition,
    not_before: Duration,
    looked: Option<Duration>,
    granted: Option<Duration>,
}

impl Ownership {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new(partition: Partition) -> Self {
        Self { partition, not_before: Duration::ZERO, looked: None, granted: None }
    }

    /// What to do now. `log` is the end of the log, once it is read.
    pub fn decide(&mut self, now: Now, members: &Members, log: Option<LogEnd>) -> Decision {
        if members.is_alone() {
            // D6: alone there is nobody to wait for.
            return if log.is_some() { Decision::Claim } else { Decision::ReadLog };
        }
        // D3: a joiner listens first.
        if now.mono.saturating_sub(members.since) < SILENCE {
            return Decision::Wait;
        }
        if members.should_own(self.partition, now.mono) != Some(&*members.me) {
            self.granted = None;
            return Decision::StandDown;
        }
        if self.is_granted(now.mono) {
            return if log.is_some() { Decision::Claim } else { Decision::ReadLog };
        }
        if now.mono < self.not_before {
            return Decision::Wait;
        }
        let Some(log) = log else { return Decision::ReadLog };
        let owner = members.owner(self.partition).filter(|owner| owner.gateway != members.me);
        if let Some(owner) = owner
            && members.is_alive(&owner.gateway, now.mono)
        {
            // D1, D3: an owner that lives is asked, never fenced.
            return Decision::Ask(owner.clone());
        }
        let heard = owner.and_then(|owner| members.heard(&owner.gateway));
        if writer_lives(now.wall, log, heard) {
            return self.look(now.mono);
        }
        Decision::Claim
    }

    /// D1, D2: silence counts only with no frame in the log. An owner whose heartbeats were heard and then
    /// stopped lives only if it wrote after them; else every young frame says that its writer lives.
    fn look(&mut self, now: Duration) -> Decision {
        if self.looked.is_some_and(|at| now.saturating_sub(at) < LOOK_EVERY) {
            return Decision::Wait;
        }
        self.looked = Some(now);
        Decision::ReadLog
    }

    /// The owner was asked to hand over; it is left in peace for a while.
    pub fn asked(&mut self, now: Duration) {
        self.not_before = now + ASK_EVERY;
    }

    /// The owner has let go.
    pub fn granted(&mut self, now: Duration) {
        self.granted = Some(now + GRANT);
    }

    /// Whether an owner has let go for this gateway, and it is not too long ago.
    #[must_use]
    pub fn is_granted(&self, now: Duration) -> bool {
        self.granted.is_some_and(|until| now < until)
    }

    /// The partition was claimed by this gateway.
    pub const fn claimed(&mut self) {
        self.granted = None;
    }

    /// D5: the journal did not answer, while another gateway reaches it.
    pub fn gave_up(&mut self, now: Duration) {
        self.granted = None;
        self.not_before = now + GIVEN_UP;
    }

    /// D1: fenced, or a claim was refused: back off for `random` of the way from 0.5 to 8 s.
    pub fn lost(&mut self, now: Duration, random: f64) {
        self.granted = None;
        self.not_before = now + Duration::from_secs_f64(0.5 + 7.5 * random.clamp(0.0, 1.0));
    }
}

fn writer_lives(now: Timestamp, log: LogEnd, heard: Option<Timestamp>) -> bool {
    let Some(written) = log.written else { return false };
    let young = now.since(written) < LOG_SILENCE;
    let after_beats = heard.is_none_or(|heard| written > heard.plus(BEAT_EVERY * 2));
    young && after_beats
}

#[cfg(test)]
mod tests;
