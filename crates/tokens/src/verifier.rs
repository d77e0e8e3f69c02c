//! The verifier: a token in, claims or a refusal out.

use crate::cache::{self, Cache};
use crate::distinct::Distinct;
use crate::keys::{Key, KeySet};
use crate::revocations::Revoked;
use crate::source::{FETCH_DEADLINE, Source};
use crate::{ClaimMapping, Claims, KeySource, Namespaces, RevocationFeed, SourceError};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use metrics::{counter, gauge};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Clock, ErrorCode, Refusal, Timestamp};
use stormwire_telemetry::{Tasks, metrics as names};
use tokio::sync::watch;
use tokio::time::Instant;

mod follow;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Least time between two fetches that unknown keys ask for.
const UNKNOWN_KEY_EVERY: Duration = Duration::from_secs(10);
/// How often a key file is looked at.
const FILE_EVERY: Duration = Duration::from_secs(2);
/// First and longest wait before a failed fetch is tried again.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a [`Verifier`] accepts.
#[derive(Clone)]
pub struct VerifierConfig {
    /// Where the keys are.
    pub keys: KeySource,
    /// Issuers accepted (`iss`).
    pub issuers: Vec<String>,
    /// Audiences of which a token must name one (`aud`).
    pub audiences: Vec<String>,
    /// How far clocks may differ when `exp` and `nbf` are checked.
    pub leeway: Duration,
    /// How often keys from a URL are fetched.
    pub refresh_every: Duration,
    /// How long keys are used while their source is away.
    pub keep_for: Duration,
    /// Most verified tokens remembered.
    pub cache_entries_max: usize,
    /// Where claims stand in the token.
    pub mapping: ClaimMapping,
    /// The list of tokens that are good no longer, where there is one.
    pub revocations: Option<Arc<dyn RevocationFeed>>,
    /// What the namespaces allow.
    pub namespaces: Namespaces,
    /// What the channel tokens of an application's backend look like, where there are some.
    pub channel_tokens: Option<Box<VerifierConfig>>,
}

impl VerifierConfig {
    /// Issuer and audience `stormwire`, 30 s of leeway, keys fetched every 5 minutes and kept for a day.
    #[must_use]
    pub fn new(keys: KeySource) -> Self {
        Self {
            keys,
            issuers: vec!["stormwire".to_owned()],
            audiences: vec!["stormwire".to_owned()],
            leeway: Duration::from_secs(30),
            refresh_every: Duration::from_secs(300),
            keep_for: Duration::from_secs(24 * 3600),
            cache_entries_max: 20_000,
            mapping: ClaimMapping::default(),
            revocations: None,
            namespaces: Namespaces::default(),
            channel_tokens: None,
        }
    }
}

/// Verifies tokens. Clones share keys and cache.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    config: VerifierConfig,
    clock: Arc<dyn Clock>,
    source: Source,
    keys: RwLock<Option<Loaded>>,
    cache: Cache,
    /// For channel tokens.
    channel: Option<Verifier>,
    revoked: RwLock<Revoked>,
    /// Moves when there are more of them.
    revocations: watch::Sender<i64>,
    /// One fetch at a time, and when an unknown key last led to one.
    fetching: tokio::sync::Mutex<Option<Instant>>,
}

