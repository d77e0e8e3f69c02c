//! Good tokens, every kind of bad one, and keys that come, go and change.

mod forged;

use super::*;
use crate::Action;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header as JwtHeader};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
};
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use serde_json::json;
use std::convert::Infallible;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use tokio::net::TcpListener;

const NOW: i64 = 1_800_000_000;

/// A clock that a test moves.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

fn clock() -> Arc<Hand> {
    Arc::new(Hand(AtomicI64::new(NOW * 1000)))
}

/// A signing key with its public half as a JWK.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
    kid: String,
}

impl Signer {
    fn new(algorithm: Algorithm, kid: &str) -> Self {
        let key = match algorithm {
            Algorithm::ES256 => {
                let random = SystemRandom::new();
                let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                EncodingKey::from_ec_der(der.unwrap().as_ref())
            }
            Algorithm::ES384 => {
                let random = SystemRandom::new();
                let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
                EncodingKey::from_ec_der(der.unwrap().as_ref())
            }
            Algorithm::EdDSA => {
                let mut der =
                    vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
                der.extend([7; 32]);
                EncodingKey::from_ed_der(&der)
            }
            _ => {
                static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| {
                    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
                    key.to_pkcs1_der().unwrap().as_bytes().to_vec()
                });
                EncodingKey::from_rsa_der(&RSA)
            }
        };
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        Self { algorithm, key, jwk: serde_json::to_value(jwk).unwrap(), kid: kid.to_owned() }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = JwtHeader { kid: Some(self.kid.clone()), ..JwtHeader::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn jwks(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| &signer.jwk).collect::<Vec<_>>()}).to_string()
}

fn claims() -> Value {
    json!({
        "iss": "stormwire", "aud": "stormwire", "sub": "alice", "exp": NOW + 60, "nbf": NOW,
        "channels": {"publish": ["orders:*"]}
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn verifier_of(keys: KeySource, clock: Arc<Hand>) -> (Verifier, Tasks) {
    let tasks = Tasks::new();
    let verifier = Verifier::start(VerifierConfig::new(keys), clock, &tasks).await.unwrap();
    (verifier, tasks)
}

async fn inline(signers: &[&Signer]) -> (Verifier, Arc<Hand>) {
    let clock = clock();
    let (verifier, _tasks) =
        verifier_of(KeySource::Inline(jwks(signers)), Arc::clone(&clock)).await;
    (verifier, clock)
}

/// A token with this header, these claims and this signature, none of them encoded yet.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(signature))
}

async fn refused(verifier: &Verifier, token: &str, code: ErrorCode, named: &str) {
    let refusal = verifier.verify(token).await.unwrap_err();
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(refusal.message.contains(named), "{refusal} does not say {named:?}");
}

#[tokio::test]
async fn every_accepted_algorithm_verifies_and_a_changed_token_does_not() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ] {
        let signer = Signer::new(algorithm, "k1");
        let (verifier, _) = inline(&[&signer]).await;
        let token = signer.sign(&claims());
        let claims = verifier.verify(&token).await.unwrap();
        assert_eq!(&*claims.user, "alice", "{algorithm:?}");
        assert!(claims.rights.may(Action::Publish, "orders:eu"));
        assert!(!claims.rights.may(Action::Subscribe, "orders:eu"));
        assert_eq!(verifier.verify(&token).await.unwrap(), claims, "from the cache");

        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let other = BASE64_URL_SAFE_NO_PAD.encode(with("sub", json!("root")).to_string());
        let changed = format!("{header}.{other}.{signature}");
        refused(&verifier, &changed, ErrorCode::Unauthenticated, "signature").await;
        refused(&verifier, &format!("{head}."), ErrorCode::Unauthenticated, "signature").await;
    }
}

