//! Where no WebSocket passes: the same operations over HTTP.
//!
//! Towards the client a link is what a WebSocket is: messages of the protocol, in JSON, in and out. Each
//! subscription reads a stream of its own (Server-Sent Events), or polls where a proxy holds streams back;
//! publishes go one at a time, with the same producer and numbers, because requests may overtake each
//! other. Not to be had here: membership, signals of others, and a subscription that begins at a time. They
//! are refused as temporary, so that they wait for a WebSocket.

mod feed;
mod web;

use crate::dial::Refused;
use crate::{End, token};
use feed::Feed;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Uri};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stormwire_core::{Clock as _, CloseCode, ErrorCode, SystemClock};
use stormwire_wire::protocol::{Connected, ConnectedLimits};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use web::{Refusal, Trouble, Web};

/// Messages that wait in each direction.
const MESSAGES_AHEAD: usize = 16;
/// Publishes without an answer.
const UNACKED: u32 = 64;
/// What the server's clock may be ahead of what its answers tell, which is cut to seconds.
const AGAIN_SLACK: u64 = 2_000;
/// What a publish takes longer than another request.
const PUBLISH_LONGER: Duration = Duration::from_secs(20);
/// What only a WebSocket can do is asked for again after this.
const UNSUPPORTED_PAUSE_MS: u64 = 10_000;

/// A connection that is none: requests go in, and what comes of them comes out.
pub(crate) struct HttpLink {
    pub(crate) requests: mpsc::Sender<Message>,
    pub(crate) messages: mpsc::Receiver<Result<Message, Error>>,
    _worker: Aborting,
}

/// Reaches for the gateway that has its WebSocket at `socket`.
pub(crate) async fn open(
    socket: &Uri,
    tls: rustls::ClientConfig,
    token: String,
    producer: Arc<str>,
    timeout: Duration,
) -> Result<(HttpLink, Connected), Refused> {
    let Some(web) = Web::new(socket, tls, token, timeout) else {
        return Err(Refused::Final(End::Configuration(format!(
            "{socket} does not end in /v1/ws, so that it does not tell where HTTP goes: give the gateway's URL"
        ))));
    };
    let server_time = match web.ask(Method::GET, "/ping", None, Duration::ZERO).await {
        Ok((time, _)) => time,
        Err(Trouble::Lost(why)) => return Err(Refused::Unreachable(why)),
        Err(Trouble::Refused(refusal)) => {
            let after = refusal.retry_after_ms.map(Duration::from_millis);
            let why = format!("{}: {}", refusal.code, refusal.message);
            return Err(Refused::Later { why, after });
        }
    };
    let (requests, asked) = mpsc::channel(MESSAGES_AHEAD);
    let (out, messages) = mpsc::channel(MESSAGES_AHEAD);
    let link = Arc::new(Link { web, producer, out, streams: AtomicBool::new(true) });
    let worker = Aborting(tokio::spawn(link.run(asked)).abort_handle());
    let connected = Connected {
        id: None,
        session: "".into(),
        user: "".into(),
        heartbeat: Duration::from_secs(30),
        limits: ConnectedLimits { unacked: UNACKED },
        server_time,
    };
    Ok((HttpLink { requests, messages, _worker: worker }, connected))
}

