//! Storing, exactly once.

use super::Subject;
use super::kit::{E, START, Worker, at, channel, data, expected, frame, id, json};
use crate::{HistoryQuery, LedgerEntry, PersistError};
use futures::future::join_all;
use stormwire_core::{FrameSeq, Partition};
use stormwire_wire::frame::{DATA_BYTES_MAX, EventParts};

/// Reachability, and migrations that change nothing the second time.
pub async fn an_archive_that_is_there_answers(subject: &Subject) {
    let archive = &*subject.archive;
    assert_eq!(archive.ping().await, Ok(()));
    let twice = join_all([archive.migrate(), archive.migrate()]).await;
    assert_eq!(twice, [Ok(()), Ok(())]);
    assert_eq!(archive.ledger(Partition(0)).await, Ok(None));
}

/// Every field, and the ledger.
pub async fn a_batch_is_stored_and_the_ledger_moves(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let full = EventParts {
        kind: Some("flight"),
        key: Some("N14228"),
        id: Some("my-id"),
        ..json("{\"n\": 1}")
    };
    let bytes = EventParts { data: &[0, 255, 10, 0], binary: true, ..json("") };
    let frames = vec![
        frame(1, &[("a:x", "alice", &[full, json("2")]), ("a:y", "bob", &[bytes])]),
        frame(2, &[("a:x", "carol", &[json("[3]")])]),
    ];
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let (first, second) = (worker.times.of(1), worker.times.of(2));
    let due = [
        expected("a:x", at(1, 0), first, "alice", &full),
        expected("a:x", at(1, 1), first, "alice", &json("2")),
        expected("a:x", at(2, 0), second, "carol", &json("[3]")),
    ];
    assert_eq!(worker.all("a:x").await, due);
    assert_eq!(worker.all("a:y").await, [expected("a:y", at(1, 2), first, "bob", &bytes)]);
    let due = LedgerEntry { epoch: E, last_seq: 2, last_frame: Some(id(2)) };
    assert_eq!(worker.ledger().await, Some(due));
    let page = worker.page("a:x", HistoryQuery::Last, 1).await;
    assert_eq!(page.ledger, Some(due), "a page says how far the archive is");
}

/// Repeats, one after the other and side by side.
pub async fn a_batch_is_stored_once_however_often_it_is_persisted(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 5).await;
    let again = frame(5, &[("a:x", "alice", &[json("5")])]);
    let refused = worker.persist(&worker.batch(4, vec![again])).await;
    let moved = matches!(
        refused,
        Err(PersistError::LedgerMoved { partition: Partition(3), expected: 4, found: 5 })
    );
    assert!(moved, "{refused:?}");
    let batch = worker.batch(5, vec![frame(6, &[("a:x", "alice", &[json("6")])])]);
    let results = join_all((0..4).map(|_| worker.persist(&batch))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(data(&worker.all("a:x").await), ["1", "2", "3", "4", "5", "6"]);
}

/// No batch jumps over frames.
pub async fn a_batch_ahead_of_the_ledger_is_refused(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    refused_at(&worker, 1, 0).await;
    worker.fill("a:x", 0, 3).await;
    refused_at(&worker, 4, 3).await;
    refused_at(&worker, 2, 3).await;
    assert!(worker.all("a:z").await.is_empty(), "nothing of a refused batch is there");
    assert_eq!(subject.archive.channel(&channel("a:z")).await, Ok(None));
    assert_eq!(worker.ledger().await.map(|entry| entry.last_seq), Some(3));
}

async fn refused_at(worker: &Worker<'_>, ahead: FrameSeq, stands: FrameSeq) {
    let batch = worker.batch(ahead, vec![frame(9, &[("a:z", "alice", &[json("9")])])]);
    match worker.persist(&batch).await {
        Err(PersistError::LedgerMoved { expected, found, .. }) => {
            assert_eq!((expected, found), (ahead, stands));
        }
        other => panic!("a batch after {ahead} while the ledger stands at {stands}: {other:?}"),
    }
}

/// Many rows, many channels.
pub async fn a_large_batch_is_stored_whole(subject: &Subject) {
    const FRAMES: u64 = 12;
    const CHANNELS: usize = 40;
    let worker = Worker::of(subject, 3).await;
    let names: Vec<String> = (0..CHANNELS).map(|n| format!("many:{n}")).collect();
    let frames = (1..=FRAMES).map(|seq| {
        let texts: Vec<String> = (0..5).map(|n| format!("{{\"seq\":{seq},\"n\":{n}}}")).collect();
        let events: Vec<_> = texts.iter().map(|text| json(text)).collect();
        let runs: Vec<_> =
            names.iter().map(|name| (name.as_str(), "alice", events.as_slice())).collect();
        frame(seq, &runs)
    });
    worker.persist(&worker.batch(0, frames.collect())).await.expect("the batch is stored");
    for name in &names {
        let events = worker.all(name).await;
        assert_eq!(events.len() as u64, FRAMES * 5);
        assert!(events.windows(2).all(|pair| pair[0].position < pair[1].position));
        assert_eq!(events[0].data, "{\"seq\":1,\"n\":0}");
        assert_eq!(events[events.len() - 1].data, "{\"seq\":12,\"n\":4}");
    }
}

