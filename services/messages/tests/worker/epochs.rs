//! Workers over the ends of epochs, and before frames of a newer version.

use crate::holes::versioned;
use crate::kit::{Engines, NOWHERE, Running, SOON, cluster, config, embedded, frame, id};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_archive::HistoryQuery;
use stormwire_core::{Channel, Epoch, FrameSeq, Partition};
use stormwire_journal::epoch::{NewEpoch, begin_next};
use stormwire_journal::rewind;
use stormwire_testkit::wait_until;

const P0: Partition = Partition(0);

async fn new_epoch(engines: &Engines) -> FrameSeq {
    let ledger = engines.archive.ledger(P0).await.unwrap();
    let archived = ledger.map(|entry| (entry.epoch, entry.last_seq));
    let new = NewEpoch { archived, id: id(999), discard: false };
    begin_next(&*engines.journal, P0, new).await.unwrap().first
}

/// Appends `frames` as the first ones of epoch 2, which begins with number `first`; they tell themselves
/// from those of epoch 1 by `label`.
async fn write_next(engines: &Engines, first: FrameSeq, frames: u64, label: u64) {
    for i in 0..frames {
        let frame = frame(label + i, 10);
        let stored = engines.journal.append(P0, Epoch(2), first + i - 1, frame).await;
        assert_eq!(stored, Ok(first + i));
    }
}

pub(crate) async fn gaps(engines: &Engines) -> Vec<(u32, FrameSeq, FrameSeq)> {
    let channel = Channel::parse("a:x").unwrap();
    let history = engines.archive.history(&channel, P0, HistoryQuery::Last, 1000, 1 << 20, NOWHERE);
    let gaps = history.await.unwrap().gaps;
    gaps.iter().map(|gap| (gap.epoch.0, gap.from.seq(), gap.to.seq())).collect()
}

async fn in_epoch_2(engines: &Engines, through: FrameSeq) {
    wait_until("the ledger is in epoch 2", SOON, || async {
        let ledger = engines.archive.ledger(P0).await.ok().flatten();
        ledger.is_some_and(|entry| (entry.epoch, entry.last_seq) == (Epoch(2), through))
    })
    .await;
}

async fn a_planned_epoch_is_passed_without_a_gap_and_its_log_goes(engines: Engines) {
    engines.write(P0, 1, 10).await;
    let mut config = config(1);
    config.recovery_window = Duration::ZERO;
    let worker = Running::start(&engines, config);
    engines.wait_persisted(P0, 10).await;
    let first = new_epoch(&engines).await;
    write_next(&engines, first, 5, 11).await;
    in_epoch_2(&engines, first + 4).await;
    engines.assert_stored(P0, 15, &[]).await;
    assert_eq!(gaps(&engines).await, []);
    wait_until("the log of epoch 1 is removed", SOON, || async {
        let logs = engines.journal.epochs(P0).await.unwrap();
        logs.iter().map(|log| log.epoch).eq([Epoch(2)])
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn embedded_passes_into_a_new_epoch() {
    a_planned_epoch_is_passed_without_a_gap_and_its_log_goes(embedded().await.unwrap()).await;
}

#[tokio::test]
async fn cluster_passes_into_a_new_epoch() {
    let Some(engines) = cluster().await else { return };
    a_planned_epoch_is_passed_without_a_gap_and_its_log_goes(engines).await;
}

#[tokio::test]
async fn a_log_that_was_removed_is_stepped_over_with_a_recorded_gap() {
    let engines = embedded().await.unwrap();
    engines.write(P0, 1, 4).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 4).await;
    worker.stop().await;
    engines.write(P0, 5, 9).await;
    engines.journal.begin(P0, Epoch(2), 500).await.unwrap();
    engines.journal.remove(P0, Epoch::FIRST).await.unwrap();
    write_next(&engines, 500, 3, 10).await;
    let worker = Running::start(&engines, config(1));
    in_epoch_2(&engines, 502).await;
    worker.stop().await;
    engines.assert_stored(P0, 12, &[5, 6, 7, 8, 9]).await;
    assert_eq!(gaps(&engines).await, [(1, 5, 499)]);
}

/// The archive of one engine over the journal of another, which is shorter: it went back.
#[tokio::test]
async fn a_journal_behind_the_ledger_says_so_itself_and_waits_for_a_new_epoch() {
    let (before, after) = (embedded().await.unwrap(), embedded().await.unwrap());
    before.write(P0, 1, 10).await;
    let worker = Running::start(&before, config(1));
    before.wait_persisted(P0, 10).await;
    worker.stop().await;
    after.write(P0, 1, 6).await;
    let (journal, archive) = (Arc::clone(&after.journal), Arc::clone(&before.archive));
    let engines = Engines::of(journal, archive, (before, after));
    let worker = Running::start(&engines, config(1));
    wait_until("the log says that it has gone back", SOON, || async {
        let tip = engines.journal.tip(P0).await.unwrap();
        let told = rewind::told(&*engines.journal, P0, tip).await.unwrap();
        told.is_some_and(|told| (told.lost_from, told.seen) == (7, 10))
    })
    .await;
    assert_eq!(engines.persisted(P0).await, 10, "nothing is persisted from it");
    let first = new_epoch(&engines).await;
    write_next(&engines, first, 2, 11).await;
    in_epoch_2(&engines, first + 1).await;
    worker.stop().await;
    engines.assert_stored(P0, 12, &[]).await;
    assert_eq!(gaps(&engines).await, [(1, 11, first - 1)]);
}

/// `mixed-versions`: a frame of a newer version stops the worker, also one that begins anew, until it is
/// upgraded. Nothing is skipped.
#[tokio::test]
async fn mixed_versions() {
    let engines = embedded().await.unwrap();
    engines.write(P0, 1, 3).await;
    let mut newer = frame(4, 10).to_vec();
    newer[1] = 2;
    engines.append(P0, 4, Bytes::from(newer)).await;
    engines.append(P0, 5, frame(5, 10)).await;
    let (journal, newer) = versioned(&engines.journal, false);
    let old = Engines::of(journal, Arc::clone(&engines.archive), ());
    for _ in 0..2 {
        let given = newer.load(Ordering::Relaxed);
        let worker = Running::start(&old, config(1));
        old.wait_persisted(P0, 3).await;
        wait_until("it was given the newer frame", SOON, || async {
            newer.load(Ordering::Relaxed) > given
        })
        .await;
        // What it has taken is committed before it ends.
        worker.stop().await;
        assert_eq!(old.persisted(P0).await, 3, "it stops before the newer frame");
    }
    let (journal, _) = versioned(&engines.journal, true);
    let archive = Arc::clone(&engines.archive);
    let upgraded = Engines::of(journal, archive, engines);
    let worker = Running::start(&upgraded, config(1));
    upgraded.wait_persisted(P0, 5).await;
    worker.stop().await;
    upgraded.assert_stored(P0, 5, &[]).await;
    assert_eq!(gaps(&upgraded).await, []);
}
