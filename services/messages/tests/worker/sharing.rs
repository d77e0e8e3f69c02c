//! Workers that come and go share the partitions evenly, and none of them stands still for long.

use crate::kit::{Engines, Running, SOON, cluster, config, embedded, frame_of};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Partition};
use stormwire_messages::MessagesConfig;
use stormwire_testkit::wait_until;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const COUNT: u16 = 7;
/// So long that a stop of two seconds is not the wait for a turn.
const LONG_LEASE: Duration = Duration::from_secs(12);
const SHORT_LEASE: Duration = Duration::from_secs(3);
/// Longest stop of a partition that moves because somebody joins or leaves in good order.
const PLANNED_STOP_MAX: Duration = Duration::from_secs(2);
/// And after a kill: 10 s with the default lease of 6 s.
const KILL_STOP_MAX: Duration = SHORT_LEASE.saturating_add(Duration::from_secs(4));
/// Events of a frame.
const EVENTS: usize = 4;
/// Between two frames of a partition.
const PACE: Duration = Duration::from_millis(25);
/// A machine may be too busy for one measurement, not for all of them.
const MEASUREMENTS: usize = 3;

fn sharing(lease: Duration) -> MessagesConfig {
    MessagesConfig { lease, ..config(COUNT) }
}

/// Until the workers' shares are these, in some order, and together they hold every partition once.
async fn wait_shares(what: &str, workers: &[&Running], due: &[usize]) {
    wait_until(what, SOON, || async move {
        let owned: Vec<BTreeSet<Partition>> =
            workers.iter().map(|worker| worker.owned.borrow().clone()).collect();
        let all: BTreeSet<_> = owned.iter().flatten().collect();
        let mut shares: Vec<usize> = owned.iter().map(BTreeSet::len).collect();
        shares.sort_unstable_by(|a, b| b.cmp(a));
        all.len() == usize::from(COUNT) && shares == due
    })
    .await;
}

/// A steady load on every partition, and the longest time that a ledger did not follow it.
struct Load {
    engines: Arc<Engines>,
    stop: CancellationToken,
    writers: JoinSet<(Channel, u64)>,
    /// Ends with the load.
    _watchers: JoinSet<()>,
    longest: Arc<std::sync::Mutex<Duration>>,
}

impl Load {
    async fn start(engines: &Arc<Engines>) -> Self {
        let (stop, longest) = (CancellationToken::new(), Arc::default());
        let (mut writers, mut watchers) = (JoinSet::new(), JoinSet::new());
        for p in (0..COUNT).map(Partition) {
            engines.journal.open(p).await.unwrap();
            writers.spawn(write(Arc::clone(engines), p, stop.clone()));
            watchers.spawn(watch(Arc::clone(engines), p, Arc::clone(&longest)));
        }
        Self { engines: Arc::clone(engines), stop, writers, _watchers: watchers, longest }
    }

    /// The longest stop since the last call, once every partition goes on.
    async fn longest(&self) -> Duration {
        for p in (0..COUNT).map(Partition) {
            let tip = self.engines.journal.tip(p).await.unwrap();
            self.engines.wait_persisted(p, tip.last).await;
        }
        std::mem::take(&mut *self.longest.lock().unwrap())
    }

    /// Ends the load; everything that was written is stored, once and in order.
    async fn finish(mut self) {
        self.stop.cancel();
        let written = std::mem::take(&mut self.writers).join_all().await;
        self.longest().await;
        for (channel, frames) in written {
            let info = self.engines.archive.channel(&channel).await.unwrap().unwrap();
            assert_eq!(info.count, frames * EVENTS as u64, "each event counts once");
        }
    }
}

async fn write(
    engines: Arc<Engines>,
    partition: Partition,
    stop: CancellationToken,
) -> (Channel, u64) {
    let channel = Channel::parse(&format!("partition:{partition}")).unwrap();
    let mut seq = 0;
    while !stop.is_cancelled() {
        seq += 1;
        engines.append(partition, seq, frame_of(&[&channel], seq, EVENTS)).await;
        sleep(PACE).await;
    }
    (channel, seq)
}

