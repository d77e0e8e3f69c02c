//! Another provider, over HTTP: OpenID Connect, and OAuth 2.0 beside it. It vouches for whomever a test says.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::StatusCode;
use openidconnect::url::{Url, form_urlencoded};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const SECRET: &str = "hush";
/// When the kit's clock begins.
pub(crate) const NOW: i64 = 1_795_250_000;

pub(crate) struct Provider {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    key: Mutex<(String, EcdsaKeyPair)>,
    /// Changes to the claims that the next ID tokens carry.
    claims: Mutex<Value>,
    /// The head of the next ID tokens, where it is to be another.
    head: Mutex<Option<Value>>,
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
    discoveries: AtomicUsize,
}

fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            url: url.clone(),
            key: Mutex::new(("1".to_owned(), new_key())),
            claims: Mutex::new(json!({})),
            head: Mutex::default(),
            codes: Mutex::default(),
            discoveries: AtomicUsize::new(0),
        });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/user", get(user))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    /// What ID tokens say from now on, beside or instead of what is true.
    pub(crate) fn say(&self, claims: Value) {
        *self.shared.claims.lock().unwrap() = claims;
    }

    /// The head of ID tokens from now on; with another `alg` than ES256 the signature is empty.
    pub(crate) fn head(&self, head: Option<Value>) {
        *self.shared.head.lock().unwrap() = head;
    }

    /// Signs with a key of another name from now on.
    pub(crate) fn rotate(&self) {
        *self.shared.key.lock().unwrap() = ("2".to_owned(), new_key());
    }

    pub(crate) fn discoveries(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst)
    }

    /// The person signs in here: where the browser is sent then, as path and query.
    pub(crate) fn approve(&self, location: &str) -> String {
        let asked: HashMap<String, String> =
            Url::parse(location).unwrap().query_pairs().into_owned().collect();
        assert_eq!(asked["client_id"], "stormwire");
        assert_eq!((&*asked["response_type"], &*asked["code_challenge_method"]), ("code", "S256"));
        let mut codes = self.shared.codes.lock().unwrap();
        let code = format!("code-{}", codes.len());
        let redirect = Url::parse(&asked["redirect_uri"]).unwrap();
        let answer = form_urlencoded::Serializer::new(String::new())
            .append_pair("state", &asked["state"])
            .append_pair("code", &code)
            .finish();
        codes.insert(code, asked);
        format!("{}?{answer}", redirect.path())
    }
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.discoveries.fetch_add(1, Ordering::SeqCst);
    let url = &shared.url;
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        // What a provider offers is not all accepted.
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    }))
}

async fn jwks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let key = shared.key.lock().unwrap();
    let point = key.1.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    Json(json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key.0, "x": x, "y": y },
    ]}))
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: http::HeaderMap,
    body: String,
) -> (StatusCode, Json<Value>) {
    let form: HashMap<String, String> =
        form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let asked = shared.codes.lock().unwrap().remove(&form["code"]);
    let basic =
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("stormwire:{SECRET}")));
    let client = headers.get("authorization").is_some_and(|value| value == basic.as_str());
    let good = asked.filter(|asked| {
        let hash = BASE64.encode(Sha256::digest(&form["code_verifier"]));
        client && hash == asked["code_challenge"] && form["redirect_uri"] == asked["redirect_uri"]
    });
    let Some(asked) = good else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    };
    let mut answer = json!({ "access_token": "opaque", "token_type": "Bearer" });
    if let Some(nonce) = asked.get("nonce") {
        answer["id_token"] = json!(id_token(&shared, nonce));
    }
    (StatusCode::OK, Json(answer))
}

fn id_token(shared: &Shared, nonce: &str) -> String {
    let key = shared.key.lock().unwrap();
    let mut claims = json!({
        "iss": shared.url, "aud": "stormwire", "sub": "248289761001", "nonce": nonce,
        "iat": NOW, "exp": NOW + 300, "preferred_username": "alice",
    });
    for (name, value) in shared.claims.lock().unwrap().as_object().unwrap() {
        claims[name] = value.clone();
    }
    let head = shared.head.lock().unwrap().clone();
    let head = head.unwrap_or_else(|| json!({ "alg": "ES256", "kid": key.0 }));
    let text = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
    let signature = match head["alg"].as_str() {
        Some("ES256") => {
            key.1.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
        }
        Some("HS256") => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
            ring::hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        }
        _ => Vec::new(),
    };
    format!("{text}.{}", BASE64.encode(signature))
}

async fn user(headers: http::HeaderMap) -> (StatusCode, Json<Value>) {
    let known = headers.get("authorization").is_some_and(|value| value == "Bearer opaque");
    match known {
        // As GitHub does: a number that stays, a name that may change, an address nobody vouches for.
        true => (StatusCode::OK, Json(json!({ "id": 583231, "login": "octo", "email": "a@b.c" }))),
        false => (StatusCode::UNAUTHORIZED, Json(json!({}))),
    }
}
