//! Reading all channels that begin with a prefix.

use super::Subject;
use super::kit::{E, START, Worker, at, frame, id, json, positions};
use crate::{Batch, Gap, StoredEvent};
use std::time::Duration;
use stormwire_core::{Epoch, Offset, Partition, Position};

pub(super) async fn page(
    worker: &Worker<'_>,
    after: Position,
    limit: usize,
    bytes: usize,
) -> crate::HistoryPage {
    let page =
        worker.archive.history_of_prefix(worker.partition(), "a:x.", after, limit, bytes, START);
    page.await.expect("history is read")
}

/// Everything behind `after`, in pages of `limit`, as far as these say that there is more.
async fn all(worker: &Worker<'_>, mut after: Position, limit: usize) -> Vec<StoredEvent> {
    let mut found = Vec::new();
    loop {
        let page = page(worker, after, limit, 1 << 24).await;
        assert!(page.events.len() <= limit, "a page holds at most what was asked for");
        let more = page.more;
        found.extend(page.events);
        if !more {
            return found;
        }
        let last: &StoredEvent = found.last().expect("a page that is not the last has events");
        assert!(last.position > after, "a page that is not the last has events");
        after = last.position;
    }
}

/// Several channels, uneven ones among them, come in one order, each event once.
pub async fn a_prefix_is_paged_in_the_partitions_order(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let names = ["a:x.1", "a:x.2", "a:x.3", "a:y", "a:x", "a:x-", "b:x.1", "a:x.~"];
    let (pair, single) = ([json("1"), json("2")], [json("3")]);
    let mut due = Vec::new();
    let mut frames = Vec::new();
    for seq in 1..=300u64 {
        // One channel has most of the events, others come late or rarely.
        let (first, second) = (
            if seq % 3 == 0 { "a:x.1" } else { names[usize::try_from(seq % 8).unwrap_or(0)] },
            "a:x.2",
        );
        let mut runs: Vec<(&str, &str, &[_])> = vec![(first, "alice", &pair)];
        if seq % 40 == 0 {
            runs.push((second, "bob", &single));
        }
        let mut index = 0;
        for (name, _, events) in &runs {
            for _ in *events {
                if name.starts_with("a:x.") {
                    due.push((name.to_string(), at(seq, index)));
                }
                index += 1;
            }
        }
        frames.push(frame(seq, &runs));
    }
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    for (after, limit) in [(START, 1000), (START, 7), (at(150, 0), 64), (at(150, 0), 1)] {
        let found = all(&worker, after, limit).await;
        let found: Vec<_> =
            found.iter().map(|event| (event.channel.to_string(), event.position)).collect();
        let due: Vec<_> = due.iter().filter(|(_, position)| *position > after).cloned().collect();
        assert_eq!(found, due, "behind {after} by {limit}");
    }
    let nothing =
        worker.archive.history_of_prefix(Partition(3), "none:", START, 10, 1 << 20, START);
    let nothing = nothing.await.expect("history is read");
    assert!(nothing.events.is_empty() && !nothing.more);
    assert_eq!(nothing.ledger.map(|entry| entry.last_seq), Some(300));
}

/// Frames that each hold some hundreds of events, behind a long stretch without any.
const LARGE: std::ops::Range<u64> = 40_000..40_070;

/// Names of more channels than are looked up one by one.
fn many() -> Vec<String> {
    (0..150).map(|number| format!("a:x.{number:03}")).collect()
}

/// Fills a partition with few events a frame, then none for long, then many a frame, then the next
/// epoch; what pages over [`many`] are to find.
async fn fill_unevenly(worker: &Worker<'_>) -> Vec<Position> {
    let (one, lot) = ([json("1")], vec![json("2"); 128]);
    let names = many();
    let name = |turn: u64| names[usize::try_from(turn * 7 % 150).unwrap_or(0)].as_str();
    let frames = (1..=200u64).map(|seq| {
        frame(seq, &[(name(seq), "alice", &one), ("b:y", "bob", &one), (name(seq + 1), "al", &one)])
    });
    worker.persist(&worker.batch(0, frames.collect())).await.expect("the batch is stored");
    let mut due: Vec<_> = (1..=200).flat_map(|seq| [at(seq, 0), at(seq, 2)]).collect();
    let runs =
        |seq| [(name(seq), "alice", &*lot), ("b:y", "bob", &*lot), (name(seq + 9), "al", &*lot)];
    let large = LARGE.map(|seq| (seq, worker.times.of(seq), frame(seq, &runs(seq))));
    let last = LARGE.end - 1;
    let hole = Gap {
        epoch: E,
        from: Offset::new(201, 0),
        to: Offset::new(LARGE.start - 1, 4095),
        reason: "hole".to_owned(),
    };
    let batch = Batch {
        epoch: E,
        expected_last: 200,
        through: last,
        last_frame: Some(id(last)),
        frames: large.collect(),
        gaps: vec![hole],
        undecodable: Vec::new(),
    };
    worker.persist(&batch).await.expect("the batch is stored");
    due.extend(
        LARGE
            .flat_map(|seq| (0..384).map(move |index| at(seq, index)))
            .filter(|at| !(128..256).contains(&at.offset.index())),
    );
    let next =
        [(last + 1, worker.times.of(last + 1), frame(last + 1, &[(name(3), "alice", &one)]))];
    let batch = Batch {
        epoch: Epoch(2),
        expected_last: last,
        through: last + 1,
        last_frame: Some(id(last + 1)),
        frames: next.into(),
        gaps: Vec::new(),
        undecodable: Vec::new(),
    };
    worker.persist(&batch).await.expect("the batch is stored");
    due.push(Position { epoch: Epoch(2), offset: Offset::new(last + 1, 0) });
    due
}