/// A stop is the time from when a frame was due until the ledger moves again.
async fn watch(
    engines: Arc<Engines>,
    partition: Partition,
    longest: Arc<std::sync::Mutex<Duration>>,
) {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        sleep(Duration::from_millis(15)).await;
        // Asked first, so that what it says was due when the ledger is read.
        let Ok(tip) = engines.journal.tip(partition).await else { continue };
        let Ok(ledger) = engines.archive.ledger(partition).await else { continue };
        let ledger = ledger.map_or(0, |entry| entry.last_seq);
        if ledger > last || ledger >= tip.last {
            (last, moved) = (ledger, Instant::now());
        } else {
            let mut longest = longest.lock().unwrap();
            *longest = longest.max(moved.elapsed());
        }
    }
}

/// The longest stops at two joins and at a planned leave.
async fn planned(engines: Arc<Engines>) -> Vec<Duration> {
    let one = Running::start(&engines, sharing(LONG_LEASE));
    wait_shares("one holds all", &[&one], &[7]).await;
    let load = Load::start(&engines).await;
    let two = Running::start(&engines, sharing(LONG_LEASE));
    wait_shares("two share", &[&one, &two], &[4, 3]).await;
    let three = Running::start(&engines, sharing(LONG_LEASE));
    wait_shares("three share", &[&one, &two, &three], &[3, 2, 2]).await;
    let joins = load.longest().await;
    two.stop().await;
    wait_shares("two are left", &[&one, &three], &[4, 3]).await;
    let leave = load.longest().await;
    load.finish().await;
    three.stop().await;
    one.stop().await;
    let partitions = sharing(LONG_LEASE).partitions;
    let free = engines.archive.acquire("test", partitions, 8, SOON).await.unwrap();
    assert_eq!(free.len(), usize::from(COUNT), "given back");
    vec![joins, leave]
}

/// The longest stop when one of two is killed.
async fn kill(engines: Arc<Engines>) -> Vec<Duration> {
    let one = Running::start(&engines, sharing(SHORT_LEASE));
    let two = Running::start(&engines, sharing(SHORT_LEASE));
    wait_shares("two share", &[&one, &two], &[4, 3]).await;
    let load = Load::start(&engines).await;
    load.longest().await;
    drop(one);
    wait_shares("the dead one's leases are taken over", &[&two], &[7]).await;
    let kill = load.longest().await;
    load.finish().await;
    two.stop().await;
    vec![kill]
}

#[expect(clippy::print_stdout, reason = "the figure is worth seeing")]
async fn no_stop_is_longer<E, M>(
    than: Duration,
    engines: impl Fn() -> E,
    measure: impl Fn(Arc<Engines>) -> M,
) where
    E: Future<Output = Option<Engines>>,
    M: Future<Output = Vec<Duration>>,
{
    let mut measured = Vec::new();
    for _ in 0..MEASUREMENTS {
        let Some(engines) = engines().await else { return };
        let stops = measure(Arc::new(engines)).await;
        println!("longest stops: {stops:?}");
        if stops.iter().all(|stop| *stop <= than) {
            return;
        }
        measured.push(stops);
    }
    panic!("longer than {than:?}: {measured:?}");
}

#[tokio::test]
async fn joins_and_leaves_move_partitions_without_a_long_stop_on_nats_and_postgres() {
    no_stop_is_longer(PLANNED_STOP_MAX, cluster, planned).await;
}

#[tokio::test]
async fn joins_and_leaves_move_partitions_without_a_long_stop_embedded() {
    no_stop_is_longer(PLANNED_STOP_MAX, embedded, planned).await;
}

#[tokio::test]
async fn a_killed_workers_partitions_go_on_after_its_lease_on_nats_and_postgres() {
    no_stop_is_longer(KILL_STOP_MAX, cluster, kill).await;
}

#[tokio::test]
async fn a_killed_workers_partitions_go_on_after_its_lease_embedded() {
    no_stop_is_longer(KILL_STOP_MAX, embedded, kill).await;
}
