//! `journal-rewound`: an older store of the journal is restored under a running cluster. Nothing is
//! acknowledged over it, also not by a gateway that begins afterwards; an operator begins a new epoch;
//! what was persisted is in Postgres once, and a subscriber is told of the gap and goes on.

use crate::kit::{PATIENCE, Role, data_dir, get, run, succeed, token};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use std::path::Path;
use stormwire_testkit::nats::{NatsOptions, NatsServer};
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

async fn verdict(arguments: &[&str]) -> Value {
    serde_json::from_str(succeed(arguments).await.trim()).unwrap()
}

#[tokio::test]
async fn journal_rewound() {
    let folder = Folder::temporary("rewound").unwrap();
    let options = NatsOptions { folder: Some(folder.path().to_owned()), ..NatsOptions::default() };
    let Some(postgres) = Postgres::start().await else { return };
    let Ok(nats) = NatsServer::try_start(&options).await else { return };
    let (store, kept) = (folder.path().join("nats/data"), folder.path().join("kept"));
    let journal = format!("journal.url={}", nats.url());
    let database = format!("archive.url={}", postgres.url());
    let data = data_dir(&folder);
    let mut environment = vec![
        ("NATS_URL", nats.url()),
        ("DATABASE_URL", postgres.url()),
        ("STORMWIRE_DATA_DIR", data.clone()),
        ("STORMWIRE_LISTEN", "127.0.0.1:{port}".to_owned()),
    ];
    let start = async |name: &str, role: &str, environment: &[(&str, String)]| {
        Role::start(name, folder.path(), &[role, "--set", "partitions=1"], environment).await
    };
    let first = start("gateway-1", "gateway", &environment).await;
    let second = start("gateway-2", "gateway", &environment).await;
    environment.retain(|(name, _)| *name != "STORMWIRE_LISTEN");
    environment.push(("STORMWIRE_MANAGEMENT_LISTEN", "127.0.0.1:{port}".to_owned()));
    let worker = start("worker", "messages", &environment).await;
    let token = token(&data).await;
    let pool = PgPool::connect(&postgres.url()).await.unwrap();

    for number in 1..=5 {
        publish(&first.url(), &token, number).await;
    }
    let mut subscriber = Subscriber::open(&second.url(), &token).await;
    subscriber.reaches(5).await;
    persisted(&pool, 5).await;
    nats.kill().await;
    copy(&store, &kept);
    nats.restart().await;
    for number in 6..=10 {
        publish(&first.url(), &token, number).await;
    }
    persisted(&pool, 10).await;
    worker.server.kill().await;
    for number in 11..=13 {
        publish(&second.url(), &token, number).await;
    }
    subscriber.reaches(13).await;

    // The older store, under everything that is alive.
    nats.kill().await;
    std::fs::remove_dir_all(&store).unwrap();
    copy(&kept, &store);
    nats.restart().await;
    is_refused(&first.url(), &token).await;
    is_refused(&second.url(), &token).await;
    // One that remembers nothing is no wiser, and no less strict.
    first.server.kill().await;
    first.again().await;
    worker.again().await;
    is_refused(&first.url(), &token).await;
    let ready = get(&first.url(), &token, "/readyz").await;
    assert!(ready.contains("has gone back"), "{ready}");
    let with = |command: &[&str]| {
        let settings = ["--set", "partitions=1", "--set", &journal, "--set", &database];
        let common = ["--data-dir", data.as_str()];
        let all = command.iter().copied().chain(settings).chain(common);
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    let status = with(&["journal", "status", "--json"]);
    let status: Vec<&str> = status.iter().map(String::as_str).collect();
    let row = verdict(&status).await;
    assert_eq!(row["verdict"], "rewound", "{row}");
    let unasked = with(&["journal", "new-epoch", "0"]);
    let unasked = run(&unasked.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(!unasked.status.success(), "nobody was asked, and nobody said yes");

    let command = with(&["journal", "new-epoch", "0", "--yes"]);
    let told = succeed(&command.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(told.contains("epoch 2 begins"), "{told}");
    for number in 14..=16 {
        publish(&first.url(), &token, number).await;
    }
    subscriber.reaches(16).await;
    assert_eq!(subscriber.numbers, (1..=16).collect::<Vec<_>>(), "each once, in order");
    let gap = &subscriber.gaps[..];
    assert_eq!(gap.len(), 1, "{gap:?}");
    assert_eq!(gap[0]["from"]["epoch"], 1, "{gap:?}");

    // What was persisted is there once; 11 to 13 were acknowledged and are lost, which the archive knows.
    persisted(&pool, 13).await;
    let query = "SELECT CAST(data AS TEXT) FROM event_log ORDER BY epoch, \"offset\"";
    let found: Vec<(String,)> = sqlx::query_as(query).fetch_all(&pool).await.unwrap();
    let found: Vec<u32> = found.iter().map(|(data,)| data.parse().unwrap()).collect();
    assert_eq!(found, (1..=10).chain(14..=16).collect::<Vec<_>>());
    let gaps: (i64,) = sqlx::query_as("SELECT count(*) FROM gaps").fetch_one(&pool).await.unwrap();
    assert!(gaps.0 >= 1);
    let row = verdict(&status).await;
    assert_eq!((&row["verdict"], &row["epoch"]), (&json!("ok"), &json!(2)), "{row}");
}
