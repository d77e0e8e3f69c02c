//! `journal-rewound`: an older store of the journal is restored under a running cluster. Nothing is
//! acknowledged over it, also not by a gateway that begins afterwards; an operator begins a new epoch;
//! what was persisted is in Postgres once, and a subscriber is told of the gap and goes on.

use crate::kit::{PATIENCE, Role, data_dir, get, run, token};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stormwire_telemetry::CancellationToken;
use stormwire_testkit::nats::{NatsCluster, NatsOptions};
use stormwire_testkit::postgres::Postgres;
use stormwire_testkit::{Folder, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const CHANNEL: &str = "room:rewound";

/// The answer to a POST: its status and body.
async fn post(url: &str, token: &str, body: &str) -> (u16, String) {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "POST /v1/channels/{CHANNEL}/events HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Publishes event `number` until it is acknowledged.
async fn publish(url: &str, token: &str, number: u32) {
    let body = json!({ "data": number }).to_string();
    wait_until("a publish is acknowledged", PATIENCE, || async {
        post(url, token, &body).await.0 < 300
    })
    .await;
}

/// No publish is acknowledged, and soon each is refused for the right reason.
async fn is_refused(url: &str, token: &str) {
    wait_until("publishes are refused with journal_rewound", PATIENCE, || async {
        let (status, body) = post(url, token, r#"{"data":"never"}"#).await;
        assert!(status >= 300, "acknowledged over a journal that has gone back: {body}");
        body.contains("journal_rewound")
    })
    .await;
}

/// What a subscriber is told, in order: numbers of events, and gaps.
struct Subscriber {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>,
    numbers: Vec<u64>,
    gaps: Vec<Value>,
}

impl Subscriber {
    async fn open(url: &str, token: &str) -> Self {
        let url = format!("{}/v1/ws", url.replace("http://", "ws://"));
        let mut request = url.into_client_request().unwrap();
        let protocol = "stormwire.v1.json".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (mut socket, _) = Box::pin(tokio_tungstenite::connect_async(request)).await.unwrap();
        let since = json!({ "epoch": 1, "offset": 0 });
        for request in [
            json!({ "op": "connect", "id": 1, "token": token }),
            json!({ "op": "subscribe", "id": 2, "channel": CHANNEL, "since": since }),
        ] {
            socket.send(Message::text(request.to_string())).await.unwrap();
        }
        Self { socket, numbers: Vec::new(), gaps: Vec::new() }
    }

    /// Reads until event `number` was seen.
    async fn reaches(&mut self, number: u64) {
        while self.numbers.last() != Some(&number) {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let Ok(Some(Ok(message))) = next else {
                panic!("{number} is not seen: {next:?}, {:?}, {:?}", self.numbers, self.gaps)
            };
            let Message::Text(text) = message else { continue };
            let parsed: Value = serde_json::from_str(&text).unwrap();
            let messages = parsed.as_array().cloned().unwrap_or_else(|| vec![parsed]);
            for message in messages {
                match message["op"].as_str().unwrap() {
                    "events" => self.numbers.extend(
                        message["events"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|event| event["data"].as_u64().unwrap()),
                    ),
                    "gap" => self.gaps.push(message),
                    "connected" | "subscribed" => {}
                    other => panic!("{other}: {text}"),
                }
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn rows(pool: &PgPool) -> i64 {
    let query = "SELECT count(*) FROM event_log WHERE channel = $1";
    let count = sqlx::query_as::<_, (i64,)>(query).bind(CHANNEL).fetch_one(pool).await;
    count.map_or(0, |(count,)| count)
}

async fn persisted(pool: &PgPool, count: i64) {
    wait_until("the events are in the archive", PATIENCE, || async { rows(pool).await >= count })
        .await;
}

/// Publishes numbers one after the other, each until it is acknowledged, for as long as it is not told to
/// stop; the highest that was acknowledged.
struct Load {
    acknowledged: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(url: String, token: String, from: u32) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU32::new(from - 1)), CancellationToken::new());
        let refused = Arc::<AtomicU32>::default();
        let (highest, refusals) = (Arc::clone(&acknowledged), Arc::clone(&refused));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            for number in from.. {
                let body = json!({ "data": number }).to_string();
                while !stopped.is_cancelled() {
                    match post(&url, &token, &body).await {
                        (status, _) if status < 300 => {
                            highest.store(number, Ordering::SeqCst);
                            break;
                        }
                        _ => {
                            refusals.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                if stopped.is_cancelled() {
                    return;
                }
            }
        });
        Self { acknowledged, refused, stop, task }
    }

    fn highest(&self) -> u32 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until every publish that may have come to a journal in time has its answer: the next one is
    /// refused. The highest that was acknowledged.
    async fn settles(&self) -> u32 {
        let before = self.refused.load(Ordering::SeqCst);
        wait_until("a publish is refused", PATIENCE, || async {
            self.refused.load(Ordering::SeqCst) > before
        })
        .await;
        self.highest()
    }

    async fn reaches(&self, number: u32) {
        wait_until("the load goes on", PATIENCE, || async { self.highest() >= number }).await;
    }

    async fn end(self) -> u32 {
        self.stop.cancel();
        let highest = Arc::clone(&self.acknowledged);
        self.task.await.unwrap();
        highest.load(Ordering::SeqCst)
    }
}

/// Two gateways and a worker on real servers, one partition.
struct Cluster {
    folder: Folder,
    data: String,
    nats: NatsCluster,
    postgres: Postgres,
    gateways: [Role; 2],
    worker: Role,
    token: String,
    pool: PgPool,
}

impl Cluster {
    /// With so many NATS nodes, and a replica of the journal on each.
    async fn start(nodes: u16) -> Option<Self> {
        let folder = Folder::temporary("rewound").unwrap();
        let at = Some(folder.path().to_owned());
        let postgres = Postgres::start().await?;
        let options = NatsOptions { folder: at, ..NatsOptions::default() };
        let nats = NatsCluster::try_start(nodes, &options).await.ok()?;
        let data = data_dir(&folder);
        let mut environment = vec![
            ("NATS_URL", nats.url()),
            ("STORMWIRE_JOURNAL_REPLICAS", nodes.to_string()),
            ("DATABASE_URL", postgres.url()),
            ("STORMWIRE_DATA_DIR", data.clone()),
            ("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()),
        ];
        let start = async |name: &str, role: &str, environment: &[(&str, String)]| {
            Role::start(name, folder.path(), &[role, "--set", "partitions=1"], environment).await
        };
        let gateways = [
            start("gateway-1", "gateway", &environment).await,
            start("gateway-2", "gateway", &environment).await,
        ];
        environment.retain(|(name, _)| *name != "STORMWIRE_LISTEN");
        environment.push(("STORMWIRE_MANAGEMENT_LISTEN", "127.0.0.1:{port}".to_owned()));
        let worker = start("worker", "messages", &environment).await;
        let token = token(&data).await;
        let pool = PgPool::connect(&postgres.url()).await.unwrap();
        Some(Self { folder, data, nats, postgres, gateways, worker, token, pool })
    }

    async fn publish(&self, gateway: usize, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            publish(&self.gateways[gateway].url(), &self.token, number).await;
        }
    }

    /// Ends all nodes, as a power cut does.
    async fn cut_power(&self) {
        for node in self.nats.nodes() {
            node.kill().await;
        }
    }

    async fn power_on(&self) {
        for node in self.nats.nodes() {
            node.restart().await;
        }
        self.nats.wait_healthy().await;
    }

    /// Each node's store, and the place of its copy.
    fn stores(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let at = |number, what| self.folder.path().join(format!("{what}-{number}"));
        let nodes = 1..=self.nats.nodes().len();
        nodes.map(move |number| (at(number, "nats").join("data"), at(number, "kept")))
    }

    /// Keeps a copy of the journal's store as it is now.
    async fn keep_store(&self) {
        self.cut_power().await;
        self.stores().for_each(|(store, kept)| copy(&store, &kept));
        self.power_on().await;
    }

    /// Puts that copy in the store's place, under everything that is alive; `meanwhile` no node runs.
    async fn restore<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        self.cut_power().await;
        let seen = meanwhile.await;
        for (store, kept) in self.stores() {
            std::fs::remove_dir_all(&store).unwrap();
            copy(&kept, &store);
        }
        self.power_on().await;
        seen
    }

    /// `stormwire journal …`, as an operator runs it.
    async fn journal(&self, command: &[&str]) -> std::process::Output {
        let journal = format!("journal.url={}", self.nats.url());
        let archive = format!("archive.url={}", self.postgres.url());
        let replicas = format!("journal.replicas={}", self.nats.nodes().len());
        let settings = ["partitions=1", &journal, &replicas, &archive];
        let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
        let all = ["journal"].into_iter().chain(command.iter().copied()).chain(settings);
        run(&all.chain(["--data-dir", &self.data]).collect::<Vec<_>>()).await
    }

    async fn status(&self) -> Value {
        let output = self.journal(&["status", "--json"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The archived events by position.
    async fn archived(&self) -> Vec<u32> {
        let query = "SELECT CAST(data AS TEXT) FROM event_log ORDER BY epoch, \"offset\"";
        let rows: Vec<(String,)> = sqlx::query_as(query).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|(data,)| data.parse().unwrap()).collect()
    }
}

#[tokio::test]
async fn journal_rewound() {
    let Some(cluster) = Cluster::start(1).await else { return };
    let [first, second] = &cluster.gateways;
    cluster.publish(0, 1..=5).await;
    let mut subscriber = Subscriber::open(&second.url(), &cluster.token).await;
    subscriber.reaches(5).await;
    persisted(&cluster.pool, 5).await;
    cluster.keep_store().await;
    cluster.publish(0, 6..=10).await;
    persisted(&cluster.pool, 10).await;
    cluster.worker.server.kill().await;
    cluster.publish(1, 11..=13).await;
    subscriber.reaches(13).await;

    cluster.restore(async {}).await;
    is_refused(&first.url(), &cluster.token).await;
    is_refused(&second.url(), &cluster.token).await;
    // One that remembers nothing is no wiser, and no less strict.
    first.server.kill().await;
    first.again().await;
    cluster.worker.again().await;
    is_refused(&first.url(), &cluster.token).await;
    let ready = get(&first.url(), &cluster.token, "/readyz").await;
    assert!(ready.contains("has gone back"), "{ready}");
    let status = cluster.status().await;
    assert_eq!(status["verdict"], "rewound", "{status}");
    let unasked = cluster.journal(&["new-epoch", "0"]).await;
    assert!(!unasked.status.success(), "nobody was asked, and nobody said yes");

    let told = cluster.journal(&["new-epoch", "0", "--yes"]).await;
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("epoch 2 begins"), "{told}");
    cluster.publish(0, 14..=16).await;
    subscriber.reaches(16).await;
    assert_eq!(subscriber.numbers, (1..=16).collect::<Vec<_>>(), "each once, in order");
    let gaps = &subscriber.gaps;
    assert_eq!((gaps.len(), &gaps[0]["from"]["epoch"]), (1, &json!(1)), "{gaps:?}");

    // What was persisted is there once; 11 to 13 were acknowledged and are lost, which the archive knows.
    persisted(&cluster.pool, 13).await;
    assert_eq!(cluster.archived().await, (1..=10).chain(14..=16).collect::<Vec<_>>());
    let query = "SELECT count(*) FROM gaps";
    let recorded: (i64,) = sqlx::query_as(query).fetch_one(&cluster.pool).await.unwrap();
    assert!(recorded.0 >= 1);
    let status = cluster.status().await;
    assert_eq!((&status["verdict"], &status["epoch"]), (&json!("ok"), &json!(2)), "{status}");
}

/// The same with three nodes that all come back older, while events flow: of what is acknowledged before,
/// the archive has what was persisted, and nothing is acknowledged afterwards until an operator has acted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journal_rewound_on_three_nodes_under_load() {
    let Some(cluster) = Cluster::start(3).await else { return };
    let [first, second] = &cluster.gateways;
    cluster.publish(0, 1..=5).await;
    let mut subscriber = Subscriber::open(&second.url(), &cluster.token).await;
    subscriber.reaches(5).await;
    persisted(&cluster.pool, 5).await;
    cluster.keep_store().await;
    let load = Load::start(first.url(), cluster.token.clone(), 6);
    load.reaches(40).await;
    subscriber.reaches(40).await;
    persisted(&cluster.pool, 30).await;

    let highest = cluster.restore(load.settles()).await;
    is_refused(&first.url(), &cluster.token).await;
    is_refused(&second.url(), &cluster.token).await;
    cluster.worker.server.kill().await;
    cluster.worker.again().await;
    is_refused(&first.url(), &cluster.token).await;
    assert_eq!(cluster.status().await["verdict"], "rewound");
    assert_eq!(load.end().await, highest, "nothing was acknowledged over the older log");
    let before = rows(&cluster.pool).await;
    assert!(before >= 30, "what was persisted stays");

    let told = cluster.journal(&["new-epoch", "0", "--yes"]).await;
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("epoch 2 begins"), "{told}");
    cluster.publish(1, 1_000_001..=1_000_003).await;
    subscriber.reaches(1_000_003).await;
    let gaps = &subscriber.gaps;
    assert_eq!((gaps.len(), &gaps[0]["from"]["epoch"]), (1, &json!(1)), "{gaps:?}");
    persisted(&cluster.pool, before + 3).await;
    let mut stored = cluster.archived().await;
    assert!(stored.ends_with(&[1_000_001, 1_000_002, 1_000_003]), "{stored:?}");
    stored.truncate(stored.len() - 3);
    // A publish by REST without an answer is sent again under a number of its own: it may be there twice.
    stored.dedup();
    assert_eq!(stored, (1..=u32::try_from(stored.len()).unwrap()).collect::<Vec<_>>());
    assert!(stored.len() <= highest as usize + 1);
}
