//! Gateways of their own, each on an embedded engine, behind one identity service that they follow over
//! HTTP through a network that can be cut.

use axum::Router;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_core::{Clock, Pattern, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::{Gateway, GatewayConfig, GatewayPorts};
use stormwire_identity::{Database, Identity, IdentityConfig, SigningAlgorithm};
use stormwire_limits::{Limits, LimitsConfig, SlidingWindow};
use stormwire_presence::{LEASE, LocalPresence, LocalSignals};
use stormwire_telemetry::Tasks;
use stormwire_testkit::proxy::Proxy;
use stormwire_testkit::{Folder, wait_until};
use stormwire_tokens::{
    KeySource, Namespaces, RevocationFeed, RevocationUrl, Role, Verifier, VerifierConfig,
};
use stormwire_web::{CallerState, WebConfig, finish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery";
const CHANNEL: &str = "room:lobby";

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The service and its gateways.
pub(crate) struct Cluster {
    pub(crate) gateways: Vec<Node>,
    /// An admin's access token.
    pub(crate) admin: String,
    /// Signs channel tokens.
    pub(crate) application: Application,
    address: SocketAddr,
    tasks: Tasks,
    _folder: Folder,
}

/// One gateway.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    /// Its way to the identity service.
    pub(crate) network: Proxy,
    /// The rules of its namespaces.
    pub(crate) namespaces: Namespaces,
    opened: Arc<std::sync::atomic::AtomicUsize>,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.gateways.iter().for_each(|gateway| gateway.shutdown.cancel());
        self.tasks.shutdown();
    }
}

/// Somebody who is signed in.
pub(crate) struct User {
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Cluster {
    pub(crate) async fn start(gateways: usize) -> Self {
        Self::with(gateways, false).await
    }

    /// The same, whose namespaces are what operators declare.
    pub(crate) async fn operated(gateways: usize) -> Self {
        Self::with(gateways, true).await
    }

    async fn with(gateways: usize, operated: bool) -> Self {
        let folder = Folder::temporary("revocation").unwrap();
        let tasks = Tasks::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let room = || vec![Pattern::parse("room:*").unwrap()];
        let config = IdentityConfig {
            algorithm: SigningAlgorithm::Es256,
            publish: room(),
            subscribe: room(),
            ..IdentityConfig::new(
                Database::Sqlite(folder.path().join("identity.db")),
                folder.path().to_owned(),
            )
        };
        let identity = Identity::start(config, Arc::clone(&clock), &tasks).unwrap();
        wait_until("accounts are ready", PATIENCE, || async { identity.is_ready() }).await;
        let address = serve_identity(&identity, &clock, &tasks).await;
        let application = Application::new();
        let mut nodes = Vec::new();
        for n in 0..gateways {
            let start = Node::start(
                n,
                &folder,
                address,
                (&identity, &application),
                (operated, &clock, &tasks),
            );
            nodes.push(start.await);
        }
        let mut cluster = Self {
            gateways: nodes,
            admin: String::new(),
            application,
            address,
            tasks,
            _folder: folder,
        };
        cluster.register("root").await;
        identity.grant("root", Role::Admin).await.unwrap();
        let (status, signed_in) = cluster.login("root").await;
        assert_eq!(status, 200, "{signed_in}");
        cluster.admin = text(&signed_in, "access_token");
        cluster
    }

    async fn register(&self, name: &str) {
        let account = json!({"username": name, "password": PASSWORD});
        let made = self.post("/v1/auth/register", account).await;
        assert_eq!(made.0, 201, "{made:?}");
    }

    pub(crate) async fn login(&self, name: &str) -> (u16, Value) {
        self.post("/v1/auth/login", json!({"username": name, "password": PASSWORD})).await
    }

    /// Registers and signs in.
    pub(crate) async fn user(&self, name: &str) -> User {
        self.register(name).await;
        let (status, signed_in) = self.login(name).await;
        assert_eq!(status, 200, "{signed_in}");
        User {
            user: text(&signed_in, "user"),
            session: text(&signed_in, "session"),
            access: text(&signed_in, "access_token"),
            refresh: text(&signed_in, "refresh_token"),
        }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, "", body).await
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Value,
    ) -> (u16, Value) {
        request(self.address, &method, path, token, &body).await
    }
}

