//! One signing key: made, kept, shown, used.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey as _;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Bits of an RSA key.
const RSA_BITS: usize = 2048;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSA with SHA-256: what every verifier knows.
    Rs256,
    /// ECDSA on P-256 with SHA-256: short signatures, fast to make.
    Es256,
    /// Ed25519: short and fast both ways.
    EdDsa,
}

impl SigningAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name, as in a token's `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}

/// Why there is no key or no signature.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SigningError(String);

impl SigningError {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A private key and how it is shown.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) algorithm: SigningAlgorithm,
    /// The public key, with its name and use.
    pub(crate) jwk: Value,
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes a private key (PKCS #8). An RSA key takes some hundred milliseconds: not for an async thread.
pub(crate) fn generate(algorithm: SigningAlgorithm) -> Result<Vec<u8>, SigningError> {
    let random = SystemRandom::new();
    match algorithm {
        SigningAlgorithm::Rs256 => {
            let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS);
            let key = key.map_err(SigningError::of)?;
            Ok(key.to_pkcs8_der().map_err(SigningError::of)?.as_bytes().to_vec())
        }
        SigningAlgorithm::Es256 => {
            let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            Ok(key.map_err(SigningError::of)?.as_ref().to_vec())
        }
        SigningAlgorithm::EdDsa => {
            let key = Ed25519KeyPair::generate_pkcs8(&random);
            Ok(key.map_err(SigningError::of)?.as_ref().to_vec())
        }
    }
}

impl SigningKey {
    /// Reads a key that [`generate`] made.
    pub(crate) fn from_pkcs8(
        algorithm: SigningAlgorithm,
        der: &[u8],
    ) -> Result<Self, SigningError> {
        let random = SystemRandom::new();
        let (pair, public) = match algorithm {
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(SigningError::of)?;
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                let public = json!({
                    "e": BASE64.encode(&public.e), "kty": "RSA", "n": BASE64.encode(&public.n),
                });
                (Pair::Rsa(pair), public)
            }
            SigningAlgorithm::Es256 => {
                let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair =
                    EcdsaKeyPair::from_pkcs8(kind, der, &random).map_err(SigningError::of)?;
                // One byte says that both coordinates follow.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let public = json!({
                    "crv": "P-256", "kty": "EC", "x": BASE64.encode(x), "y": BASE64.encode(y),
                });
                (Pair::P256(pair), public)
            }
            SigningAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(SigningError::of)?;
                let x = BASE64.encode(pair.public_key().as_ref());
                (Pair::Ed25519(pair), json!({ "crv": "Ed25519", "kty": "OKP", "x": x }))
            }
        };
        // RFC 7638: the hash of the public members in the order of their names, as they stand above.
        let id = BASE64.encode(Sha256::digest(public.to_string()));
        let mut jwk = public;
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(algorithm.as_str());
        Ok(Self { id, algorithm, jwk, pair, random })
    }

    /// A token that says `claims`.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, SigningError> {
        let header = json!({ "alg": self.algorithm.as_str(), "kid": self.id, "typ": "JWT" });
        let claims = serde_json::to_vec(claims).map_err(SigningError::of)?;
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let message = token.as_bytes();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(SigningError::of)?;
                signature
            }
            Pair::P256(pair) => {
                pair.sign(&self.random, message).map_err(SigningError::of)?.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        };
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use stormwire_core::{ErrorCode, SystemClock};
    use stormwire_telemetry::Tasks;
    use stormwire_tokens::{KeySource, Verifier, VerifierConfig};

    #[tokio::test]
    async fn what_each_algorithm_signs_is_verified_with_its_public_key_alone() {
        let keys: Vec<_> = SigningAlgorithm::ALL
            .into_iter()
            .map(|algorithm| {
                SigningKey::from_pkcs8(algorithm, &generate(algorithm).unwrap()).unwrap()
            })
            .collect();
        let claims = json!({
            "iss": "stormwire", "aud": "stormwire", "sub": "u", "exp": 4_000_000_000_i64, "channels": {},
        });
        for key in &keys {
            let config =
                VerifierConfig::new(KeySource::Inline(json!({ "keys": [key.jwk] }).to_string()));
            let verifier =
                Verifier::start(config, Arc::new(SystemClock), &Tasks::new()).await.unwrap();
            let token = key.sign(&claims).unwrap();
            assert_eq!(&*verifier.verify(&token).await.unwrap().user, "u", "{:?}", key.algorithm);
            for other in keys.iter().filter(|other| other.id != key.id) {
                let refusal = verifier.verify(&other.sign(&claims).unwrap()).await.unwrap_err();
                assert_eq!(refusal.code, ErrorCode::Unauthenticated);
            }
        }
    }

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        let der = generate(SigningAlgorithm::EdDsa).unwrap();
        let name = || SigningKey::from_pkcs8(SigningAlgorithm::EdDsa, &der).unwrap().id;
        assert_eq!((name().len(), name()), (43, name()));
        assert!(SigningKey::from_pkcs8(SigningAlgorithm::Rs256, &der).is_err());
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(SigningAlgorithm::parse(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(SigningAlgorithm::parse("HS256"), None);
        assert_eq!(SigningAlgorithm::parse("none"), None);
    }
}
