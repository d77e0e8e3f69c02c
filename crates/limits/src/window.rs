//! The sliding window of two buckets, and an engine for one process made of it.

use crate::generations::GenerationMap;
use crate::{Grant, LimitKey, Limiter, LimiterError, Rule};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// One key's count: the units spent in this bucket and in the one before. Pure: time is an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TwoBuckets {
    bucket: u64,
    current: u64,
    previous: u64,
}

impl TwoBuckets {
    /// Grants up to `most` units at time `now` (since any fixed origin), or nothing if fewer than `least`
    /// are left.
    pub fn grant(&mut self, now: Duration, rule: Rule, least: u64, most: u64) -> Grant {
        let window = rule.window.as_secs_f64().max(1e-3);
        let passed = now.as_secs_f64() / window;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let bucket = passed as u64;
        // How much of this bucket has passed, 0 to 1; as much of the one before is forgotten.
        let part = passed - bucket as f64;
        match bucket.saturating_sub(self.bucket) {
            0 => {}
            1 => (self.previous, self.current) = (self.current, 0),
            _ => (self.previous, self.current) = (0, 0),
        }
        self.bucket = self.bucket.max(bucket);

        let estimate = self.current as f64 + self.previous as f64 * (1.0 - part);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0")]
        let left = (rule.limit as f64 - estimate).max(0.0) as u64;
        let granted = if left >= least.max(1) { left.min(most) } else { 0 };
        self.current += granted;
        let retry = if granted > 0 { 0.0 } else { self.wait(part, rule.limit, least.max(1)) };
        let reset = match (self.current, self.previous) {
            (0, 0) => 0.0,
            (0, _) => 1.0 - part,
            _ => 2.0 - part,
        };
        Grant {
            granted,
            valid: Grant::validity(rule),
            retry_after: rule.window.mul_f64(retry),
            remaining: left - granted,
            reset: rule.window.mul_f64(reset),
        }
    }

    /// Windows until `least` units are left, if nothing is spent meanwhile. The millisecond on top rounds
    /// up: who comes back exactly then is admitted.
    fn wait(&self, part: f64, limit: u64, least: u64) -> f64 {
        let rounding = 1e-3;
        let (current, previous, limit) = (self.current as f64, self.previous as f64, limit as f64);
        let room = limit - least as f64;
        if room < 0.0 {
            return 1.0;
        }
        if current <= room && previous > 0.0 {
            return (1.0 - (room - current) / previous - part).max(0.0) + rounding;
        }
        // This bucket alone is too full: it must become the one before and be forgotten in part.
        let forgotten = if current > 0.0 { (1.0 - room / current).clamp(0.0, 1.0) } else { 0.0 };
        1.0 - part + forgotten + rounding
    }
}

/// The engine for one process: [`TwoBuckets`] a key, in bounded memory. Time is tokio's.
#[derive(Debug)]
pub struct SlidingWindow {
    origin: Instant,
    keys: GenerationMap<LimitKey, Mutex<TwoBuckets>>,
}

impl SlidingWindow {
    /// Keeps the counts of at most about `keys_max` keys; those not used for long are forgotten first.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self { origin: Instant::now(), keys: GenerationMap::new(keys_max) }
    }

    /// The same as [`Limiter::grant`], which cannot fail here.
    pub fn grant_now(&self, key: &LimitKey, rule: Rule, least: u64, most: u64) -> Grant {
        let buckets = self.keys.get(key, || (key.clone(), Mutex::default()));
        let mut buckets = buckets.lock();
        buckets.grant(self.origin.elapsed(), rule, least, most)
    }
}

#[async_trait]
impl Limiter for SlidingWindow {
    async fn grant(
        &self,
        key: &LimitKey,
        rule: Rule,
        least: u64,
        most: u64,
    ) -> Result<Grant, LimiterError> {
        Ok(self.grant_now(key, rule, least, most))
    }

    async fn ping(&self) -> Result<(), LimiterError> {
        Ok(())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
