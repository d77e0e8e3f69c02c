//! The executable as a child process, the sample of real events, and readers that share no code with
//! the project's client.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use stormwire_testkit::{Folder, Launch, Port, Server, http_ok, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Deadline of anything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Lines of the sample.
pub(crate) const FLIGHTS: u64 = 3614;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_stormwire");

/// The sample's file.
pub(crate) fn sample() -> PathBuf {
    stormwire_testkit::workspace_root().join("load/data/flights.ndjson")
}

/// What must be stored: the lines of each channel, in order.
pub(crate) fn expected() -> BTreeMap<String, Vec<String>> {
    let mut channels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(sample()).unwrap().lines() {
        let flight: Value = serde_json::from_str(line).unwrap();
        let (origin, carrier) = (&flight["origin"], &flight["carrier"]);
        let channel = format!("flights:{}-{}", origin.as_str().unwrap(), carrier.as_str().unwrap());
        channels.entry(channel).or_default().push(line.to_owned());
    }
    assert_eq!(channels.values().map(Vec::len).sum::<usize>() as u64, FLIGHTS);
    channels
}

/// One role of the program as a child process.
pub(crate) struct Role {
    pub(crate) server: Server,
    pub(crate) port: Port,
}

impl Role {
    /// Starts it in `folder` and waits until it is ready. `port` stands in `arguments` as `{port}`.
    pub(crate) async fn start(
        name: &str,
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let port = Port::reserve().unwrap();
        let number = port.number().to_string();
        let arguments = arguments.iter().map(|argument| argument.replace("{port}", &number));
        let mut launch = Launch::new(name, PROGRAM, folder).arguments(arguments);
        for (variable, value) in environment {
            launch = launch.variable(variable, value.replace("{port}", &number));
        }
        let role = Self { server: Server::new(launch), port };
        role.again().await;
        role
    }

    /// Starts it once more, on the same port.
    pub(crate) async fn again(&self) {
        let port = self.port.number();
        self.server.start(|| http_ok(port, "/readyz")).await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }
}

/// The embedded server with a data directory of its own.
pub(crate) async fn embedded(folder: &Folder) -> Role {
    let data = data_dir(folder);
    let arguments = ["--listen", "127.0.0.1:{port}", "--data-dir", &data];
    Role::start("stormwire", folder.path(), &arguments, &[]).await
}

pub(crate) fn data_dir(folder: &Folder) -> String {
    folder.path().join("data").display().to_string()
}

/// Runs a command to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let command = tokio::process::Command::new(PROGRAM)
        .args(arguments)
        .env_remove("STORMWIRE_TOKEN")
        .env_remove("STORMWIRE_URL")
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, command).await.expect("the command ends").unwrap()
}

/// Runs a command that must succeed; its standard output.
pub(crate) async fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A token with all rights.
pub(crate) async fn token(data_dir: &str) -> String {
    let arguments =
        ["token", "--user", "test", "--publish", "*", "--subscribe", "*", "--data-dir", data_dir];
    succeed(&arguments).await.trim().to_owned()
}

/// A replay of the sample under way, with a state file that tells how far it is.
pub(crate) struct Replay {
    state: PathBuf,
    arguments: Vec<String>,
    child: tokio::process::Child,
}

impl Replay {
    pub(crate) fn start(urls: &str, token: &str, folder: &Folder, rate: u32) -> Self {
        let state = folder.path().join("replay.state");
        let arguments = [
            "replay",
            &sample().display().to_string(),
            "--channel",
            "flights:{origin}-{carrier}",
            "--rate",
            &rate.to_string(),
            "--state",
            &state.display().to_string(),
            "--url",
            urls,
            "--token",
            token,
        ]
        .map(str::to_owned)
        .to_vec();
        let child = Self::spawn(&arguments);
        Self { state, arguments, child }
    }

