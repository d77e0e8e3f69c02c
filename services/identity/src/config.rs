//! How the service is to behave.

use crate::mail::Mailer;
use crate::providers::ProviderConfig;
use crate::signing::SigningAlgorithm;
use crate::store::Database;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Pattern;

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Whoever asks.
    Open,
    /// Nobody.
    Closed,
}

/// How the service is to behave.
#[derive(Clone)]
pub struct IdentityConfig {
    /// Where accounts are kept.
    pub database: Database,
    /// The folder of the key ring, where none is named.
    pub data_dir: PathBuf,
    /// The key ring's file.
    pub key_ring: Option<PathBuf>,
    /// What tokens name as their issuer.
    pub issuer: String,
    /// What tokens name as their audience.
    pub audience: String,
    /// Where clients reach this service; by default where the request was sent.
    pub public_url: Option<String>,
    /// How tokens are signed.
    pub algorithm: SigningAlgorithm,
    /// How often a new signing key is made.
    pub rotate_every: Duration,
    /// How long an access token is valid.
    pub access_ttl: Duration,
    /// How long a refresh token is valid.
    pub refresh_ttl: Duration,
    /// Sessions that an account may have at a time.
    pub sessions_max: u32,
    /// Passwords that are hashed at a time.
    pub hash_places: usize,
    /// Who may make an account.
    pub registration: Registration,
    /// Channels that an account may publish and signal on. An admin may on all.
    pub publish: Vec<Pattern>,
    /// Channels that an account may subscribe to and read the history and the presence of.
    pub subscribe: Vec<Pattern>,
    /// A JWKS whose keys are published as well: the development key's.
    pub also_published: Option<String>,
    /// Other providers that people sign in with.
    pub providers: Vec<ProviderConfig>,
    /// Pages that a browser may be sent to after that.
    pub return_urls: Vec<String>,
    /// Who takes mails. Without one there is no verification and no reset.
    pub mailer: Option<Arc<dyn Mailer>>,
}

impl fmt::Debug for IdentityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the database: its URL may hold a password.
        f.debug_struct("IdentityConfig").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl IdentityConfig {
    /// Issuer and audience `stormwire`, RS256 with a key a month, 15 minutes and 7 days, open, no rights.
    #[must_use]
    pub fn new(database: Database, data_dir: PathBuf) -> Self {
        Self {
            database,
            data_dir,
            key_ring: None,
            issuer: "stormwire".to_owned(),
            audience: "stormwire".to_owned(),
            public_url: None,
            algorithm: SigningAlgorithm::Rs256,
            rotate_every: Duration::from_secs(30 * 24 * 3600),
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(7 * 24 * 3600),
            sessions_max: 50,
            hash_places: 1,
            registration: Registration::Open,
            publish: Vec::new(),
            subscribe: Vec::new(),
            also_published: None,
            providers: Vec::new(),
            return_urls: Vec::new(),
            mailer: None,
        }
    }
}
