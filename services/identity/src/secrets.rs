//! Secrets that are shown once and stored hashed: refresh tokens and what mails carry.

use crate::store::TokenHash;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use stormwire_core::{ErrorCode, Refusal};

/// Random bytes of a secret: more than anybody guesses, so that a plain hash protects it.
const BYTES: usize = 32;

/// A new secret and its hash.
pub(crate) fn draw() -> Result<(String, TokenHash), Refusal> {
    let mut bytes = [0; BYTES];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| Refusal::new(ErrorCode::Internal, "the system gives no random numbers"))?;
    let secret = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let hash = Sha256::digest(&secret).to_vec();
    Ok((secret, hash))
}

/// What a secret that somebody shows is found by.
pub(crate) fn hash(secret: &SecretString) -> TokenHash {
    Sha256::digest(secret.expose_secret()).to_vec()
}
