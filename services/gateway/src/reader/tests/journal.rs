//! A real journal that counts what is asked of it, and that can be without some of its frames.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, Tip};

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
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        let (reads, tips) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { journal, reads, tips, absent: Mutex::default() }
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
impl Journal for Watched {
    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.journal.open(partition).await
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.tips.fetch_add(1, Ordering::Relaxed);
        self.journal.tip(partition).await
    }

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        self.journal.epochs(partition).await
    }

    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        self.journal.begin(partition, epoch, first).await
    }

    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        self.journal.remove(partition, epoch).await
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        self.journal.append(partition, epoch, expected_last, frame).await
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

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        self.journal.tail(partitions).await
    }

    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        self.journal.trim(partition, epoch, through).await
    }

    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        self.journal.save_table(partition, table).await
    }

    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        self.journal.load_table(partition).await
    }

    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        self.journal.saved_through(partition).await
    }

    async fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq) {
        self.journal.persisted(partition, epoch, through).await;
    }

    async fn ping(&self) -> Result<(), JournalError> {
        self.journal.ping().await
    }
}
