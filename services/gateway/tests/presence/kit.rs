//! Gateways with sockets, each with an embedded journal of its own, and clients that follow the protocol's
//! rules for members.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stormwire_core::{Channel, Clock, Partition, PartitionCount, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::{Gateway, GatewayConfig, GatewayPorts};
use stormwire_identity::{DevelopmentKey, TokenRequest};
use stormwire_limits::{Limits, LimitsConfig};
use stormwire_presence::{
    Change, Changed, Difference, LEASE, Life, LocalPresence, LocalSignals, Member, MemberPage,
    Presence, PresenceError, Renewed, SignalError, Signals, Swept,
};
use stormwire_telemetry::Tasks;
use stormwire_testkit::Folder;
use stormwire_tokens::{KeySource, TokenLimits, Verifier, VerifierConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a gateway stands on besides its journal.
pub(crate) type Shared = (Arc<dyn Presence>, Arc<dyn Signals>);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    key: DevelopmentKey,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    _folder: Folder,
}

impl Server {
    /// A gateway alone, with everything in the process.
    pub(crate) async fn alone() -> Self {
        let presence = Arc::new(LocalPresence::new(LEASE));
        Self::start("alone", (presence, Arc::new(LocalSignals::default()))).await
    }

    pub(crate) async fn start(name: &str, (presence, signals): Shared) -> Self {
        let folder = Folder::temporary("presence").unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let file = folder.path().join("stormwire.db");
        let engine = Embedded::open(file, EmbeddedConfig::default(), clock.clone()).await.unwrap();
        let key = DevelopmentKey::load_or_create(folder.path()).unwrap();
        let tasks = Tasks::new();
        let verifier = VerifierConfig::new(KeySource::Inline(key.jwks()));
        let verifier = Verifier::start(verifier, clock.clone(), &tasks).await.unwrap();
        let config = GatewayConfig {
            name: name.to_owned(),
            partitions: PartitionCount::new(4).unwrap(),
            drain_spread: Duration::from_millis(50),
            ..GatewayConfig::default()
        };
        let ports = GatewayPorts {
            journal: engine.journal(),
            peers: engine.peers(),
            archive: engine.archive(),
            presence,
            signals,
            limits: Arc::new(Limits::new(engine.limiter(), LimitsConfig::default())),
            verifier: Arc::new(verifier),
            clock,
        };
        let gateway = Gateway::new(config, ports);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let served = tokio::spawn(async move {
            let _tasks = tasks;
            gateway.serve(listener, stop).await.unwrap();
            engine.close().await;
        });
        Self { address, key, shutdown, served, _folder: folder }
    }

    /// A token with every right and no limits.
    pub(crate) fn token(&self, user: &str) -> String {
        self.sign(TokenRequest::new(user).all_rights())
    }

    pub(crate) fn sign(&self, request: TokenRequest) -> String {
        self.key.sign(request, &SystemClock).unwrap()
    }

    /// A token with every right and the server's own limits, and what `change` makes of it.
    pub(crate) fn limited(&self, user: &str, change: impl FnOnce(&mut TokenRequest)) -> String {
        let mut request =
            TokenRequest { limits: TokenLimits::default(), ..TokenRequest::new(user).all_rights() };
        change(&mut request);
        self.sign(request)
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        self.client_with(&self.token(user)).await
    }

    pub(crate) async fn client_with(&self, token: &str) -> Client {
        let url = format!("ws://{}/v1/ws", self.address);
        let (socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
        let mut client = Client { socket, session: String::new() };
        client.say(json!({"op": "connect", "id": 0, "token": token})).await;
        let connected = client.hear("connected").await;
        client.session = connected["session"].as_str().unwrap().to_owned();
        client
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the drain ends").unwrap();
    }
}

/// A WebSocket client that shares no code with ours.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) session: String,
}

