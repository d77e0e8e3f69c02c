//! Project Wycheproof's signatures, each by a key that is read from a JWKS as a provider's is: every tenth
//! of them, or all with `STORMWIRE_VECTORS=all`, which takes minutes without optimisation.

use super::Key;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

/// Whether the signature is that of the message, as it is decided for a token.
fn is_good(jwk: Value, message: &[u8], signature: &[u8]) -> bool {
    let key = Key::parse(jwk).unwrap_or_else(|reason| panic!("a key was not taken: {reason}"));
    let signature = BASE64.encode(signature);
    jsonwebtoken::crypto::verify(&signature, message, &key.key, key.algorithm).unwrap_or(false)
}

/// Counts good and bad ones, so that an empty file is no success.
struct Seen {
    every: usize,
    met: usize,
    good: usize,
    bad: usize,
}

impl Seen {
    fn new() -> Self {
        let all = std::env::var("STORMWIRE_VECTORS").is_ok_and(|value| value == "all");
        Self { every: if all { 1 } else { 10 }, met: 0, good: 0, bad: 0 }
    }

    fn check(&mut self, named: &str, expected: TestResult, is_good: impl FnOnce() -> bool) {
        self.met += 1;
        if !self.met.is_multiple_of(self.every) {
            return;
        }
        match expected {
            TestResult::Valid => {
                assert!(is_good(), "{named} is valid");
                self.good += 1;
            }
            TestResult::Invalid => {
                assert!(!is_good(), "{named} is invalid");
                self.bad += 1;
            }
            // Left to whoever verifies.
            TestResult::Acceptable => {}
        }
    }

    fn enough(&self, good: usize, bad: usize) {
        let (good, bad) = (good / self.every, bad / self.every);
        assert!(self.good >= good && self.bad >= bad, "{} good, {} bad", self.good, self.bad);
    }
}

#[test]
fn ecdsa_of_both_curves() {
    for (name, curve, algorithm) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, "P-256", "ES256"),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, "P-384", "ES384"),
    ] {
        let mut seen = Seen::new();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let point = &group.key.key[1..];
            let (x, y) = point.split_at(point.len() / 2);
            let (x, y) = (BASE64.encode(x), BASE64.encode(y));
            let jwk = json!({ "kty": "EC", "crv": curve, "x": x, "y": y, "alg": algorithm });
            for test in group.tests {
                let named = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.check(&named, test.result, || is_good(jwk.clone(), &test.msg, &test.sig));
            }
        }
        seen.enough(100, 50);
    }
}

#[test]
fn ed25519() {
    let mut seen = Seen::new();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let x = BASE64.encode(&group.key.pk[..]);
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA" });
        for test in group.tests {
            let named = format!("EdDSA {} {}", test.tc_id, test.comment);
            seen.check(&named, test.result, || is_good(jwk.clone(), &test.msg, &test.sig));
        }
    }
    seen.enough(50, 50);
}

fn rsa_key(n: &[u8], e: &[u8], algorithm: &str) -> Value {
    let plain = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        BASE64.encode(&number[zeros..])
    };
    json!({ "kty": "RSA", "n": plain(n), "e": plain(e), "alg": algorithm })
}

#[test]
fn rsa_with_pkcs1_padding() {
    use rsa_pkcs1_verify::TestName;
    let mut seen = Seen::new();
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, "RS256"),
        (TestName::Rsa3072Sha256, "RS256"),
        (TestName::Rsa4096Sha256, "RS256"),
        (TestName::Rsa2048Sha384, "RS384"),
        (TestName::Rsa2048Sha512, "RS512"),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let jwk = rsa_key(&group.key.n, &group.key.e, algorithm);
            for test in group.tests {
                let named = format!("{algorithm} {} {}", test.tc_id, test.comment);
                seen.check(&named, test.result, || is_good(jwk.clone(), &test.msg, &test.sig));
            }
        }
    }
    seen.enough(30, 500);
}

#[test]
fn rsa_with_pss_padding() {
    let mut seen = Seen::new();
    let name = rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32;
    for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
        let jwk = rsa_key(&group.key.n, &group.key.e, "PS256");
        for test in group.tests {
            let named = format!("PS256 {} {}", test.tc_id, test.comment);
            seen.check(&named, test.result, || is_good(jwk.clone(), &test.msg, &test.sig));
        }
    }
    seen.enough(20, 20);
}