/// A request of the protocol, as far as HTTP carries it.
#[derive(Debug, Deserialize)]
struct Asked {
    op: String,
    id: Option<i64>,
    channel: Option<String>,
    pattern: Option<String>,
    seq: Option<u64>,
    again: Option<u64>,
    receipt: Option<String>,
    events: Option<Box<RawValue>>,
    since: Option<Since>,
    #[serde(default)]
    presence: bool,
    token: Option<String>,
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
    limit: Option<u32>,
    before: Option<Place>,
    after: Option<After>,
    key: Option<String>,
    keys_after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Since {
    Position(Place),
    Cursor {
        cursor: String,
    },
    Last {
        last: u32,
    },
    Time {
        #[serde(rename = "time")]
        _time: IgnoredAny,
    },
}

/// Behind a position, or behind a member.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum After {
    Position(Place),
    Member(String),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Place {
    epoch: u32,
    offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl Asked {
    /// The channel or the pattern.
    fn target(&self) -> &str {
        self.pattern.as_deref().or(self.channel.as_deref()).unwrap_or_default()
    }

    /// Of its channel, with the parameters that are there.
    fn path<const N: usize>(&self, what: &str, query: [(&str, Option<String>); N]) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for (name, value) in query {
            if let Some(value) = value {
                text.append_pair(name, &value);
            }
        }
        // Names of channels and patterns need no escapes.
        format!("/v1/channels/{}/{what}?{}", self.target(), text.finish())
    }

    /// `{"channel": …}` or `{"pattern": …}`.
    fn named(&self) -> serde_json::Value {
        let name = if self.pattern.is_some() { "pattern" } else { "channel" };
        json!({ name: self.target() })
    }
}

/// An answer whose members are passed on as they are.
type Answer = BTreeMap<String, Box<RawValue>>;

/// What ends the whole connection.
#[derive(Debug)]
enum Fatal {
    Lost(String),
    Token(Refusal),
}

struct Link {
    web: Web,
    producer: Arc<str>,
    out: mpsc::Sender<Result<Message, Error>>,
    /// Whether streams pass.
    streams: AtomicBool,
}

type Outcome = Result<(), Fatal>;

/// A subscription's task; it ends with this.
struct FeedTask {
    abort: Aborting,
    /// Resolves when it says nothing any more.
    ended: oneshot::Receiver<()>,
}

struct Aborting(AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows when the one before of the same target says nothing any more: what it told would be taken for
/// this one's.
async fn follow(feed: Feed, former: Option<FeedTask>, done: oneshot::Sender<()>) -> Outcome {
    if let Some(FeedTask { abort, ended }) = former {
        drop(abort);
        let _ = ended.await;
    }
    let outcome = feed.run().await;
    drop(done);
    outcome
}

impl Link {
    /// Does what is asked until that ends, or something ends the connection.
    async fn run(self: Arc<Self>, mut asked: mpsc::Receiver<Message>) {
        let (publishes, queue) = mpsc::unbounded();
        let mut work: JoinSet<Outcome> = JoinSet::new();
        let mut feeds: HashMap<String, FeedTask> = HashMap::new();
        work.spawn(Arc::clone(&self).publish(queue));
        // A question behind a signal says that the signal was taken.
        let (in_turn, queue) = mpsc::unbounded();
        work.spawn(Arc::clone(&self).answer_in_turn(queue));
        let fatal = loop {
            let message = tokio::select! {
                message = asked.next() => message,
                Some(ended) = work.join_next() => match ended {
                    Ok(Err(fatal)) => break fatal,
                    Err(error) if error.is_panic() => break Fatal::Lost(error.to_string()),
                    Ok(Ok(())) | Err(_) => continue,
                },
            };
            let Some(message) = message else { return };
            let requests = match read(&message) {
                Ok(requests) => requests,
                Err(why) => break Fatal::Lost(why),
            };
            for request in requests {
                match request.op.as_str() {
                    "publish" => drop(publishes.unbounded_send(request)),
                    "signal" | "ping" => drop(in_turn.unbounded_send(request)),
                    "subscribe" => {
                        let target = request.target().to_owned();
                        let former = feeds.remove(&target);
                        let feed = Feed::new(Arc::clone(&self), request);
                        let (done, ended) = oneshot::channel();
                        let abort = Aborting(work.spawn(follow(feed, former, done)));
                        feeds.insert(target, FeedTask { abort, ended });
                    }
                    op => {
                        if op == "unsubscribe"
                            && let Some(feed) = feeds.get(request.target())
                        {
                            feed.abort.0.abort();
                        }
                        work.spawn(Arc::clone(&self).answer(request));
                    }
                }
            }
        };
        let mut out = self.out.clone();
        let last = match fatal {
            Fatal::Lost(why) => Err(Error::Io(io::Error::other(why))),
            Fatal::Token(refusal) => {
                let _ = out.send(Ok(message(&[told("error", None, &refusal)]))).await;
                let code = CloseCode::Unauthenticated.number().into();
                Ok(Message::Close(Some(CloseFrame { code, reason: (&*refusal.message).into() })))
            }
        };
        let _ = out.send(last).await;
    }

    /// Tells the client messages of the protocol, in one.
    async fn say(&self, messages: &[String]) {
        // Nobody there any more: the connection is over.
        let _ = self.out.clone().send(Ok(message(messages))).await;
    }

    /// A refusal goes to whoever asked; what is no answer ends the connection.
    async fn refuse(&self, id: Option<i64>, trouble: Trouble) -> Outcome {
        let refusal = match trouble {
            Trouble::Lost(why) => return Err(Fatal::Lost(why)),
            Trouble::Refused(refusal) => refusal,
        };
        if refusal.is(ErrorCode::Unauthenticated) || refusal.is(ErrorCode::TokenExpired) {
            return Err(Fatal::Token(refusal));
        }
        self.say(&[told("error", id, &refusal)]).await;
        Ok(())
    }

    /// Publishes one after the other.
    async fn publish(self: Arc<Self>, mut queue: mpsc::UnboundedReceiver<Asked>) -> Outcome {
        while let Some(next) = queue.next().await {
            let seq = next.seq.unwrap_or_default();
            let again = next.again.map(|again| (again + AGAIN_SLACK).to_string());
            let query = [
                ("producer", Some(self.producer.to_string())),
                ("seq", Some(seq.to_string())),
                ("again", again),
                ("receipt", next.receipt.clone()),
            ];
            let path = next.path("events", query);
            let body = next.events.as_deref().map_or("[]", RawValue::get).to_owned();
            // A publish may wait for the journal's deadline.
            match self.web.ask(Method::POST, &path, Some(body.into()), PUBLISH_LONGER).await {
                Ok((_, body)) => match parsed::<Answer>(&body) {
                    Ok(answer) => self.say(&[told("published", next.id, &answer)]).await,
                    Err(trouble) => self.refuse(next.id, trouble).await?,
                },
                Err(trouble) => {
                    let again = matches!(&trouble, Trouble::Refused(refusal) if refusal.temporary);
                    self.refuse(next.id, trouble).await?;
                    // It goes first when it goes again.
                    while again && let Ok(later) = queue.try_recv() {
                        let refusal =
                            Refusal::new(ErrorCode::OutOfOrder, "an earlier one goes first");
                        self.refuse(later.id, Trouble::Refused(refusal)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn answer_in_turn(self: Arc<Self>, mut queue: mpsc::UnboundedReceiver<Asked>) -> Outcome {
        while let Some(asked) = queue.next().await {
            Arc::clone(&self).answer(asked).await?;
        }
        Ok(())
    }

    /// Answers what is neither a publish nor a subscription.
    async fn answer(self: Arc<Self>, asked: Asked) -> Outcome {
        match self.ask(&asked).await {
            Ok(()) => Ok(()),
            Err(trouble) => self.refuse(asked.id, trouble).await,
        }
    }

    async fn ask(&self, asked: &Asked) -> Result<(), Trouble> {
        let id = asked.id;
        let get = async |path: &str| self.web.ask(Method::GET, path, None, Duration::ZERO).await;
        match asked.op.as_str() {
            "unsubscribe" => self.say(&[told("unsubscribed", id, &asked.named())]).await,
            "refresh" => {
                let token = asked.token.clone().unwrap_or_default();
                let left = token::lifetime(&token, SystemClock.now()).unwrap_or_default();
                self.web.set_token(token);
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                self.say(&[told("refreshed", id, &json!({ "expires_in_ms": left }))]).await;
            }
            "ping" => {
                let (time, _) = get("/ping").await?;
                self.say(&[told("pong", id, &json!({ "server_time": time.0 }))]).await;
            }
            "signal" => {
                let body = match (&asked.data, &asked.data_base64) {
                    (Some(data), _) => format!("{{\"data\":{data}}}"),
                    (None, data) => json!({ "data_base64": data }).to_string(),
                };
                let path = asked.path("signals", []);
                self.web.ask(Method::POST, &path, Some(body.into()), Duration::ZERO).await?;
            }
            "presence" => {
                let after = match &asked.after {
                    Some(After::Member(after)) => Some(after.clone()),
                    _ => None,
                };
                let query =
                    [("limit", asked.limit.map(|limit| limit.to_string())), ("after", after)];
                let (_, body) = get(&asked.path("presence", query)).await?;
                self.say(&[told("presence", id, &parsed::<Answer>(&body)?)]).await;
            }
            "history" => {
                let (_, body) = get(&history_path(asked)).await?;
                let page: feed::Page = parsed(&body)?;
                self.say(&[told("history", id, &page)]).await;
            }
            other => {
                let text = format!("{other} needs a WebSocket");
                return Err(unsupported(&text));
            }
        }
        Ok(())
    }

    fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }
}

fn history_path(asked: &Asked) -> String {
    let limit = asked.limit.map(|limit| limit.to_string());
    if let Some(after) = &asked.keys_after {
        return asked.path("latest", [("keys_after", Some(after.clone())), ("limit", limit)]);
    }
    let after = match asked.after {
        Some(After::Position(after)) => Some(after.to_string()),
        _ => None,
    };
    let before = asked.before.map(|before| before.to_string());
    if asked.key.is_some() || (after.is_none() && before.is_none() && asked.limit == Some(1)) {
        return asked.path("latest", [("key", asked.key.clone())]);
    }
    asked.path("events", [("limit", limit), ("before", before), ("after", after)])
}

fn read(message: &Message) -> Result<Vec<Asked>, String> {
    let Message::Text(text) = message else { return Ok(Vec::new()) };
    let read = if text.starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|one| vec![one])
    };
    read.map_err(|error| error.to_string())
}

fn message(messages: &[String]) -> Message {
    match messages {
        [one] => Message::text(one.clone()),
        many => Message::text(format!("[{}]", many.join(","))),
    }
}

/// The message `op` with the members of `rest`.
fn told(op: &str, id: Option<i64>, rest: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Told<'a, T> {
        op: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
        #[serde(flatten)]
        rest: &'a T,
    }
    serde_json::to_string(&Told { op, id, rest }).unwrap_or_default()
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(body).map_err(|_| not_json())
}

fn not_json() -> Trouble {
    Trouble::Lost("an answer is not what a gateway says: something else may answer here".to_owned())
}

fn unsupported(message: &str) -> Trouble {
    Trouble::Refused(Refusal {
        code: "unsupported".into(),
        message: message.into(),
        temporary: true,
        retry_after_ms: Some(UNSUPPORTED_PAUSE_MS),
        expected: None,
    })
}