/// More channels than can be looked up one by one, with stretches that are dense, thin and empty, come
/// in one order, each event once.
pub async fn a_prefix_of_many_channels_is_paged_in_the_partitions_order(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let due = fill_unevenly(&worker).await;
    // A page of the last size ends with what was looked at for it, before it is full.
    for (after, limit) in [(START, 1000), (at(150, 1), 333), (START, 2000)] {
        let found = positions(&all(&worker, after, limit).await);
        let due: Vec<_> = due.iter().filter(|position| **position > after).copied().collect();
        assert_eq!(found.len(), due.len(), "behind {after} by {limit}");
        assert_eq!(found, due, "behind {after} by {limit}");
    }
    // A few pages at each kind of place, by few events and by few bytes.
    let places = [START, at(100, 1), at(199, 0), at(200, 2), at(20_000, 0), at(LARGE.start, 200)];
    for (limit, bytes) in [(1, 1 << 20), (7, 1 << 20), (1000, 5)] {
        for start in places {
            let first = due.iter().filter(|position| **position > start);
            let (mut after, mut found) = (start, Vec::new());
            for _ in 0..4 {
                let page = page(&worker, after, limit, bytes).await;
                assert!(page.more, "there is more behind {after}");
                found.extend(positions(&page.events));
                after = *found.last().expect("a page that is not the last has events");
            }
            let first: Vec<_> = first.take(found.len()).copied().collect();
            assert_eq!(found, first, "behind {start} by {limit} and {bytes} bytes");
        }
    }
}

/// The bound in bytes, and the gaps that lie in a page.
pub async fn a_prefix_page_is_bounded_and_tells_gaps(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let text = format!("\"{}\"", "x".repeat(998));
    let frames = (1..=20u64).map(|seq| {
        let name = if seq % 2 == 0 { "a:x.1" } else { "a:x.2" };
        frame(seq, &[(name, "alice", &[json(&text)])])
    });
    worker.persist(&worker.batch(0, frames.collect())).await.expect("the batch is stored");
    for (bytes, least, most) in [(0, 1, 1), (1, 1, 1), (5500, 3, 7), (1 << 20, 20, 20)] {
        let page = page(&worker, START, 100, bytes).await;
        let found = page.events.len();
        assert!((least..=most).contains(&found), "{found} events of 1,000 bytes in {bytes}");
        assert!(page.more || found == 20);
        assert!(positions(&page.events).contains(&at(1, 0)), "a page begins where it was asked to");
    }
    let lost = Gap {
        epoch: E,
        from: Offset::new(22, 0),
        to: Offset::new(22, 4095),
        reason: "hole".to_owned(),
    };
    let after =
        |seq: u64| (seq, worker.times.of(seq), frame(seq, &[("a:x.1", "al", &[json("1")])]));
    let batch = Batch {
        epoch: E,
        expected_last: 20,
        through: 23,
        last_frame: Some(id(23)),
        frames: vec![after(21), after(23)],
        gaps: vec![lost.clone()],
        undecodable: Vec::new(),
    };
    worker.persist(&batch).await.expect("the batch is stored");
    assert_eq!(page(&worker, at(19, 0), 100, 1 << 20).await.gaps, std::slice::from_ref(&lost));
    assert_eq!(page(&worker, at(22, 7), 100, 1 << 20).await.gaps, [lost], "in the middle of it");
    assert!(page(&worker, at(22, 4095), 100, 1 << 20).await.gaps.is_empty(), "behind it");
    assert!(page(&worker, START, 3, 1 << 20).await.gaps.is_empty(), "a page that ends before it");
}

/// From a time to a place before it, not long before.
pub async fn time_finds_a_place_for_a_prefix(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x.1", 0, 5).await;
    worker.fill("a:y", 5, 3).await;
    worker.fill("a:x.2", 8, 4).await;
    let place = async |since| {
        let place = worker.archive.position_of_prefix_at(worker.partition(), "a:x.", since);
        place.await.expect("a place is looked for")
    };
    for (seq, first) in [(1, 1), (3, 3), (6, 9), (12, 12)] {
        let found = place(worker.times.of(seq)).await.expect("there is something so late");
        let behind = all(&worker, found, 100).await;
        let reached = behind.iter().filter(|event| event.ts >= worker.times.of(seq));
        let reached: Vec<_> = reached.map(|event| event.position.offset.seq()).collect();
        assert_eq!(reached.first(), Some(&first), "nothing at or after the time is passed over");
        assert_eq!(reached.last(), Some(&12));
    }
    assert_eq!(place(worker.times.of(12).plus(Duration::from_secs(600))).await, None);
}
