//! The circuit breaker: closed, open, half-open.
//!
//! Each turn of the state has a number. A call remembers the turn it began in, and its result counts only
//! in that turn: an answer that comes late neither closes nor opens a breaker that has moved on.

use metrics::{counter, gauge};
use parking_lot::Mutex;
use std::time::Duration;
use stormwire_telemetry::metrics as names;
use tokio::time::Instant;

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets every call through.
    Closed,
    /// Lets one call through, to see whether the dependency has come back.
    HalfOpen,
    /// Refuses every call.
    Open,
}

impl BreakerState {
    /// The name for health reports: `closed`, `half-open`, `open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    dependency: &'static str,
    open_after: u32,
    open_for: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    turn: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl Breaker {
    pub(crate) fn new(dependency: &'static str, open_after: u32, open_for: Duration) -> Self {
        let inner = Mutex::new(Inner { turn: 0, phase: Phase::Closed { failures: 0 } });
        let breaker = Self { dependency, open_after, open_for, inner };
        breaker.report(BreakerState::Closed);
        breaker
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.inner.lock().phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if until > Instant::now() => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Lets a call begin, or says when to come back.
    pub(crate) fn admit(&self) -> Result<Permit<'_>, Duration> {
        let mut inner = self.inner.lock();
        match &mut inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } => {
                let wait = until.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    return Err(wait);
                }
                inner.turn += 1;
                inner.phase = Phase::HalfOpen { probing: true };
                self.report(BreakerState::HalfOpen);
            }
            // The one probe is under way; a tenth of the open time is a guess at when it is back.
            Phase::HalfOpen { probing: true } => return Err(self.open_for / 10),
            Phase::HalfOpen { probing } => *probing = true,
        }
        Ok(Permit { breaker: self, turn: inner.turn, decided: false })
    }

    fn succeeded(&self, turn: u64) {
        let mut inner = self.inner.lock();
        if inner.turn != turn {
            return;
        }
        if !matches!(inner.phase, Phase::Closed { .. }) {
            inner.turn += 1;
            self.report(BreakerState::Closed);
            tracing::info!(dependency = self.dependency, "dependency answers again");
        }
        inner.phase = Phase::Closed { failures: 0 };
    }

    fn failed(&self, turn: u64) {
        let mut inner = self.inner.lock();
        if inner.turn != turn {
            return;
        }
        if let Phase::Closed { failures } = &mut inner.phase {
            *failures += 1;
            if *failures < self.open_after {
                return;
            }
            tracing::warn!(
                dependency = self.dependency,
                failures = *failures,
                "circuit breaker opened"
            );
        }
        inner.turn += 1;
        inner.phase = Phase::Open { until: Instant::now() + self.open_for };
        counter!(names::DEPENDENCY_BREAKER_OPENED, "dependency" => self.dependency).increment(1);
        self.report(BreakerState::Open);
    }

    /// A call ended without a result: if it was the probe, the next call is.
    fn cancelled(&self, turn: u64) {
        let mut inner = self.inner.lock();
        if inner.turn == turn
            && let Phase::HalfOpen { probing } = &mut inner.phase
        {
            *probing = false;
        }
    }

    fn report(&self, state: BreakerState) {
        let value = match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        gauge!(names::DEPENDENCY_BREAKER_STATE, "dependency" => self.dependency).set(value);
    }
}

/// One call's leave to run; tells the breaker how it ended, also when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    turn: u64,
    decided: bool,
}

impl Permit<'_> {
    pub(crate) fn succeeded(mut self) {
        self.decided = true;
        self.breaker.succeeded(self.turn);
    }

    pub(crate) fn failed(mut self) {
        self.decided = true;
        self.breaker.failed(self.turn);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.breaker.cancelled(self.turn);
        }
    }
}
