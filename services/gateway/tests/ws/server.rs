//! A gateway on the embedded engine, and a WebSocket client that shares no code with ours.

use super::flawed::{Flawed, Flaws};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, Batch};
use stormwire_core::{Clock, PartitionCount, Pattern, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::{Gateway, GatewayConfig, GatewayPorts};
use stormwire_identity::{DevelopmentKey, TokenRequest};
use stormwire_journal::Journal;
use stormwire_limits::{Limits, LimitsConfig};
use stormwire_presence::{LEASE, LocalPresence, LocalSignals};
use stormwire_telemetry::Tasks;
use stormwire_tokens::{KeySource, TokenLimits, Verifier, VerifierConfig};
use stormwire_wire::frame::Frame;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) archive: Arc<dyn Archive>,
    key: DevelopmentKey,
    shutdown: CancellationToken,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    _dir: TempDir,
}

struct TempDir(std::path::PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::flawed(change, &Arc::default()).await
    }

    /// One whose journal has these flaws.
    pub(crate) async fn flawed(
        change: impl FnOnce(&mut GatewayConfig),
        flaws: &Arc<Flaws>,
    ) -> Self {
        let dir = std::env::temp_dir().join(format!("stormwire-ws-{:x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine =
            Embedded::open(dir.join("stormwire.db"), EmbeddedConfig::default(), clock.clone());
        let engine = engine.await.unwrap();
        let key = DevelopmentKey::load_or_create(&dir).unwrap();
        let jwks = dir.join("jwks.json");
        std::fs::write(&jwks, key.jwks()).unwrap();
        let tasks = Tasks::new();
        let verifier = VerifierConfig::new(KeySource::File(jwks));
        let verifier = Verifier::start(verifier, clock.clone(), &tasks).await.unwrap();
        let mut config =
            GatewayConfig { drain_spread: Duration::from_millis(200), ..GatewayConfig::default() };
        change(&mut config);
        let gateway = Gateway::new(
            config,
            GatewayPorts {
                journal: Flawed::around(engine.journal(), flaws),
                peers: engine.peers(),
                archive: engine.archive(),
                presence: Arc::new(LocalPresence::new(LEASE)),
                signals: Arc::new(LocalSignals::default()),
                limits: Arc::new(Limits::new(engine.limiter(), LimitsConfig::default())),
                verifier: Arc::new(verifier),
                clock,
            },
        );
        let (journal, archive) = (engine.journal(), engine.archive());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let served = tokio::spawn(async move {
            let _tasks = tasks;
            let result = gateway.serve(listener, stop).await;
            engine.close().await;
            result
        });
        let served = Some(served);
        Self { address, key, shutdown, journal, archive, served, _dir: TempDir(dir) }
    }

    /// Does what a worker does: everything goes into the archive, and all but the last frame of each
    /// partition out of the journal.
    pub(crate) async fn persist_and_trim(&self) {
        let (count, ttl) = (PartitionCount::DEFAULT, Duration::from_secs(60));
        let leases = self.archive.acquire("test", count, usize::from(count.get()), ttl).await;
        for lease in leases.unwrap() {
            let tip = self.journal.open(lease.partition).await.unwrap();
            let ledger = self.archive.ledger(lease.partition).await.unwrap();
            let expected_last = ledger.map_or(0, |entry| entry.last_seq);
            let stored = self.journal.read(lease.partition, tip.epoch, 1, 4096, 1 << 24).await;
            let frames = stored.unwrap().into_iter().filter(|frame| frame.seq > expected_last);
            let frames = frames
                .map(|frame| (frame.seq, frame.ts, Frame::decode(&frame.bytes).unwrap()))
                .filter(|(.., frame)| frame.events().is_some())
                .collect();
            let batch = Batch {
                epoch: tip.epoch,
                expected_last,
                through: tip.last,
                last_frame: None,
                frames,
                gaps: Vec::new(),
                undecodable: Vec::new(),
            };
            self.archive.persist(&lease, &batch).await.unwrap();
            let through = tip.last.saturating_sub(1);
            self.journal.trim(lease.partition, tip.epoch, through).await.unwrap();
        }
    }

    /// The oldest frame that the journal still has of a channel's partition.
    pub(crate) async fn first_of(&self, channel: &str) -> u64 {
        let partition = PartitionCount::DEFAULT.of(channel.as_bytes());
        self.journal.tip(partition).await.unwrap().first
    }

    /// A token with every right and no limits.
    pub(crate) fn token(&self) -> String {
        self.sign(TokenRequest::new("alice").all_rights())
    }

    pub(crate) fn sign(&self, request: TokenRequest) -> String {
        self.key.sign(request, &SystemClock).unwrap()
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

    pub(crate) async fn open(&self) -> Client {
        let url = format!("ws://{}/v1/ws", self.address);
        let (socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
        Client { socket }
    }

    /// A connection that is signed in with every right.
    pub(crate) async fn client(&self, producer: &str) -> Client {
        let mut client = self.open().await;
        let connect =
            json!({"op": "connect", "id": 0, "token": self.token(), "producer": producer});
        let connected = client.ask(connect).await;
        assert_eq!(connected["op"], "connected", "{connected}");
        client
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let served = self.served.take().unwrap();
        tokio::time::timeout(PATIENCE, served).await.expect("the drain ends").unwrap().unwrap();
    }

    /// Waits until it has left by itself; what it said.
    pub(crate) async fn ended(mut self) -> std::io::Result<()> {
        let served = self.served.take().unwrap();
        tokio::time::timeout(PATIENCE, served).await.expect("the drain ends").unwrap()
    }

    pub(crate) fn begin_to_stop(&self) {
        self.shutdown.cancel();
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(crate) async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &'static [u8]) {
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    /// The next message of the server.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Ok(text) => serde_json::from_str(&text).unwrap(),
            Err(close) => panic!("closed: {close:?}"),
        }
    }

    /// Waits for the end of the connection, past whatever is said before it.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            if let Err(close) = self.next().await {
                return close.map_or(1006, |frame| frame.code.into());
            }
        }
    }

    /// The next message of the server; `None` when it has closed the connection with `code`.
    pub(crate) async fn hear_unless_closed(&mut self, code: u16) -> Option<Value> {
        match self.next().await {
            Ok(text) => Some(serde_json::from_str(&text).unwrap()),
            Err(close) => {
                assert_eq!(close.map_or(1006, |frame| frame.code.into()), code);
                None
            }
        }
    }

    pub(crate) async fn ask(&mut self, message: Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    /// The next `count` events, as (offset, data), and how many messages brought them.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<(u64, Value)> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.hear().await;
            assert_eq!(message["op"], "events", "{message}");
            for event in message["events"].as_array().unwrap() {
                events.push((event["offset"].as_u64().unwrap(), event["data"].clone()));
            }
        }
        assert_eq!(events.len(), count);
        events
    }

    async fn next(&mut self) -> Result<Utf8Bytes, Option<CloseFrame>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match message.expect("the server says something in time") {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}
