//! `/.well-known/*`, and what commands do to keys.

use crate::kit::{PASSWORD, Server};
use http::Method;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::SystemClock;
use stormwire_identity::{Identity, SigningAlgorithm};

async fn published(server: &Server) -> Vec<String> {
    let answer = server.call(Method::GET, "/.well-known/jwks.json", None, "", "192.0.2.1").await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let keys = answer.body["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key.get("d").is_none()), "public members alone");
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The name of the key that signed a token.
fn kid(token: &str) -> String {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap();
    let header = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_are_gone() {
    let server = Server::start().await;
    server.register("alice").await;
    let old = published(&server).await;
    let (access, _) = server.sign_in("alice").await;
    assert_eq!([kid(&access)], old[..]);
    let (new, from) = server.identity.rotate_key().await.unwrap();
    assert_eq!(from.to_rfc3339(), "2026-11-21T08:43:20.000Z", "in ten minutes");
    assert_eq!(published(&server).await, [new.clone(), old[0].clone()]);
    server.pass(Duration::from_secs(599));
    let (before, _) = server.sign_in("alice").await;
    assert_eq!(kid(&before), old[0]);
    server.pass(Duration::from_secs(1));
    let (after, _) = server.sign_in("alice").await;
    assert_eq!(kid(&after), new);
    for token in [&access, &before, &after] {
        assert!(server.verify(token).await.is_ok());
    }
}

#[tokio::test]
async fn metadata_says_where_the_keys_are() {
    let server =
        Server::start_with(|config| config.public_url = Some("https://id.example/".to_owned()))
            .await;
    let path = "/.well-known/openid-configuration";
    let answer = server.call(Method::GET, path, None, "", "192.0.2.1").await;
    assert_eq!(answer.text("issuer"), "stormwire");
    assert_eq!(answer.text("jwks_uri"), "https://id.example/.well-known/jwks.json");
    assert_eq!(answer.body["id_token_signing_alg_values_supported"], json!(["ES256"]));
}

#[tokio::test]
async fn the_development_key_and_every_algorithm_are_published_and_verified() {
    for algorithm in SigningAlgorithm::ALL {
        let folder = stormwire_testkit::Folder::temporary("development").unwrap();
        let development =
            stormwire_identity::DevelopmentKey::load_or_create(folder.path()).unwrap();
        let server = Server::start_with(|config| {
            config.algorithm = algorithm;
            config.also_published = Some(development.jwks());
        })
        .await;
        server.register("alice").await;
        let (access, _) = server.sign_in("alice").await;
        assert!(server.verify(&access).await.is_ok(), "{algorithm:?}");
        assert_eq!(published(&server).await.len(), 2);
        let now = Hand;
        let token = development.sign(stormwire_identity::TokenRequest::new("dev"), &now).unwrap();
        assert_eq!(&*server.verify(&token).await.unwrap().user, "dev");
    }
}

struct Hand;

impl stormwire_core::Clock for Hand {
    fn now(&self) -> stormwire_core::Timestamp {
        stormwire_core::Timestamp(1_795_250_000_000)
    }
}

#[tokio::test]
async fn a_rotated_key_ring_is_taken_over_by_sealing_anew() {
    let server = Server::start().await;
    let mail = json!({ "email": "alice@example.com", "password": PASSWORD });
    server.post("/v1/auth/register", mail.clone()).await;
    let ring = server.folder.path().join("identity-keys");
    let old = std::fs::read_to_string(&ring).unwrap();
    let lines: Vec<_> = old.lines().collect();
    let fresh = "2 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let open = async |text: String| {
        std::fs::write(&ring, text).unwrap();
        Identity::for_command(server.config.clone(), Arc::new(SystemClock)).await
    };
    let without = open(format!("{}\n{fresh}\n", lines[0])).await.err().unwrap();
    assert!(without.to_string().contains("sealed under the key \"1\""), "{without}");
    let both = open(format!("{}\n{fresh}\n{}\n", lines[0], lines[1])).await.unwrap();
    assert_eq!(both.reseal().await.unwrap(), 2 + rotated_by_the_clock(), "an address and the keys");
    assert_eq!(both.reseal().await.unwrap(), 0);
    let after = open(format!("{}\n{fresh}\n", lines[0])).await.unwrap();
    assert!(after.is_ready());
    assert_eq!(server.post("/v1/auth/login", mail).await.status, 200, "the index key has stayed");
}

/// The command runs by the machine's clock, which may be far from the test's: then a key is due.
fn rotated_by_the_clock() -> u64 {
    use stormwire_core::Clock as _;
    let month = Duration::from_secs(30 * 24 * 3600);
    u64::from(SystemClock.now().since(Hand.now()) >= month)
}
