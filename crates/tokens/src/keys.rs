//! The public keys of a provider, read from a JWKS.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use std::sync::Arc;

/// Largest JWKS read, in bytes.
pub(crate) const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Most keys taken from a JWKS.
const KEYS_MAX: usize = 64;
/// Shortest RSA modulus accepted, in bits.
const RSA_BITS_MIN: usize = 2048;
/// Longest one: verifying with it is still cheap.
const RSA_BITS_MAX: usize = 8192;

/// Why a JWKS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not JSON, or not a set of keys.
    #[error("the key set is not a JWKS: {0}")]
    Malformed(String),
    /// More than the bound.
    #[error("the key set is larger than {JWKS_BYTES_MAX} bytes or has more than {KEYS_MAX} keys")]
    TooLarge,
    /// No key that verifies signatures.
    #[error("the key set has no key that can verify a token; what it has: {0}")]
    Useless(String),
}

/// One key and the one algorithm it verifies.
#[derive(Debug)]
pub(crate) struct Key {
    id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The keys in force.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// The text that they were read from, to see whether a new one differs.
    text: String,
}

impl KeySet {
    pub(crate) fn parse(text: &str) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        if text.len() > JWKS_BYTES_MAX {
            return Err(KeyError::TooLarge);
        }
        let document: Document =
            serde_json::from_str(text).map_err(|error| KeyError::Malformed(error.to_string()))?;
        if document.keys.len() > KEYS_MAX {
            return Err(KeyError::TooLarge);
        }
        let mut keys = Vec::new();
        let mut skipped = Vec::new();
        for value in document.keys {
            match Key::parse(value) {
                Ok(key) => keys.push(Arc::new(key)),
                Err(reason) => skipped.push(reason),
            }
        }
        if keys.is_empty() {
            let found = if skipped.is_empty() { "nothing".to_owned() } else { skipped.join("; ") };
            return Err(KeyError::Useless(found));
        }
        Ok(Self { keys, text: text.to_owned() })
    }

    /// The key named `id`; without a name, the only one there is.
    pub(crate) fn find(&self, id: Option<&str>) -> Option<&Arc<Key>> {
        match id {
            Some(id) => self.keys.iter().find(|key| key.id.as_deref() == Some(id)),
            None if self.keys.len() == 1 => self.keys.first(),
            None => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_of(&self, text: &str) -> bool {
        self.text == text
    }
}

impl Key {
    fn parse(value: serde_json::Value) -> Result<Self, String> {
        let jwk: Jwk = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
            return Err("a key for encryption".to_owned());
        }
        let algorithm = algorithm(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        if let jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() {
            let bits = n.iter().skip_while(|byte| **byte == 0).count() * 8;
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                return Err(format!(
                    "an RSA key of {bits} bits ({RSA_BITS_MIN} to {RSA_BITS_MAX} are due)"
                ));
            }
        }
        Ok(Self { id: jwk.common.key_id, algorithm, key })
    }
}

/// The algorithm of a key: the one that it states, if that fits its type, else its type's usual one.
fn algorithm(jwk: &Jwk) -> Result<Algorithm, String> {
    let (usual, possible): (_, &[_]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (
            Algorithm::RS256,
            &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256],
        ),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => (Algorithm::ES256, &[Algorithm::ES256]),
            EllipticCurve::P384 => (Algorithm::ES384, &[Algorithm::ES384]),
            _ => return Err("a key on a curve other than P-256 and P-384".to_owned()),
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => (Algorithm::EdDSA, &[Algorithm::EdDSA]),
            _ => return Err("a key on a curve other than Ed25519".to_owned()),
        },
        AlgorithmParameters::OctetKey(_) => return Err("a shared secret (HMAC)".to_owned()),
        _ => return Err("a key of an unknown type".to_owned()),
    };
    let Some(stated) = jwk.common.key_algorithm else { return Ok(usual) };
    let stated = match stated {
        KeyAlgorithm::RS256 => Some(Algorithm::RS256),
        KeyAlgorithm::RS384 => Some(Algorithm::RS384),
        KeyAlgorithm::RS512 => Some(Algorithm::RS512),
        KeyAlgorithm::PS256 => Some(Algorithm::PS256),
        KeyAlgorithm::ES256 => Some(Algorithm::ES256),
        KeyAlgorithm::ES384 => Some(Algorithm::ES384),
        KeyAlgorithm::EdDSA => Some(Algorithm::EdDSA),
        _ => None,
    };
    stated
        .filter(|algorithm| possible.contains(algorithm))
        .ok_or_else(|| "a key for an algorithm that is not accepted".to_owned())
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        KeySet::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_verify_is_named() {
        let n = |bytes: usize| {
            use base64::Engine as _;
            base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(vec![0xff; bytes])
        };
        for (key, named) in [
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), "HMAC"),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, n(128)), "1024 bits"),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, n(4096)), "32768 bits"),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","use":"enc"}}"#, n(256)), "encryption"),
            (
                format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","alg":"HS256"}}"#, n(256)),
                "not accepted",
            ),
            (
                format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","alg":"RSA-OAEP"}}"#, n(256)),
                "not accepted",
            ),
            (format!(r#"{{"kty":"EC","crv":"P-521","x":"{0}","y":"{0}"}}"#, n(66)), "P-256"),
            (
                format!(r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}","alg":"ES384"}}"#, n(32)),
                "not accepted",
            ),
            (r#"{"kty":"XYZ"}"#.to_owned(), "no key"),
            ("7".to_owned(), "no key"),
        ] {
            let text = refused(&format!(r#"{{"keys":[{key}]}}"#));
            assert!(text.contains(named), "{key}: {text}");
        }
        assert!(refused("").contains("not a JWKS"));
        assert!(refused("[]").contains("not a JWKS"));
        assert!(refused(r#"{"keys":[]}"#).contains("nothing"));
        assert_eq!(KeySet::parse(&" ".repeat(JWKS_BYTES_MAX + 1)).unwrap_err(), KeyError::TooLarge);
        let many = format!(r#"{{"keys":[{}]}}"#, vec!["1"; KEYS_MAX + 1].join(","));
        assert_eq!(KeySet::parse(&many).unwrap_err(), KeyError::TooLarge);
    }

    #[test]
    fn a_usable_key_is_taken_though_others_are_not() {
        use base64::Engine as _;
        let n = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode([0xff; 256]);
        let text = format!(
            r#"{{"keys":[{{"kty":"oct","k":"AA"}},{{"kty":"RSA","kid":"a","n":"{n}","e":"AQAB","alg":"PS256"}}]}}"#
        );
        let keys = KeySet::parse(&text).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys.find(Some("a")).unwrap().algorithm, Algorithm::PS256);
        assert!(keys.find(None).is_some());
        for unknown in ["b", "", "../../etc/passwd", "' OR 1=1 --"] {
            assert!(keys.find(Some(unknown)).is_none());
        }
    }
}
