//! Who may persist.

use crate::kit::{Kit, P0, TTL, batch, frame};
use std::collections::HashSet;
use std::time::Duration;
use stormwire_archive::{Archive as _, PersistError};
use stormwire_core::PartitionCount;

#[tokio::test]
async fn partitions_are_taken_once_each_and_no_more_than_wanted() {
    let Some(kit) = Kit::start().await else { return };
    let count = PartitionCount::new(16).unwrap();
    let takers = (0..4).map(|i| {
        let archive = kit.archive.clone();
        async move { archive.acquire(&format!("w{i}"), count, 5, TTL).await.unwrap() }
    });
    let taken = futures::future::join_all(takers).await;
    assert!(taken.iter().all(|leases| leases.len() <= 5));
    let all: Vec<_> = taken.iter().flatten().map(|lease| lease.partition).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
    let rest = kit.archive.acquire("w9", count, 16, TTL).await.unwrap();
    assert_eq!(all.len() + rest.len(), 16);
    assert!(kit.archive.acquire("w9", count, 16, TTL).await.unwrap().is_empty());
    kit.archive.release(&taken[0][0]).await.unwrap();
    let again = kit.archive.acquire("w9", count, 16, TTL).await.unwrap();
    assert_eq!(again[0].partition, taken[0][0].partition);
    assert!(again[0].token > taken[0][0].token);
}

#[tokio::test]
async fn a_lease_that_was_taken_over_is_not_renewed() {
    let Some(kit) = Kit::start().await else { return };
    let old = kit.lease("old").await;
    let mine = std::slice::from_ref(&old);
    assert_eq!(kit.archive.renew(mine, TTL).await.unwrap(), mine);
    kit.run("UPDATE leases SET expires_at = '-infinity'").await;
    let new = kit.lease("new").await;
    assert_eq!(
        kit.archive.renew(&[old.clone(), new.clone()], TTL).await.unwrap(),
        std::slice::from_ref(&new)
    );
    kit.archive.release(&old).await.unwrap();
    assert_eq!(kit.archive.renew(std::slice::from_ref(&new), TTL).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_expired_or_lost_lease_stores_nothing() {
    let Some(kit) = Kit::start().await else { return };
    let old = kit.lease("old").await;
    kit.archive.persist(&old, &batch(0, vec![frame(1, &[("a:x", "1")])])).await.unwrap();
    kit.run("UPDATE leases SET expires_at = '-infinity'").await;
    let next = batch(1, vec![frame(2, &[("a:x", "2")])]);
    let error = kit.archive.persist(&old, &next).await.unwrap_err();
    assert!(matches!(error, PersistError::LeaseLost(P0)), "{error}");
    let new = kit.lease("new").await;
    let error = kit.archive.persist(&old, &next).await.unwrap_err();
    assert!(matches!(error, PersistError::LeaseLost(P0)), "{error}");
    kit.archive.persist(&new, &next).await.unwrap();
    assert_eq!(kit.count("events").await, 2);
}

#[tokio::test]
async fn the_living_are_counted() {
    let Some(kit) = Kit::start().await else { return };
    assert_eq!(kit.archive.workers("a", TTL).await.unwrap().living, 1);
    assert_eq!(kit.archive.workers("b", TTL).await.unwrap().living, 2);
    assert_eq!(kit.archive.workers("b", Duration::from_millis(400)).await.unwrap().living, 2);
    let archive = &kit.archive;
    stormwire_testkit::wait_until("b expires", TTL, || async move {
        archive.workers("a", TTL).await.unwrap().living == 1
    })
    .await;
}
