//! How much is fair: everybody the same, and what is left over to the first of the living.

use stormwire_archive::Roster;
use stormwire_core::PartitionCount;

/// What a worker that holds `held` partitions should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Take up to so many that are free.
    Take(usize),
    /// Give so many back, for those who have less.
    Give(usize),
    /// It is right as it is.
    Fair,
}

pub(crate) fn share(partitions: PartitionCount, roster: Roster, held: usize) -> Share {
    let (count, living) = (usize::from(partitions.get()), roster.living.max(1));
    let fair = count / living + usize::from(roster.before < count % living);
    match held.cmp(&fair) {
        std::cmp::Ordering::Less => Share::Take(fair - held),
        std::cmp::Ordering::Greater => Share::Give(held - fair),
        std::cmp::Ordering::Equal => Share::Fair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn workers_that_do_what_is_fair_hold_everything_and_evenly(
            count in 1u16..=64, joins in prop::collection::vec(any::<Option<u8>>(), 1..20),
        ) {
            let partitions = PartitionCount::new(count).unwrap();
            // The workers by name, with what each holds.
            let mut held: Vec<(u8, usize)> = vec![(100, 0)];
            for joins in joins {
                match joins {
                    Some(name) if held.iter().all(|(other, _)| *other != name) => held.push((name, 0)),
                    _ if held.len() > 1 => drop(held.pop()),
                    _ => {}
                }
                // One after the other, as often as it takes: nobody gives what nobody may take.
                for _ in 0..2 {
                    let names: Vec<u8> = held.iter().map(|(name, _)| *name).collect();
                    for at in 0..held.len() {
                        let before = names.iter().filter(|name| **name < names[at]).count();
                        let roster = Roster { living: names.len(), before };
                        let free = usize::from(count) - held.iter().map(|(_, held)| held).sum::<usize>();
                        match share(partitions, roster, held[at].1) {
                            Share::Take(want) => held[at].1 += want.min(free),
                            Share::Give(much) => held[at].1 -= much,
                            Share::Fair => {}
                        }
                    }
                }
                let shares: Vec<usize> = held.iter().map(|(_, held)| *held).collect();
                prop_assert_eq!(shares.iter().sum::<usize>(), usize::from(count));
                let (most, least) = (*shares.iter().max().unwrap(), *shares.iter().min().unwrap());
                prop_assert!(most - least <= 1, "{:?}", shares);
            }
        }
    }
}
