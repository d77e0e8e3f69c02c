//! How far users have read, what lies behind, and what is missing of a partition.

use super::Subject;
use super::kit::{E, START, Worker, at, channel, json};
use crate::{Counted, Gap, Missing, Undecodable};
use bytes::Bytes;
use stormwire_core::{Epoch, Offset, Partition, Position};

/// The furthest of two devices wins, unless it is said otherwise.
pub async fn a_read_position_goes_back_only_by_force(subject: &Subject) {
    let archive = &*subject.archive;
    let (x, y) = (channel("a:x"), channel("a:y"));
    let set = async |user, position, force| {
        archive.set_read_position(user, &x, position, force).await.expect("it is noted")
    };
    assert_eq!(archive.read_position("alice", &x).await, Ok(None));
    assert_eq!(set("alice", at(5, 1), false).await, at(5, 1));
    assert_eq!(set("alice", at(4, 4000), false).await, at(5, 1), "it does not go back");
    assert_eq!(set("alice", at(5, 1), false).await, at(5, 1));
    assert_eq!(set("alice", at(5, 2), false).await, at(5, 2));
    let next = Position { epoch: Epoch(2), offset: Offset(0) };
    assert_eq!(set("alice", next, false).await, next, "a later epoch is further");
    assert_eq!(set("alice", at(900, 0), false).await, next);
    assert_eq!(set("alice", at(1, 0), true).await, at(1, 0), "by force");
    assert_eq!(archive.read_position("alice", &x).await, Ok(Some(at(1, 0))));
    assert_eq!(set("bob", at(3, 0), true).await, at(3, 0));
    assert_eq!(archive.read_position("alice", &x).await, Ok(Some(at(1, 0))), "each has his own");
    assert_eq!(archive.read_position("alice", &y).await, Ok(None));
}

/// Exactly up to the bound, with the ledger of the same moment.
pub async fn events_behind_a_position_are_counted_up_to_a_bound(subject: &Subject) {
    let worker = Worker::of(subject, 3).await;
    worker.fill("a:x", 0, 30).await;
    worker.fill("a:y", 30, 5).await;
    let count = async |name, after, bound| {
        let name = channel(name);
        let counted =
            worker.archive.count_after(&name, worker.partition(), after, bound, START).await;
        counted.expect("events are counted")
    };
    let ledger = worker.ledger().await;
    assert_eq!(count("a:x", START, 100).await, Counted { events: 30, ledger });
    assert_eq!(count("a:x", at(12, 0), 100).await.events, 18);
    assert_eq!(count("a:x", at(30, 0), 100).await.events, 0);
    assert_eq!(count("a:x", at(12, 0), 10).await.events, 10);
    assert_eq!(count("a:none", START, 10).await, Counted { events: 0, ledger });
}

/// Many partitions in one question, and a stretch of one of them.
pub async fn ledgers_and_what_is_missing_are_told_by_partition(subject: &Subject) {
    let archive = &*subject.archive;
    let (three, four) = (Worker::of(subject, 3).await, Worker::of(subject, 4).await);
    three.fill("a:x", 0, 2).await;
    let mut batch = four.batch(0, vec![super::kit::frame(1, &[("a:y", "bob", &[json("1")])])]);
    batch.through = 4;
    batch.undecodable.push(Undecodable {
        seq: 2,
        ts: four.times.of(2),
        error: "rubbish".to_owned(),
        bytes: Bytes::from_static(b"rubbish"),
    });
    let hole = Gap {
        epoch: E,
        from: Offset::new(3, 0),
        to: Offset::new(4, 4095),
        reason: "hole".to_owned(),
    };
    batch.gaps.push(hole.clone());
    four.persist(&batch).await.expect("the batch is stored");
    let asked = [Partition(3), Partition(4), Partition(5)];
    let mut ledgers = archive.ledgers(&asked).await.expect("ledgers are read");
    ledgers.sort_by_key(|(partition, _)| *partition);
    let found: Vec<_> = ledgers.iter().map(|(p, entry)| (p.0, entry.last_seq)).collect();
    assert_eq!(found, [(3, 2), (4, 4)]);
    let missing = async |partition, from, to| {
        archive.missing(Partition(partition), from, to).await.expect("gaps are read")
    };
    let all = missing(4, at(1, 0), at(4, 4095)).await;
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].gap.from, all[0].gap.to), (Offset::new(2, 0), Offset::new(2, 4095)));
    assert_eq!(all[1], Missing { gap: hole, channel: None });
    assert_eq!(missing(4, at(2, 4095), at(2, 4095)).await, all[..1], "one place in a stretch");
    assert_eq!(missing(4, at(1, 0), at(1, 4095)).await, []);
    assert_eq!(missing(3, at(1, 0), at(4, 4095)).await, []);
    assert_eq!(archive.replicated(Partition(3)).await, Ok(None), "nothing waits for a copy");
}
