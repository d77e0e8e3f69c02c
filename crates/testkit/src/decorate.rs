//! What a decorator of a journal need not say: whatever it does not change goes to the journal within.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, Tip};

/// A journal around another: it says only what it does otherwise. [`Decorated`] makes a port of it.
#[async_trait]
pub trait AroundJournal: Send + Sync + 'static {
    /// The one within.
    fn journal(&self) -> &Arc<dyn Journal>;

    /// How a call to the one within is made.
    fn make<'a, T: Send + 'static>(&'a self, call: BoxFuture<'static, T>) -> BoxFuture<'a, T> {
        call
    }

    /// [`Journal::stale_max`].
    fn stale_max(&self) -> Duration {
        self.journal().stale_max()
    }

    /// [`Journal::open`].
    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.open(partition).await })).await
    }

    /// [`Journal::tip`].
    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.tip(partition).await })).await
    }

    /// [`Journal::epochs`].
    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.epochs(partition).await })).await
    }

    /// [`Journal::begin`].
    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.begin(partition, epoch, first).await })).await
    }

    /// [`Journal::remove`].
    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.remove(partition, epoch).await })).await
    }

    /// [`Journal::append`].
    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        let journal = Arc::clone(self.journal());
        let call = async move { journal.append(partition, epoch, expected_last, frame).await };
        self.make(Box::pin(call)).await
    }

    /// [`Journal::read`].
    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        let journal = Arc::clone(self.journal());
        let call = async move { journal.read(partition, epoch, from, frames, bytes).await };
        self.make(Box::pin(call)).await
    }

    /// [`Journal::frame`].
    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.frame(partition, epoch, seq).await })).await
    }

    /// [`Journal::tail`].
    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        let (journal, partitions) = (Arc::clone(self.journal()), partitions.to_vec());
        self.make(Box::pin(async move { journal.tail(&partitions).await })).await
    }

    /// [`Journal::save_table`].
    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.save_table(partition, table).await })).await
    }

    /// [`Journal::load_table`].
    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.load_table(partition).await })).await
    }

    /// [`Journal::saved_through`].
    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.saved_through(partition).await })).await
    }

    /// [`Journal::trim`].
    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.trim(partition, epoch, through).await })).await
    }

    /// [`Journal::persisted`].
    async fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq) {
        let journal = Arc::clone(self.journal());
        let call = async move { journal.persisted(partition, epoch, through).await };
        self.make(Box::pin(call)).await;
    }

    /// [`Journal::ping`].
    async fn ping(&self) -> Result<(), JournalError> {
        let journal = Arc::clone(self.journal());
        self.make(Box::pin(async move { journal.ping().await })).await
    }
}

/// The port of a decorator.
#[derive(Debug)]
pub struct Decorated<D>(pub D);

impl<D> Deref for Decorated<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}

#[async_trait]
impl<D: AroundJournal> Journal for Decorated<D> {
    fn stale_max(&self) -> Duration {
        self.0.stale_max()
    }

    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.0.open(partition).await
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.0.tip(partition).await
    }

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        self.0.epochs(partition).await
    }

    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        self.0.begin(partition, epoch, first).await
    }

    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        self.0.remove(partition, epoch).await
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        self.0.append(partition, epoch, expected_last, frame).await
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.0.read(partition, epoch, from, frames, bytes).await
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        self.0.frame(partition, epoch, seq).await
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        self.0.tail(partitions).await
    }

    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        self.0.save_table(partition, table).await
    }

    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        self.0.load_table(partition).await
    }

    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        self.0.saved_through(partition).await
    }

    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        self.0.trim(partition, epoch, through).await
    }

    async fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq) {
        self.0.persisted(partition, epoch, through).await;
    }

    async fn ping(&self) -> Result<(), JournalError> {
        self.0.ping().await
    }
}
