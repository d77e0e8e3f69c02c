//! One partition: from the ledger, through batches, back to the ledger whenever something is in doubt.

use crate::config::MessagesConfig;
use crate::follow::{Follow, Found, Page};
use crate::plan::{Pending, Place, Prepared, REWOUND, Start, Stop, is_same, start};
use crate::progress::Progress;
use crate::trace;
use crate::trim;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics::{counter, gauge, histogram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stormwire_archive::{Archive, ArchiveError, Lease, LedgerEntry, PersistError};
use stormwire_core::{Clock, Epoch};
use stormwire_journal::rewind::{self, Evidence};
use stormwire_journal::{Journal, JournalError};
use stormwire_telemetry::metrics as names;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How often a stopped partition is looked at again.
const STOPPED_RETRY: Duration = Duration::from_secs(5);
/// How often, and how long between, a journal that seems to have gone back is asked before that is
/// believed: a leader cut off from the others has a shorter log for some seconds.
const BEHIND_LOOKS: usize = 8;
const BEHIND_PAUSE: Duration = Duration::from_secs(1);
/// Bounds of the wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Most frames of one read.
const FRAMES_A_READ: usize = 512;
/// Failures in a row shrink a batch to 1 / 2^12: whatever made it fail is not made worse by its size.
const SHRINK_MAX: u32 = 12;

/// The work on one partition.
pub(crate) struct Work {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<MessagesConfig>,
    pub(crate) lease: Lease,
    pub(crate) progress: Progress,
    pub(crate) shrink: AtomicU32,
}

/// How a stretch of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Asked to.
    Cancelled,
    /// Another worker has the partition.
    LeaseLost,
    /// In doubt: begin again from the ledger, at once if the ledger has moved.
    Again { at_once: bool },
    /// Not further before somebody acts.
    Stopped(Stop),
}

impl Work {
    /// Works until cancelled or until the lease is lost. Lag is told and the journal trimmed meanwhile,
    /// also while the archive is away.
    pub(crate) async fn run(self, token: CancellationToken) {
        tokio::select! {
            () = self.persist(&token) => {}
            () = self.trim() => {}
        }
    }

