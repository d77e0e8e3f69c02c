//! Tokens that were made to be taken for something else.

use super::*;

#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let signer = Signer::new(Algorithm::RS256, "k1");
    let (verifier, _) = inline(&[&signer]).await;
    for alg in ["none", "None", "HS256", "HS512", "RS384", "PS256", "ES256", "", "RS256 "] {
        let token = forged(&json!({"alg": alg, "kid": "k1"}), &claims(), b"");
        refused(&verifier, &token, ErrorCode::Unauthenticated, "algorithm").await;
    }
    // The public key, which everybody has, used as the secret of an HMAC.
    let public = signer.jwk["n"].as_str().unwrap();
    for secret in [public.as_bytes().to_vec(), BASE64_URL_SAFE_NO_PAD.decode(public).unwrap()] {
        let header = JwtHeader { kid: Some("k1".to_owned()), ..JwtHeader::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(&secret);
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        refused(&verifier, &token, ErrorCode::Unauthenticated, "algorithm").await;
    }
}

#[tokio::test]
async fn no_key_takes_another_algorithms_signature() {
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let signers: Vec<_> = algorithms.iter().map(|one| Signer::new(*one, "k1")).collect();
    for trusted in &signers {
        let (verifier, _) = inline(&[trusted]).await;
        for signer in &signers {
            let token = signer.sign(&claims());
            if signer.algorithm == trusted.algorithm {
                assert!(verifier.verify(&token).await.is_ok(), "{:?}", signer.algorithm);
                continue;
            }
            refused(&verifier, &token, ErrorCode::Unauthenticated, "algorithm").await;
            // The other's signature under the name of the algorithm that is due.
            let alg = json!({ "alg": format!("{:?}", trusted.algorithm), "kid": "k1" });
            let signature = BASE64_URL_SAFE_NO_PAD.decode(token.rsplit_once('.').unwrap().1);
            let token = forged(&alg, &claims(), &signature.unwrap());
            refused(&verifier, &token, ErrorCode::Unauthenticated, "signature").await;
        }
        // Whatever of the public key could be taken for a secret.
        let parts = ["n", "e", "x", "y"].into_iter().filter_map(|part| trusted.jwk[part].as_str());
        let whole = trusted.jwk.to_string();
        for secret in parts.chain([whole.as_str(), "", "k1"]) {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = JwtHeader { kid: Some("k1".to_owned()), ..JwtHeader::new(algorithm) };
                let key = EncodingKey::from_secret(secret.as_bytes());
                let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
                refused(&verifier, &token, ErrorCode::Unauthenticated, "algorithm").await;
            }
        }
    }
}

#[tokio::test]
async fn a_claim_that_stands_twice_is_refused() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let (verifier, _) = inline(&[&signer]).await;
    let sign = |claims: &str| {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(r#"{"alg":"EdDSA","kid":"k1"}"#), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &signer.key, Algorithm::EdDSA).unwrap();
        format!("{signed}.{signature}")
    };
    let good = claims().to_string();
    assert!(verifier.verify(&sign(&good)).await.is_ok());
    for (from, to) in [
        (r#""sub":"alice""#, r#""sub":"alice","sub":"mallory""#),
        (r#""sub":"alice""#, r#""sub":"alice","sub":"alice""#),
        (r#""sub":"alice""#, r#""sub":"alice","\u0073ub":"mallory""#),
        (r#""publish":"#, r#""publish":["*"],"publish":"#),
    ] {
        let doubled = good.replacen(from, to, 1);
        assert_ne!(doubled, good);
        refused(&verifier, &sign(&doubled), ErrorCode::Unauthenticated, "claims").await;
    }
}
