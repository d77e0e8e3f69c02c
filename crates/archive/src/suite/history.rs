//! Reading.

use super::Subject;
use super::kit::{E, START, Worker, at, channel, data, frame, id, json, positions};
use crate::{Batch, HistoryQuery, LedgerEntry};
use std::time::Duration;
use stormwire_core::{Epoch, Offset, Partition, Position};
use tokio::time::timeout;

/// Pages forwards, backwards and from the end, with their bounds.
pub async fn history_goes_both_ways(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 10).await;
    worker.fill("a:y", 10, 1).await;
    worker.fill("a:x", 11, 2).await;
    let seqs = async |query, limit| {
        let page = worker.page("a:x", query, limit).await;
        let seqs: Vec<_> = page.events.iter().map(|event| event.position.offset.seq()).collect();
        (seqs, page.more)
    };
    use HistoryQuery::{After, Before, Last};
    assert_eq!(seqs(After(START), 4).await, (vec![1, 2, 3, 4], true));
    assert_eq!(seqs(After(at(4, 0)), 4).await, (vec![5, 6, 7, 8], true));
    assert_eq!(seqs(After(at(9, 0)), 3).await, (vec![10, 12, 13], false), "exactly the rest");
    assert_eq!(seqs(After(at(9, 4095)), 2).await, (vec![10, 12], true), "between two events");
    assert_eq!(seqs(After(at(13, 0)), 5).await, (vec![], false));
    assert_eq!(seqs(After(at(400, 0)), 5).await, (vec![], false));
    assert_eq!(seqs(Before(at(5, 0)), 3).await, (vec![2, 3, 4], true));
    assert_eq!(seqs(Before(at(5, 0)), 4).await, (vec![1, 2, 3, 4], false));
    assert_eq!(seqs(Before(at(1, 0)), 4).await, (vec![], false));
    assert_eq!(seqs(Before(at(400, 0)), 2).await, (vec![12, 13], true));
    assert_eq!(seqs(Last, 3).await, (vec![10, 12, 13], true));
    assert_eq!(seqs(Last, 100).await.0.len(), 12);
}

/// The bound in bytes, in both directions.
pub async fn a_page_is_bounded_by_bytes(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let text = format!("\"{}\"", "x".repeat(998));
    let frames = (1..=20).map(|seq| frame(seq, &[("a:x", "alice", &[json(&text)])])).collect();
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let name = channel("a:x");
    for query in [HistoryQuery::After(START), HistoryQuery::Last] {
        for (bytes, least, most) in [(0, 1, 1), (1, 1, 1), (5500, 3, 7), (1 << 20, 20, 20)] {
            let page =
                worker.archive.history(&name, Partition(3), query.clone(), 100, bytes, START);
            let page = page.await.expect("history is read");
            let found = page.events.len();
            assert!((least..=most).contains(&found), "{found} events of 1,000 bytes in {bytes}");
            assert_eq!(page.more, found < 20);
            let due = if matches!(query, HistoryQuery::Last) { at(20, 0) } else { at(1, 0) };
            assert!(positions(&page.events).contains(&due), "a page begins where it was asked to");
        }
    }
}

/// What a page says of the ledger is true of its events.
pub async fn a_page_and_its_ledger_are_one_snapshot(subject: &Subject) {
    const BATCHES: u64 = 40;
    let worker = Worker::of(subject, 3).await;
    let write = async {
        for batch in 0..BATCHES {
            worker.fill("a:x", batch * 3, 3).await;
        }
    };
    let read = async {
        let mut stood = 0;
        while stood < BATCHES * 3 {
            let page = worker.page("a:x", HistoryQuery::After(START), 1000).await;
            let ledger = page.ledger.map_or(0, |entry| entry.last_seq);
            let last = page.events.last().map_or(0, |event| event.position.offset.seq());
            assert_eq!((last, page.events.len() as u64), (ledger, ledger));
            assert!(ledger >= stood && ledger.is_multiple_of(3), "whole batches, never back");
            stood = ledger;
            tokio::task::yield_now().await;
        }
    };
    let both = timeout(Duration::from_secs(60), futures::future::join(write, read)).await;
    both.expect("the reader sees the last batch");
}

/// A new incarnation of the journal goes on in the same ledger and the same history.
pub async fn epochs_follow_each_other(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 3).await;
    let next = |expected_last, seq: u64| {
        let frames = vec![(seq, worker.times.of(seq), frame(seq, &[("a:x", "bob", &[json("9")])]))];
        let last_frame = Some(id(seq));
        let epoch = Epoch(2);
        let (gaps, undecodable) = (Vec::new(), Vec::new());
        Batch { epoch, expected_last, through: seq, last_frame, frames, gaps, undecodable }
    };
    worker.persist(&next(3, 10)).await.expect("the batch is stored");
    let due = LedgerEntry { epoch: Epoch(2), last_seq: 10, last_frame: Some(id(10)) };
    assert_eq!(worker.ledger().await, Some(due));
    let second = Position { epoch: Epoch(2), offset: Offset::new(10, 0) };
    let found = positions(&worker.all("a:x").await);
    assert_eq!(found, [at(1, 0), at(2, 0), at(3, 0), second]);
    let page = worker.page("a:x", HistoryQuery::Before(second), 10).await;
    assert_eq!(data(&page.events), ["1", "2", "3"]);
    let begin = Position { epoch: Epoch(2), offset: Offset(0) };
    let page = worker.page("a:x", HistoryQuery::After(begin), 10).await;
    assert_eq!(positions(&page.events), [second]);
    let back = Batch { epoch: E, ..next(10, 11) };
    assert!(worker.persist(&back).await.is_err(), "the ledger does not go back to an older epoch");
}

/// Channels without events.
pub async fn the_history_of_nothing_is_empty(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let page = worker.page("no:body", HistoryQuery::Last, 10).await;
    assert_eq!(page, crate::HistoryPage::default());
    worker.fill("a:x", 0, 2).await;
    for query in [HistoryQuery::Last, HistoryQuery::After(START), HistoryQuery::Before(at(9, 0))] {
        let page = worker.page("no:body", query, 10).await;
        assert!(page.events.is_empty() && page.gaps.is_empty() && !page.more);
        assert_eq!(page.ledger.map(|entry| entry.last_seq), Some(2));
    }
}

/// From a time to a position.
pub async fn time_finds_its_position(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 4).await;
    worker.fill("a:y", 4, 3).await;
    worker.fill("a:x", 7, 9).await;
    let (archive, times) = (worker.archive, &worker.times);
    let find = async |name: &str, since| {
        let found = archive.position_at(&channel(name), Partition(3), since).await;
        found.expect("a position is looked for").map(|position| position.offset.seq())
    };
    for seq in [1, 2, 4, 8, 16] {
        assert_eq!(find("a:x", times.of(seq)).await, Some(seq));
    }
    let between = times.of(2).plus(Duration::from_millis(1));
    assert_eq!(find("a:x", between).await, Some(3));
    assert_eq!(find("a:x", times.of(5)).await, Some(8), "the next event of this channel");
    assert_eq!(find("a:x", stormwire_core::Timestamp(0)).await, Some(1));
    assert_eq!(find("a:x", times.of(17)).await, None);
    assert_eq!(find("a:y", times.of(1)).await, Some(5));
    assert_eq!(find("no:body", times.of(1)).await, None);
}
