//! The service on a database of its own, a clock that is moved by hand, and mails that can be read.

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stormwire_core::{Clock, Pattern, Refusal, Timestamp};
use stormwire_identity::{
    Database, Identity, IdentityConfig, Mail, MailError, Mailer, SigningAlgorithm,
};
use stormwire_limits::{Limits, LimitsConfig, SlidingWindow};
use stormwire_telemetry::Tasks;
use stormwire_testkit::Folder;
use stormwire_tokens::{Claims, KeySource, Verifier, VerifierConfig};
use stormwire_web::{CallerState, ClientAddress, WebConfig, finish};
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "correct horse battery";
const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that only moves when it is told to.
pub(crate) struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Keeps mails to be read.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<Vec<Mail>>);

#[async_trait]
impl Mailer for Mailbox {
    async fn send(&self, mail: Mail) -> Result<(), MailError> {
        self.0.lock().unwrap().push(mail);
        Ok(())
    }
}

pub(crate) struct Server {
    routes: Router,
    verifier: Arc<Verifier>,
    clock: Arc<Hand>,
    mails: Arc<Mailbox>,
    pub(crate) identity: Identity,
    pub(crate) config: IdentityConfig,
    pub(crate) folder: Folder,
    tasks: Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.shutdown();
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("{name} in {self:?}")).to_owned()
    }

    /// The refusal's status and code.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or("none"))
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let folder = Folder::temporary("identity-routes").unwrap();
        let mails = Arc::new(Mailbox::default());
        let database = Database::Sqlite(folder.path().join("identity.db"));
        let mut config = IdentityConfig {
            // A key that is made at once: the algorithms have a test of their own.
            algorithm: SigningAlgorithm::Es256,
            mailer: Some(Arc::clone(&mails) as Arc<dyn Mailer>),
            publish: vec![Pattern::parse("room:*").unwrap()],
            subscribe: vec![Pattern::parse("room:*").unwrap()],
            ..IdentityConfig::new(database, folder.path().to_owned())
        };
        change(&mut config);
        let hand = Arc::new(Hand(AtomicI64::new(1_795_250_000_000)));
        let clock = Arc::clone(&hand) as Arc<dyn Clock>;
        let tasks = Tasks::new();
        let identity = Identity::start(config.clone(), Arc::clone(&clock), &tasks).unwrap();
        let keys = VerifierConfig {
            revocations: Some(Arc::new(identity.clone())),
            ..VerifierConfig::new(KeySource::Watched(identity.jwks()))
        };
        let verifier = Verifier::start(keys, clock, &tasks).await.unwrap();
        let verifier = Arc::new(verifier);
        let limiter = Arc::new(SlidingWindow::new(10_000));
        let limits = Arc::new(Limits::new(limiter, LimitsConfig::default()));
        let callers = CallerState { verifier: Arc::clone(&verifier), limits };
        let routes = finish(identity.routes(callers), &WebConfig::default());
        let server = Self { routes, verifier, clock: hand, mails, identity, config, folder, tasks };
        server.until("ready", || server.identity.is_ready()).await;
        server
    }

    /// Waits for something that comes by itself.
    pub(crate) async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(start.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<Body>,
        ip: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("user-agent", "kit");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(body.into()).unwrap(), ip).await
    }

    /// Sends a request from `ip`.
    pub(crate) async fn send(&self, mut request: Request<Body>, ip: &str) -> Answer {
        request.extensions_mut().insert(ClientAddress(ip.parse::<IpAddr>().unwrap()));
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, None, body.to_string(), "192.0.2.1").await
    }

    pub(crate) async fn post_as(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(token), body.to_string(), "192.0.2.1").await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(Method::GET, path, Some(token), "", "192.0.2.1").await
    }

    pub(crate) async fn register(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        let made = self.post("/v1/auth/register", body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.text("user")
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Answer {
        self.post("/v1/auth/login", json!({ "username": name, "password": password })).await
    }

    /// Signs in; access and refresh token.
    pub(crate) async fn sign_in(&self, name: &str) -> (String, String) {
        let answer = self.login(name, PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.text("access_token"), answer.text("refresh_token"))
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/auth/refresh", json!({ "refresh_token": token })).await
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        self.verifier.verify(token).await
    }

    /// Waits until the token is refused.
    pub(crate) async fn until_refused(&self, token: &str) {
        let start = Instant::now();
        while self.verify(token).await.is_ok() {
            assert!(start.elapsed() < PATIENCE, "the token is good still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the `n`th mail to `to`.
    pub(crate) async fn mail(&self, to: &str, n: usize) -> Mail {
        let find = || {
            let mails = self.mails.0.lock().unwrap();
            mails.iter().filter(|mail| mail.to == to).nth(n - 1).cloned()
        };
        self.until("a mail", || find().is_some()).await;
        find().unwrap()
    }

    pub(crate) fn mails(&self) -> usize {
        self.mails.0.lock().unwrap().len()
    }
}

/// The token that a mail carries: the paragraph without a blank.
pub(crate) fn token_in(mail: &Mail) -> String {
    let mut paragraphs = mail.text.split("\n\n");
    paragraphs.find(|paragraph| !paragraph.contains(' ')).unwrap().to_owned()
}
