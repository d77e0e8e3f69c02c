//! A mass disconnect: all clients of a gateway are gone at once, and all come back at once. Whoever else
//! is there, or comes just then, does not notice.
//!
//! `STORMWIRE_TEST_CLIENTS=8000 cargo test --release -p stormwire --test e2e mass -- --nocapture` is the long
//! form, which also holds the bound of a second; continuous integration runs a few hundred clients on
//! machines that are busy with other tests, and holds what does not depend on their speed.

use crate::kit::{PATIENCE, Role, data_dir, embedded, token};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_testkit::Folder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Clients without `STORMWIRE_TEST_CLIENTS`.
const CLIENTS: usize = 300;
/// Threads that they share.
const CROWD_THREADS: usize = 2;
/// How long the others, or a new connection, may wait. Asserted in the long form.
const STALL_MAX: Duration = Duration::from_secs(1);
/// Disconnects of all.
const ROUNDS: u32 = 2;
const CHANNEL: &str = "room:all";
/// Between two events of the publisher. Each is delivered to all, whose own work is the most of what
/// this machine can do.
const PACE: Duration = Duration::from_millis(100);
/// Between two new connections.
const NEWCOMER_PACE: Duration = Duration::from_millis(20);

struct Site {
    port: u16,
    token: String,
}

/// A connection that is signed in and subscribed behind a position.
struct Subscriber {
    socket: WebSocketStream<TcpStream>,
    /// The offset and the number of the last event that was seen.
    last: (u64, u64),
}

impl Subscriber {
    /// `None` where the server's backlog of connections is full just now.
    async fn open(site: &Site, last: (u64, u64)) -> Option<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", site.port)).await.ok()?;
        let request = format!("ws://127.0.0.1:{}/v1/ws", site.port).into_client_request().unwrap();
        let (socket, _) = Box::pin(tokio_tungstenite::client_async(request, tcp)).await.ok()?;
        let mut subscriber = Self { socket, last };
        let since = json!({ "epoch": 1, "offset": last.0 });
        let connect = json!({ "op": "connect", "id": 1, "token": site.token });
        let subscribe = json!({ "op": "subscribe", "id": 2, "channel": CHANNEL, "since": since });
        let both = Message::text(json!([connect, subscribe]).to_string());
        subscriber.socket.send(both).await.ok()?;
        while !subscriber.read().await?.iter().any(|message| message["op"] == "subscribed") {}
        Some(subscriber)
    }

    /// Takes a message; events are the next numbers, or the test fails.
    async fn read(&mut self) -> Option<Vec<Value>> {
        let text = match self.socket.next().await?.ok()? {
            Message::Text(text) => text,
            Message::Close(_) => return None,
            _ => return Some(Vec::new()),
        };
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let messages = parsed.as_array().cloned().unwrap_or_else(|| vec![parsed]);
        for message in &messages {
            assert_ne!(message["op"], "gap", "{message}");
            for event in message["events"].as_array().into_iter().flatten() {
                let number = event["data"].as_u64().unwrap();
                assert_eq!(number, self.last.1 + 1, "each once, in order");
                self.last = (event["offset"].as_u64().unwrap(), number);
            }
        }
        Some(messages)
    }

    /// Ends the connection as a broken network does.
    fn cut(mut self) -> (u64, u64) {
        let _ = self.socket.get_mut().set_zero_linger();
        self.last
    }
}

/// What all clients are told.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    /// Be connected; the number counts how often all are cut off.
    Follow(u32),
    /// Stay away.
    Away(u32),
    /// Read up to this number, then end.
    Until(u64),
}

/// One of the many: follows, is cut off when told to, and comes back behind what it saw.
async fn client(site: Arc<Site>, mut word: watch::Receiver<Word>, present: watch::Sender<usize>) {
    let mut last = (0, 0);
    'connected: loop {
        while matches!(*word.borrow_and_update(), Word::Away(_)) {
            word.changed().await.unwrap();
        }
        let Some(mut subscriber) = Subscriber::open(&site, last).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        present.send_modify(|count| *count += 1);
        loop {
            if matches!(*word.borrow(), Word::Until(due) if subscriber.last.1 >= due) {
                return;
            }
            tokio::select! {
                read = subscriber.read() => assert!(read.is_some(), "cut off by the server"),
                _ = word.changed() => if matches!(*word.borrow(), Word::Away(_)) {
                    last = subscriber.cut();
                    present.send_modify(|count| *count -= 1);
                    continue 'connected;
                }
            }
        }
    }
}

