//! Who may persist.

use super::Subject;
use super::kit::{PARTITIONS, PATIENCE, TTL, Times, Worker, frame, json};
use crate::{Archive, Lease, PersistError};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;
use stormwire_core::Partition;
use tokio::time::{Instant, sleep};

/// Long enough to do something with, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);
const AGAIN: Duration = Duration::from_millis(25);

async fn acquire(archive: &dyn Archive, worker: &str, want: usize, ttl: Duration) -> Vec<Lease> {
    archive.acquire(worker, PARTITIONS, want, ttl).await.expect("leases are given")
}

fn partitions(leases: &[Lease]) -> BTreeSet<Partition> {
    leases.iter().map(|lease| lease.partition).collect()
}

/// Everybody at once, as many as there are partitions and no more.
pub async fn partitions_have_one_holder_each(subject: &Subject) {
    let archive = &*subject.archive;
    let names = ["a", "b", "c", "d"];
    let given = join_all(names.map(|name| acquire(archive, name, 6, TTL))).await;
    let mut held = BTreeSet::new();
    for (leases, name) in given.iter().zip(names) {
        assert!(leases.len() <= 6);
        for lease in leases {
            assert_eq!(lease.worker, name);
            assert!(held.insert(lease.partition), "{} has two holders", lease.partition);
        }
    }
    // Those who came at the same moment may have stood in each other's way; the rest is there still.
    held.extend(partitions(&acquire(archive, "e", 16, TTL).await));
    assert_eq!(held, PARTITIONS.all().collect());
    assert!(acquire(archive, "f", 16, TTL).await.is_empty());
    let renewed = archive.renew(&given[0], TTL).await.expect("leases are renewed");
    assert_eq!(partitions(&renewed), partitions(&given[0]));
    let forged: Vec<_> =
        given[0].iter().map(|lease| Lease { worker: "f".to_owned(), ..lease.clone() }).collect();
    assert!(archive.renew(&forged, TTL).await.expect("an answer is given").is_empty());
}

/// Giving back, and tokens that grow.
pub async fn a_released_lease_is_free_at_once(subject: &Subject) {
    let archive = &*subject.archive;
    let first = acquire(archive, "a", 16, TTL).await;
    let lease = first.iter().find(|lease| lease.partition == Partition(5)).expect("it is free");
    archive.release(lease).await.expect("a lease is given back");
    let taken = acquire(archive, "b", 16, TTL).await;
    assert_eq!(partitions(&taken), BTreeSet::from([Partition(5)]));
    assert!(taken[0].token > lease.token, "a new holder has a higher token");
    archive.release(lease).await.expect("giving back what is another's does no harm");
    assert!(acquire(archive, "c", 16, TTL).await.is_empty());
    assert!(archive.renew(std::slice::from_ref(lease), TTL).await.expect("an answer").is_empty());
}

/// Take-over: the one who was too slow commits nothing any more.
pub async fn a_lease_expires_and_its_holder_can_no_longer_commit(subject: &Subject) {
    let archive = &*subject.archive;
    let slow = acquire(archive, "slow", 1, SHORT).await.remove(0);
    let slow = Worker { archive, lease: slow, times: Times::new() };
    let rest = acquire(archive, "rest", 16, TTL).await;
    assert_eq!(rest.len(), 15);
    let deadline = Instant::now() + PATIENCE;
    let taken = loop {
        let taken = acquire(archive, "quick", 16, TTL).await;
        if !taken.is_empty() {
            break taken;
        }
        assert!(Instant::now() < deadline, "the lease does not expire");
        sleep(AGAIN).await;
    };
    assert_eq!(partitions(&taken), BTreeSet::from([slow.partition()]));
    let lease = taken[0].clone();
    assert!(lease.token > slow.lease.token);
    let batch = slow.batch(0, vec![frame(1, &[("a:x", "alice", &[json("1")])])]);
    let refused = slow.persist(&batch).await;
    assert!(
        matches!(refused, Err(PersistError::LeaseLost(lost)) if lost == lease.partition),
        "{refused:?}"
    );
    assert!(slow.all("a:x").await.is_empty(), "nothing of a refused batch is there");
    assert_eq!(slow.ledger().await.map_or(0, |entry| entry.last_seq), 0);
    let quick = Worker { archive, lease, times: Times::new() };
    quick.persist(&batch).await.expect("the new holder stores it");
    let forged = Worker { lease: Lease { token: 0, ..quick.lease.clone() }, ..quick };
    let refused = forged.persist(&forged.batch(1, Vec::new())).await;
    assert!(matches!(refused, Err(PersistError::LeaseLost(_))), "{refused:?}");
    assert_eq!(forged.all("a:x").await.len(), 1);
}

/// What shares are made of.
pub async fn living_workers_are_counted(subject: &Subject) {
    let archive = &*subject.archive;
    let roster = async |name, ttl| {
        let roster = archive.workers(name, ttl).await.expect("workers are counted");
        (roster.living, roster.before)
    };
    assert_eq!(roster("b", TTL).await, (1, 0));
    assert_eq!(roster("c", SHORT).await, (2, 1));
    assert_eq!(roster("B", SHORT).await, (3, 0), "names are compared by their bytes");
    assert_eq!(roster("b", TTL).await, (3, 1), "who lives already is not counted twice");
    let deadline = Instant::now() + PATIENCE;
    while roster("b", TTL).await != (1, 0) {
        assert!(Instant::now() < deadline, "a worker that is silent stays alive");
        sleep(AGAIN).await;
    }
    assert_eq!(roster("a", TTL).await, (2, 0));
    roster("a", Duration::ZERO).await;
    assert_eq!(roster("b", TTL).await, (1, 0), "who has left is not waited for");
}

/// What others take at once.
pub async fn free_partitions_are_counted(subject: &Subject) {
    let archive = &*subject.archive;
    let free = async || archive.free(PARTITIONS).await.expect("free partitions are counted");
    assert_eq!(free().await, 16, "never taken");
    let held = acquire(archive, "a", 15, TTL).await;
    assert_eq!(free().await, 1);
    archive.release(&held[3]).await.expect("a lease is given back");
    assert_eq!(free().await, 2);
    assert_eq!(acquire(archive, "b", 16, SHORT).await.len(), 2);
    assert_eq!(free().await, 0);
    let deadline = Instant::now() + PATIENCE;
    while free().await != 2 {
        assert!(Instant::now() < deadline, "an expired lease is free");
        sleep(AGAIN).await;
    }
}
