//! The simulated log as a port, for those who use it as one: a tail that proves, an operator.

use crate::log::Log;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, Tip};
use tokio::runtime::Builder;

/// The log, for a number of calls; then nobody answers any more.
pub(crate) struct Port(Mutex<State>);

struct State {
    log: Log,
    now: u64,
    calls_left: Option<usize>,
}

/// Does it while the world stands still.
pub(crate) fn at_once<F: Future>(work: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

fn nobody() -> JournalError {
    JournalError::Unavailable("nobody answers".to_owned())
}

impl Port {
    pub(crate) fn new(log: Log, now: u64, cut_after: Option<usize>) -> Self {
        Self(Mutex::new(State { log, now, calls_left: cut_after }))
    }

    pub(crate) fn into_log(self) -> Log {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).log
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Log, u64) -> T) -> Result<T, JournalError> {
        let mut state = self.0.lock().unwrap();
        if let Some(left) = &mut state.calls_left {
            *left = left.checked_sub(1).ok_or_else(nobody)?;
        }
        let now = state.now;
        Ok(ask(&mut state.log, now))
    }
}

#[async_trait]
impl Journal for Port {
    fn stale_max(&self) -> Duration {
        Duration::ZERO
    }

    async fn open(&self, _: Partition) -> Result<Tip, JournalError> {
        self.ask(|log, _| log.tip())
    }

    async fn tip(&self, _: Partition) -> Result<Tip, JournalError> {
        self.ask(|log, _| log.tip())
    }

    async fn epochs(&self, _: Partition) -> Result<Vec<Tip>, JournalError> {
        self.ask(|log, _| log.tips())
    }

    async fn begin(
        &self,
        _: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        self.ask(|log, _| log.begin(epoch, first))
    }

    async fn append(
        &self,
        _: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        let appended = self.ask(|log, now| log.append(now, epoch, expected_last, &frame));
        appended.map_err(|error| AppendError::Unknown(error.to_string()))?
    }

    async fn read(
        &self,
        _: Partition,
        epoch: Epoch,
        from: FrameSeq,
        _: usize,
        _: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.ask(|log, _| log.read(epoch, from))
    }

    async fn frame(
        &self,
        _: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        self.ask(|log, _| log.get(epoch, seq).cloned())
    }

    async fn tail(&self, _: &[Partition]) -> Result<Tail, JournalError> {
        Ok(Box::pin(futures::stream::empty()))
    }

    async fn ping(&self) -> Result<(), JournalError> {
        self.ask(|_, _| ())
    }

    // What neither of them does.

    async fn remove(&self, _: Partition, _: Epoch) -> Result<(), JournalError> {
        Err(nobody())
    }

    async fn save_table(&self, _: Partition, _: SavedTable) -> Result<(), JournalError> {
        Err(nobody())
    }

    async fn load_table(&self, _: Partition) -> Result<Option<SavedTable>, JournalError> {
        Err(nobody())
    }

    async fn saved_through(&self, _: Partition) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        Err(nobody())
    }

    async fn trim(&self, _: Partition, _: Epoch, _: FrameSeq) -> Result<(), JournalError> {
        Err(nobody())
    }

    async fn persisted(&self, _: Partition, _: Epoch, _: FrameSeq) {}
}
