//! How far a partition is, for its metrics and for trimming.

use crate::trim::Persisted;
use metrics::gauge;
use parking_lot::Mutex;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::Tip;
use stormwire_telemetry::metrics as names;

/// What the parts of a partition's work share.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    epoch: Epoch,
    ledger: FrameSeq,
    waiting_since: Option<Timestamp>,
    persisted: Persisted,
}

impl Progress {
    pub(crate) fn new(
        partition: Partition,
        epoch: Epoch,
        ledger: FrameSeq,
        tip: Tip,
        now: Timestamp,
    ) -> Self {
        let persisted = Persisted::begin(ledger, tip, now);
        let state = State { epoch, ledger, waiting_since: None, persisted };
        Self { label: partition.to_string(), state: Mutex::new(state) }
    }

    /// A batch whose oldest frame is from `oldest` is on its way.
    pub(crate) fn begun(&self, oldest: Option<Timestamp>) {
        let mut state = self.state.lock();
        state.waiting_since = oldest;
    }

    /// A batch was committed.
    pub(crate) fn stored(
        &self,
        epoch: Epoch,
        through: FrameSeq,
        newest: Option<Timestamp>,
        bytes: usize,
    ) {
        let mut state = self.state.lock();
        (state.epoch, state.ledger, state.waiting_since) = (epoch, through, None);
        if let Some(newest) = newest {
            state.persisted.add(through, newest, bytes as u64);
        }
    }

    /// Publishes backlog and lag, and says what may be trimmed.
    pub(crate) fn trim(&self, tip: Tip, now: Timestamp, window: Duration) -> Option<FrameSeq> {
        let mut state = self.state.lock();
        let backlog =
            if state.epoch == tip.epoch { tip.last.saturating_sub(state.ledger) } else { 0 };
        let lag = state.waiting_since.map_or(Duration::ZERO, |since| now.since(since));
        gauge!(names::PERSIST_BACKLOG_FRAMES, "partition" => self.label.clone())
            .set(backlog as f64);
        gauge!(names::PERSIST_LAG_SECONDS, "partition" => self.label.clone())
            .set(lag.as_secs_f64());
        if state.epoch != tip.epoch {
            return None;
        }
        let ledger = state.ledger;
        state.persisted.trim(ledger, tip, now, window)
    }
}

impl Drop for Progress {
    /// Another worker speaks for the partition from now on.
    fn drop(&mut self) {
        for name in [names::PERSIST_BACKLOG_FRAMES, names::PERSIST_LAG_SECONDS] {
            gauge!(name, "partition" => self.label.clone()).set(0.0);
        }
    }
}
