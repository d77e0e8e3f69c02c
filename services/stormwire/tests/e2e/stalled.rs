//! Readers that subscribe to a busy channel and read nothing: what they cost, what it does to the
//! others, and what they are given when they read again.

use crate::crowd::{Latencies, Socket, Writer, resident};
use crate::kit::Role;
use futures::StreamExt as _;
use futures::future::join_all;
use std::time::Duration;

const BUSY: &str = "stalled:busy";
/// Readers that read again at the same time.
const READING: usize = 50;

/// How many, and for how long.
pub(crate) struct Scenario {
    /// Readers that read nothing.
    pub(crate) stalled: usize,
    /// Readers of the same channel that read on.
    pub(crate) awake: usize,
    /// Events while all read, and again while some do not.
    pub(crate) events: u64,
    pub(crate) bytes: usize,
    pub(crate) pace: Duration,
}

/// What came of it.
pub(crate) struct Figures {
    /// Bytes of the gateway: with the crowd connected and idle, with the crowd stalled.
    pub(crate) idle: usize,
    pub(crate) stalled: usize,
    /// Bytes of data that wait for the crowd in all.
    pub(crate) waiting: usize,
    /// Deliveries to those who read: before, while the crowd stalls, while it is given what it missed.
    pub(crate) before: Latencies,
    pub(crate) meanwhile: Latencies,
    pub(crate) afterwards: Latencies,
}

/// A crowd stalls on `gateway`, and reads again. Each of it is given everything once and in order.
pub(crate) async fn stall(gateway: &Role, token: &str, scenario: &Scenario) -> Figures {
    let (url, pid) = (gateway.url(), gateway.server.pid().unwrap());
    let mut crowd = Socket::crowd(&url, token, scenario.stalled).await;
    for one in &mut crowd {
        one.follow("stalled:quiet", None, 0).await;
    }
    let mut awake = Socket::crowd(&url, token, scenario.awake).await;
    for one in &mut awake {
        one.follow(BUSY, None, 0).await;
    }
    let mut writer = Writer::open(&url, token, BUSY, scenario.bytes).await;
    let before = deliver(&mut writer, &mut awake, scenario).await;
    let idle = resident(pid);
    let first = writer.next;
    for one in &mut crowd {
        one.follow(BUSY, None, first).await;
    }
    let meanwhile = deliver(&mut writer, &mut awake, scenario).await;
    let stalled = resident(pid);
    let end = writer.next;
    // They read again, some at a time, while the writer goes on.
    let read = futures::stream::iter(&mut crowd).for_each_concurrent(READING, async |one| {
        one.read_below(end).await;
    });
    let ((), afterwards) = tokio::join!(read, deliver(&mut writer, &mut awake, scenario));
    let last = writer.next;
    join_all(crowd.iter_mut().map(|one| one.read_below(last))).await;
    let unread = usize::try_from(end - first).unwrap() * scenario.bytes;
    Figures { idle, stalled, waiting: unread * scenario.stalled, before, meanwhile, afterwards }
}

async fn deliver(writer: &mut Writer, awake: &mut [Socket], scenario: &Scenario) -> Latencies {
    let end = writer.next + scenario.events;
    let read = join_all(awake.iter_mut().map(|one| one.read_below(end)));
    let ((), latencies) = tokio::join!(writer.paced(scenario.events, scenario.pace), read);
    Latencies::merge(latencies)
}

#[cfg(test)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_cost_a_bounded_amount_and_lose_nothing() {
    /// Most bytes that one of them may cost the gateway.
    const EACH_MAX: usize = 256 * 1024;
    let folder = stormwire_testkit::Folder::temporary("stalled").unwrap();
    let role = crate::kit::embedded(&folder).await;
    let token = crate::kit::token(&crate::kit::data_dir(&folder)).await;
    let scenario = Scenario {
        stalled: 200,
        awake: 2,
        events: 800,
        bytes: 2_000,
        pace: Duration::from_millis(1),
    };
    let figures = stall(&role, &token, &scenario).await;
    let grown = figures.stalled.saturating_sub(figures.idle);
    let most = scenario.stalled * EACH_MAX;
    assert!(figures.waiting > 2 * most, "more waits than may be held");
    assert!(grown < most, "{} KiB for each that reads nothing", grown / 1024 / scenario.stalled);
}
