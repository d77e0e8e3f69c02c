//! One subject's units of one kind: the lease that is being spent, and the governor before the engine.

use crate::{Grant, Quota, Rule};
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota as Cells, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

/// A lease is what a key uses in this time.
const LEASE_FOR: Duration = Duration::from_millis(100);
/// Shortest time over which a key's rate is measured.
const MEASURED_MIN: Duration = Duration::from_millis(10);
/// A lease this small is not worth fetching ahead.
const PREFETCH_FROM: u64 = 8;

/// Time as governor wants it, from tokio, so that a paused clock holds for both.
#[derive(Debug, Clone)]
struct Since(Instant);

impl Clock for Since {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Governor = RateLimiter<NotKeyed, InMemoryState, Since, NoOpMiddleware<Duration>>;

#[derive(Debug)]
pub(crate) struct Bucket {
    rule: Rule,
    /// `None` where the rule is finer than governor counts.
    governor: Option<Governor>,
    tokens: u64,
    leased: u64,
    valid_until: Instant,
    /// The engine had fewer than so many units left, until then.
    blocked: Option<(u64, Instant)>,
    spent: u64,
    since: Instant,
    prefetching: bool,
    remaining: u64,
    reset_at: Instant,
}

/// What became of an attempt to spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spend {
    /// Spent.
    Done,
    /// Spent, and it is time to fetch the next lease: ask for so many.
    DoneAndAsk(u64),
    /// Not before so long.
    Wait(Duration),
    /// More than any window holds.
    Never,
    /// A lease must be fetched: at least the first number of units, at most the second.
    Ask(u64, u64),
}

impl Bucket {
    pub(crate) fn new(rule: Rule, now: Instant) -> Self {
        Self {
            rule,
            governor: governor(rule, now),
            tokens: 0,
            leased: 0,
            valid_until: now,
            blocked: None,
            spent: 0,
            since: now,
            prefetching: false,
            remaining: rule.limit,
            reset_at: now,
        }
    }

    /// Follows a changed rule by starting anew.
    pub(crate) fn follow(&mut self, rule: Rule, now: Instant) {
        if self.rule != rule {
            *self = Self::new(rule, now);
        }
    }

    pub(crate) fn spend(&mut self, units: u64, now: Instant) -> Spend {
        if now >= self.valid_until {
            self.tokens = 0;
        }
        if self.tokens >= units {
            self.tokens -= units;
            self.spent += units;
            let low = self.tokens <= self.leased / 2 && self.leased >= PREFETCH_FROM;
            if low && !self.prefetching {
                self.prefetching = true;
                return Spend::DoneAndAsk(self.lease_size(now));
            }
            return Spend::Done;
        }
        if units > self.rule.limit {
            return if self.rule.limit == 0 { Spend::Wait(self.rule.window) } else { Spend::Never };
        }
        let least = units - self.tokens;
        if let Some((blocked, until)) = self.blocked
            && least >= blocked
            && until > now
        {
            return Spend::Wait(until - now);
        }
        Spend::Ask(least, self.lease_size(now).max(least))
    }

    /// Gives back what was spent for something that was refused elsewhere.
    pub(crate) fn refund(&mut self, units: u64) {
        self.tokens += units;
        self.spent = self.spent.saturating_sub(units);
    }

    /// The governor's word before the engine is asked: how long to wait, if `units` go far over the limit.
    pub(crate) fn too_fast(&self, units: u64) -> Option<Duration> {
        let governor = self.governor.as_ref()?;
        let cells = NonZeroU32::new(u32::try_from(units).ok()?)?;
        match governor.check_n(cells) {
            Ok(Ok(())) | Err(_) => None,
            Ok(Err(not_until)) => Some(not_until.wait_time_from(governor.clock().now())),
        }
    }

    /// Takes over what the engine granted when asked for at least `least`.
    pub(crate) fn receive(&mut self, grant: Grant, least: u64, now: Instant) {
        self.prefetching = false;
        (self.remaining, self.reset_at) = (grant.remaining, now + grant.reset);
        if grant.granted == 0 {
            self.blocked = Some((least, now + grant.retry_after));
            return;
        }
        if now >= self.valid_until {
            self.tokens = 0;
        }
        self.tokens += grant.granted;
        self.leased = self.tokens;
        self.valid_until = now + grant.valid;
        self.blocked = None;
        (self.spent, self.since) = (0, now);
    }

    /// The next lease was not fetched ahead after all.
    pub(crate) fn prefetch_dropped(&mut self) {
        self.prefetching = false;
    }

    pub(crate) fn quota(&self, now: Instant) -> Quota {
        let leased = if now < self.valid_until { self.tokens } else { 0 };
        Quota {
            limit: self.rule.limit,
            window: self.rule.window,
            remaining: (self.remaining + leased).min(self.rule.limit),
            reset: self.reset_at.saturating_duration_since(now),
        }
    }

    /// As many units as this key used in [`LEASE_FOR`] lately, at most half the limit: a lease that lies
    /// unspent in one gateway is missing in the others.
    fn lease_size(&self, now: Instant) -> u64 {
        let measured = now.saturating_duration_since(self.since).max(MEASURED_MIN);
        let used = self.spent as f64 * LEASE_FOR.as_secs_f64() / measured.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let used = used as u64;
        used.clamp(1, (self.rule.limit / 2).max(1))
    }
}

/// Twice the limit, which is what the engine's window may admit at worst: the governor never refuses what
/// the engine would grant, and an engine that is wrong cannot give away more.
fn governor(rule: Rule, now: Instant) -> Option<Governor> {
    let burst = NonZeroU32::new(u32::try_from(rule.limit.checked_mul(2)?).ok()?)?;
    let every = rule.window / burst.get();
    let cells = Cells::with_period(every)?.allow_burst(burst);
    Some(RateLimiter::direct_with_clock(cells, Since(now)))
}
