//! A journal that has lost frames, and one whose tail loses them.

use crate::kit::{Engines, Running, config, embedded};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_archive::HistoryQuery;
use stormwire_core::{Channel, Epoch, FrameSeq, Partition};
use stormwire_journal::{Journal, JournalError, StoredFrame, Tail, TailEvent};
use stormwire_testkit::{AroundJournal, Decorated};

const P0: Partition = Partition(0);

/// A journal that does not have some of its frames: not at all, or not in its tail.
struct Lossy {
    journal: Arc<dyn Journal>,
    /// Reads frames of version 2 as a program does that knows it.
    upgraded: bool,
    lost: BTreeSet<FrameSeq>,
    lost_live: BTreeSet<FrameSeq>,
    /// How often somebody was given a frame of a version that it does not know.
    newer: Arc<AtomicU64>,
}

impl Lossy {
    /// A frame as a program sees it that knows version 2, which is as version 1, or one that does not.
    fn seen(&self, frame: StoredFrame) -> StoredFrame {
        seen(self.upgraded, &self.newer, frame)
    }
}

#[async_trait]
impl AroundJournal for Lossy {
    fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        let mut page = self.journal.read(partition, epoch, from, frames, bytes).await?;
        page.retain(|frame| !self.lost.contains(&frame.seq));
        Ok(page.into_iter().map(|frame| self.seen(frame)).collect())
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        let found = self.journal.frame(partition, epoch, seq).await?;
        let found = found.filter(|frame| !self.lost.contains(&frame.seq));
        Ok(found.map(|frame| self.seen(frame)))
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        let lost: BTreeSet<_> = self.lost.union(&self.lost_live).copied().collect();
        let heard = move |event: &TailEvent| {
            let is_heard = !matches!(event, TailEvent::Frame(frame) if lost.contains(&frame.seq));
            std::future::ready(is_heard)
        };
        let (upgraded, newer) = (self.upgraded, Arc::clone(&self.newer));
        let events =
            self.journal.tail(partitions).await?.filter(heard).map(move |event| match event {
                TailEvent::Frame(frame) => TailEvent::Frame(seen(upgraded, &newer, frame)),
                TailEvent::Check => TailEvent::Check,
            });
        Ok(events.boxed())
    }
}

fn seen(upgraded: bool, newer: &AtomicU64, frame: StoredFrame) -> StoredFrame {
    if frame.bytes.get(1) != Some(&2) {
        return frame;
    }
    if !upgraded {
        newer.fetch_add(1, Ordering::Relaxed);
        return frame;
    }
    let mut bytes = frame.bytes.to_vec();
    bytes[1] = 1;
    StoredFrame { bytes: Bytes::from(bytes), ..frame }
}

/// The journal as a program reads it, upgraded or not; with how often it was given what it does not know.
pub(crate) fn versioned(
    journal: &Arc<dyn Journal>,
    upgraded: bool,
) -> (Arc<dyn Journal>, Arc<AtomicU64>) {
    let (journal, newer) = (Arc::clone(journal), Arc::default());
    let (lost, lost_live) = (BTreeSet::new(), BTreeSet::new());
    let newer_given = Arc::clone(&newer);
    (Arc::new(Decorated(Lossy { journal, upgraded, lost, lost_live, newer })), newer_given)
}

fn lossy(engines: Engines, lost: &[FrameSeq], lost_live: &[FrameSeq]) -> Engines {
    let journal = Lossy {
        journal: Arc::clone(&engines.journal),
        upgraded: false,
        lost: lost.iter().copied().collect(),
        lost_live: lost_live.iter().copied().collect(),
        newer: Arc::default(),
    };
    let archive = Arc::clone(&engines.archive);
    Engines::of(Arc::new(Decorated(journal)), archive, engines)
}

#[tokio::test]
async fn proved_holes_are_told_as_gaps_and_what_is_there_is_stored() {
    let lost = [4, 5, 9, 30];
    let engines = lossy(embedded().await.unwrap(), &lost, &[]);
    engines.write(P0, 1, 20).await;
    let worker = Running::start(&engines, config(1));
    engines.wait_persisted(P0, 20).await;
    engines.write(P0, 21, 31).await;
    engines.wait_persisted(P0, 31).await;
    worker.stop().await;
    engines.assert_stored(P0, 31, &lost).await;
    let channel = Channel::parse("a:x").unwrap();
    let page = engines.archive.history(
        &channel,
        P0,
        HistoryQuery::Last,
        1000,
        1 << 20,
        crate::kit::NOWHERE,
    );
    let page = page.await.unwrap();
    let gaps: Vec<_> =
        page.gaps.iter().map(|gap| (gap.from.seq(), gap.to.seq(), gap.reason.as_str())).collect();
    assert_eq!(gaps, [(4, 5, "hole"), (9, 9, "hole"), (30, 30, "hole")]);
}

#[tokio::test]
async fn a_frame_that_the_tail_lost_is_fetched_also_when_it_is_the_last() {
    let engines = lossy(embedded().await.unwrap(), &[], &[3, 10, 20]);
    engines.journal.open(P0).await.unwrap();
    let worker = Running::start(&engines, config(1));
    engines.write(P0, 1, 10).await;
    engines.wait_persisted(P0, 10).await;
    engines.write(P0, 11, 20).await;
    engines.wait_persisted(P0, 20).await;
    worker.stop().await;
    engines.assert_stored(P0, 20, &[]).await;
}
