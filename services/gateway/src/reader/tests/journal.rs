//! A real journal that counts what is asked of it, and that can be without some of its frames.

use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{Journal, JournalError, StoredFrame, Tip};
use stormwire_testkit::{AroundJournal, Decorated};

pub(super) struct Watched {
    journal: Arc<dyn Journal>,
    pub(super) reads: AtomicUsize,
    pub(super) tips: AtomicUsize,
    absent: Mutex<Absent>,
}

#[derive(Default)]
struct Absent {
    /// Gone for good.
    lost: BTreeSet<FrameSeq>,
    /// Left out by reads of several frames.
    hidden: BTreeSet<FrameSeq>,
}

impl Watched {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Arc<Decorated<Self>> {
        let (reads, tips) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Decorated(Self { journal, reads, tips, absent: Mutex::default() }))
    }

    pub(super) fn lose(&self, frames: impl IntoIterator<Item = FrameSeq>) {
        self.absent.lock().lost.extend(frames);
    }

    pub(super) fn hide(&self, frames: impl IntoIterator<Item = FrameSeq>) {
        self.absent.lock().hidden.extend(frames);
    }

    pub(super) fn find_all(&self) {
        *self.absent.lock() = Absent::default();
    }
}

#[async_trait]
impl AroundJournal for Watched {
    fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.tips.fetch_add(1, Ordering::Relaxed);
        self.journal.tip(partition).await
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut page = self.journal.read(partition, epoch, from, frames, bytes).await?;
        let absent = self.absent.lock();
        page.retain(|frame| {
            !absent.lost.contains(&frame.seq) && !absent.hidden.contains(&frame.seq)
        });
        Ok(page)
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        let found = self.journal.frame(partition, epoch, seq).await?;
        Ok(found.filter(|frame| !self.absent.lock().lost.contains(&frame.seq)))
    }
}
