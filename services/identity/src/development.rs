//! The development key: one ES256 key in the data directory.
//!
//! ES256 rather than RS256: a key is made in under a millisecond, so the first start does not wait for it.

use crate::key_file;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stormwire_core::{Clock, ErrorCode, Pattern, Refusal};
use stormwire_tokens::{ChannelClaims, Role, TokenClaims, TokenLimits};

/// The key's file in the data directory.
const FILE: &str = "development-key.pem";
/// Longest life of a token.
const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const ISSUER: &str = "stormwire";
const AUDIENCE: &str = "stormwire";

/// Signs tokens for development. Its key is in the data directory, for its owner alone to read.
pub struct DevelopmentKey {
    key: EncodingKey,
    jwk: Jwk,
    id: String,
}

impl fmt::Debug for DevelopmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevelopmentKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file or its folder cannot be read or written.
    #[error("the development key {path} cannot be {verb}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The file is there and holds no key.
    #[error("{0} holds no ES256 private key in PEM; remove it to have a new one made")]
    NoKey(PathBuf),
    /// The system gives no random numbers.
    #[error("no key could be made: the system gives no random numbers")]
    NoRandom,
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Who bears it.
    pub user: String,
    /// The sign-in that it belongs to; each connection is a session of its own without one.
    pub session: Option<String>,
    /// Patterns to publish on; also to signal on, unless `signal` says otherwise.
    pub publish: Vec<Pattern>,
    /// Patterns to subscribe to; also to read the history of, and the presence unless `presence` says
    /// otherwise.
    pub subscribe: Vec<Pattern>,
    /// Patterns to see the members of.
    pub presence: Option<Vec<Pattern>>,
    /// Patterns to signal on.
    pub signal: Option<Vec<Pattern>>,
    /// Roles.
    pub roles: Vec<String>,
    /// How long it is valid, from now.
    pub ttl: Duration,
    /// Limits of its own.
    pub limits: TokenLimits,
}

impl TokenRequest {
    /// A token for `user` that grants nothing yet, for an hour, without limits.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            session: None,
            publish: Vec::new(),
            subscribe: Vec::new(),
            presence: None,
            signal: None,
            roles: Vec::new(),
            ttl: Duration::from_secs(3600),
            limits: TokenLimits { unlimited: true, ..TokenLimits::default() },
        }
    }

    /// The same with every right on every channel, and the role that operates the server.
    #[must_use]
    pub fn all_rights(mut self) -> Self {
        self.roles.push(Role::Admin.to_string());
        let everything = || vec![Pattern::Prefix("".into())];
        (self.publish, self.subscribe) = (everything(), everything());
        self
    }
}

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request has a value that no token may have.
    #[error(transparent)]
    Request(Refusal),
    /// The key does not sign.
    #[error("the token could not be signed: {0}")]
    Signature(String),
}

impl DevelopmentKey {
    /// Reads the key from `data_dir`, or makes one and keeps it there (mode 0600, all or nothing). Two
    /// processes that start at once end with the same key.
    ///
    /// # Errors
    /// [`KeyFileError`], naming the file.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, KeyFileError> {
        let path = data_dir.join(FILE);
        let io = |verb| {
            let path = path.clone();
            move |error| KeyFileError::Io { path, verb, error }
        };
        match key_file::read(&path) {
            Ok(pem) => return Self::from_pem(&pem).ok_or(KeyFileError::NoKey(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("read")(error)),
        }
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| KeyFileError::NoRandom)?;
        key_file::create(&path, &to_pem(der.as_ref())).map_err(io("written"))?;
        let pem = key_file::read(&path).map_err(io("read"))?;
        Self::from_pem(&pem).ok_or(KeyFileError::NoKey(path))
    }

    /// A token that says what `request` asks for, valid from now on.
    ///
    /// # Errors
    /// [`SignError::Request`] for a user name or time to live that is out of bounds.
    pub fn sign(&self, request: TokenRequest, clock: &dyn Clock) -> Result<String, SignError> {
        let bad = |message: &'static str| {
            Err(SignError::Request(Refusal::new(ErrorCode::InvalidField, message)))
        };
        if !(1..=256).contains(&request.user.len()) || request.user.chars().any(char::is_control) {
            return bad("a user is text of 1 to 256 bytes without control characters");
        }
        if request.ttl.as_secs() == 0 || request.ttl > TTL_MAX {
            return bad("a token's ttl is 1 s to 10 years");
        }
        let now = clock.now().0.div_euclid(1000);
        let texts =
            |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (publish, subscribe) = (texts(&request.publish), texts(&request.subscribe));
        let claims = TokenClaims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: request.user,
            sid: request.session,
            preferred_username: None,
            jti: uuid::Uuid::now_v7().to_string(),
            iat: now,
            nbf: now,
            exp: now.saturating_add_unsigned(request.ttl.as_secs()),
            roles: request.roles,
            channels: ChannelClaims {
                history: subscribe.clone(),
                presence: request.presence.as_deref().map_or_else(|| subscribe.clone(), texts),
                signal: request.signal.as_deref().map_or_else(|| publish.clone(), texts),
                publish,
                subscribe,
            },
            limits: (request.limits != TokenLimits::default()).then_some(request.limits),
        };
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|error| SignError::Signature(error.to_string()))
    }

    /// The public key, as a JWKS.
    #[must_use]
    pub fn jwks(&self) -> String {
        serde_json::json!({ "keys": [self.jwk] }).to_string()
    }

    fn from_pem(pem: &str) -> Option<Self> {
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).ok()?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).ok()?;
        let public = serde_json::to_vec(&jwk.algorithm).ok()?;
        let id = BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(public)[..12]);
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(Self { key, jwk, id })
    }
}

fn to_pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests;
