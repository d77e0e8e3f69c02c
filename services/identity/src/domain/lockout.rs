//! Lock-out with back-off: who guesses is made to wait longer and longer.
//!
//! An attempt is counted before the password is looked at and taken back when it was right, so that many
//! guesses at the same moment count as many.

use std::time::Duration;
use stormwire_core::Timestamp;

/// How failures become waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Failures that cost nothing.
    pub(crate) free: u32,
    /// The first wait; each further failure doubles it.
    pub(crate) first: Duration,
    /// The longest wait.
    pub(crate) longest: Duration,
}

/// Of one account, known or not.
pub(crate) const ACCOUNT: Rule =
    Rule { free: 5, first: Duration::from_secs(1), longest: Duration::from_secs(15 * 60) };
/// Of one address, which may be that of many people.
pub(crate) const ADDRESS: Rule =
    Rule { free: 50, first: Duration::from_secs(1), longest: Duration::from_secs(15 * 60) };
/// After so long without an attempt all is forgotten; longer than the longest wait.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attempts {
    /// Attempts that did not turn out right, so far.
    pub(crate) failures: u32,
    /// When the last one was.
    pub(crate) last: Timestamp,
}

impl Rule {
    /// Counts one more attempt, or says how long to wait before the next.
    pub(crate) fn attempt(self, before: Attempts, now: Timestamp) -> Result<Attempts, Duration> {
        if now.since(before.last) >= FORGOTTEN_AFTER {
            return Ok(Attempts { failures: 1, last: now });
        }
        let until = before.last.plus(self.wait_after(before.failures));
        if now < until {
            return Err(until.since(now));
        }
        Ok(Attempts { failures: before.failures.saturating_add(1), last: now })
    }

    fn wait_after(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(over) => self.first.saturating_mul(1 << over.min(20)).min(self.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(1_795_250_000_000);

    fn after(failures: u32) -> Attempts {
        Attempts { failures, last: START }
    }

    #[test]
    fn the_wait_begins_after_the_free_attempts_and_doubles() {
        for failures in 0..ACCOUNT.free {
            assert!(ACCOUNT.attempt(after(failures), START).is_ok(), "{failures}");
        }
        for (failures, seconds) in [(5, 1), (6, 2), (7, 4), (10, 32), (15, 900), (u32::MAX, 900)] {
            let wait = ACCOUNT.attempt(after(failures), START).unwrap_err();
            assert_eq!(wait, Duration::from_secs(seconds), "{failures}");
            assert!(ACCOUNT.attempt(after(failures), START.plus(wait)).is_ok());
        }
    }

    #[test]
    fn an_hour_of_quiet_is_forgiven() {
        let again = ACCOUNT.attempt(after(400), START.plus(FORGOTTEN_AFTER)).unwrap();
        assert_eq!(again.failures, 1);
    }

    proptest! {
        /// However attempts are spread, a day of guessing gets few of them through.
        #[test]
        fn a_day_of_guessing_is_some_hundred_guesses(pauses in proptest::collection::vec(0_u64..600, 2_000)) {
            let (mut state, mut now, mut let_in) = (Attempts::default(), START, 0);
            for pause in pauses {
                now = now.plus(Duration::from_secs(pause));
                if now.since(START) >= Duration::from_secs(86_400) {
                    break;
                }
                if let Ok(next) = ACCOUNT.attempt(state, now) {
                    (state, let_in) = (next, let_in + 1);
                }
            }
            prop_assert!(let_in <= 15 + 86_400 / 900, "{}", let_in);
        }
    }
}