#[tokio::test]
async fn a_bad_claim_is_refused_and_named() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let (verifier, _) = inline(&[&signer]).await;
    let (denied, expired) = (ErrorCode::Unauthenticated, ErrorCode::TokenExpired);
    for (name, value, code, named) in [
        ("iss", json!("evil"), denied, "issuer"),
        ("iss", Value::Null, denied, "issuer"),
        ("iss", json!({"a": "stormwire"}), denied, "issuer"),
        ("aud", json!("other"), denied, "audience"),
        ("aud", json!(["other", "another"]), denied, "audience"),
        ("aud", json!([]), denied, "audience"),
        ("aud", Value::Null, denied, "audience"),
        ("nbf", json!(NOW + 31), denied, "not valid before 2027-01-15"),
        ("nbf", json!("soon"), denied, "nbf"),
        ("exp", json!(NOW - 30), expired, "expired at 2027-01-15"),
        ("exp", json!(-1e300), expired, "expired"),
        ("exp", Value::Null, denied, "exp"),
        ("exp", json!("later"), denied, "exp"),
        ("sub", Value::Null, denied, "sub"),
        ("channels", json!({"publish": ["no colon"]}), denied, "channels.publish"),
    ] {
        refused(&verifier, &signer.sign(&with(name, value)), code, named).await;
    }
    for (name, value) in [
        ("aud", json!(["other", "stormwire"])),
        ("nbf", json!(NOW + 29)),
        ("nbf", Value::Null),
        ("exp", json!(NOW - 29)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("exp", json!(1e300)),
    ] {
        let token = signer.sign(&with(name, value.clone()));
        assert!(verifier.verify(&token).await.is_ok(), "{name} {value}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let (verifier, _) = inline(&[&signer]).await;
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    let good = signer.sign(&claims());
    let extended = format!("{good}.x");
    for (token, named) in [
        ("", "three parts"),
        ("a.b", "three parts"),
        (&extended, "three parts"),
        ("a.b.c", "header"),
        ("\u{0}\u{1}.é.\u{7f}", "header"),
        (&long, "longer"),
    ] {
        refused(&verifier, token, ErrorCode::Unauthenticated, named).await;
    }
    let critical = forged(&json!({"alg": "EdDSA", "kid": "k1", "crit": ["x"]}), &claims(), b"");
    refused(&verifier, &critical, ErrorCode::Unauthenticated, "crit").await;
}

#[tokio::test]
async fn no_changed_character_goes_unnoticed() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let (verifier, _) = inline(&[&signer]).await;
    let good = signer.sign(&claims());
    assert!(verifier.verify(&good).await.is_ok());
    for at in 0..good.len() {
        let other = if &good[at..=at] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &good[..at], &good[at + 1..]);
        let refusal = verifier.verify(&changed).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Unauthenticated, "at {at}: {refusal}");
        assert!(verifier.verify(&good[..at]).await.is_err(), "cut at {at}");
    }
}

#[tokio::test]
async fn a_key_id_is_only_a_name() {
    let (one, two) = (Signer::new(Algorithm::EdDSA, "k1"), Signer::new(Algorithm::ES256, "k2"));
    let (verifier, _) = inline(&[&one, &two]).await;
    let huge = "k".repeat(8000);
    for kid in ["../../../../etc/passwd", "' OR '1'='1", "k1\u{0}", "", huge.as_str()] {
        let token = forged(&json!({"alg": "EdDSA", "kid": kid}), &claims(), b"");
        let refusal = verifier.verify(&token).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Unauthenticated);
        assert!(!refusal.message.contains("passwd") && refusal.message.len() < 200, "{refusal}");
    }
    let nameless = forged(&json!({"alg": "EdDSA"}), &claims(), b"");
    refused(&verifier, &nameless, ErrorCode::Unauthenticated, "kid").await;

    // A single key needs no name.
    let (verifier, _) = inline(&[&one]).await;
    let token =
        jsonwebtoken::encode(&JwtHeader::new(Algorithm::EdDSA), &claims(), &one.key).unwrap();
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test]
async fn a_remembered_token_still_expires() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let (verifier, clock) = inline(&[&signer]).await;
    let token = signer.sign(&claims());
    assert!(verifier.verify(&token).await.is_ok());
    clock.0.fetch_add(90_000, Ordering::SeqCst);
    refused(&verifier, &token, ErrorCode::TokenExpired, "expired").await;
    refused(&verifier, &token, ErrorCode::TokenExpired, "expired").await;
}

/// A key server whose answer a test changes.
#[derive(Clone)]
struct KeyServer {
    url: String,
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Answer {
    Text(String),
    Status(StatusCode),
    Never,
}

impl KeyServer {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}/jwks", listener.local_addr().unwrap()),
            answer: Arc::new(Mutex::new(answer)),
            fetches: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = serving.clone();
                let answer = service_fn(move |_| server.clone().answer());
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(socket), answer));
            }
        });
        server
    }

    async fn answer(self) -> Result<Response<Full<Bytes>>, Infallible> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().clone();
        Ok(match answer {
            Answer::Text(text) => Response::new(Full::from(text)),
            Answer::Status(status) => {
                Response::builder().status(status).body(Full::default()).unwrap()
            }
            Answer::Never => std::future::pending().await,
        })
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_once_when_a_token_names_it() {
    let (old, new) = (Signer::new(Algorithm::EdDSA, "old"), Signer::new(Algorithm::ES256, "new"));
    let server = KeyServer::start(Answer::Text(jwks(&[&old]))).await;
    let (verifier, _tasks) = verifier_of(KeySource::Url(server.url.clone()), clock()).await;
    let (old_token, new_token) = (old.sign(&claims()), new.sign(&claims()));
    assert!(verifier.verify(&old_token).await.is_ok());
    assert_eq!(server.fetches(), 1);

    server.set(Answer::Text(jwks(&[&new])));
    let all = futures_join(&verifier, &new_token, 20).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(server.fetches(), 2, "one fetch for all who wait");
    refused(&verifier, &old_token, ErrorCode::Unauthenticated, "does not know").await;

    for n in 0..100 {
        let token = forged(&json!({"alg": "EdDSA", "kid": format!("made-up-{n}")}), &claims(), b"");
        refused(&verifier, &token, ErrorCode::Unauthenticated, "does not know").await;
    }
    assert_eq!(server.fetches(), 2, "made-up names do not reach the key server");
}

