//! A map that forgets what has not been used for long, and never grows past its bound.

use parking_lot::Mutex;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::mem;
use std::sync::Arc;

const SHARDS: usize = 16;

/// Two generations of at most half the bound each, in shards: what is used moves to the young one, and
/// when that is full the old one is dropped whole.
#[derive(Debug)]
pub(crate) struct GenerationMap<K, V> {
    half: usize,
    hasher: RandomState,
    shards: [Mutex<Shard<K, V>>; SHARDS],
}

#[derive(Debug)]
struct Shard<K, V> {
    young: HashMap<K, Arc<V>>,
    old: HashMap<K, Arc<V>>,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq, V> GenerationMap<K, V> {
    /// Keeps at most about `entries_max`.
    pub(crate) fn new(entries_max: usize) -> Self {
        let half = (entries_max / SHARDS / 2).max(1);
        Self { half, hasher: RandomState::new(), shards: Default::default() }
    }

    /// The value of `key`, made anew if it is not known (any more).
    pub(crate) fn get<Q>(&self, key: &Q, make: impl FnOnce() -> (K, V)) -> Arc<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        let mut shard = self.shards[at].lock();
        if let Some(value) = shard.young.get(key) {
            return Arc::clone(value);
        }
        let (key, value) = match shard.old.remove_entry(key) {
            Some(known) => known,
            None => {
                let (key, value) = make();
                (key, Arc::new(value))
            }
        };
        if shard.young.len() >= self.half {
            shard.old = mem::take(&mut shard.young);
        }
        shard.young.insert(key, Arc::clone(&value));
        value
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        });
        sizes.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let map = GenerationMap::new(320);
        let get = |key: &str, value: u32| *map.get(key, || (key.to_owned(), value));
        assert_eq!(get("used", 7), 7);
        for n in 0..10_000 {
            get(&n.to_string(), 0);
            assert_eq!(get("used", 8), 7, "after {n}");
        }
        assert!(map.len() <= 320, "{}", map.len());
        assert!(map.len() >= 160, "{}", map.len());
    }
}
