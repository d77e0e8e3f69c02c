//! What is signed here is what the verifier accepts.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_telemetry::Tasks;
use stormwire_tokens::{Action, Claims, KeySource, Verifier, VerifierConfig};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("stormwire-identity-{}", uuid::Uuid::now_v7())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn verify(key: &DevelopmentKey, token: &str) -> Result<Claims, Refusal> {
    let config = VerifierConfig::new(KeySource::Inline(key.jwks()));
    let verifier = Verifier::start(config, Arc::new(SystemClock), &Tasks::new()).await.unwrap();
    verifier.verify(token).await
}

#[tokio::test]
async fn a_signed_token_is_verified_with_the_public_key_after_a_restart() {
    let folder = Folder::new();
    let first = DevelopmentKey::load_or_create(&folder.0).unwrap();
    let request = TokenRequest {
        publish: vec![Pattern::parse("orders:*").unwrap()],
        subscribe: vec![Pattern::parse("orders:eu").unwrap()],
        roles: vec!["clerk".to_owned()],
        ..TokenRequest::new("alice")
    };
    let token = first.sign(request, &SystemClock).unwrap();
    let again = DevelopmentKey::load_or_create(&folder.0).unwrap();
    assert_eq!(first.jwks(), again.jwks());

    let claims = verify(&again, &token).await.unwrap();
    assert_eq!((&*claims.user, &*claims.roles), ("alice", &["clerk".to_owned()][..]));
    assert!(claims.limits.unlimited);
    for (action, channel, expected) in [
        (Action::Publish, "orders:x", true),
        (Action::Signal, "orders:x", true),
        (Action::Subscribe, "orders:eu", true),
        (Action::History, "orders:eu", true),
        (Action::Presence, "orders:eu", true),
        (Action::Subscribe, "orders:x", false),
        (Action::Publish, "other:x", false),
    ] {
        assert_eq!(claims.rights.may(action, channel), expected, "{action} {channel}");
    }

    let other = Folder::new();
    let stranger = DevelopmentKey::load_or_create(&other.0).unwrap();
    assert!(verify(&stranger, &token).await.is_err());
}

#[tokio::test]
async fn all_rights_are_all() {
    let folder = Folder::new();
    let key = DevelopmentKey::load_or_create(&folder.0).unwrap();
    let token = key.sign(TokenRequest::new("dev").all_rights(), &SystemClock).unwrap();
    let claims = verify(&key, &token).await.unwrap();
    assert!(Action::ALL.iter().all(|action| claims.rights.may(*action, "any:thing")));
}

#[test]
fn the_key_is_its_owners_alone_and_no_draft_is_left() {
    let folder = Folder::new();
    let key = DevelopmentKey::load_or_create(&folder.0).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.0.join(FILE)), 0o600);
    assert_eq!(mode(&folder.0), 0o700);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    let pem = fs::read_to_string(folder.0.join(FILE)).unwrap();
    let shown = format!("{key:?} {}", key.jwks());
    assert!(pem.lines().skip(1).all(|line| line.starts_with('-') || !shown.contains(line)));
    assert!(!key.jwks().contains("\"d\""), "the private part is not published");
}

#[test]
fn processes_that_start_at_once_share_one_key() {
    let folder = Folder::new();
    let keys: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| DevelopmentKey::load_or_create(&folder.0).unwrap().jwks()))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[test]
fn a_file_without_a_key_is_named_and_left_alone() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join(FILE);
    for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        fs::write(&path, text).unwrap();
        let error = DevelopmentKey::load_or_create(&folder.0).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(DevelopmentKey::load_or_create(&folder.0), Err(KeyFileError::Io { .. })));
}

#[test]
fn requests_out_of_bounds_are_refused() {
    let folder = Folder::new();
    let key = DevelopmentKey::load_or_create(&folder.0).unwrap();
    for request in [
        TokenRequest::new(""),
        TokenRequest::new("a\nb"),
        TokenRequest::new("x".repeat(257)),
        TokenRequest { ttl: Duration::ZERO, ..TokenRequest::new("a") },
        TokenRequest { ttl: Duration::MAX, ..TokenRequest::new("a") },
    ] {
        assert!(matches!(key.sign(request, &SystemClock), Err(SignError::Request(_))));
    }
}
