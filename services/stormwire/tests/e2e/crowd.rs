//! A crowd of sockets that read when they are told to, writers that stamp what they send, and what a
//! process of ours costs meanwhile.

use crate::kit::PATIENCE;
use futures::{SinkExt as _, StreamExt as _};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Bytes that a reader's kernel takes although nobody reads.
const RECEIVE_BUFFER: u32 = 16 * 1024;
/// Events of one publish.
const BATCH: u64 = 10;
/// Connections that are opened at the same time.
const OPENING: usize = 50;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since this process first asked.
fn now() -> u64 {
    u64::try_from(BEGIN.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A connection that reads only when it is asked to.
pub(crate) struct Socket {
    socket: WebSocketStream<TcpStream>,
    /// The number of the next event, and the offset of the last one.
    due: u64,
    offset: u64,
    arrived: VecDeque<u64>,
}

/// The number of an event, when it was sent, and what makes it large.
#[derive(serde::Deserialize)]
struct Data(u64, u64, IgnoredAny);

#[derive(serde::Deserialize)]
struct ToldEvent {
    offset: u64,
    data: Data,
}

#[derive(serde::Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Told {
    Events {
        events: Vec<ToldEvent>,
    },
    #[serde(other)]
    Other,
}

impl Socket {
    /// Connects and signs in.
    pub(crate) async fn open(url: &str, token: &str) -> Self {
        let host = url.strip_prefix("http://").unwrap();
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let stream = tcp.connect(host.parse().unwrap()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("ws://{host}/v1/ws").into_client_request().unwrap();
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024);
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        // Boxed: the handshake is larger than all else here.
        let (socket, _) = Box::pin(opened).await.unwrap();
        let mut socket = Self { socket, due: 0, offset: 0, arrived: VecDeque::new() };
        let connected = socket.ask(json!({"op": "connect", "id": 0, "token": token})).await;
        assert_eq!(connected["op"], "connected", "{connected}");
        socket
    }

    /// Opens many, some at a time.
    pub(crate) async fn crowd(url: &str, token: &str, count: usize) -> Vec<Self> {
        let opening = futures::stream::iter(0..count).map(|_| Self::open(url, token));
        opening.buffered(OPENING).collect().await
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> Utf8Bytes {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match message.expect("the server says something in time") {
                Some(Ok(Message::Text(text))) => return text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn ask(&mut self, message: Value) -> Value {
        self.say(&message).await;
        serde_json::from_str(&self.hear().await).unwrap()
    }

    /// Follows a channel from now on, or from `since`; the next event has the number `due`.
    pub(crate) async fn follow(&mut self, channel: &str, since: Option<Value>, due: u64) {
        let mut ask = json!({"op": "subscribe", "id": 1, "channel": channel});
        if let Some(since) = since {
            ask["since"] = since;
        }
        let subscribed = self.ask(ask).await;
        assert_eq!(subscribed["op"], "subscribed", "{subscribed}");
        (self.due, self.offset) = (due, 0);
    }

    /// Where it stands.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes over what is told until this is.
    pub(crate) async fn until(&mut self, op: &str) {
        let text = format!("\"op\":\"{op}\"");
        while !self.hear().await.contains(&text) {}
    }

    /// Takes one message: each event is the next one, and behind the one before it. Gives back how long
    /// each was on its way, in microseconds.
    pub(crate) async fn read(&mut self) -> VecDeque<u64> {
        let text = self.hear().await;
        let told: Told = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let Told::Events { events } = told else {
            assert!(!text.contains("\"gap\""), "{text}");
            return VecDeque::new();
        };
        let now = now();
        for ToldEvent { offset, data: Data(number, sent, _) } in events {
            assert_eq!(number, self.due, "each event once and in order");
            assert!(offset > self.offset, "{offset} behind {}", self.offset);
            (self.due, self.offset) = (number + 1, offset);
            self.arrived.push_back(now.saturating_sub(sent));
        }
        std::mem::take(&mut self.arrived)
    }

    /// Reads until it has had everything below `end`.
    pub(crate) async fn read_below(&mut self, end: u64) -> Latencies {
        let mut latencies = Latencies::default();
        while self.due < end {
            latencies.0.extend(self.read().await);
        }
        latencies
    }
}

/// How long events were on their way, in microseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn merge(all: impl IntoIterator<Item = Self>) -> Self {
        Self(all.into_iter().flat_map(|one| one.0).collect())
    }

    /// So many of a thousand took no longer than this.
    pub(crate) fn per_mille(&self, share: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * share / 1_000).min(sorted.len().saturating_sub(1));
        Duration::from_micros(sorted.get(at).copied().unwrap_or(0))
    }
}

/// One who publishes numbered events on one channel.
pub(crate) struct Writer {
    socket: Socket,
    channel: String,
    filler: String,
    /// The number of the next event.
    pub(crate) next: u64,
}

impl Writer {
    pub(crate) async fn open(url: &str, token: &str, channel: &str, bytes: usize) -> Self {
        let socket = Socket::open(url, token).await;
        Self { socket, channel: channel.to_owned(), filler: "x".repeat(bytes), next: 0 }
    }

    /// Sends `count` events in one publish, and awaits the answer.
    pub(crate) async fn publish(&mut self, count: u64) {
        let event = |number: u64| json!({"data": [number, now(), self.filler]});
        let events: Vec<Value> = (self.next..self.next + count).map(event).collect();
        let ask = json!({"op": "publish", "id": 1, "channel": self.channel, "events": events});
        loop {
            let answer = self.socket.ask(ask.clone()).await;
            if answer["op"] == "published" {
                break;
            }
            // Refused for want of room, and so not stored.
            assert_eq!(answer["code"], "journal_unavailable", "{answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.next += count;
    }

    /// Publishes `events` one by one, `pace` apart; a late one does not make those after it late.
    pub(crate) async fn paced(&mut self, events: u64, pace: Duration) {
        let mut ticks = tokio::time::interval(pace);
        for _ in 0..events {
            ticks.tick().await;
            self.publish(1).await;
        }
    }

    /// Publishes `events` as fast as they are taken.
    pub(crate) async fn flood(&mut self, events: u64) {
        let end = self.next + events;
        while self.next < end {
            self.publish(BATCH.min(end - self.next)).await;
        }
    }
}

/// Bytes of memory that the process has in use now.
pub(crate) fn resident(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
