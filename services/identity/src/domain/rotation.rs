//! Refresh tokens: each is good once. One that comes again was copied, and nobody can say by whom.

use stormwire_core::Timestamp;

/// What is known of the token that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// It has been exchanged before.
    pub(crate) used: bool,
    /// Its own end.
    pub(crate) expires_at: Timestamp,
    /// Its session was revoked.
    pub(crate) revoked: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exchange it for the next one.
    Rotate,
    /// Refuse, revoke the session, write it down.
    Reused,
    /// Refuse: the session has ended before.
    Revoked,
    /// Refuse: too old.
    Expired,
}

/// Judges a token that is shown at `now`.
pub(crate) fn judge(shown: Shown, now: Timestamp) -> Verdict {
    if shown.revoked {
        Verdict::Revoked
    } else if shown.used {
        Verdict::Reused
    } else if now >= shown.expires_at {
        Verdict::Expired
    } else {
        Verdict::Rotate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: Timestamp = Timestamp(1_000);

    #[test]
    fn each_case_has_its_verdict() {
        let shown = |used, revoked| Shown { used, expires_at: END, revoked };
        for (used, revoked, now, verdict) in [
            (false, false, 999, Verdict::Rotate),
            (false, false, 1_000, Verdict::Expired),
            (true, false, 999, Verdict::Reused),
            (true, false, 1_000, Verdict::Reused),
            (false, true, 999, Verdict::Revoked),
            (true, true, 999, Verdict::Revoked),
        ] {
            assert_eq!(
                judge(shown(used, revoked), Timestamp(now)),
                verdict,
                "{used} {revoked} {now}"
            );
        }
    }

    /// A family as the store keeps it.
    #[derive(Debug)]
    struct Family {
        tokens: Vec<Shown>,
        revoked: bool,
        now: Timestamp,
    }

    const LIFE: i64 = 100;

    impl Family {
        fn show(&mut self, at: usize) -> Verdict {
            let shown = Shown { revoked: self.revoked, ..self.tokens[at] };
            let verdict = judge(shown, self.now);
            match verdict {
                Verdict::Rotate => {
                    self.tokens[at].used = true;
                    let expires_at = Timestamp(self.now.0 + LIFE);
                    self.tokens.push(Shown { used: false, expires_at, revoked: false });
                }
                Verdict::Reused => self.revoked = true,
                Verdict::Revoked | Verdict::Expired => {}
            }
            verdict
        }
    }

    proptest! {
        /// Whoever shows what when: at most one token is good at a time, an old one ends the family, and
        /// nothing of an ended family is good again.
        #[test]
        fn a_family_has_one_good_token_or_none(shows in proptest::collection::vec((any::<prop::sample::Index>(), 0_i64..40), 1..60)) {
            let first = Shown { used: false, expires_at: Timestamp(LIFE), revoked: false };
            let mut family = Family { tokens: vec![first], revoked: false, now: Timestamp(0) };
            for (which, pause) in shows {
                family.now = Timestamp(family.now.0 + pause);
                let was_revoked = family.revoked;
                let at = which.index(family.tokens.len());
                let newest = at + 1 == family.tokens.len();
                let verdict = family.show(at);
                prop_assert_eq!(verdict == Verdict::Rotate && (was_revoked || !newest), false);
                prop_assert_eq!(!newest && !was_revoked, verdict == Verdict::Reused);
                let good = family.tokens.iter().filter(|token| {
                    judge(Shown { revoked: family.revoked, ..**token }, family.now) == Verdict::Rotate
                });
                prop_assert!(good.count() <= usize::from(!family.revoked));
            }
        }
    }
}
