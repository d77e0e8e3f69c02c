//! How far a partition is, for its metrics and for trimming.

use crate::trim::Persisted;
use metrics::gauge;
use parking_lot::Mutex;
use std::time::Duration;
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::Tip;
use stormwire_telemetry::metrics as names;

/// What the parts of a partition's work share.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The ledger, once it was read.
    ledger: Option<(Epoch, FrameSeq)>,
    /// Whether journal and ledger were compared and nothing has been in doubt since.
    verified: bool,
    waiting_since: Option<Timestamp>,
    persisted: Persisted,
}

impl Progress {
    pub(crate) fn new(partition: Partition) -> Self {
        Self { label: partition.to_string(), state: Mutex::default() }
    }

    /// The ledger was read and fits the journal. Where it says what was known already, nothing is forgotten.
    pub(crate) fn begin(&self, epoch: Epoch, ledger: FrameSeq, tip: Tip, now: Timestamp) {
        let mut state = self.state.lock();
        state.verified = true;
        if state.ledger != Some((epoch, ledger)) {
            state.ledger = Some((epoch, ledger));
            state.persisted = Persisted::begin(ledger, tip, now);
        }
    }

    /// Something is in doubt: nothing is trimmed before the next [`Progress::begin`], since a journal that
    /// has gone back may hold under old numbers what nobody has stored.
    pub(crate) fn doubt(&self) {
        self.state.lock().verified = false;
    }

    /// Whether everything of `epoch` is persisted, and of a later one the beginning.
    pub(crate) fn is_beyond(&self, epoch: Epoch) -> bool {
        let state = self.state.lock();
        state.verified && state.ledger.is_some_and(|(of, _)| of > epoch)
    }

    /// A batch whose oldest frame is from `oldest` is on its way, or tried again.
    pub(crate) fn begun(&self, oldest: Option<Timestamp>) {
        self.state.lock().waiting_since = oldest;
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
        (state.ledger, state.waiting_since) = (Some((epoch, through)), None);
        if let Some(newest) = newest {
            state.persisted.add(through, newest, bytes as u64);
        }
    }

    /// Publishes backlog and lag, and says what may be trimmed: nothing from frame `needed` on.
    pub(crate) fn trim(
        &self,
        tip: Tip,
        needed: FrameSeq,
        now: Timestamp,
        window: Duration,
    ) -> Option<FrameSeq> {
        let mut state = self.state.lock();
        let (epoch, ledger) = state.ledger?;
        let backlog = tip.last.saturating_sub(ledger);
        let since = state.waiting_since.filter(|_| backlog > 0);
        let lag = since.map_or(Duration::ZERO, |since| now.since(since));
        gauge!(names::PERSIST_BACKLOG_FRAMES, "partition" => self.label.clone())
            .set(backlog as f64);
        gauge!(names::PERSIST_LAG_SECONDS, "partition" => self.label.clone())
            .set(lag.as_secs_f64());
        if !state.verified || epoch != tip.epoch || tip.last < ledger {
            return None;
        }
        if injected(Fault::TrimBelowTheLedger) {
            return (tip.last >= tip.first).then_some(tip.last);
        }
        state.persisted.trim(ledger.min(needed), tip, now, window)
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
