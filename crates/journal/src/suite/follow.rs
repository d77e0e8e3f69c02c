//! Tails.

use super::{E, P, Subject, body, fill, in_time};
use crate::{Journal, StoredFrame, Tail, TailEvent};
use futures::StreamExt as _;
use futures::future::join_all;
use std::sync::Arc;
use stormwire_core::{FrameSeq, Partition};

/// Reads a tail as every reader must: the next frame is last + 1, or it is fetched first.
async fn follow(
    journal: &dyn Journal,
    tail: &mut Tail,
    mut last: FrameSeq,
    until: FrameSeq,
) -> Vec<StoredFrame> {
    let mut seen = Vec::new();
    while last < until {
        let event = in_time("the tail goes on", tail.next()).await.expect("the tail goes on");
        let told = match event {
            TailEvent::Frame(frame) if frame.seq == last + 1 => {
                last = frame.seq;
                seen.push(frame);
                continue;
            }
            TailEvent::Frame(frame) => frame.seq,
            TailEvent::Check => journal.tip(P).await.expect("the tip is told").last,
        };
        while last < told {
            let page = journal.read(P, E, last + 1, 50, 1 << 20).await.expect("the log is read");
            for frame in page {
                assert_eq!(frame.seq, last + 1);
                last = frame.seq;
                seen.push(frame);
            }
        }
    }
    seen
}

/// No loss between the tip and the tail.
pub async fn what_follows_the_tip_comes_over_a_tail_taken_before(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 5, 100).await;
    let mut tail = journal.tail(&[P]).await.expect("a tail is given");
    let tip = journal.tip(P).await.expect("the tip is told");
    fill(journal, P, 30, 100).await;
    let seen = follow(journal, &mut tail, tip.last, tip.last + 30).await;
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|frame| frame.bytes == body(frame.seq, 100)));
    let stored = journal.read(P, E, tip.last + 1, 100, 1 << 20).await.expect("the log is read");
    assert_eq!(seen, stored, "a tail tells the same frames, timestamps included, as a page");
}

/// Order and completeness while others write, for readers that begin at any time.
pub async fn a_tail_with_repair_misses_nothing_and_keeps_order(subject: &Subject) {
    const FRAMES: u64 = 150;
    let journal = Arc::clone(&subject.journal);
    journal.open(P).await.expect("the log opens");
    let writer = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move { fill(&*journal, P, FRAMES, 300).await }
    });
    let readers = (0..4).map(|reader| {
        let journal = Arc::clone(&journal);
        async move {
            in_time("some frames are written", async {
                while journal.tip(P).await.expect("the tip is told").last < reader * 20 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let mut tail = journal.tail(&[P]).await.expect("a tail is given");
            let last = journal.tip(P).await.expect("the tip is told").last;
            let seen = follow(&*journal, &mut tail, last, FRAMES).await;
            let seqs: Vec<_> = seen.iter().map(|frame| frame.seq).collect();
            assert_eq!(seqs, (last + 1..=FRAMES).collect::<Vec<_>>());
            assert!(seen.iter().all(|frame| frame.bytes == body(frame.seq, 300)));
        }
    });
    join_all(readers).await;
    writer.await.expect("the writer ends well");
}

/// Only what was asked for.
pub async fn a_tail_tells_nothing_of_other_partitions(subject: &Subject) {
    let journal = &*subject.journal;
    for partition in [P, Partition(4), Partition(5)] {
        journal.open(partition).await.expect("the log opens");
    }
    let mut tail = journal.tail(&[P, Partition(4)]).await.expect("a tail is given");
    for partition in [Partition(5), P, Partition(5), Partition(4)] {
        fill(journal, partition, 1, 50).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = in_time("both frames are told", tail.next()).await.expect("the tail goes on");
        if let TailEvent::Frame(frame) = event {
            assert_ne!(frame.partition, Partition(5));
            if !heard.contains(&frame.partition) {
                heard.push(frame.partition);
            }
        }
    }
}
