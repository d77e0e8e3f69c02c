//! A gateway's routes on the embedded engine, called without a socket.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Batch, Undecodable};
use stormwire_core::{Clock, PartitionCount, Pattern, SystemClock, Timestamp};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::{Gateway, GatewayConfig, GatewayPorts};
use stormwire_identity::{DevelopmentKey, TokenRequest};
use stormwire_limits::{Limits, LimitsConfig};
use stormwire_presence::{LEASE, LocalPresence, LocalSignals};
use stormwire_telemetry::Tasks;
use stormwire_tokens::{KeySource, Namespaces, TokenLimits, Verifier, VerifierConfig};
use stormwire_wire::frame::Frame;
use tower::ServiceExt as _;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) routes: Router,
    pub(crate) management: Router,
    engine: Embedded,
    key: DevelopmentKey,
    dir: std::path::PathBuf,
    _gateway: Gateway,
    _tasks: Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(LimitsConfig::default(), |_| {}).await
    }

    pub(crate) async fn with(
        limits: LimitsConfig,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let dir = std::env::temp_dir().join(format!("stormwire-rest-{:x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let file = dir.join("stormwire.db");
        let engine = Embedded::open(file, EmbeddedConfig::default(), clock.clone()).await.unwrap();
        let key = DevelopmentKey::load_or_create(&dir).unwrap();
        let tasks = Tasks::new();
        let verifier = VerifierConfig::new(KeySource::Inline(key.jwks()));
        let verifier = Verifier::start(verifier, clock.clone(), &tasks).await.unwrap();
        let mut config = GatewayConfig::default();
        change(&mut config);
        let ports = GatewayPorts {
            journal: engine.journal(),
            peers: engine.peers(),
            archive: engine.archive(),
            presence: Arc::new(LocalPresence::new(LEASE)),
            signals: Arc::new(LocalSignals::default()),
            limits: Arc::new(Limits::new(engine.limiter(), limits)),
            verifier: Arc::new(verifier),
            clock,
        };
        let gateway = Gateway::new(config, ports);
        let gateway = gateway.with_settings(engine.settings(), Namespaces::default());
        let (routes, management) = (gateway.routes(), gateway.management_routes());
        let server =
            Self { routes, management, engine, key, dir, _gateway: gateway, _tasks: tasks };
        tokio::time::timeout(PATIENCE, server.ready()).await.expect("the gateway becomes ready");
        server
    }

    async fn ready(&self) {
        while self.get("/readyz").await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A token with every right and no limits.
    pub(crate) fn token(&self) -> String {
        self.sign(TokenRequest::new("alice").all_rights())
    }

    pub(crate) fn sign(&self, request: TokenRequest) -> String {
        self.key.sign(request, &SystemClock).unwrap()
    }

    /// A token with every right that ended yesterday.
    pub(crate) fn old_token(&self) -> String {
        struct Yesterday;
        impl Clock for Yesterday {
            fn now(&self) -> Timestamp {
                Timestamp(SystemClock.now().0 - 86_400_000)
            }
        }
        let ttl = Duration::from_secs(60);
        let request = TokenRequest { ttl, ..TokenRequest::new("bob").all_rights() };
        self.key.sign(request, &Yesterday).unwrap()
    }

    /// A token for some patterns only, with the server's own limits.
    pub(crate) fn token_for(&self, user: &str, publish: &[&str], subscribe: &[&str]) -> String {
        let patterns =
            |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        self.sign(TokenRequest {
            publish: patterns(publish),
            subscribe: patterns(subscribe),
            limits: TokenLimits::default(),
            ..TokenRequest::new(user)
        })
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Response<Body> {
        let answer = self.routes.clone().oneshot(request);
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer").unwrap()
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.raw(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// With every right.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(self.signed(Request::get(path)).body(Body::empty()).unwrap()).await
    }

    /// With every right.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call(self.signed(Request::post(path)).body(body.into()).unwrap()).await
    }

    pub(crate) fn signed(&self, request: http::request::Builder) -> http::request::Builder {
        request.header("authorization", format!("Bearer {}", self.token()))
    }

    /// Does what a worker does: everything in the journal goes into the archive.
    pub(crate) async fn persist(&self) {
        self.persist_as(true).await;
    }

    /// As that, or as if no frame could be read.
    pub(crate) async fn persist_as(&self, readable: bool) {
        let (journal, archive) = (self.engine.journal(), self.engine.archive());
        let ttl = Duration::from_secs(60);
        let count = PartitionCount::DEFAULT;
        for lease in archive.acquire("test", count, usize::from(count.get()), ttl).await.unwrap() {
            let tip = journal.tip(lease.partition).await.unwrap();
            let stored = journal.read(lease.partition, tip.epoch, 1, 4096, 1 << 24).await.unwrap();
            let frames: Vec<_> = stored
                .iter()
                .map(|frame| (frame.seq, frame.ts, Frame::decode(&frame.bytes).unwrap()))
                .collect();
            let batch = Batch {
                epoch: tip.epoch,
                expected_last: 0,
                through: tip.last,
                last_frame: frames.last().map(|(_, _, frame)| frame.id),
                undecodable: stored
                    .iter()
                    .filter(|_| !readable)
                    .map(|frame| Undecodable {
                        seq: frame.seq,
                        ts: frame.ts,
                        error: "as if it could not be read".to_owned(),
                        bytes: frame.bytes.clone(),
                    })
                    .collect(),
                frames: frames
                    .into_iter()
                    .filter(|(_, _, frame)| readable && frame.events().is_some())
                    .collect(),
                gaps: Vec::new(),
            };
            archive.persist(&lease, &batch).await.unwrap();
        }
    }
}