async fn futures_join(
    verifier: &Verifier,
    token: &str,
    count: usize,
) -> Vec<Result<Claims, Refusal>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (verifier, token) = (verifier.clone(), token.to_owned());
        tasks.spawn(async move { verifier.verify(&token).await });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn keys_are_kept_while_their_source_is_away_and_unusable_answers_change_nothing() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let server = KeyServer::start(Answer::Text(jwks(&[&signer]))).await;
    let (verifier, _tasks) = verifier_of(KeySource::Url(server.url.clone()), clock()).await;
    for answer in [
        Answer::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Answer::Status(StatusCode::FOUND),
        Answer::Text(String::new()),
        Answer::Text("{\"keys\":[]}".to_owned()),
        Answer::Text(" ".repeat(crate::keys::JWKS_BYTES_MAX + 1)),
    ] {
        server.set(answer);
        assert!(!verifier.shared.refresh().await);
        assert!(verifier.is_ready());
        let token = signer.sign(&with("jti", json!(server.fetches())));
        assert!(verifier.verify(&token).await.is_ok());
    }
    // An unknown key may now be a new one: the client is asked to come back.
    let token = forged(&json!({"alg": "EdDSA", "kid": "k2"}), &claims(), b"");
    refused(&verifier, &token, ErrorCode::Overloaded, "could not be fetched").await;
    server.set(Answer::Text(jwks(&[&signer])));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_costs_the_deadline_and_no_more() {
    let server = KeyServer::start(Answer::Never).await;
    let started = Instant::now();
    let (verifier, _tasks) = verifier_of(KeySource::Url(server.url.clone()), clock()).await;
    assert!(!verifier.is_ready());
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    refused(&verifier, &signer.sign(&claims()), ErrorCode::Overloaded, "could not be fetched")
        .await;
    assert!(started.elapsed() < FETCH_DEADLINE * 3, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_source_that_comes_late_is_found_without_a_restart() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let server = KeyServer::start(Answer::Status(StatusCode::SERVICE_UNAVAILABLE)).await;
    let (verifier, tasks) = verifier_of(KeySource::Url(server.url.clone()), clock()).await;
    assert!(!verifier.is_ready());
    server.set(Answer::Text(jwks(&[&signer])));
    until("the keys are there", || verifier.is_ready()).await;
    assert!(verifier.verify(&signer.sign(&claims())).await.is_ok());
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, Ok(()));
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    let (old, new) = (Signer::new(Algorithm::EdDSA, "old"), Signer::new(Algorithm::ES256, "new"));
    let name = format!("stormwire-jwks-{}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, jwks(&[&old])).unwrap();
    let (verifier, _tasks) = verifier_of(KeySource::File(path.clone()), clock()).await;
    let old_token = old.sign(&claims());
    assert!(verifier.verify(&old_token).await.is_ok());
    std::fs::write(&path, jwks(&[&old, &new])).unwrap();
    assert!(verifier.verify(&new.sign(&claims())).await.is_ok(), "an unknown key asks the file");
    std::fs::write(&path, jwks(&[&new])).unwrap();
    until("the old key is gone", || verifier.shared.find(Some("old")).is_none()).await;
    refused(&verifier, &old_token, ErrorCode::Unauthenticated, "does not know").await;
    std::fs::remove_file(&path).unwrap();
    assert!(!verifier.shared.refresh().await);
    assert!(verifier.is_ready(), "a file that is being replaced takes no key away");
}

#[tokio::test(start_paused = true)]
async fn keys_are_not_trusted_for_ever_without_their_source() {
    let signer = Signer::new(Algorithm::EdDSA, "k1");
    let path = std::env::temp_dir().join(format!("stormwire-old-{}.json", std::process::id()));
    std::fs::write(&path, jwks(&[&signer])).unwrap();
    let (verifier, tasks) = verifier_of(KeySource::File(path.clone()), clock()).await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, Ok(()));
    tokio::time::advance(Duration::from_secs(24 * 3600 - 10)).await;
    assert!(verifier.is_ready());
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(!verifier.is_ready());
    refused(&verifier, &signer.sign(&claims()), ErrorCode::Overloaded, "could not be fetched")
        .await;
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_at_start() {
    for url in ["", "ftp://x/y", "/path", "http://", "file:///etc/passwd"] {
        let config = VerifierConfig::new(KeySource::Url(url.to_owned()));
        let error = Verifier::start(config, clock(), &Tasks::new()).await.unwrap_err();
        assert!(matches!(error, SourceError::BadUrl(_)), "{error}");
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
