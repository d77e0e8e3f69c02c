//! A small server with the protocol's rules for one user, in memory, that can be told to misbehave. It
//! reads and writes by `serde_json` alone, so that it does not share the client's mistakes.

use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How it misbehaves; counts are of publishes since the last time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Refuses every n-th publish for now, and what follows it as out of order.
    pub(crate) refuse_every: u64,
    /// Cuts the connection instead of answering every n-th publish, which is stored.
    pub(crate) cut_every: u64,
    /// Accepts connections only with this token.
    pub(crate) token: Option<&'static str>,
    /// Does not answer at all after the connect.
    pub(crate) mute: bool,
}

/// What it holds.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) faults: Faults,
    /// Channel, then data in order.
    pub(crate) log: HashMap<String, Vec<Value>>,
    stored: HashMap<u64, u64>,
    highest: u64,
    publishes: u64,
    pub(crate) connections: u64,
    pub(crate) pings: u64,
    pub(crate) refreshed: Vec<String>,
    pub(crate) producers: Vec<String>,
}

/// The server; its connections end with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    close: broadcast::Sender<u16>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (changed, _) = watch::channel(0);
        let (close, _) = broadcast::channel(4);
        let task = tokio::spawn({
            let (state, changed, close) = (Arc::clone(&state), changed.clone(), close.clone());
            async move {
                let mut sockets = tokio::task::JoinSet::new();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let connection = Connection {
                        state: Arc::clone(&state),
                        changed: changed.clone(),
                        subscribed: HashMap::new(),
                        fence: None,
                    };
                    sockets.spawn(connection.serve(socket, close.subscribe()));
                }
            }
        });
        Self { address, state, changed, close, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every connection with this code.
    pub(crate) fn close_all(&self, code: u16) {
        self.close.send(code).unwrap();
    }

    /// Waits until the state is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let deadline = std::time::Duration::from_secs(20);
        let waiting = async {
            while !wanted(&self.state.lock()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(deadline, waiting).await.expect("the state was awaited");
    }
}

struct Connection {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    /// Channel to the number of the next event that it is sent.
    subscribed: HashMap<String, usize>,
    fence: Option<u64>,
}

/// What a request leads to.
enum Step {
    Say(Vec<Value>),
    Cut,
    Close(u16),
}

fn server_time() -> i64 {
    stormwire_core::Clock::now(&stormwire_core::SystemClock).0
}

impl Connection {
    async fn serve(mut self, socket: TcpStream, mut close: broadcast::Receiver<u16>) {
        #[expect(clippy::result_large_err, reason = "the library's own signature")]
        let choose = |request: &Request, mut response: Response| {
            let offered = request.headers().get("sec-websocket-protocol").cloned();
            response
                .headers_mut()
                .extend(offered.map(|it| (http::header::SEC_WEBSOCKET_PROTOCOL, it)));
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(socket, choose).await else {
            return;
        };
        let mut changed = self.changed.subscribe();
        loop {
            let mut say = self.news();
            if say.is_empty() {
                tokio::select! {
                    message = socket.next() => match self.read(message) {
                        Step::Say(answers) => say = answers,
                        Step::Cut => return,
                        Step::Close(code) => {
                            let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "told to".into() })).await;
                            return;
                        }
                    },
                    _ = changed.changed() => {}
                    Ok(code) = close.recv() => {
                        if code == 1001 {
                            // Both in one write, as the first slot of a drain gets them.
                            let moving = json!({"op": "moving", "reconnect_after_ms": 0});
                            let _ = socket.feed(Message::text(moving.to_string())).await;
                        }
                        let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "told to".into() })).await;
                        return;
                    }
                }
            }
            for message in say {
                if socket.send(Message::text(message.to_string())).await.is_err() {
                    return;
                }
            }
        }
    }

    fn read(
        &mut self,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Step {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Step::Cut,
            Some(Ok(_)) => return Step::Say(Vec::new()),
        };
        let requests = match serde_json::from_str(&text).unwrap() {
            Value::Array(requests) => requests,
            one => vec![one],
        };
        let mut say = Vec::new();
        for request in requests {
            match self.request(&request) {
                Step::Say(answers) => say.extend(answers),
                other => return other,
            }
        }
        self.changed.send_modify(|count| *count += 1);
        Step::Say(say)
    }

    fn request(&mut self, request: &Value) -> Step {
        let state = Arc::clone(&self.state);
        let mut state = state.lock();
        let id = &request["id"];
        let channel = request["channel"].as_str().unwrap_or_default().to_owned();
        if state.faults.mute && request["op"] != "connect" {
            return Step::Say(Vec::new());
        }
        Step::Say(match request["op"].as_str().unwrap() {
            "connect" => {
                if state.faults.token.is_some_and(|token| request["token"] != token) {
                    return Step::Close(4401);
                }
                state.connections += 1;
                state.producers.push(request["producer"].as_str().unwrap().to_owned());
                let session = state.connections.to_string();
                vec![json!({"op": "connected", "id": id, "session": session, "user": "u",
                    "heartbeat_ms": 30000, "limits": {"unacked": 16}, "server_time": server_time()})]
            }
            "publish" => return self.publish(&mut state, request),
            "subscribe" => {
                let channel = match &request["channels"] {
                    Value::Array(channels) => channels[0].as_str().unwrap().to_owned(),
                    _ => channel,
                };
                let tip = state.log.get(&channel).map_or(0, Vec::len);
                let since = &request["since"];
                let next = match (since["offset"].as_u64(), since["last"].as_u64()) {
                    (Some(offset), _) => usize::try_from(offset).unwrap(),
                    (_, Some(last)) => tip.saturating_sub(usize::try_from(last).unwrap()),
                    _ => tip,
                };
                if channel.starts_with("secret:") {
                    return Step::Say(vec![json!({"op": "error", "id": id, "code": "forbidden",
                        "message": "no right", "temporary": false})]);
                }
                self.subscribed.insert(channel.clone(), next);
                vec![json!({"op": "subscribed", "id": id, "channel": channel, "epoch": 1,
                    "offset": next, "recovered": true})]
            }
            "unsubscribe" => {
                let channel = match &request["channels"] {
                    Value::Array(channels) => channels[0].as_str().unwrap().to_owned(),
                    _ => channel,
                };
                self.subscribed.remove(&channel);
                vec![json!({"op": "unsubscribed", "id": id, "channel": channel})]
            }
            "history" => {
                let log = state.log.get(&channel).cloned().unwrap_or_default();
                let events: Vec<_> = (0..).zip(&log).map(|(at, data)| event(at, data)).collect();
                vec![json!({"op": "history", "id": id, "channel": channel, "epoch": 1,
                    "events": events, "more": false})]
            }
            "refresh" => {
                state.refreshed.push(request["token"].as_str().unwrap().to_owned());
                vec![
                    json!({"op": "refreshed", "id": id, "expires_in": 900, "expires_in_ms": 900_000}),
                ]
            }
            "ping" => {
                state.pings += 1;
                vec![json!({"op": "pong", "id": id, "server_time": server_time()})]
            }
            other => panic!("unknown operation {other}"),
        })
    }

    fn publish(&mut self, state: &mut State, request: &Value) -> Step {
        let id = &request["id"];
        let seq = request["seq"].as_u64().unwrap();
        let refuse = |code: &str, temporary: bool| {
            Step::Say(vec![json!({"op": "error", "id": id, "code": code, "message": "as told",
                "temporary": temporary, "retry_after_ms": 5})])
        };
        if self.fence.is_some_and(|fence| seq > fence) {
            return refuse("out_of_order", true);
        }
        self.fence = None;
        state.publishes += 1;
        let due = |every: u64| every > 0 && state.publishes.is_multiple_of(every);
        if due(state.faults.refuse_every) {
            self.fence = Some(seq);
            return refuse("overloaded", true);
        }
        let cut = due(state.faults.cut_every);
        let events = request["events"].as_array().unwrap();
        if events.iter().any(|event| event["type"] == "bad") {
            return refuse("invalid_field", false);
        }
        let (first, duplicate) = match state.stored.get(&seq) {
            Some(first) if request["again"].is_u64() => (*first, true),
            _ if seq <= state.highest => return refuse("conflict", false),
            _ => {
                let log =
                    state.log.entry(request["channel"].as_str().unwrap().to_owned()).or_default();
                let first = log.len() as u64 + 1;
                log.extend(events.iter().map(|event| event["data"].clone()));
                state.stored.insert(seq, first);
                state.highest = seq;
                (first, false)
            }
        };
        self.changed.send_modify(|count| *count += 1);
        if cut {
            return Step::Cut;
        }
        let last = first + events.len() as u64 - 1;
        Step::Say(vec![
            json!({"op": "published", "id": id, "epoch": 1, "first": first, "last": last,
            "server_time": server_time(), "duplicate": duplicate}),
        ])
    }

    /// What this connection's subscriptions have not been sent, in pages; every second page repeats the
    /// event before it, as a server may.
    fn news(&mut self) -> Vec<Value> {
        let state = self.state.lock();
        let mut say = Vec::new();
        for (channel, next) in &mut self.subscribed {
            let log = state.log.get(channel).map(Vec::as_slice).unwrap_or_default();
            for page in (*next..log.len()).collect::<Vec<_>>().chunks(10) {
                let from = page[0].saturating_sub(usize::from(page[0] % 2 == 1));
                let events: Vec<_> =
                    (from..=page[page.len() - 1]).map(|at| event(at, &log[at])).collect();
                say.push(json!({"op": "events", "channel": channel, "epoch": 1, "events": events}));
            }
            *next = log.len().max(*next);
        }
        say
    }
}

fn event(at: usize, data: &Value) -> Value {
    json!({"offset": at + 1, "ts": 1, "id": format!("e{}", at + 1), "from": "u", "data": data})
}
