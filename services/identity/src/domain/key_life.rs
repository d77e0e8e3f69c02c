//! When a signing key is shown, signs, and goes: each is published before it signs and stays published
//! until nothing that it signed is valid.

use std::time::Duration;
use stormwire_core::Timestamp;

/// How long a new key is published before it signs: longer than verifiers keep a key set.
pub(crate) const PUBLISHED_BEFORE: Duration = Duration::from_secs(10 * 60);
/// For clocks that differ, and tokens that were signed at the last moment.
const LEEWAY: Duration = Duration::from_secs(5 * 60);

/// The dates of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dates {
    pub(crate) made_at: Timestamp,
    pub(crate) signs_from: Timestamp,
}

/// Which of `keys`, oldest first, signs at `now`.
pub(crate) fn signer(keys: &[Dates], now: Timestamp) -> Option<usize> {
    keys.iter().rposition(|key| key.signs_from <= now)
}

/// From which of `keys` on, oldest first, all are published at `now`: a key goes when the tokens that it
/// signed before its successor took over have expired.
pub(crate) fn oldest_published(keys: &[Dates], access_ttl: Duration, now: Timestamp) -> usize {
    let over = |next: &Dates| next.signs_from.plus(access_ttl).plus(LEEWAY) <= now;
    keys.iter().skip(1).rposition(over).map_or(0, |at| at + 1)
}

/// Whether it is time for a new key.
pub(crate) fn is_due(newest: Option<Dates>, every: Duration, now: Timestamp) -> bool {
    newest.is_none_or(|key| now.since(key.made_at) >= every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(900);

    fn key(made: i64, signs: i64) -> Dates {
        Dates { made_at: Timestamp(made * 1000), signs_from: Timestamp(signs * 1000) }
    }

    #[test]
    fn keys_overlap_on_both_sides() {
        let keys = [key(0, 0), key(10_000, 10_600)];
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert_eq!(signer(&keys, at(10_599)), Some(0));
        assert_eq!(signer(&keys, at(10_600)), Some(1));
        assert_eq!(oldest_published(&keys, TTL, at(10_600)), 0);
        assert_eq!(oldest_published(&keys, TTL, at(10_600 + 899)), 0);
        assert_eq!(oldest_published(&keys, TTL, at(10_600 + 900 + 300)), 1);
        assert_eq!(signer(&[], at(0)), None);
        assert!(is_due(None, TTL, at(0)));
        assert!(!is_due(Some(key(0, 0)), TTL, at(899)));
        assert!(is_due(Some(key(0, 0)), TTL, at(900)));
    }

    proptest! {
        /// A token is verifiable for its whole life, whenever it was signed and however keys rotated.
        #[test]
        fn what_was_signed_can_be_verified(pauses in proptest::collection::vec(0_i64..5_000, 1..12), signed in 0_i64..50_000, age in 0_i64..900) {
            let mut made = 0;
            let mut keys = vec![key(0, 0)];
            for pause in pauses {
                made += pause;
                keys.push(key(made, made + 600));
            }
            let known = |now: i64| keys.iter().copied().filter(|key| key.made_at.0 <= now * 1000).collect::<Vec<_>>();
            let signed_with = signer(&known(signed), Timestamp(signed * 1000)).unwrap();
            let published = oldest_published(&known(signed + age), TTL, Timestamp((signed + age) * 1000));
            prop_assert!(published <= signed_with, "{} {}", published, signed_with);
        }
    }
}