    fn spawn(arguments: &[String]) -> tokio::process::Child {
        tokio::process::Command::new(PROGRAM)
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Waits until so many lines have their answer.
    pub(crate) async fn reaches(&self, lines: u64) {
        wait_until("the replay goes on", PATIENCE, || async {
            let saved = std::fs::read_to_string(&self.state).unwrap_or_default();
            let saved: Value = serde_json::from_str(&saved).unwrap_or_default();
            saved["line"].as_u64().is_some_and(|line| line >= lines)
        })
        .await;
    }

    /// Ends it as `kill -9` does and starts it again.
    pub(crate) async fn kill_and_resume(&mut self) {
        self.child.kill().await.unwrap();
        self.child = Self::spawn(&self.arguments);
    }

    /// Waits for its end; the figures of its last line.
    pub(crate) async fn finish(self) -> Value {
        let output = tokio::time::timeout(PATIENCE, self.child.wait_with_output());
        let output = output.await.expect("the replay ends").unwrap();
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Reads every channel over REST, page by page, and compares byte by byte.
pub(crate) async fn check_rest(url: &str, token: &str) {
    for (channel, lines) in expected() {
        let (mut found, mut after) = (Vec::new(), "1:0".to_owned());
        loop {
            let page =
                get(url, token, &format!("/v1/channels/{channel}/events?after={after}&limit=500"))
                    .await;
            let page: Page =
                serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"));
            found.extend(page.events.iter().map(|event| event.data.get().to_owned()));
            if !page.more {
                break;
            }
            after = page.next.expect("more has a next");
        }
        compare(&channel, &found, &lines);
    }
}

#[derive(serde::Deserialize)]
struct Page {
    events: Vec<PageEvent>,
    more: bool,
    next: Option<String>,
}

#[derive(serde::Deserialize)]
struct PageEvent {
    data: Box<RawValue>,
}

/// Follows every channel over a WebSocket from its beginning until all are there, and compares.
pub(crate) async fn check_socket(url: &str, token: &str) {
    let mut reader = SocketReader::open(url, token, Some(json!({"epoch": 1, "offset": 0}))).await;
    reader.read_all().await;
}

/// A subscriber that shares no code with the project's client.
pub(crate) struct SocketReader {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>,
    found: BTreeMap<String, Vec<(u64, String)>>,
}

impl SocketReader {
    /// Subscribes to all channels of the sample; returns when every one is confirmed.
    pub(crate) async fn open(url: &str, token: &str, since: Option<Value>) -> Self {
        let url = format!("{}/v1/ws", url.replace("http://", "ws://"));
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "stormwire.v1.json".parse().unwrap());
        // Boxed: the handshake is larger than all else here.
        let (socket, _) = Box::pin(tokio_tungstenite::connect_async(request)).await.unwrap();
        let mut reader = Self { socket, found: BTreeMap::new() };
        let channels: Vec<_> = expected().into_keys().collect();
        let mut subscribe = json!({"op": "subscribe", "id": 2, "channels": channels});
        if let Some(since) = since {
            subscribe["since"] = since;
        }
        let connect = json!({"op": "connect", "id": 1, "token": token});
        for request in [connect, subscribe] {
            reader.socket.send(Message::text(request.to_string())).await.unwrap();
        }
        let mut confirmed = 0;
        while confirmed < channels.len() {
            confirmed += reader.take().await;
        }
        reader
    }

    /// Reads until it has as many events as the sample, then compares order and content.
    pub(crate) async fn read_all(&mut self) {
        while (self.found.values().map(Vec::len).sum::<usize>() as u64) < FLIGHTS {
            self.take().await;
        }
        for (channel, lines) in expected() {
            let found = &self.found[&channel];
            assert!(found.is_sorted_by_key(|(offset, _)| *offset), "{channel} is in order");
            let found: Vec<_> = found.iter().map(|(_, data)| data.clone()).collect();
            compare(&channel, &found, &lines);
        }
    }

    /// Takes one message; how many `subscribed` it held.
    async fn take(&mut self) -> usize {
        let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message");
        let text = match message.expect("the socket is open").unwrap() {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => return 0,
            other => panic!("{other:?}"),
        };
        let parsed: Box<RawValue> = serde_json::from_str(&text).unwrap();
        let messages: Vec<Told> = match parsed.get().starts_with('[') {
            true => serde_json::from_str(parsed.get()).unwrap(),
            false => vec![serde_json::from_str(parsed.get()).unwrap()],
        };
        let mut confirmed = 0;
        for message in messages {
            match message.op.as_str() {
                "subscribed" => confirmed += 1,
                "events" => {
                    let found = self.found.entry(message.channel.unwrap()).or_default();
                    found.extend(
                        message
                            .events
                            .into_iter()
                            .map(|event| (event.offset, event.data.get().to_owned())),
                    );
                }
                "connected" => {}
                other => panic!("{other}: {text}"),
            }
        }
        confirmed
    }
}

#[derive(serde::Deserialize)]
struct Told {
    op: String,
    channel: Option<String>,
    #[serde(default)]
    events: Vec<ToldEvent>,
}

#[derive(serde::Deserialize)]
struct ToldEvent {
    offset: u64,
    data: Box<RawValue>,
}

/// Waits until the view `event_log` holds the sample, then compares every row.
pub(crate) async fn check_sql<DB>(pool: &sqlx::Pool<DB>, cast: &str)
where
    DB: sqlx::Database,
    DB::Arguments: sqlx::IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
    for<'r> (String, String): sqlx::FromRow<'r, DB::Row>,
    (i64,): for<'r> sqlx::FromRow<'r, DB::Row>,
{
    let rows = "SELECT count(*) FROM event_log WHERE channel LIKE 'flights:%'";
    wait_until("every event is in the archive", PATIENCE, || async {
        let count = sqlx::query_as::<_, (i64,)>(rows).fetch_one(pool).await;
        count.is_ok_and(|(count,)| count.unsigned_abs() >= FLIGHTS)
    })
    .await;
    let query = format!(
        "SELECT channel, CAST(data AS {cast}) FROM event_log WHERE channel LIKE 'flights:%' ORDER BY epoch, \"offset\""
    );
    let rows = sqlx::query_as::<_, (String, String)>(sqlx::AssertSqlSafe(query))
        .fetch_all(pool)
        .await
        .unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (channel, data) in rows {
        found.entry(channel).or_default().push(data);
    }
    for (channel, lines) in expected() {
        compare(&channel, &found[&channel], &lines);
    }
}

fn compare(channel: &str, found: &[String], due: &[String]) {
    for (at, (found, due)) in found.iter().zip(due).enumerate() {
        assert_eq!(found, due, "{channel}, event {at}");
    }
    assert_eq!(found.len(), due.len(), "{channel}");
}

/// The body of a GET that must be answered with 200.
pub(crate) async fn get(url: &str, token: &str, path: &str) -> String {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    // HTTP/1.0: the body ends with the connection.
    let request =
        format!("GET {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"),
        "{path}: {answer}"
    );
    body.to_owned()
}