/// Data and attributes, byte for byte.
pub async fn data_comes_back_as_it_was(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let large = format!("\"{}\"", "ä".repeat(32 * 1024 - 1));
    let largest = vec![0xfe; DATA_BYTES_MAX];
    let every_byte: Vec<u8> = (0..=255).collect();
    let long = "k".repeat(255);
    let texts = [
        "null",
        "  { \"b\" : 1,\n\t\"a\" : 2, \"b\" : 3 }  ",
        "1e400",
        "12345678901234567890.12345678901234567890",
        "\"\\u0000 \\ud83d\\ude00 \\\\ \\\" 😀 \u{7f}\"",
        "\"'; DROP TABLE events; --\"",
        "\"\\\\N\\t\\r\\n\\\\.\"",
        "\"Ünïcödé ☃ \u{10ffff}\"",
        &large,
    ];
    let mut events: Vec<_> = texts.iter().map(|text| json(text)).collect();
    for data in [&every_byte[..], &[], &largest] {
        events.push(EventParts { data, binary: true, ..json("") });
    }
    events.push(EventParts {
        kind: Some("'\"\\ ☃"),
        key: Some(&long),
        id: Some("{a,b}"),
        ..json("{}")
    });
    events.push(EventParts { kind: Some(""), key: Some(""), id: Some(""), ..json("0") });
    let (first, second) = events.split_at(9);
    let frames =
        vec![frame(1, &[("odd:x", "Ümit", first)]), frame(2, &[("odd:x", "o'neil", second)])];
    worker.persist(&worker.batch(0, frames)).await.expect("the batch is stored");
    let found = worker.all("odd:x").await;
    assert_eq!(found.len(), events.len());
    for (index, (found, event)) in (0u16..).zip(found.iter().zip(&events)) {
        let (position, user) =
            if index < 9 { (at(1, index), "Ümit") } else { (at(2, index - 9), "o'neil") };
        let due = expected("odd:x", position, worker.times.of(position.offset.seq()), user, event);
        assert_eq!(found.data, due.data, "event {index}");
        let ids = [&found.id, &found.kind, &found.key];
        assert_eq!(ids, [&due.id, &due.kind, &due.key], "event {index}");
        assert_eq!((found.position, found.ts), (due.position, due.ts));
        assert_eq!((&found.user, found.binary), (&due.user, due.binary));
    }
}

/// Claims move the ledger like any frame.
pub async fn frames_without_events_move_the_ledger(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let mut batch = worker.batch(0, Vec::new());
    (batch.through, batch.last_frame) = (3, Some(id(3)));
    worker.persist(&batch).await.expect("the batch is stored");
    let due = LedgerEntry { epoch: E, last_seq: 3, last_frame: Some(id(3)) };
    assert_eq!(worker.ledger().await, Some(due));
    worker.fill("a:x", 3, 1).await;
    let mut batch = worker.batch(4, Vec::new());
    (batch.through, batch.last_frame) = (5, None);
    worker.persist(&batch).await.expect("the batch is stored");
    let due = LedgerEntry { epoch: E, last_seq: 5, last_frame: None };
    assert_eq!(worker.ledger().await, Some(due));
    assert_eq!(worker.all("a:x").await.len(), 1);
}

/// Partitions do not see each other's ledgers.
pub async fn partitions_are_persisted_side_by_side(subject: &Subject) {
    let mut workers = Vec::new();
    for partition in 0..4 {
        workers.push(Worker::of(subject, partition).await);
    }
    join_all(workers.iter().map(|worker| async move {
        for last in (0..20).step_by(4) {
            worker.fill(&format!("side:{}", worker.partition()), last, 4).await;
        }
    }))
    .await;
    for worker in &workers {
        assert_eq!(worker.ledger().await.map(|entry| entry.last_seq), Some(20));
        let name = format!("side:{}", worker.partition());
        assert_eq!(worker.all(&name).await.len(), 20);
        let first = worker.page(&name, HistoryQuery::After(START), 1).await;
        assert_eq!(first.events[0].position, at(1, 0));
    }
}