struct Loaded {
    keys: Arc<KeySet>,
    at: Instant,
    /// Whether the last attempt to fetch failed: then an unknown key may be a new one.
    stale: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.shared.config.keys).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the keys once and keeps them fresh in the background. A source that is away now is tried
    /// again; until it answers, tokens are refused as `overloaded` and [`Verifier::is_ready`] is false.
    ///
    /// # Errors
    /// [`SourceError::BadUrl`] for a URL that never can be fetched.
    pub async fn start(
        config: VerifierConfig,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, SourceError> {
        let source = Source::new(&config.keys)?;
        let cache = Cache::new(config.cache_entries_max);
        let fetching = tokio::sync::Mutex::default();
        let channel = match &config.channel_tokens {
            Some(config) => {
                Some(Box::pin(Self::start((**config).clone(), Arc::clone(&clock), tasks)).await?)
            }
            None => None,
        };
        let feed = config.revocations.clone();
        let shared = Arc::new(Shared {
            config,
            clock,
            source,
            keys: RwLock::default(),
            cache,
            channel,
            revoked: RwLock::default(),
            revocations: watch::Sender::new(0),
            fetching,
        });
        let verifier = Self { shared };
        let first = verifier.shared.refresh().await;
        let background = verifier.clone();
        let stop = tasks.token();
        tasks.spawn("jwks", async move {
            stop.run_until_cancelled(background.keep_fresh(first)).await;
        });
        if let Some(feed) = feed {
            let (shared, stop) = (Arc::clone(&verifier.shared), tasks.token());
            tasks.spawn("revocations", async move {
                stop.run_until_cancelled(shared.follow_revocations(&*feed)).await;
            });
        }
        Ok(verifier)
    }

    /// Whether there are keys to verify with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.current().is_some()
    }

    /// Refuses claims that were good when they were verified and have been revoked since.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn check_revoked(&self, claims: &Claims) -> Result<(), Refusal> {
        self.shared.revoked.read().check(claims)
    }

    /// Who verifies channel tokens, if anybody does.
    pub(crate) fn channel_tokens(&self) -> Option<&Self> {
        self.shared.channel.as_ref()
    }

    /// Whether an audience is one of those that are accepted.
    pub(crate) fn is_meant_by(&self, audience: &Value) -> bool {
        names_one(audience, &self.shared.config.audiences)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Moves whenever more tokens have been revoked.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<i64> {
        self.shared.revocations.subscribe()
    }

    /// Who bears this token and what it grants.
    ///
    /// # Errors
    /// `unauthenticated` or `token_expired`, naming what is wrong; `overloaded` while there are no keys,
    /// or while the source of the keys is away and the token names a key that may be new.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let claims = self.verify_unrevoked(token).await?;
        self.check_revoked(&claims).inspect_err(|_| count("revoked"))?;
        Ok(claims)
    }

    async fn verify_unrevoked(&self, token: &str) -> Result<Claims, Refusal> {
        let hash = cache::hash(token);
        let miss = match self.shared.cache.get(&hash) {
            Ok(claims) => {
                let checked = self.shared.check_expiry(claims.expires);
                count(if checked.is_ok() { "cached" } else { "expired" });
                if checked.is_err() {
                    self.shared.cache.remove(&hash);
                }
                return checked.map(|()| claims);
            }
            Err(miss) => miss,
        };
        let result = self.verify_anew(token).await;
        match &result {
            Ok(claims) => {
                count("ok");
                let kept = self.shared.cache.put(miss, hash, claims.clone());
                gauge!(names::TOKEN_CACHE_ENTRIES).set(kept as f64);
            }
            Err(refusal) if refusal.code == ErrorCode::TokenExpired => count("expired"),
            Err(_) => count("refused"),
        }
        result
    }

    async fn verify_anew(&self, token: &str) -> Result<Claims, Refusal> {
        let parts = Parts::split(token)?;
        let key = self.key(parts.header.kid.as_deref()).await?;
        parts.check_signature(&key)?;
        self.shared.read_claims(&parts.claims()?)
    }

    async fn key(&self, id: Option<&str>) -> Result<Arc<Key>, Refusal> {
        if let Some(key) = self.shared.find(id) {
            return Ok(key);
        }
        self.shared.ask_for_unknown_key(id).await;
        if let Some(key) = self.shared.find(id) {
            return Ok(key);
        }
        let keys = self.shared.keys.read();
        match &*keys {
            Some(loaded) if !loaded.stale && id.is_some() => {
                Err(bad("the token is signed with a key that this server does not know"))
            }
            Some(loaded) if !loaded.stale => {
                Err(bad("the token does not name its key (kid), and there is more than one"))
            }
            _ => Err(Refusal::new(
                ErrorCode::Overloaded,
                "tokens cannot be verified now: the signing keys could not be fetched",
            )
            .retry_after(UNKNOWN_KEY_EVERY)),
        }
    }

    /// Takes each new key set at once, until its signer is gone.
    async fn follow(&self, mut keys: watch::Receiver<String>) {
        while keys.changed().await.is_ok() {
            self.shared.refresh().await;
        }
    }

    async fn keep_fresh(&self, mut fetched: bool) {
        let config = &self.shared.config;
        let (mut retry, retry_max) = RETRY_AFTER;
        let every = match &config.keys {
            KeySource::Inline(_) => return,
            KeySource::Watched(keys) => return self.follow(keys.clone()).await,
            KeySource::File(_) => FILE_EVERY,
            KeySource::Url(_) | KeySource::Discovered { .. } => config.refresh_every,
        };
        loop {
            let wait = if fetched { every } else { retry.min(every) };
            tokio::time::sleep(wait).await;
            fetched = self.shared.refresh().await;
            retry = if fetched { RETRY_AFTER.0 } else { (retry * 2).min(retry_max) };
        }
    }
}

impl Shared {
    /// Whether the keys are in this process and cannot be away.
    const fn at_hand(&self) -> bool {
        matches!(self.config.keys, KeySource::Inline(_) | KeySource::Watched(_))
    }

    /// The keys, if they are young enough to be trusted.
    fn current(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read();
        let loaded = keys.as_ref()?;
        (self.at_hand() || loaded.at.elapsed() <= self.config.keep_for)
            .then(|| Arc::clone(&loaded.keys))
    }

    fn find(&self, id: Option<&str>) -> Option<Arc<Key>> {
        self.current()?.find(id).cloned()
    }

