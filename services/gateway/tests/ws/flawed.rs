//! A journal around the embedded one that fails as it is told to.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{AppendError, Journal, JournalError, StoredFrame, Tail, TailEvent};
use stormwire_testkit::{AroundJournal, Decorated};

/// What is wrong with it; nothing at first.
#[derive(Default)]
pub(crate) struct Flaws {
    /// Whoever follows a partition panics.
    pub(crate) tail_panics: AtomicBool,
    /// Whoever appends a frame panics.
    pub(crate) append_panics: AtomicBool,
    /// Frames of version 2 are shown as a program sees them that knows it, which is as version 1.
    pub(crate) upgraded: Arc<AtomicBool>,
}

pub(crate) struct Flawed {
    journal: Arc<dyn Journal>,
    flaws: Arc<Flaws>,
}

impl Flawed {
    pub(crate) fn around(journal: Arc<dyn Journal>, flaws: &Arc<Flaws>) -> Arc<dyn Journal> {
        Arc::new(Decorated(Self { journal, flaws: Arc::clone(flaws) }))
    }
}

fn seen(upgraded: &AtomicBool, frame: StoredFrame) -> StoredFrame {
    if !upgraded.load(Ordering::Relaxed) || frame.bytes.get(1) != Some(&2) {
        return frame;
    }
    let mut bytes = frame.bytes.to_vec();
    bytes[1] = 1;
    StoredFrame { bytes: Bytes::from(bytes), ..frame }
}

#[async_trait]
impl AroundJournal for Flawed {
    fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        assert!(!self.flaws.append_panics.load(Ordering::Relaxed), "an append that panics");
        self.journal.append(partition, epoch, expected_last, frame).await
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        assert!(!self.flaws.tail_panics.load(Ordering::Relaxed), "a tail that panics");
        let upgraded = Arc::clone(&self.flaws.upgraded);
        let tail = self.journal.tail(partitions).await?.map(move |event| match event {
            TailEvent::Frame(frame) => TailEvent::Frame(seen(&upgraded, frame)),
            TailEvent::Check => TailEvent::Check,
        });
        Ok(tail.boxed())
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        let page = self.journal.read(partition, epoch, from, frames, bytes).await?;
        Ok(page.into_iter().map(|frame| seen(&self.flaws.upgraded, frame)).collect())
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        let found = self.journal.frame(partition, epoch, seq).await?;
        Ok(found.map(|frame| seen(&self.flaws.upgraded, frame)))
    }
}
