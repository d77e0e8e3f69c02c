//! Removing what is past its bounds, and telling so.

use super::Subject;
use super::kit::{E, PATIENCE, START, TTL, Worker, at, channel, data, frame, id, json};
use crate::{Batch, Gap, HistoryQuery, Retained, Retention, Rule};
use std::collections::BTreeMap;
use std::time::Duration;
use stormwire_core::{Clock as _, Offset, Position, SystemClock, Timestamp};

const HOUR: Duration = Duration::from_secs(3600);
const WORKER: &str = "maintainer";

fn rules(namespace: &str, rule: Rule) -> Retention {
    let namespaces = BTreeMap::from([(namespace.to_owned(), rule)]);
    Retention { default: Rule::default(), namespaces }
}

fn ago(hours: u32) -> Timestamp {
    let now = SystemClock.now();
    Timestamp(now.0 - i64::try_from((HOUR * hours).as_millis()).unwrap_or(0))
}

/// Retention until there is nothing left to remove.
async fn retain(subject: &Subject, retention: &Retention) -> Retained {
    let archive = &*subject.archive;
    assert_eq!(archive.maintain(WORKER, TTL).await, Ok(true));
    let mut sum = Retained::default();
    loop {
        let round = archive.retain(WORKER, retention, SystemClock.now()).await;
        let round = round.expect("what is past its bounds is removed");
        sum.events += round.events;
        sum.tables += round.tables;
        if !round.more {
            return sum;
        }
    }
}

/// One frame a time, each with one event on every channel; data is the frame's number.
async fn fill(worker: &Worker<'_>, names: &[&str], times: &[Timestamp]) {
    for (seq, ts) in (1..).zip(times) {
        let text = seq.to_string();
        let events = [json(&text)];
        let runs: Vec<(&str, &str, &[_])> =
            names.iter().map(|name| (*name, "alice", &events[..])).collect();
        let batch = Batch {
            epoch: E,
            expected_last: seq - 1,
            through: seq,
            last_frame: Some(id(seq)),
            frames: vec![(seq, *ts, frame(seq, &runs))],
            gaps: Vec::new(),
            undecodable: Vec::new(),
        };
        worker.persist(&batch).await.expect("the batch is stored");
    }
}

fn removed(from: Offset, to: Offset) -> Gap {
    Gap { epoch: E, from, to, reason: "removed by retention".to_owned() }
}

/// By age, for the namespace that has a rule and no other; whoever asks for what is gone is told.
pub async fn what_is_past_its_age_goes_and_is_told_as_a_gap(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let times = [ago(50), ago(40), ago(30), ago(3), ago(1)];
    fill(&worker, &["short:x", "long:x", "short:y"], &times).await;
    let retention = rules("short", Rule { age: Some(HOUR * 2), bytes: None });
    assert_eq!(retain(subject, &retention).await.events, 8, "four frames, two channels");
    assert_eq!(retain(subject, &retention).await, Retained::default());
    assert_eq!(data(&worker.all("long:x").await).len(), 5, "another namespace");
    for (name, index) in [("short:x", 0), ("short:y", 2)] {
        assert_eq!(data(&worker.all(name).await), ["5"]);
        let edge = Offset::new(4, index);
        let told = async |query, limit| worker.page(name, query, limit).await.gaps;
        use HistoryQuery::{After, Before, Last};
        assert_eq!(told(After(START), 10).await.last(), Some(&removed(Offset(1), edge)));
        let middle = Position { epoch: E, offset: Offset::new(2, 0) };
        assert_eq!(told(After(middle), 10).await, [removed(Offset(Offset::new(2, 0).0 + 1), edge)]);
        assert_eq!(
            told(After(Position { epoch: E, offset: edge }), 10).await,
            [],
            "behind the edge"
        );
        assert_eq!(told(Last, 10).await, [removed(Offset(0), edge)]);
        assert_eq!(told(Before(at(5, 4095)), 1).await, [removed(Offset(0), edge)]);
    }
    let prefix = worker.archive.history_of_prefix(
        worker.partition(),
        "short:",
        at(1, 0),
        10,
        1 << 20,
        START,
    );
    let prefix = prefix.await.expect("history is read");
    assert_eq!(prefix.events.len(), 2);
    assert_eq!(prefix.gaps, [removed(Offset(at(1, 0).offset.0 + 1), Offset::new(4, 2))]);
    let info = subject.archive.channel(&channel("short:x")).await.expect("the channel is read");
    assert_eq!(info.map(|info| info.count), Some(1), "what is left is counted");
}

/// By bytes: the oldest go first, of whichever channel.
pub async fn the_oldest_go_while_a_namespace_takes_too_many_bytes(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    let text = format!("\"{}\"", "x".repeat(998));
    let frames = (1..=40u64).map(|seq| {
        let name = if seq % 4 == 0 { "full:y" } else { "full:x" };
        frame(seq, &[(name, "alice", &[json(&text)]), ("other:x", "alice", &[json(&text)])])
    });
    worker.persist(&worker.batch(0, frames.collect())).await.expect("the batch is stored");
    let retention = rules("full", Rule { age: None, bytes: Some(16_000) });
    // A sixteenth more than must be goes along.
    assert_eq!(retain(subject, &retention).await.events, 25);
    let left = async |name| {
        let events = worker.all(name).await;
        events.iter().map(|event| event.position.offset.seq()).collect::<Vec<_>>()
    };
    assert_eq!(left("full:x").await, [26, 27, 29, 30, 31, 33, 34, 35, 37, 38, 39]);
    assert_eq!(left("full:y").await, [28, 32, 36, 40]);
    assert_eq!(left("other:x").await.len(), 40);
    assert_eq!(retain(subject, &retention).await, Retained::default(), "it is small enough");
    worker.fill("full:x", 40, 3).await;
    assert_eq!(retain(subject, &retention).await, Retained::default(), "and stays so for a while");
}

/// Two workers, one right.
pub async fn only_who_maintains_removes(subject: &Subject) {
    let archive = &*subject.archive;
    let worker = Worker::of(subject, 3).await;
    fill(&worker, &["short:x"], &[ago(5), ago(4)]).await;
    let retention = rules("short", Rule { age: Some(HOUR), bytes: None });
    assert!(archive.retain("nobody", &retention, SystemClock.now()).await.is_err());
    assert_eq!(archive.maintain("first", Duration::from_millis(300)).await, Ok(true));
    assert_eq!(archive.maintain("second", TTL).await, Ok(false));
    assert_eq!(archive.maintain("first", Duration::from_millis(300)).await, Ok(true), "again");
    let taken = async {
        while archive.maintain("second", TTL).await != Ok(true) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the right expires");
    assert!(archive.retain("first", &retention, SystemClock.now()).await.is_err());
    assert_eq!(worker.all("short:x").await.len(), 2, "nothing is removed without the right");
    let removed = archive.retain("second", &retention, SystemClock.now()).await;
    assert_eq!(removed.map(|removed| removed.events), Ok(2));
}
