//! `catch-up-herd` on sockets: a crowd comes back at once to quiet channels, each behind all that memory
//! holds, while a busy channel goes on.

use crate::crowd::{Latencies, Socket, Writer};
use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BUSY: &str = "herd:busy";

/// How many, and what lies between them and the end.
pub(crate) struct Scenario {
    pub(crate) readers: usize,
    /// Events of the busy channel that they are behind.
    pub(crate) behind: u64,
    pub(crate) bytes: usize,
    pub(crate) pace: Duration,
}

/// What came of it.
pub(crate) struct Figures {
    /// Until each had what it had missed, and the next event.
    pub(crate) took: Duration,
    /// Deliveries on the busy channel: before, and while they catch up.
    pub(crate) before: Latencies,
    pub(crate) meanwhile: Latencies,
}

/// One event on each quiet channel while its reader is away.
async fn publish_on_each(url: &str, token: &str, readers: usize, number: u64) {
    let mut socket = Socket::open(url, token).await;
    for n in 0..readers {
        let events = json!([{"data": [number, 0, ""]}]);
        let ask = json!({"op": "publish", "id": 1, "channel": quiet(n), "events": events});
        let answer = socket.ask(ask).await;
        assert_eq!(answer["op"], "published", "{answer}");
    }
}

fn quiet(n: usize) -> String {
    format!("herd:quiet.{n}")
}

/// Where each reader stood when it went.
async fn positions(url: &str, token: &str, readers: usize) -> Vec<Value> {
    let mut socket = Socket::open(url, token).await;
    let mut positions = Vec::with_capacity(readers);
    for n in 0..readers {
        let subscribed = socket.ask(json!({"op": "subscribe", "id": 1, "channel": quiet(n)})).await;
        positions.push(json!({"epoch": subscribed["epoch"], "offset": subscribed["offset"]}));
        let ended = socket.ask(json!({"op": "unsubscribe", "id": 1, "channel": quiet(n)})).await;
        assert_eq!(ended["op"], "unsubscribed", "{ended}");
    }
    positions
}

/// The crowd comes back. Each is given the one event that it missed, and the next one live.
pub(crate) async fn stampede(url: &str, token: &str, scenario: &Scenario) -> Figures {
    let stood = positions(url, token, scenario.readers).await;
    publish_on_each(url, token, scenario.readers, 0).await;
    let mut writer = Writer::open(url, token, BUSY, scenario.bytes).await;
    writer.flood(scenario.behind).await;
    let mut awake = Socket::open(url, token).await;
    awake.follow(BUSY, None, writer.next).await;
    let before = busy(&mut writer, &mut awake, 200, scenario.pace).await;
    let mut crowd = Socket::crowd(url, token, scenario.readers).await;
    let began = Instant::now();
    let catch_up = async {
        let all = crowd.iter_mut().zip(stood).enumerate();
        let all = all.map(async |(n, (socket, since))| {
            socket.follow(&quiet(n), Some(since), 0).await;
            socket.read_below(1).await;
        });
        let mut all: futures::stream::FuturesUnordered<_> = all.collect();
        while all.next().await.is_some() {}
        began.elapsed()
    };
    let (took, meanwhile) =
        tokio::join!(catch_up, busy(&mut writer, &mut awake, 200, scenario.pace));
    // All of them are live now, and hear what comes next.
    let next = publish_on_each(url, token, scenario.readers, 1);
    let ((), _) = tokio::join!(next, join_all(crowd.iter_mut().map(|one| one.read_below(2))));
    Figures { took, before, meanwhile }
}

async fn busy(writer: &mut Writer, awake: &mut Socket, events: u64, pace: Duration) -> Latencies {
    let end = writer.next + events;
    tokio::join!(writer.paced(events, pace), awake.read_below(end)).1
}

#[cfg(test)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_of_readers_of_quiet_channels_catches_up_and_is_live() {
    let folder = stormwire_testkit::Folder::temporary("herd").unwrap();
    let data = crate::kit::data_dir(&folder);
    let arguments = ["--listen", "127.0.0.1:{port}", "--data-dir", &data];
    let one = [("STORMWIRE_PARTITIONS", "1".to_owned())];
    let role = crate::kit::Role::start("stormwire", folder.path(), &arguments, &one).await;
    let token = crate::kit::token(&data).await;
    // More than memory holds of a partition, and all of them are in one.
    let scenario =
        Scenario { readers: 300, behind: 1_500, bytes: 4_000, pace: Duration::from_millis(2) };
    stampede(&role.url(), &token, &scenario).await;
}
