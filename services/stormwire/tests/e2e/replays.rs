//! Many clients read long histories at once while live events go on: each is given all of its history in
//! order, and the live ones are not behind them.

use crate::crowd::{Latencies, Socket, Writer, resident};
use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIVE: &str = "replays:live";

/// How much of it.
#[derive(Clone)]
pub(crate) struct Scenario {
    /// Channels with a history, and the events that each has.
    pub(crate) channels: usize,
    pub(crate) events: u64,
    pub(crate) bytes: usize,
    /// Clients that read one of them from its beginning.
    pub(crate) clients: usize,
    /// Readers of the live channel, events on it before the replays begin, and their distance.
    pub(crate) awake: usize,
    pub(crate) before: u64,
    pub(crate) pace: Duration,
}

/// What came of it.
pub(crate) struct Figures {
    pub(crate) before: Latencies,
    /// Beside nothing but what keeps every core busy and gives way to all others: what live events feel
    /// of a machine that has no time to spare.
    pub(crate) busy: Latencies,
    pub(crate) meanwhile: Latencies,
    pub(crate) took: Duration,
    /// Bytes of the gateway before, and at most meanwhile.
    pub(crate) idle: usize,
    pub(crate) most: usize,
}

fn channel(n: usize) -> String {
    format!("replays:{n}")
}

/// Publishes the histories, and waits until the long store has them.
pub(crate) async fn fill(url: &str, token: &str, scenario: &Scenario) {
    let fill = async |n: usize| {
        let mut writer = Writer::open(url, token, &channel(n), scenario.bytes).await;
        writer.flood(scenario.events).await;
    };
    join_all((0..scenario.channels).map(fill)).await;
    for n in 0..scenario.channels {
        stormwire_testkit::wait_until("the archive has it", crate::kit::PATIENCE, || async {
            let path = format!("/v1/channels/{}", channel(n));
            let found: Value =
                serde_json::from_str(&crate::kit::get(url, token, &path).await).unwrap();
            found["count"].as_u64() == Some(scenario.events)
        })
        .await;
    }
}

/// All clients read while live events go on. They run on a thread of their own that gives way to all
/// others: elsewhere they are on other machines, and what they do with what they are given is not to be
/// taken for a delay of the live ones.
pub(crate) async fn replay(url: &str, pid: u32, token: &str, scenario: &Scenario) -> Figures {
    let mut awake = Socket::crowd(url, token, scenario.awake).await;
    for one in &mut awake {
        one.follow(LIVE, None, 0).await;
    }
    let mut writer = Writer::open(url, token, LIVE, 100).await;
    let before = live(&mut writer, &mut awake, scenario.before, scenario.pace).await;
    let idle = resident(pid);
    let busy = {
        let _busy = Busy::start();
        live(&mut writer, &mut awake, scenario.before, scenario.pace).await
    };
    let (url, token, all) = (url.to_owned(), token.to_owned(), scenario.clone());
    let began = Instant::now();
    let replays = std::thread::spawn(move || {
        give_way();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(read_all(&url, &token, &all));
        began.elapsed()
    });
    let (mut meanwhile, mut most) = (Vec::new(), idle);
    while !replays.is_finished() {
        meanwhile.push(live(&mut writer, &mut awake, 50, scenario.pace).await);
        most = most.max(resident(pid));
    }
    let took = replays.join().expect("every client is given its whole history in order");
    Figures { before, busy, meanwhile: Latencies::merge(meanwhile), took, idle, most }
}

/// The calling thread has the lowest priority from now on; Linux has one for each thread.
fn give_way() {
    rustix::process::setpriority_process(None, 19).unwrap();
}

/// A thread of the lowest priority on each core that does nothing else than to keep it busy.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..cores {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                give_way();
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(ended)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn read_all(url: &str, token: &str, scenario: &Scenario) {
    let sockets = Socket::crowd(url, token, scenario.clients).await;
    let reads = sockets.into_iter().enumerate().map(async |(n, mut socket)| {
        let begin = json!({"epoch": 1, "offset": 0});
        socket.follow(&channel(n % scenario.channels), Some(begin), 0).await;
        socket.read_below(scenario.events).await;
    });
    let mut reads: futures::stream::FuturesUnordered<_> = reads.collect();
    while reads.next().await.is_some() {}
}

async fn live(writer: &mut Writer, awake: &mut [Socket], events: u64, pace: Duration) -> Latencies {
    let end = writer.next + events;
    let read = join_all(awake.iter_mut().map(|one| one.read_below(end)));
    let ((), latencies) = tokio::join!(writer.paced(events, pace), read);
    Latencies::merge(latencies)
}

#[cfg(test)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replays_one_at_a_time_are_whole_and_live_events_go_on() {
    let folder = stormwire_testkit::Folder::temporary("replays").unwrap();
    let data = crate::kit::data_dir(&folder);
    let arguments = ["--listen", "127.0.0.1:{port}", "--data-dir", &data];
    let one = [("STORMWIRE_GATEWAY_HISTORY_READS", "1".to_owned())];
    let role = crate::kit::Role::start("stormwire", folder.path(), &arguments, &one).await;
    let token = crate::kit::token(&data).await;
    let scenario = Scenario {
        channels: 3,
        events: 2_000,
        bytes: 3_000,
        clients: 20,
        awake: 2,
        before: 20,
        pace: Duration::from_millis(5),
    };
    fill(&role.url(), &token, &scenario).await;
    let pid = role.server.pid().unwrap();
    let figures = replay(&role.url(), pid, &token, &scenario).await;
    let most = figures.most.saturating_sub(figures.idle);
    // 120 MiB are read, by 20 clients with a page each.
    assert!(most < 64 << 20, "{} MiB more while history is read", most >> 20);
}
