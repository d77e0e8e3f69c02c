//! What must hold on every pair of engines.

use crate::kit::{Engines, NOWHERE, Running, SOON, cluster, config, embedded, frame, id};
use bytes::Bytes;
use std::time::Duration;
use stormwire_archive::{DeadLetterFilter, Retention, Rule};
use stormwire_core::Partition;
use stormwire_messages::MessagesConfig;
use stormwire_testkit::wait_until;
use stormwire_wire::frame::claim;

const P0: Partition = Partition(0);

macro_rules! on_both {
    ($($property:ident)+) => {
        mod on_embedded {
            $(#[tokio::test]
            async fn $property() {
                let Some(engines) = super::embedded().await else { return };
                super::$property(engines).await;
            })+
        }
        mod on_cluster {
            $(#[tokio::test]
            async fn $property() {
                let Some(engines) = super::cluster().await else { return };
                super::$property(engines).await;
            })+
        }
    };
}

on_both! {
    everything_in_the_journal_comes_into_the_archive_once_and_in_order
    a_killed_worker_is_followed_by_another
    rubbish_becomes_a_dead_letter_and_holds_nothing_up
    a_newer_frame_stops_the_partition_and_is_never_skipped
    what_was_trimmed_unread_is_a_gap
    the_journal_is_trimmed_up_to_the_frame_before_the_ledgers
    a_journal_with_another_frame_at_the_ledgers_place_is_not_persisted
    what_is_past_its_age_is_removed_by_one_of_the_workers
}

async fn everything_in_the_journal_comes_into_the_archive_once_and_in_order(engines: Engines) {
    engines.journal.open(P0).await.unwrap();
    engines.append(P0, 1, claim(id(1), "gateway-1")).await;
    engines.write(P0, 2, 60).await;
    let worker = Running::start(&engines, config(2));
    engines.wait_persisted(P0, 60).await;
    // Live, one by one, while it is idle in between.
    for seq in 61..=64 {
        engines.append(P0, seq, frame(seq, 10)).await;
        engines.wait_persisted(P0, seq).await;
    }
    engines.write(P0, 65, 100).await;
    engines.wait_persisted(P0, 100).await;
    worker.stop().await;
    engines.assert_stored(P0, 100, &[1]).await;
    let ledger = engines.archive.ledger(P0).await.unwrap().unwrap();
    assert_eq!(ledger.last_frame, Some(id(100)));
}

async fn a_killed_worker_is_followed_by_another(engines: Engines) {
    engines.journal.open(P0).await.unwrap();
    let writing = async {
        for seq in 1..=300 {
            engines.append(P0, seq, frame(seq, 10)).await;
        }
    };
    let killing = async {
        for through in [20, 60, 100] {
            let worker = Running::start(&engines, config(1));
            engines.wait_persisted(P0, through).await;
            drop(worker);
        }
    };
    tokio::join!(writing, killing);
    let started = tokio::time::Instant::now();
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 300).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    worker.stop().await;
    engines.assert_stored(P0, 300, &[]).await;
}

async fn rubbish_becomes_a_dead_letter_and_holds_nothing_up(engines: Engines) {
    engines.write(P0, 1, 3).await;
    engines.append(P0, 4, Bytes::from_static(b"S\x01\x01 half a frame")).await;
    engines.write(P0, 5, 8).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 8).await;
    worker.stop().await;
    engines.assert_stored(P0, 8, &[4]).await;
    let filter = DeadLetterFilter { limit: 10, ..Default::default() };
    let letters = engines.archive.dead_letters(&filter).await.unwrap();
    assert_eq!((letters.len(), letters[0].position.offset.seq()), (1, 4));
    assert!(letters[0].whole_frame);
}

async fn a_newer_frame_stops_the_partition_and_is_never_skipped(engines: Engines) {
    engines.write(P0, 1, 3).await;
    let mut newer = frame(4, 10).to_vec();
    newer[1] = 200;
    engines.append(P0, 4, Bytes::from(newer)).await;
    engines.write(P0, 5, 8).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(engines.persisted(P0).await, 3);
    worker.stop().await;
    engines.assert_stored(P0, 3, &[]).await;
}