    async fn persist(&self, token: &CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        let mut alarm = Alarm { work: self, raised: None };
        loop {
            let started = Instant::now();
            let ended = match self.stretch(token, &mut alarm).await {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::warn!(partition = self.lease.partition.0, error = %error, "cannot persist now; trying again");
                    Ended::Again { at_once: false }
                }
            };
            let pause = match ended {
                Ended::Cancelled | Ended::LeaseLost => return,
                Ended::Again { at_once: true } => Duration::ZERO,
                Ended::Again { at_once: false } => {
                    if started.elapsed() > BACKOFF_MAX {
                        backoff = BACKOFF_MIN;
                    }
                    let pause = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    pause
                }
                Ended::Stopped(stop) => {
                    alarm.raise(stop);
                    STOPPED_RETRY
                }
            };
            if token.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn stretch(
        &self,
        token: &CancellationToken,
        alarm: &mut Alarm<'_>,
    ) -> Result<Ended, Doubt> {
        let place = match self.begin(token).await? {
            Begin::At(place) => place,
            Begin::Ended(ended) => return Ok(ended),
        };
        let (out, batches) = mpsc::channel(1);
        let mut commit = std::pin::pin!(self.commit(batches, alarm));
        let ended = tokio::select! {
            ended = &mut commit => ended.unwrap_or(Ended::Cancelled),
            ended = self.gather(place, out, token) => commit.await.unwrap_or(ended),
        };
        self.progress.doubt();
        Ok(ended)
    }

    /// Ledger, tip, and whether they belong together.
    async fn begin(&self, token: &CancellationToken) -> Result<Begin, Doubt> {
        let partition = self.lease.partition;
        for _ in 0..BEHIND_LOOKS {
            let ledger = self.archive.ledger(partition).await?;
            let tip = match self.journal.open(partition).await {
                Err(error @ JournalError::Settings { .. }) => {
                    tracing::error!(error = %error, "a log has other settings");
                    return Ok(Begin::Ended(Ended::Stopped(Stop::Settings)));
                }
                tip => tip?,
            };
            let Start::At { place, verify } = start(ledger, tip) else {
                if let Some(ledger) = ledger
                    && self.is_proved_rewound(ledger, false).await?
                {
                    return Ok(Begin::Ended(Ended::Stopped(Stop::Rewound)));
                }
                if token.run_until_cancelled(sleep(BEHIND_PAUSE)).await.is_none() {
                    return Ok(Begin::Ended(Ended::Cancelled));
                }
                continue;
            };
            if let (Some(seq), Some(ledger)) = (verify, ledger) {
                let found = self.journal.frame(partition, ledger.epoch, seq).await?;
                if !is_same(ledger.last_frame, found.as_ref().map(|frame| &frame.bytes)) {
                    self.is_proved_rewound(ledger, true).await?;
                    return Ok(Begin::Ended(Ended::Stopped(Stop::Rewound)));
                }
            }
            let last = place.next - 1;
            self.progress.begin(place.epoch, last, tip, self.clock.now());
            return Ok(Begin::At(place));
        }
        // A shorter log that nobody can write is no proof: whoever answers may be cut off from the others.
        Ok(Begin::Ended(Ended::Again { at_once: false }))
    }

    /// E1: lets the log say that it has gone back behind the ledger, so that nobody writes it further.
    async fn is_proved_rewound(
        &self,
        ledger: LedgerEntry,
        replaced: bool,
    ) -> Result<bool, JournalError> {
        let evidence = Evidence { epoch: ledger.epoch, seen: ledger.last_seq, replaced };
        rewind::prove(&*self.journal, self.lease.partition, evidence).await
    }

    /// Gathers frames into batches while earlier ones are committed. One batch waits in `out`, one grows
    /// here: nothing else is held.
    async fn gather(
        &self,
        place: Place,
        out: mpsc::Sender<Prepared>,
        token: &CancellationToken,
    ) -> Ended {
        let MessagesConfig { check_every, hole_proof, .. } = *self.config;
        let journal = Arc::clone(&self.journal);
        let follow = Follow::new(journal, self.lease.partition, check_every, hole_proof);
        let mut idle = Some(follow);
        let mut reading: Option<BoxFuture<'_, (Follow, Found)>> = None;
        let mut pending = Pending::at(place);
        loop {
            let shrink = self.shrink.load(Ordering::Relaxed);
            let events = (self.config.batch_events >> shrink).max(1);
            let bytes = (self.config.batch_bytes >> shrink).max(1);
            if pending.has_room(events, bytes)
                && let Some(follow) = idle.take()
            {
                let page = Page { frames: (FRAMES_A_READ >> shrink).max(1), bytes };
                reading = Some(follow.next(pending.place(), page).boxed());
            }
            if let (Some(stop), true) = (pending.stop(), pending.is_empty()) {
                return Ended::Stopped(stop);
            }
            tokio::select! {
                () = token.cancelled() => return Ended::Cancelled,
                permit = out.reserve(), if !pending.is_empty() => match permit {
                    Ok(permit) => permit.send(pending.take()),
                    Err(_) => return Ended::Cancelled,
                },
                Some((follow, found)) = conditional(&mut reading), if reading.is_some() => {
                    (reading, idle) = (None, Some(follow));
                    if matches!(found, Found::Shorter) {
                        return Ended::Again { at_once: false };
                    }
                    add(&mut pending, found);
                }
            }
        }
    }

    /// Commits batches in order; `None` when there are no more.
    async fn commit(
        &self,
        mut batches: mpsc::Receiver<Prepared>,
        alarm: &mut Alarm<'_>,
    ) -> Option<Ended> {
        let partition = self.lease.partition;
        while let Some(prepared) = batches.recv().await {
            let started = Instant::now();
            self.progress.begun(prepared.oldest);
            let span = trace::span(partition.0, &prepared);
            let Prepared { batch, events, bytes, newest, .. } = prepared;
            if let Err(error) = self.archive.persist(&self.lease, &batch).instrument(span).await {
                return Some(self.refused(&error));
            }
            alarm.clear();
            self.shrunk(|shrink| shrink.saturating_sub(1));
            self.progress.stored(batch.epoch, batch.through, newest, bytes);
            counter!(names::PERSIST_EVENTS).increment(events as u64);
            for gap in &batch.gaps {
                let reason = match gap.reason.as_str() {
                    "hole" => "hole",
                    REWOUND => "rewound",
                    _ => "trimmed",
                };
                counter!(names::PERSIST_GAPS, "reason" => reason).increment(1);
                tracing::warn!(
                    partition = partition.0,
                    from = gap.from.0,
                    to = gap.to.0,
                    reason,
                    "a stretch of the log is missing"
                );
            }
            histogram!(names::PERSIST_BATCH_EVENTS).record(events as f64);
            histogram!(names::PERSIST_BATCH_SECONDS).record(started.elapsed().as_secs_f64());
            self.journal.persisted(partition, batch.epoch, batch.through).await;
        }
        None
    }

    fn refused(&self, error: &PersistError) -> Ended {
        let partition = self.lease.partition.0;
        let (reason, ended) = match error {
            PersistError::LeaseLost(_) => ("lease_lost", Ended::LeaseLost),
            PersistError::LedgerMoved { .. } => ("ledger_moved", Ended::Again { at_once: true }),
            PersistError::Archive(_) => {
                self.shrunk(|shrink| (shrink + 1).min(SHRINK_MAX));
                ("unavailable", Ended::Again { at_once: false })
            }
        };
        counter!(names::PERSIST_FAILURES, "reason" => reason).increment(1);
        tracing::warn!(partition, reason, error = %error, "a batch was not stored");
        ended
    }

    fn shrunk(&self, change: impl Fn(u32) -> u32) {
        self.shrink.store(change(self.shrink.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Trims the journal from time to time, for ever.
    async fn trim(&self) {
        let partition = self.lease.partition;
        let mut every = interval(self.config.trim_every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The epoch beside which there is no other log.
        let mut single = None;
        loop {
            every.tick().await;
            let Ok(tip) = self.journal.tip(partition).await else { continue };
            if single != Some(tip.epoch) && self.retire(tip.epoch).await.is_ok_and(|left| !left) {
                single = Some(tip.epoch);
            }
            let Ok(saved) = self.journal.saved_through(partition).await else { continue };
            let window = self.config.recovery_window;
            let copied = self.archive.replicated(partition).await;
            let needed = trim::needed_by_claims(saved, tip.epoch);
            let needed = needed.min(trim::needed_by_the_copy(&copied, tip.epoch));
            let now = self.clock.now();
            let Some(through) = self.progress.trim(tip, needed, now, window) else { continue };
            match self.journal.trim(partition, tip.epoch, through).await {
                Ok(()) => tracing::debug!(partition = partition.0, through, "trimmed the journal"),
                Err(error) => {
                    tracing::warn!(partition = partition.0, error = %error, "the journal was not trimmed");
                }
            }
        }
    }
}

impl Work {
    /// E3: removes the logs of epochs that are over, once all of them is persisted, also in the
    /// copy of the archive that must keep all, and older than the recovery window. Says whether there are others than the current one's left.
    async fn retire(&self, current: Epoch) -> Result<bool, JournalError> {
        let partition = self.lease.partition;
        let copied = self.archive.replicated(partition).await;
        let mut left = false;
        for log in self.journal.epochs(partition).await? {
            if log.epoch >= current {
                continue;
            }
            let end = self.journal.frame(partition, log.epoch, log.last).await?;
            let age = end.map_or(Duration::MAX, |end| self.clock.now().since(end.ts));
            let is_persisted = self.progress.is_beyond(log.epoch);
            let window = self.config.recovery_window;
            if !trim::may_go(log.epoch, is_persisted, &copied, age, window) {
                left = true;
                continue;
            }
            self.journal.remove(partition, log.epoch).await?;
            tracing::info!(partition = partition.0, epoch = %log.epoch, "removed the log of an epoch that is over");
        }
        Ok(left)
    }
}

enum Begin {
    At(Place),
    Ended(Ended),
}

/// Why a stretch could not begin.
#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

async fn conditional<T>(future: &mut Option<BoxFuture<'_, T>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

fn add(pending: &mut Pending, found: Found) {
    match found {
        // What is left over after a close or a stop is read again when its turn comes.
        Found::Frames(frames) => {
            for frame in frames {
                if !pending.push(frame) {
                    break;
                }
            }
        }
        Found::Gap { through, reason } => pending.push_gap(through, reason),
        Found::Shorter => {}
        Found::Ended { epoch, through } => {
            pending.step(epoch, through, "the epoch ended without it")
        }
    }
}

/// The metric and the one log line of a stopped partition.
struct Alarm<'a> {
    work: &'a Work,
    raised: Option<Stop>,
}

impl Alarm<'_> {
    fn raise(&mut self, stop: Stop) {
        if self.raised != Some(stop) {
            self.clear();
            let partition = self.work.lease.partition.0;
            tracing::error!(partition, reason = stop.reason(), detail = ?stop, "this partition is not persisted until somebody acts");
            self.raised = Some(stop);
            self.set(stop, 1.0);
        }
    }

    fn clear(&mut self) {
        if let Some(stop) = self.raised.take() {
            self.set(stop, 0.0);
        }
    }

    fn set(&self, stop: Stop, value: f64) {
        let partition = self.work.lease.partition.to_string();
        gauge!(names::PERSIST_STOPPED, "partition" => partition, "reason" => stop.reason())
            .set(value);
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
