//! What members cost a gateway and its subscribers, by the real program on real Redis and NATS. Measured
//! where `STORMWIRE_TEST_CONNECTIONS` says with how many connections, as in
//! `STORMWIRE_TEST_CONNECTIONS=2000 cargo test --release -p stormwire --test e2e measured -- --nocapture`.

use crate::fleet::Fleet;
use crate::kit::{PATIENCE, Role};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_testkit::redis::Redis;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const CHANNEL: &str = "stadium:1";
const STORM: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a connection was told of members.
#[derive(Default)]
struct Told {
    messages: AtomicU64,
    bytes: AtomicU64,
}

struct Connection {
    writer: SplitSink<Socket, Message>,
    answers: mpsc::Receiver<Value>,
    told: Arc<Told>,
}

impl Connection {
    async fn open(gateway: &Role, token: &str) -> Self {
        let url = format!("{}/v1/ws", gateway.url().replace("http://", "ws://"));
        let (socket, _) = Box::pin(tokio_tungstenite::connect_async(url)).await.unwrap();
        let (writer, reader) = socket.split();
        let (heard, answers) = mpsc::channel(16);
        let told = Arc::<Told>::default();
        tokio::spawn(read(reader, heard, Arc::clone(&told)));
        let mut connection = Self { writer, answers, told };
        connection.ask(json!({"op": "connect", "id": 1, "token": token})).await;
        connection
    }

    async fn ask(&mut self, request: Value) {
        self.writer.send(Message::text(request.to_string())).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        let answer = answer.expect("an answer in time").expect("the connection stays");
        assert_ne!(answer["op"], "error", "{answer}");
    }

    async fn subscribe(&mut self, presence: bool) {
        let subscribe =
            json!({"op": "subscribe", "id": 2, "channel": CHANNEL, "presence": presence});
        self.ask(subscribe).await;
    }

    async fn unsubscribe(&mut self) {
        self.ask(json!({"op": "unsubscribe", "id": 3, "channel": CHANNEL})).await;
    }
}

async fn read(mut reader: SplitStream<Socket>, heard: mpsc::Sender<Value>, told: Arc<Told>) {
    while let Some(Ok(message)) = reader.next().await {
        let Message::Text(text) = message else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["id"].is_null() {
            told.messages.fetch_add(1, Ordering::Relaxed);
            told.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
        } else if heard.send(value).await.is_err() {
            return;
        }
    }
}

/// Resident bytes of the gateway's process.
fn resident(gateway: &Role) -> u64 {
    let pid = gateway.server.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many members the channel has.
async fn members(gateway: &Role, token: &str) -> u64 {
    let path = format!("/v1/channels/{CHANNEL}/presence?limit=1");
    let page = crate::kit::get(&gateway.url(), token, &path).await;
    serde_json::from_str::<Value>(&page).unwrap()["sessions"].as_u64().unwrap()
}

async fn until_members(gateway: &Role, token: &str, due: u64) {
    stormwire_testkit::wait_until("the count is exact", PATIENCE, || async {
        members(gateway, token).await == due
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_members_cost() {
    let connections =
        std::env::var("STORMWIRE_TEST_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    let Some(connections) = connections else { return };
    let connections: usize = connections;
    let Some(redis) = Redis::start().await else { return };
    let url = redis.url();
    let Some(fleet) = Fleet::start("measured", &[("REDIS_URL", url.as_str())]).await else {
        return;
    };
    let gateway = fleet.gateway("gateway").await;
    let each = |bytes: u64, before: u64| bytes.saturating_sub(before) / connections as u64;

    let empty = resident(&gateway);
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(Connection::open(&gateway, &fleet.token).await);
    }
    let connected = resident(&gateway);
    for connection in &mut all {
        connection.subscribe(false).await;
    }
    let subscribed = resident(&gateway);
    for connection in &mut all {
        connection.unsubscribe().await;
        connection.subscribe(true).await;
    }
    until_members(&gateway, &fleet.token, connections as u64).await;
    let attending = resident(&gateway);

    // A quarter comes and goes as fast as it is answered; the others watch.
    let watching = all.split_off(connections / 4);
    let before: Vec<_> =
        watching.iter().map(|one| one.told.bytes.load(Ordering::Relaxed)).collect();
    let heard: u64 = watching.iter().map(|one| one.told.messages.load(Ordering::Relaxed)).sum();
    let since = Instant::now();
    let storm = all.into_iter().map(|mut one| async move {
        let mut changes = 0u64;
        while since.elapsed() < STORM {
            one.unsubscribe().await;
            one.subscribe(true).await;
            changes += 2;
        }
        (one, changes)
    });
    let stormed = futures::future::join_all(storm).await;
    let changes: u64 = stormed.iter().map(|(_, changes)| changes).sum();
    until_members(&gateway, &fleet.token, connections as u64).await;
    let took = since.elapsed();
    let bytes = watching
        .iter()
        .zip(&before)
        .map(|(one, before)| one.told.bytes.load(Ordering::Relaxed) - before);
    let bytes = bytes.sum::<u64>() / watching.len() as u64;
    let messages: u64 = watching.iter().map(|one| one.told.messages.load(Ordering::Relaxed)).sum();
    // One change in a message of its own.
    let alone = json!({"op": "joined", "channel": CHANNEL, "since": 1_795_250_000_000_100u64,
        "version": 1_795_250_000_250_000u64, "users": 1, "sessions": connections,
        "members": [{"user": "test", "session": "01980000-0000-7000-8000-000000000000"}]});
    println!(
        "{}",
        json!({
            "connections": connections,
            "bytes_a_connection": each(connected, empty),
            "bytes_a_subscription_with_membership": each(attending, connected),
            "bytes_a_subscription": each(subscribed, connected),
            "storm_changes": changes,
            "storm_seconds": took.as_secs_f64(),
            "messages_a_watcher": (messages - heard) / watching.len() as u64,
            "bytes_a_watcher": bytes,
            "bytes_a_watcher_one_by_one": changes * alone.to_string().len() as u64,
        })
    );
    assert!(bytes < changes * 20, "{bytes} bytes for {changes} changes");
}