async fn what_was_trimmed_unread_is_a_gap(engines: Engines) {
    engines.write(P0, 1, 3).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 3).await;
    worker.stop().await;
    engines.write(P0, 4, 20).await;
    engines.journal.trim(P0, stormwire_core::Epoch(1), 10).await.unwrap();
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 20).await;
    worker.stop().await;
    engines.assert_stored(P0, 20, &[4, 5, 6, 7, 8, 9, 10]).await;
    let channel = stormwire_core::Channel::parse("a:x").unwrap();
    let query = stormwire_archive::HistoryQuery::Last;
    let page = engines.archive.history(&channel, P0, query, 1000, 1 << 20, NOWHERE).await.unwrap();
    let gaps: Vec<_> =
        page.gaps.iter().map(|g| (g.from.seq(), g.to.seq(), g.reason.as_str())).collect();
    assert_eq!(gaps, [(4, 10, "trimmed")]);
}

async fn the_journal_is_trimmed_up_to_the_frame_before_the_ledgers(engines: Engines) {
    engines.write(P0, 1, 20).await;
    let worker = Running::start(
        &engines,
        MessagesConfig { recovery_window: Duration::from_millis(500), ..config(1) },
    );
    let engines = &engines;
    // What the next claim reads stays: the last frame of the saved table and all behind it.
    for (through, first) in [(12, 12), (20, 20)] {
        let (epoch, bytes) = (stormwire_core::Epoch(1), Bytes::new());
        let table = stormwire_journal::SavedTable { epoch, through, bytes };
        engines.journal.save_table(P0, table).await.unwrap();
        wait_until("all before the saved table is trimmed", SOON, || async move {
            engines.journal.tip(P0).await.unwrap().first == first
        })
        .await;
    }
    worker.stop().await;
    assert_eq!(engines.journal.tip(P0).await.unwrap().last, 20);
    engines.assert_stored(P0, 20, &[]).await;
}

async fn a_journal_with_another_frame_at_the_ledgers_place_is_not_persisted(engines: Engines) {
    engines.write(P0, 1, 3).await;
    let lease = &engines.archive.acquire("test", config(1).partitions, 1, SOON).await.unwrap()[0];
    let batch = stormwire_archive::Batch {
        epoch: stormwire_core::Epoch(1),
        expected_last: 0,
        through: 3,
        last_frame: Some(id(777)),
        frames: Vec::new(),
        gaps: Vec::new(),
        undecodable: Vec::new(),
    };
    engines.archive.persist(lease, &batch).await.unwrap();
    engines.archive.release(lease).await.unwrap();
    engines.write(P0, 4, 5).await;
    let worker = Running::start(&engines, config(1));
    let engines = &engines;
    wait_until("it is looked at", SOON, || async move {
        engines.archive.acquire("test", config(1).partitions, 1, SOON).await.unwrap().is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(engines.persisted(P0).await, 3);
    worker.stop().await;
}

async fn what_is_past_its_age_is_removed_by_one_of_the_workers(engines: Engines) {
    engines.write(P0, 1, 20).await;
    let rule = Rule { age: Some(Duration::from_secs(1)), bytes: None };
    let retention = Retention { default: rule, ..Retention::default() };
    let config = || MessagesConfig {
        retention: retention.clone(),
        retain_every: Duration::from_millis(200),
        ..config(1)
    };
    let workers = [Running::start(&engines, config()), Running::start(&engines, config())];
    engines.wait_persisted(P0, 20).await;
    let channel = stormwire_core::Channel::parse("a:x").unwrap();
    let page = async || {
        let query = stormwire_archive::HistoryQuery::Last;
        engines.archive.history(&channel, P0, query, 1000, 1 << 20, NOWHERE).await.unwrap()
    };
    let page = &page;
    wait_until("all is removed", SOON, || async move { page().await.events.is_empty() }).await;
    let gaps = page().await.gaps;
    assert_eq!(gaps.iter().map(|gap| gap.to.seq()).collect::<Vec<_>>(), [20]);
    for worker in workers {
        worker.stop().await;
    }
}