    /// Fetches on behalf of a token whose key is not known, once for all who wait and not too often:
    /// anybody can make up key names.
    async fn ask_for_unknown_key(&self, id: Option<&str>) {
        let lock = tokio::time::timeout(FETCH_DEADLINE, self.fetching.lock()).await;
        let Ok(mut asked) = lock else { return };
        let recently = asked.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_EVERY);
        if recently || self.find(id).is_some() || self.at_hand() {
            return;
        }
        *asked = Some(Instant::now());
        self.fetch().await;
    }

    async fn refresh(&self) -> bool {
        let _one_at_a_time = self.fetching.lock().await;
        self.fetch().await
    }

    /// Reads the keys; false if that failed and the old ones stay. The caller holds `fetching`.
    async fn fetch(&self) -> bool {
        let result = match self.source.read().await {
            Ok(text) => self.take(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        counter!(names::JWKS_FETCHES, "outcome" => outcome).increment(1);
        if let Err(error) = &result {
            tracing::warn!(%error, source = %self.config.keys, "signing keys not refreshed");
            if let Some(loaded) = &mut *self.keys.write() {
                loaded.stale = true;
            }
        }
        result.is_ok()
    }

    fn take(&self, text: &str) -> Result<(), crate::KeyError> {
        let at = Instant::now();
        if let Some(loaded) = &mut *self.keys.write()
            && loaded.keys.is_of(text)
        {
            (loaded.at, loaded.stale) = (at, false);
            return Ok(());
        }
        let keys = Arc::new(KeySet::parse(text)?);
        tracing::info!(keys = keys.len(), source = %self.config.keys, "signing keys loaded");
        gauge!(names::JWKS_KEYS).set(keys.len() as f64);
        *self.keys.write() = Some(Loaded { keys, at, stale: false });
        // A key may be gone, and with it the tokens that it signed.
        self.cache.clear();
        Ok(())
    }

    fn read_claims(&self, claims: &Value) -> Result<Claims, Refusal> {
        let expires = instant(claims, "exp")?
            .ok_or_else(|| bad("the token has no end: claim exp is missing"))?;
        self.check_expiry(expires)?;
        if let Some(from) = instant(claims, "nbf")?
            && from > self.clock.now().plus(self.config.leeway)
        {
            return Err(bad(format!("the token is not valid before {}", from.to_rfc3339())));
        }
        if !names_one(&claims["iss"], &self.config.issuers) {
            return Err(bad("the token's issuer (iss) is not one that this server accepts"));
        }
        if !names_one(&claims["aud"], &self.config.audiences) {
            return Err(bad("the token is meant for another audience (aud) than this server"));
        }
        self.config.mapping.read(claims, instant(claims, "iat")?, expires, &self.config.namespaces)
    }

    fn check_expiry(&self, expires: Timestamp) -> Result<(), Refusal> {
        if self.clock.now() < expires.plus(self.config.leeway) {
            return Ok(());
        }
        let message = format!("the token expired at {}; send a fresh one", expires.to_rfc3339());
        Err(Refusal::new(ErrorCode::TokenExpired, message))
    }
}

/// A token taken apart, nothing of it trusted yet.
struct Parts<'a> {
    header: Header,
    claims: &'a str,
    signed: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(bad(format!("the token is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let three = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            (!claims.contains('.')).then_some((header, claims, signed, signature))
        };
        let (header, claims, signed, signature) =
            three().ok_or_else(|| bad("a token has three parts divided by dots (a JWT)"))?;
        let header: Header = decode(header, "header")?;
        if header.crit.is_some() {
            return Err(bad(
                "the token's header asks for extensions (crit) that are not known here",
            ));
        }
        Ok(Self { header, claims, signed, signature })
    }

    /// The key decides the algorithm; the header only has to agree.
    fn check_signature(&self, key: &Key) -> Result<(), Refusal> {
        if self.header.alg.parse::<Algorithm>().ok() != Some(key.algorithm) {
            return Err(bad(format!(
                "the token's algorithm (alg) is not that of its key, {:?}",
                key.algorithm
            )));
        }
        let message = self.signed.as_bytes();
        match jsonwebtoken::crypto::verify(self.signature, message, &key.key, key.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(bad("the token's signature is wrong")),
        }
    }

    fn claims(&self) -> Result<Value, Refusal> {
        decode(self.claims, "claims").map(|Distinct(claims)| claims)
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str, name: &str) -> Result<T, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| bad(format!("the token's {name} are not what a JWT has there")))
}

/// A time claim: Unix seconds, whole or not.
fn instant(claims: &Value, name: &str) -> Result<Option<Timestamp>, Refusal> {
    match &claims[name] {
        Value::Null => Ok(None),
        value => {
            let seconds = value.as_f64().ok_or_else(|| {
                bad(format!("the token's claim {name} is not a time in Unix seconds"))
            })?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a float too large becomes the largest integer"
            )]
            Ok(Some(Timestamp((seconds * 1000.0) as i64)))
        }
    }
}

/// Whether the claim, a text or a list of them, names one of `accepted`.
fn names_one(claim: &Value, accepted: &[String]) -> bool {
    let is_accepted =
        |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|a| a == text));
    match claim {
        Value::Array(items) => items.iter().any(is_accepted),
        value => is_accepted(value),
    }
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, message)
}

fn count(outcome: &'static str) {
    counter!(names::TOKEN_CHECKS, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
