//! Pauses between attempts: exponential with full jitter, so that many clients spread by themselves.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// Doublings after which the cap is reached whatever the base.
const DOUBLINGS_MAX: u32 = 20;

/// The n-th pause is drawn evenly from zero to `base * 2^n`, at most `cap`.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    random: StdRng,
}

impl Backoff {
    /// Starts at `base`.
    pub(crate) fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, attempt: 0, random: StdRng::seed_from_u64(seed) }
    }

    /// The pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempt.min(DOUBLINGS_MAX)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(self.random.random_range(0.0..=1.0))
    }

    /// Something went well: the next pause is a short one again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_spread_below_it() {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut longest = Duration::ZERO;
        for seed in 0..200 {
            let mut backoff = Backoff::new(base, cap, seed);
            for attempt in 0..40u32 {
                let pause = backoff.next_pause();
                assert!(pause <= base.saturating_mul(1 << attempt.min(10)).min(cap));
                longest = longest.max(pause);
            }
            backoff.reset();
            assert!(backoff.next_pause() <= base);
        }
        assert!(longest > cap.mul_f64(0.9), "full jitter reaches the cap: {longest:?}");
    }
}