/// Publishes a number every [`PACE`] and follows them itself; the longest that one took to come back.
async fn witness(site: Arc<Site>, mut word: watch::Receiver<Word>) -> (u64, Duration) {
    let mut me = Subscriber::open(&site, (0, 0)).await.unwrap();
    let mut longest = Duration::ZERO;
    for number in 1.. {
        let sent = Instant::now();
        let publish =
            json!({ "op": "publish", "id": 3, "channel": CHANNEL, "events": [{ "data": number }] });
        me.socket.send(Message::text(publish.to_string())).await.unwrap();
        let mut acknowledged = false;
        while !acknowledged || me.last.1 < number {
            let messages = me.read().await.expect("the witness stays connected");
            for message in messages {
                assert_ne!(message["op"], "error", "{message}");
                acknowledged |= message["op"] == "published";
            }
        }
        longest = longest.max(sent.elapsed());
        if word.has_changed().unwrap() && matches!(*word.borrow_and_update(), Word::Until(_)) {
            return (number, longest);
        }
        tokio::time::sleep(PACE).await;
    }
    unreachable!("numbers do not end")
}

/// Comes anew again and again; the longest that it took to be served.
async fn newcomer(site: Arc<Site>, word: watch::Receiver<Word>) -> Duration {
    let mut longest = Duration::ZERO;
    while !matches!(*word.borrow(), Word::Until(_)) {
        let begun = Instant::now();
        while Subscriber::open(&site, (0, 0)).await.is_none() {}
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(NEWCOMER_PACE).await;
    }
    longest
}

/// The many, on threads of their own: elsewhere they are on other machines, and whoever is measured does
/// not wait for what they do with what they are given.
fn crowd(
    count: usize,
    site: Arc<Site>,
    word: watch::Receiver<Word>,
    present: watch::Sender<usize>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(CROWD_THREADS).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients = JoinSet::new();
            for _ in 0..count {
                clients.spawn(client(Arc::clone(&site), word.clone(), present.clone()));
            }
            while clients.join_next().await.transpose().unwrap().is_some() {}
        });
    })
}

async fn all(present: &watch::Sender<usize>, due: usize) {
    let mut seen = present.subscribe();
    let came = tokio::time::timeout(PATIENCE, seen.wait_for(|count| *count == due)).await;
    assert!(came.is_ok(), "{} are there, {due} are due", *present.borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_disconnect_stalls_nobody_else() {
    let asked = std::env::var("STORMWIRE_TEST_CLIENTS").ok().and_then(|text| text.parse().ok());
    let count = asked.unwrap_or(CLIENTS);
    let folder = Folder::temporary("mass").unwrap();
    let server: Role = embedded(&folder).await;
    let token = token(&data_dir(&folder)).await;
    let site = Arc::new(Site { port: server.port.number(), token });
    let (word, words) = watch::channel(Word::Follow(0));
    let present = watch::Sender::new(0usize);
    let clients = crowd(count, Arc::clone(&site), words.clone(), present.clone());
    all(&present, count).await;
    // What is measured begins with all there.
    let other = tokio::spawn(witness(Arc::clone(&site), words.clone()));
    let newcomers = tokio::spawn(newcomer(Arc::clone(&site), words.clone()));
    for round in 1..=ROUNDS {
        word.send_replace(Word::Away(round));
        all(&present, 0).await;
        let gone = Instant::now();
        word.send_replace(Word::Follow(round));
        all(&present, count).await;
        println!("{count} clients were back within {:?}", gone.elapsed());
    }
    word.send_replace(Word::Until(u64::MAX));
    let (published, others) = other.await.unwrap();
    word.send_replace(Word::Until(published));
    let new = newcomers.await.unwrap();
    stormwire_testkit::wait_until("all see everything", PATIENCE, || async {
        clients.is_finished()
    })
    .await;
    clients.join().expect("each sees each event once, in order");
    println!("{published} events; the longest wait of the others {others:?}, of new ones {new:?}");
    if asked.is_some() {
        assert!(others <= STALL_MAX && new <= STALL_MAX, "{others:?}, {new:?}");
    }
}
