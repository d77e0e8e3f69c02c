//! The journal on three real nodes, each stream on all three: what a killed leader costs.

use crate::appender::{E, PATIENCE, append_until_settled, backlog_is, check_all, config};
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::{FrameSeq, Partition};
use stormwire_journal::{Journal, TailEvent};
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::nats::NatsCluster;
use stormwire_testkit::wait_until;

const PARTITIONS: u16 = 3;

/// Keeps a position in each log, moved by the one rule: the next frame is last + 1, or it is repaired.
async fn follow(journal: Arc<NatsJournal>, positions: Arc<[AtomicU64]>) {
    let partitions: Vec<Partition> = (0..PARTITIONS).map(Partition).collect();
    let mut tail = journal.tail(&partitions).await.expect("a tail");
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let advance = |partition: Partition, seq: FrameSeq| {
        let position = &positions[usize::from(partition.0)];
        position.compare_exchange(seq - 1, seq, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    loop {
        let live = tokio::select! {
            event = tail.next() => event.expect("a tail does not end"),
            _ = every.tick() => TailEvent::Check,
        };
        let repair = match live {
            TailEvent::Frame(frame) if advance(frame.partition, frame.seq) => continue,
            TailEvent::Frame(frame) => vec![frame.partition],
            TailEvent::Check => partitions.clone(),
        };
        for partition in repair {
            let last = positions[usize::from(partition.0)].load(Ordering::Relaxed);
            for frame in
                journal.read(partition, E, last + 1, 1000, 1 << 20).await.unwrap_or_default()
            {
                assert!(advance(partition, frame.seq), "{} after {last}", frame.seq);
            }
        }
    }
}

async fn leader(cluster: &NatsCluster, running: usize) -> Option<String> {
    let client = async_nats::connect(cluster.urls()[running].clone()).await.ok()?;
    let stream = async_nats::jetstream::new(client).get_stream("STORM_0_1").await.ok()?;
    stream.get_info().await.ok()?.cluster?.leader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_frame_is_lost_with_a_leader() {
    let Some(cluster) = NatsCluster::start(3).await else { return };
    let config = NatsConfig { replicas: 3, ..config(cluster.urls()) };
    let journal = Arc::new(NatsJournal::connect(config).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    for p in 0..PARTITIONS {
        wait_until("a log is made", PATIENCE, || async {
            journal.open(Partition(p)).await.is_ok()
        })
        .await;
    }
    let positions: Arc<[AtomicU64]> = (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect();
    let follower = tokio::spawn(follow(Arc::clone(&journal), Arc::clone(&positions)));
    let appenders: BTreeMap<u16, _> = (0..PARTITIONS)
        .map(|p| {
            let (journal, stop, acknowledged) =
                (Arc::clone(&journal), Arc::clone(&stop), Arc::clone(&acknowledged));
            let run = async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    if append_until_settled(&journal, Partition(p), last).await {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    last += 1;
                }
                last
            };
            (p, tokio::spawn(run))
        })
        .collect();
    let more = |count: u64| {
        let goal = acknowledged.load(Ordering::Relaxed) + count;
        let acknowledged = Arc::clone(&acknowledged);
        wait_until("frames are acknowledged", PATIENCE, move || {
            let reached = acknowledged.load(Ordering::Relaxed) >= goal;
            async move { reached }
        })
    };
    more(100).await;
    let name = leader(&cluster, 0).await.expect("the stream has a leader");
    let killed = cluster.node_named(&name).expect("it is a node");
    killed.kill().await;
    more(100).await;
    killed.restart().await;
    more(50).await;
    stop.store(true, Ordering::Relaxed);
    for (p, appender) in appenders {
        let last = appender.await.unwrap();
        assert_eq!(check_all(&journal, Partition(p)).await, last);
        assert_eq!(journal.tip(Partition(p)).await.unwrap().last, last);
        wait_until("the tail has all", PATIENCE, || {
            let reached = positions[usize::from(p)].load(Ordering::Relaxed) == last;
            async move { reached }
        })
        .await;
    }
    assert!(!follower.is_finished());
    follower.abort();
    let last = journal.tip(Partition(0)).await.unwrap().last;
    journal.persisted(Partition(0), E, last - 5).await;
    let client = async_nats::connect(cluster.urls()[0].clone()).await.unwrap();
    backlog_is(async_nats::jetstream::new(client), "STORM_0_1", 5).await;
}
