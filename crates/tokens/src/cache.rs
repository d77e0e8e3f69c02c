//! Tokens that were verified a moment ago: checking an RSA signature costs some 100 µs, a look-up a few.

use crate::Claims;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::mem;

/// The hash of a token stands for it, so that a memory dump holds no tokens.
pub(crate) type TokenHash = [u8; 32];

pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A look-up that found nothing: the turn of the cache at that time. A token verified against keys that
/// have been replaced meanwhile must not enter the cache that was cleared for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Miss(u64);

/// Two generations of at most half the bound each: what is used moves to the young one, and when that is
/// full the old one is dropped whole. No entry needs a list or a clock of its own.
#[derive(Debug)]
pub(crate) struct Cache {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    /// How often all was forgotten.
    turn: u64,
    young: HashMap<TokenHash, Claims>,
    old: HashMap<TokenHash, Claims>,
}

impl Cache {
    /// Keeps at most `entries_max`.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { half: (entries_max / 2).max(1), generations: Mutex::default() }
    }

    /// What is known of a token, or a [`Miss`] to come back with.
    pub(crate) fn get(&self, hash: &TokenHash) -> Result<Claims, Miss> {
        let mut generations = self.generations.lock();
        if let Some(claims) = generations.young.get(hash) {
            return Ok(claims.clone());
        }
        let Some(claims) = generations.old.remove(hash) else { return Err(Miss(generations.turn)) };
        generations.put(self.half, *hash, claims.clone());
        Ok(claims)
    }

    /// Keeps `claims`, unless the cache was cleared since the miss, and returns how many are kept.
    pub(crate) fn put(&self, miss: Miss, hash: TokenHash, claims: Claims) -> usize {
        let mut generations = self.generations.lock();
        if generations.turn == miss.0 {
            generations.put(self.half, hash, claims);
        }
        generations.young.len() + generations.old.len()
    }

    pub(crate) fn remove(&self, hash: &TokenHash) {
        let mut generations = self.generations.lock();
        generations.young.remove(hash);
        generations.old.remove(hash);
    }

    /// Forgets all: the keys have changed.
    pub(crate) fn clear(&self) {
        let mut generations = self.generations.lock();
        *generations = Generations { turn: generations.turn + 1, ..Generations::default() };
    }
}

impl Generations {
    fn put(&mut self, half: usize, hash: TokenHash, claims: Claims) {
        if self.young.len() >= half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespaces, Rights, TokenLimits};
    use std::sync::Arc;
    use stormwire_core::Timestamp;

    fn claims() -> Claims {
        Claims {
            user: Arc::from("a"),
            session: None,
            roles: Arc::from([]),
            issued: None,
            expires: Timestamp(1),
            rights: Rights::default(),
            channels: Arc::from([]),
            limits: TokenLimits::default(),
            namespaces: Namespaces::default(),
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(10);
        let used = hash("used");
        let miss = cache.get(&used).unwrap_err();
        cache.put(miss, used, claims());
        for n in 0..1000 {
            assert!(cache.put(miss, hash(&n.to_string()), claims()) <= 10);
            assert!(cache.get(&used).is_ok(), "after {n}");
        }
        assert!(cache.get(&hash("0")).is_err());
        cache.remove(&used);
        assert!(cache.get(&used).is_err());
    }

    #[test]
    fn what_was_verified_before_the_keys_changed_is_not_kept() {
        let cache = Cache::new(10);
        let hash = hash("token");
        let before = cache.get(&hash).unwrap_err();
        cache.clear();
        assert_eq!(cache.put(before, hash, claims()), 0);
        let after = cache.get(&hash).unwrap_err();
        assert_eq!(cache.put(after, hash, claims()), 1);
        cache.clear();
        assert!(cache.get(&hash).is_err());
    }
}
