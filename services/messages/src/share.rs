//! How much is fair: partitions over living workers, rounded up.

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

pub(crate) fn share(partitions: PartitionCount, living: usize, held: usize) -> Share {
    let fair = usize::from(partitions.get()).div_ceil(living.max(1));
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
        fn workers_that_do_what_is_fair_hold_everything(
            count in 1u16..=64, joins in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            let partitions = PartitionCount::new(count).unwrap();
            let mut held: Vec<usize> = vec![0];
            for joins in joins {
                if joins { held.push(0) } else if held.len() > 1 { held.pop(); }
                // One after the other, as often as it takes: nobody gives what nobody may take.
                for _ in 0..2 {
                    let living = held.len();
                    for at in 0..living {
                        let free = usize::from(count) - held.iter().sum::<usize>();
                        match share(partitions, living, held[at]) {
                            Share::Take(want) => held[at] += want.min(free),
                            Share::Give(much) => held[at] -= much,
                            Share::Fair => {}
                        }
                    }
                }
                prop_assert_eq!(held.iter().sum::<usize>(), usize::from(count));
                let most = *held.iter().max().unwrap();
                prop_assert!(most <= usize::from(count).div_ceil(held.len()));
            }
        }
    }
}