async fn serve_identity(identity: &Identity, clock: &Arc<dyn Clock>, tasks: &Tasks) -> SocketAddr {
    let feed = Arc::new(identity.clone()) as Arc<dyn RevocationFeed>;
    let config = VerifierConfig {
        revocations: Some(feed),
        ..VerifierConfig::new(KeySource::Watched(identity.jwks()))
    };
    let verifier = Verifier::start(config, Arc::clone(clock), tasks).await.unwrap();
    let callers = CallerState { verifier: Arc::new(verifier), limits: limits() };
    let routes = identity.routes(callers).merge(identity.internal_routes());
    let routes: Router = finish(routes, &WebConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tasks.token();
    tokio::spawn(async move {
        let served = std::future::IntoFuture::into_future(axum::serve(listener, routes));
        stop.run_until_cancelled(served).await
    });
    address
}

fn limits() -> Arc<Limits> {
    let config = LimitsConfig { user_requests: None, ip_requests: None, ..LimitsConfig::default() };
    Arc::new(Limits::new(Arc::new(SlidingWindow::new(10_000)), config))
}

impl Node {
    async fn start(
        n: usize,
        folder: &Folder,
        identity_at: SocketAddr,
        (identity, application): (&Identity, &Application),
        (operated, clock, tasks): (bool, &Arc<dyn Clock>, &Tasks),
    ) -> Self {
        let network = Proxy::start(identity_at).await.unwrap();
        let feed = RevocationUrl::new(&format!("http://{}", network.address())).unwrap();
        let namespaces = Namespaces::default();
        let channel_tokens = VerifierConfig {
            issuers: vec!["application".to_owned()],
            audiences: vec!["stormwire:channel".to_owned()],
            ..VerifierConfig::new(KeySource::Inline(application.jwks()))
        };
        let config = VerifierConfig {
            revocations: Some(Arc::new(feed)),
            namespaces: namespaces.clone(),
            channel_tokens: Some(Box::new(channel_tokens)),
            ..VerifierConfig::new(KeySource::Watched(identity.jwks()))
        };
        let verifier = Verifier::start(config, Arc::clone(clock), tasks).await.unwrap();
        let file = folder.path().join(format!("gateway-{n}.db"));
        let engine = Embedded::open(file, EmbeddedConfig::default(), Arc::clone(clock));
        let engine = Box::pin(engine).await.unwrap();
        let ports = GatewayPorts {
            journal: engine.journal(),
            peers: engine.peers(),
            archive: engine.archive(),
            presence: Arc::new(LocalPresence::new(LEASE)),
            signals: Arc::new(LocalSignals::default()),
            limits: limits(),
            verifier: Arc::new(verifier),
            clock: Arc::clone(clock),
        };
        let config = GatewayConfig { drain_spread: Duration::ZERO, ..GatewayConfig::default() };
        let mut gateway = Gateway::new(config, ports);
        if operated {
            gateway = gateway.with_settings(engine.settings(), namespaces.clone());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            let served = gateway.serve(listener, stop).await;
            engine.close().await;
            served
        });
        Self { address, network, namespaces, opened: Arc::default(), shutdown }
    }

    /// The status of a publish.
    pub(crate) async fn publish(&self, token: &str) -> u16 {
        self.published(token).await.0
    }

    async fn published(&self, token: &str) -> (u16, Value) {
        let path = format!("/v1/channels/{CHANNEL}/events");
        request(self.address, &Method::POST, &path, token, &json!({"data": 1})).await
    }

    /// The place of an event that is published now.
    pub(crate) async fn place(&self, token: &str) -> String {
        let (status, stored) = self.published(token).await;
        assert_eq!(status, 200, "{stored}");
        format!("{}:{}", stored["epoch"], stored["last"])
    }

    /// Streams and polls that have begun.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// What a stream says until it ends.
    pub(crate) fn stream(&self, token: &str) -> impl Future<Output = String> + use<> {
        let path = format!("/v1/channels/{CHANNEL}/events");
        self.lasting(&path, token, "text/event-stream", true)
    }

    /// What a long poll behind `place`, where nothing comes, says.
    pub(crate) fn poll(&self, token: &str, place: &str) -> impl Future<Output = String> + use<> {
        let path = format!("/v1/channels/{CHANNEL}/events?after={place}&wait=30");
        self.lasting(&path, token, "application/json", false)
    }

    fn lasting(
        &self,
        path: &str,
        token: &str,
        accept: &str,
        speaks_first: bool,
    ) -> impl Future<Output = String> + use<> {
        let (address, opened) = (self.address, Arc::clone(&self.opened));
        let request = format!(
            "GET {path} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {token}\r\naccept: {accept}\r\n\r\n"
        );
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut told = vec![0; 1];
            if speaks_first {
                stream.read_exact(&mut told).await.unwrap();
            } else {
                told.clear();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            stream.read_to_end(&mut told).await.unwrap();
            String::from_utf8(told).unwrap()
        }
    }
}

