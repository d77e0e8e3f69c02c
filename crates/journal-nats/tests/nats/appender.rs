//! What the tests share: a journal on a server, and an appender of the simplest kind.

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use futures::FutureExt as _;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::Journal;
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_testkit::{wait_for, wait_until};

pub(crate) const E: Epoch = Epoch::FIRST;
/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn config(urls: Vec<String>) -> NatsConfig {
    NatsConfig { urls, max_bytes: 64 << 20, ..NatsConfig::default() }
}

pub(crate) async fn journal(urls: Vec<String>) -> NatsJournal {
    NatsJournal::connect(config(urls)).await.expect("the configuration is good")
}

pub(crate) fn body(partition: Partition, seq: FrameSeq) -> Bytes {
    Bytes::from(format!("frame {seq} of partition {partition}, {}", ".".repeat(200)))
}

/// Appends frame `last + 1` until it is known to be stored, as an appender does: the same frame again,
/// then a look at what the leader has in its place. Says whether an attempt was acknowledged.
pub(crate) async fn append_until_settled(
    journal: &NatsJournal,
    partition: Partition,
    last: FrameSeq,
) -> bool {
    let frame = body(partition, last + 1);
    let mut pause = Duration::from_millis(10);
    loop {
        match journal.append(partition, E, last, frame.clone()).await {
            Ok(seq) => {
                assert_eq!(seq, last + 1);
                return true;
            }
            Err(_) => {
                if let Ok(Some(found)) = journal.frame(partition, E, last + 1).await {
                    assert_eq!(found.bytes, frame, "another's frame is in the place of ours");
                    return false;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Every frame from 1 on, checked to be contiguous and to hold what was appended; returns how many.
pub(crate) async fn check_all(journal: &NatsJournal, partition: Partition) -> FrameSeq {
    let mut last = 0;
    loop {
        let page = wait_for("a page", PATIENCE, async || {
            journal.read(partition, E, last + 1, 1000, 1 << 20).await.ok()
        })
        .await;
        if page.is_empty() {
            return last;
        }
        for frame in page {
            assert_eq!(frame.seq, last + 1);
            assert_eq!(frame.bytes, body(partition, frame.seq));
            last = frame.seq;
        }
    }
}

/// Waits until an autoscaler would see that many frames to be persisted.
pub(crate) async fn backlog_is(jetstream: Context, stream: &'static str, remaining: u64) {
    let pending = move || {
        let jetstream = jetstream.clone();
        let ask = async move {
            let consumer: PullConsumer =
                jetstream.get_consumer_from_stream("persist", stream).await.ok()?;
            Some(consumer.get_info().await.ok()?.num_pending)
        };
        ask.map(move |pending| pending == Some(remaining)).boxed()
    };
    wait_until("the backlog is shown", PATIENCE, pending).await;
}
