//! The signing keys: kept sealed in the store, published before they sign and until nothing that they
//! signed is valid.

use crate::config::IdentityConfig;
use crate::domain::key_life::{self, Dates, PUBLISHED_BEFORE};
use crate::key_ring::{KeyRing, KeyRingError};
use crate::signing::{SigningAlgorithm, SigningError, SigningKey, generate};
use crate::store::{Audit, Store, StoreError, StoredKey};
use parking_lot::RwLock;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Clock, ErrorCode, Refusal, Timestamp};
use tokio::sync::watch;

/// Why keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    #[error("a signing key cannot be used: {0}")]
    Signing(#[from] SigningError),
    #[error("a signing key of an algorithm that this program does not know: {0}")]
    Algorithm(String),
}

struct Loaded {
    generation: i64,
    dates: Dates,
    key: Arc<SigningKey>,
}

/// All keys that matter now.
pub(crate) struct Keys {
    store: Arc<dyn Store>,
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    algorithm: SigningAlgorithm,
    access_ttl: Duration,
    rotate_every: Duration,
    /// Published as well, and never signed with.
    also: Vec<Value>,
    /// Oldest first.
    loaded: RwLock<Vec<Loaded>>,
    jwks: watch::Sender<String>,
}

impl Keys {
    pub(crate) fn new(
        config: &IdentityConfig,
        store: Arc<dyn Store>,
        ring: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let also = config.also_published.as_deref().and_then(|text| {
            let set: Value = serde_json::from_str(text).ok()?;
            set["keys"].as_array().cloned()
        });
        let also = also.unwrap_or_default();
        Self {
            store,
            ring,
            clock,
            algorithm: config.algorithm,
            access_ttl: config.access_ttl,
            rotate_every: config.rotate_every,
            jwks: watch::Sender::new(json!({ "keys": also }).to_string()),
            also,
            loaded: RwLock::default(),
        }
    }

    /// The key that signs now.
    pub(crate) fn signer(&self) -> Result<Arc<SigningKey>, Refusal> {
        let loaded = self.loaded.read();
        let dates: Vec<_> = loaded.iter().map(|loaded| loaded.dates).collect();
        let at = key_life::signer(&dates, self.clock.now());
        at.map(|at| Arc::clone(&loaded[at].key)).ok_or_else(|| {
            let message = "nobody can sign in yet: the signing key is being made or read";
            Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1))
        })
    }

    /// The public keys, as they change.
    pub(crate) fn jwks(&self) -> watch::Receiver<String> {
        self.jwks.subscribe()
    }

    /// The generation below which no key is needed.
    pub(crate) fn oldest_needed(&self) -> i64 {
        let loaded = self.loaded.read();
        let dates: Vec<_> = loaded.iter().map(|loaded| loaded.dates).collect();
        let at = key_life::oldest_published(&dates, self.access_ttl, self.clock.now());
        loaded.get(at).map_or(0, |loaded| loaded.generation)
    }

    /// Reads the keys, makes the one that is due, and publishes what is to be published.
    pub(crate) async fn refresh(&self) -> Result<(), KeysError> {
        self.reload().await?;
        let due = {
            let loaded = self.loaded.read();
            let newest = loaded.last();
            let other = newest.is_some_and(|newest| newest.key.algorithm != self.algorithm);
            let dates = newest.map(|newest| newest.dates);
            other || key_life::is_due(dates, self.rotate_every, self.clock.now())
        };
        if due {
            self.rotate("schedule").await?;
        }
        Ok(())
    }

    /// Makes a new key; its name, and from when it signs. Of two processes that do so at once, one does.
    pub(crate) async fn rotate(&self, why: &str) -> Result<(String, Timestamp), KeysError> {
        let (generation, first) = {
            let loaded = self.loaded.read();
            (loaded.last().map_or(1, |newest| newest.generation + 1), loaded.is_empty())
        };
        let algorithm = self.algorithm;
        let der = tokio::task::spawn_blocking(move || generate(algorithm)).await;
        let der = der.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let key = SigningKey::from_pkcs8(algorithm, &der)?;
        let now = self.clock.now();
        // The first has nobody to take over from.
        let signs_from = if first { now } else { now.plus(PUBLISHED_BEFORE) };
        let stored = StoredKey {
            generation,
            id: key.id.clone(),
            algorithm: algorithm.as_str().to_owned(),
            sealed: self.ring.seal(&der, &place(generation))?,
            dates: Dates { made_at: now, signs_from },
        };
        let audit = Audit {
            at: now,
            kind: "signing_key_made",
            account: None,
            session: None,
            ip: String::new(),
            detail: format!("{why}: {} {}", algorithm.as_str(), key.id),
        };
        self.store.add_signing_key(&stored, &audit).await?;
        self.reload().await?;
        let loaded = self.loaded.read();
        let newest = loaded.last().map(|newest| (newest.key.id.clone(), newest.dates.signs_from));
        Ok(newest.unwrap_or((key.id, signs_from)))
    }

    /// Seals every key anew under the ring's first key; how many.
    pub(crate) async fn reseal(&self) -> Result<u64, KeysError> {
        let mut count = 0;
        for stored in self.store.signing_keys().await? {
            if stored.sealed.key == self.ring.current() {
                continue;
            }
            let place = place(stored.generation);
            let sealed = self.ring.seal(&self.ring.open_sealed(&stored.sealed, &place)?, &place)?;
            self.store.reseal_signing_key(stored.generation, &sealed).await?;
            count += 1;
        }
        Ok(count)
    }

    pub(crate) async fn reload(&self) -> Result<(), KeysError> {
        let stored = self.store.signing_keys().await?;
        let mut loaded = Vec::with_capacity(stored.len());
        for stored in stored {
            let algorithm = SigningAlgorithm::parse(&stored.algorithm);
            let algorithm = algorithm.ok_or(KeysError::Algorithm(stored.algorithm))?;
            let der = self.ring.open_sealed(&stored.sealed, &place(stored.generation))?;
            let key = Arc::new(SigningKey::from_pkcs8(algorithm, &der)?);
            loaded.push(Loaded { generation: stored.generation, dates: stored.dates, key });
        }
        *self.loaded.write() = loaded;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let loaded = self.loaded.read();
        let dates: Vec<_> = loaded.iter().map(|loaded| loaded.dates).collect();
        let from = key_life::oldest_published(&dates, self.access_ttl, self.clock.now());
        let ours = loaded.iter().skip(from).rev().map(|loaded| &loaded.key.jwk);
        let keys: Vec<_> = ours.chain(&self.also).collect();
        let text = json!({ "keys": keys }).to_string();
        self.jwks.send_if_modified(|published| {
            let changed = *published != text;
            if changed {
                *published = text;
            }
            changed
        });
    }
}

fn place(generation: i64) -> String {
    format!("signing-key:{generation}")
}