impl Client {
    pub(crate) async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match message.expect("the server says something in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("closed: {other:?}"),
            }
        }
    }

    /// The next message of this kind; others are passed over.
    pub(crate) async fn hear(&mut self, op: &str) -> Value {
        let heard = async {
            loop {
                let message = self.next().await;
                if message["op"] == op {
                    return message;
                }
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await;
        heard.unwrap_or_else(|_| panic!("no {op} in time"))
    }

    /// The answer to this request; what comes meanwhile is passed over.
    pub(crate) async fn ask(&mut self, message: Value) -> Value {
        let id = message["id"].clone();
        assert!(!id.is_null());
        self.say(message).await;
        loop {
            let answer = self.next().await;
            if answer["id"] == id {
                return answer;
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, channel: &str, presence: bool) {
        let subscribe =
            json!({"op": "subscribe", "id": "s", "channel": channel, "presence": presence});
        let answer = self.ask(subscribe).await;
        assert_eq!(answer["op"], "subscribed", "{answer}");
    }

    /// Becomes a member, and waits until it is told where the members stand: changes follow.
    pub(crate) async fn attend(&mut self, channel: &str) {
        self.subscribe(channel, true).await;
        let stands = self.hear("presence").await;
        assert_eq!((&stands["resync"], &stands["members"]), (&json!(true), &json!([])));
    }

    /// Everybody, by pages of `limit`; the counts of the last one.
    pub(crate) async fn members(&mut self, channel: &str, limit: u32) -> (Vec<String>, u64, u64) {
        let (mut all, mut after) = (Vec::new(), Value::Null);
        loop {
            let page = json!({"op": "presence", "id": "p", "channel": channel, "limit": limit, "after": after});
            let page = self.ask(page).await;
            assert_eq!(page["op"], "presence", "{page}");
            all.extend(users(&page));
            after = page["next"].clone();
            if after.is_null() {
                return (all, page["users"].as_u64().unwrap(), page["sessions"].as_u64().unwrap());
            }
        }
    }
}

/// The users of a message's members.
pub(crate) fn users(message: &Value) -> Vec<String> {
    let members = message["members"].as_array().unwrap();
    members.iter().map(|member| member["user"].as_str().unwrap().to_owned()).collect()
}

/// A way to the engines that can be cut, as by a kill, a pause or a partition of the network.
pub(crate) struct Cut<T: ?Sized> {
    pub(crate) cut: Arc<AtomicBool>,
    pub(crate) engine: Arc<T>,
}

impl<T: ?Sized> Cut<T> {
    fn check(&self) -> Result<(), String> {
        if self.cut.load(Ordering::SeqCst) { Err("cut off".to_owned()) } else { Ok(()) }
    }

    fn presence(&self) -> Result<&T, PresenceError> {
        self.check().map_err(PresenceError::Unavailable)?;
        Ok(&self.engine)
    }
}

/// The engines behind a switch.
pub(crate) fn cuttable((presence, signals): Shared) -> (Shared, Arc<AtomicBool>) {
    let cut = Arc::new(AtomicBool::new(false));
    let presence = Arc::new(Cut { cut: Arc::clone(&cut), engine: presence });
    let signals = Arc::new(Cut { cut: Arc::clone(&cut), engine: signals });
    ((presence, signals), cut)
}

#[async_trait]
impl Presence for Cut<dyn Presence> {
    async fn begin(&self, life: &Life) -> Result<(), PresenceError> {
        self.presence()?.begin(life).await
    }

    async fn renew(&self, life: &Life) -> Result<Renewed, PresenceError> {
        self.presence()?.renew(life).await
    }

    async fn end(&self, life: &Life) -> Result<(), PresenceError> {
        self.presence()?.end(life).await
    }

    async fn apply(
        &self,
        life: &Life,
        turn: u64,
        changes: &[Change],
    ) -> Result<Vec<Changed>, PresenceError> {
        self.presence()?.apply(life, turn, changes).await
    }

    async fn sweep(&self, partition: Partition) -> Result<Swept, PresenceError> {
        self.presence()?.sweep(partition).await
    }

    async fn page(
        &self,
        partition: Partition,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<MemberPage, PresenceError> {
        self.presence()?.page(partition, channel, after, limit).await
    }

    async fn differences(
        &self,
        partition: Partition,
        since: &[(Channel, u64)],
    ) -> Result<Vec<Difference>, PresenceError> {
        self.presence()?.differences(partition, since).await
    }

    async fn ping(&self) -> Result<(), PresenceError> {
        self.presence()?.ping().await
    }

    fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }
}

#[async_trait]
impl Signals for Cut<dyn Signals> {
    async fn send(&self, partition: Partition, message: Bytes) -> Result<(), SignalError> {
        self.check().map_err(SignalError)?;
        self.engine.send(partition, message).await
    }

    async fn listen(&self, partition: Partition) -> Result<BoxStream<'static, Bytes>, SignalError> {
        self.check().map_err(SignalError)?;
        let cut = Arc::clone(&self.cut);
        let heard = self.engine.listen(partition).await?;
        let heard = heard.filter(move |_| std::future::ready(!cut.load(Ordering::SeqCst)));
        Ok(heard.boxed())
    }

    fn check(&self) -> Result<(), SignalError> {
        Cut::check(self).map_err(SignalError)
    }
}