/// The backend of an application, with a key of its own.
pub(crate) struct Application {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Application {
    fn new() -> Self {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
        Self { key, random }
    }

    fn jwks(&self) -> String {
        // The uncompressed form: a byte, then both coordinates.
        let point = self.key.public_key().as_ref();
        let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (coordinate(&point[1..33]), coordinate(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "app", "alg": "ES256", "x": x, "y": y}]})
            .to_string()
    }

    /// A channel token: what `user` may on `channel`, for `seconds`.
    pub(crate) fn sign(&self, user: &str, channel: &str, seconds: i64) -> String {
        let now = SystemClock.now().0 / 1000;
        let actions = ["publish", "subscribe", "history", "presence", "signal"];
        let channels: serde_json::Map<_, _> =
            actions.iter().map(|action| ((*action).to_owned(), json!([channel]))).collect();
        let header = json!({"alg": "ES256", "kid": "app"});
        let claims = json!({
            "iss": "application", "aud": "stormwire:channel", "sub": user, "iat": now,
            "exp": now + seconds, "channels": channels
        });
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A socket that is signed in and subscribed.
pub(crate) async fn connect(address: SocketAddr, token: &str) -> Socket {
    let mut socket = sign_in(address, token).await;
    let subscribe = json!({"op": "subscribe", "id": 1, "channel": CHANNEL});
    assert_eq!(ask(&mut socket, subscribe).await["op"], "subscribed");
    socket
}

/// A socket that is signed in.
pub(crate) async fn sign_in(address: SocketAddr, token: &str) -> Socket {
    let url = format!("ws://{address}/v1/ws");
    let (mut socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
    let connected = ask(&mut socket, json!({"op": "connect", "id": 0, "token": token})).await;
    assert_eq!(connected["op"], "connected", "{connected}");
    socket
}

/// Sends an operation; the next message that is no event.
pub(crate) async fn ask(socket: &mut Socket, operation: Value) -> Value {
    socket.send(Message::text(operation.to_string())).await.unwrap();
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an answer");
        let Message::Text(text) = message.expect("the socket is open").unwrap() else { continue };
        let answer: Value = serde_json::from_str(&text).unwrap();
        if answer["op"] != "events" && !answer.is_array() {
            return answer;
        }
    }
}

/// The code that the socket is closed with, and when.
pub(crate) async fn ended(mut socket: Socket) -> (u16, Instant) {
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Close(frame)) => {
                return (frame.map_or(1005, |frame| frame.code.into()), Instant::now());
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    (1006, Instant::now())
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

pub(crate) async fn request(
    address: SocketAddr,
    method: &Method,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let authorization = match token {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: x\r\n{authorization}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}
