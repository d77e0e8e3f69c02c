//! Readers in numbers, on the program as it is released: `cargo bench -p stormwire --bench readers --
//! stalled`. What is measured and what measures share the machine.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]
#![expect(clippy::print_stdout, reason = "figures are its output")]

#[path = "../tests/e2e/crowd.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod crowd;
#[path = "../tests/e2e/fleet.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod fleet;
#[path = "../tests/e2e/herd.rs"]
mod herd;
#[path = "../tests/e2e/kit.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod kit;
#[path = "../tests/e2e/replays.rs"]
mod replays;
#[path = "../tests/e2e/stalled.rs"]
mod stalled;

use crowd::{Latencies, Socket, Writer, resident};
use futures::StreamExt as _;
use kit::Role;
use serde_json::json;
use std::time::Duration;
use stormwire_testkit::Folder;

fn main() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    runtime.block_on(async {
        if wanted("stalled") {
            stall().await;
        }
        if wanted("replays-embedded") {
            let server = Embedded::start("replays", &[]).await;
            replay(&server.role, &server.token).await;
        }
        if wanted("replays-cluster") {
            replay_cluster().await;
        }
        if wanted("herd") {
            stampede().await;
        }
        if wanted("connections") {
            connections().await;
        }
    });
}

/// `name` and its figure, one a line.
fn figure(name: &str, value: impl std::fmt::Display) {
    println!("{name:<56} {value}");
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn kibibytes_each(bytes: usize, count: usize) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0 / count as f64)
}

fn deliveries(when: &str, latencies: &Latencies) {
    for (name, share) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        let took = latencies.per_mille(share).as_secs_f64() * 1e3;
        figure(&format!("delivery {name}, {when}"), format!("{took:.2} ms"));
    }
}

/// The embedded server, with a folder of its own.
struct Embedded {
    role: Role,
    token: String,
    _folder: Folder,
}

impl Embedded {
    async fn start(name: &str, settings: &[(&str, String)]) -> Self {
        let folder = Folder::temporary(&format!("bench-{name}")).unwrap();
        let data = kit::data_dir(&folder);
        let arguments = ["--listen", "127.0.0.1:{port}", "--data-dir", &data];
        let role = Role::start("stormwire", folder.path(), &arguments, settings).await;
        let token = kit::token(&data).await;
        Self { role, token, _folder: folder }
    }

    fn resident(&self) -> usize {
        resident(self.role.server.pid().unwrap())
    }
}

/// A thousand readers of a busy channel read nothing, and then read again.
async fn stall() {
    let server = Embedded::start("stalled", &[]).await;
    let scenario = stalled::Scenario {
        stalled: 1_000,
        awake: 10,
        events: 3_000,
        bytes: 1_000,
        pace: Duration::from_millis(5),
    };
    let figures = stalled::stall(&server.role, &server.token, &scenario).await;
    figure("readers that stall", scenario.stalled);
    figure("data that waits for them", mebibytes(figures.waiting));
    figure("gateway, all connected and idle", mebibytes(figures.idle));
    figure("gateway, all stalled", mebibytes(figures.stalled));
    let grown = figures.stalled.saturating_sub(figures.idle);
    figure("a reader that stalls costs", kibibytes_each(grown, scenario.stalled));
    deliveries("all read", &figures.before);
    deliveries("a thousand stall", &figures.meanwhile);
    deliveries("they are given what they missed", &figures.afterwards);
}

/// A hundred clients read a hundred thousand events of history each.
async fn replay(gateway: &Role, token: &str) {
    let scenario = replays::Scenario {
        channels: 10,
        events: 100_000,
        bytes: 40,
        clients: 100,
        awake: 10,
        before: 1_000,
        pace: Duration::from_millis(5),
    };
    replays::fill(&gateway.url(), token, &scenario).await;
    let pid = gateway.server.pid().unwrap();
    let figures = replays::replay(&gateway.url(), pid, token, &scenario).await;
    let events = scenario.events as f64 * scenario.clients as f64;
    figure("events of history, by 100 clients at once", events);
    figure("took", format!("{:.1} s", figures.took.as_secs_f64()));
    figure("events a second", format!("{:.0}", events / figures.took.as_secs_f64()));
    figure("gateway before", mebibytes(figures.idle));
    figure("gateway at most meanwhile", mebibytes(figures.most));
    deliveries("without replays", &figures.before);
    deliveries("beside busy cores", &figures.busy);
    deliveries("with replays", &figures.meanwhile);
}

async fn replay_cluster() {
    let fleet = fleet::Fleet::start("bench-replays", &[]).await.expect("cargo xtask tools");
    let gateway = fleet.gateway("gateway").await;
    let _worker = fleet.worker("worker").await;
    replay(&gateway, &fleet.token).await;
}

/// A thousand readers of quiet channels come back at once.
async fn stampede() {
    let server = Embedded::start("herd", &[("STORMWIRE_PARTITIONS", "1".to_owned())]).await;
    let scenario = herd::Scenario {
        readers: 1_000,
        behind: 20_000,
        bytes: 1_000,
        pace: Duration::from_millis(5),
    };
    let figures = herd::stampede(&server.role.url(), &server.token, &scenario).await;
    figure("readers of quiet channels that come back at once", scenario.readers);
    figure("all have what they missed after", format!("{:.2} s", figures.took.as_secs_f64()));
    deliveries("before they come", &figures.before);
    deliveries("while they catch up", &figures.meanwhile);
}

/// What a connection costs: idle, subscribed, with presence, and after it was busy.
async fn connections() {
    const COUNT: usize = 4_000;
    let server = Embedded::start("connections", &[]).await;
    let url = server.role.url();
    // Whatever is made once is made before.
    drop(Socket::crowd(&url, &server.token, 100).await);
    let mut at = server.resident();
    let mut step = |what: &str| {
        let now = server.resident();
        figure(what, kibibytes_each(now.saturating_sub(at), COUNT));
        at = now;
    };
    let mut crowd = Socket::crowd(&url, &server.token, COUNT).await;
    step("a connection that is signed in");
    for (n, one) in crowd.iter_mut().enumerate() {
        one.follow(&format!("crowd:{n}"), None, 0).await;
    }
    step("and a subscription to a channel of its own");
    for one in &mut crowd {
        one.follow("crowd:all", None, 0).await;
    }
    step("and one to a channel of all");
    for (n, one) in crowd.iter_mut().enumerate() {
        let channel = format!("crowd:room.{}", n / 50);
        let ask = json!({"op": "subscribe", "id": 1, "channel": channel, "presence": true});
        one.say(&ask).await;
    }
    for one in &mut crowd {
        one.until("subscribed").await;
    }
    step("and presence in a room of 50");
    let mut writer = Writer::open(&url, &server.token, "crowd:all", 200).await;
    writer.flood(1_000).await;
    let end = writer.next;
    let read = futures::stream::iter(&mut crowd).for_each_concurrent(100, async |one| {
        one.read_below(end).await;
    });
    read.await;
    step("and after 1,000 events at once");
}
