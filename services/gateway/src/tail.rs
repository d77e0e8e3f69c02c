//! Follows one partition's log and hands every frame to its feed, in order and once.
//!
//! The rule: the next frame is `last + 1`, or it is repaired first. The live subject may drop, repeat
//! or fall silent; a hole is seen by the sequence numbers, a lost last frame by comparing with the
//! journal's tip every second and whenever the journal says that something may have been lost.

use crate::hub::{Feed, RecentFrame, Standing};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::FrameSeq;
use stormwire_core::faults::{Fault, injected};
use stormwire_journal::rewind::{self, Evidence};
use stormwire_journal::{Journal, JournalError, StoredFrame, TailEvent, Tip};
use stormwire_telemetry::metrics as names;
use stormwire_wire::frame::{Body, Frame, FrameError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the tip is compared.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a tail nobody needs goes on, so that a reconnecting client finds it running.
const LINGER: Duration = Duration::from_secs(60);
/// Frames and bytes read at once for a repair.
const REPAIR_FRAMES: usize = 256;
const REPAIR_BYTES: usize = 8 * 1024 * 1024;
/// Frames of the past that a new tail begins with.
const PRIME_FRAMES: u64 = 64;

/// Why a tail cannot go on as it is.
#[derive(Debug, thiserror::Error)]
enum TailError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("frame {seq} of partition {partition}: {error}")]
    Frame { partition: u16, seq: FrameSeq, error: FrameError },
    #[error("the journal answers with a shorter log: frame {due} was seen, its last is {last}")]
    Behind { due: FrameSeq, last: FrameSeq },
    #[error(
        "the journal has gone back: frame {seen} was delivered and is not there; an operator has to begin a new epoch"
    )]
    Rewound { seen: FrameSeq },
    #[error("the journal's live frames ended")]
    Ended,
}

/// Follows the partition whenever its feed is wanted, until `shutdown`.
pub(crate) async fn run(feed: Arc<Feed>, journal: Arc<dyn Journal>, shutdown: CancellationToken) {
    let mut failures = 0u32;
    loop {
        let wanted = async {
            while !feed.is_wanted() {
                feed.wanted.notified().await;
            }
        };
        tokio::select! {
            () = wanted => {}
            () = shutdown.cancelled() => break,
        }
        let result = tokio::select! {
            result = follow(&feed, &*journal) => result,
            () = shutdown.cancelled() => break,
        };
        match result {
            Ok(()) => {
                failures = 0;
                feed.stop();
            }
            Err(error) => {
                failures += 1;
                let wait = Duration::from_millis(100 << failures.min(6));
                metrics::counter!(names::TAIL_FAILURES).increment(1);
                tracing::warn!(partition = feed.partition.0, error = %error, retry_ms = wait.as_millis(), "tail interrupted");
                if matches!(error, TailError::Frame { error: FrameError::NewerVersion(_), .. }) {
                    feed.move_away();
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shutdown.cancelled() => break,
                }
            }
        }
    }
    feed.stop();
}

/// One life of a tail. Ends well when nobody has needed it for a while.
async fn follow(feed: &Feed, journal: &dyn Journal) -> Result<(), TailError> {
    let mut live = journal.tail(&[feed.partition]).await?;
    let tip = journal.open(feed.partition).await?;
    begin(feed, journal, tip).await?;
    let mut check = tokio::time::interval(CHECK_EVERY);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut needed = Instant::now();
    loop {
        tokio::select! {
            biased;
            event = live.next() => match event {
                Some(TailEvent::Frame(frame)) => on_frame(feed, journal, frame).await?,
                Some(TailEvent::Check) => compare(feed, journal, Look::Closely).await?,
                None => return Err(TailError::Ended),
            },
            _ = check.tick() => {
                if feed.is_wanted() {
                    needed = Instant::now();
                    compare(feed, journal, Look::AtTheTip).await?;
                } else if needed.elapsed() > LINGER {
                    return Ok(());
                }
            }
        }
    }
}

/// Takes a place in the log: where it was before an interruption, else the tip.
async fn begin(feed: &Feed, journal: &dyn Journal, tip: Tip) -> Result<(), TailError> {
    if feed.standing().is_some() {
        return catch_up(feed, journal, tip, Look::Closely).await;
    }
    feed.start(Standing { epoch: tip.epoch, last: tip.last });
    let from = tip.first.max((tip.last + 1).saturating_sub(PRIME_FRAMES)).max(1);
    if from <= tip.last {
        let frames = usize::try_from(PRIME_FRAMES).unwrap_or(usize::MAX);
        let past = journal.read(feed.partition, tip.epoch, from, frames, REPAIR_BYTES).await?;
        let past: Vec<_> = past.into_iter().map_while(recent).collect();
        feed.prime(past.into_iter().filter(|frame| frame.seq <= tip.last));
    }
    Ok(())
}

fn recent(stored: StoredFrame) -> Option<RecentFrame> {
    let frame = Frame::decode(&stored.bytes).ok()?;
    let bytes = stored.bytes.len();
    Some(RecentFrame { seq: stored.seq, ts: stored.ts, events: frame.events().cloned(), bytes })
}

async fn on_frame(feed: &Feed, journal: &dyn Journal, frame: StoredFrame) -> Result<(), TailError> {
    let Some(standing) = feed.standing() else { return Ok(()) };
    if frame.epoch != standing.epoch {
        return compare(feed, journal, Look::AtTheTip).await;
    }
    if frame.seq <= standing.last {
        // A frame that was repaired comes late; the end of a log that has gone back comes again.
        let body = Frame::decode(&frame.bytes).map(|frame| frame.body);
        if matches!(body, Ok(Body::Rewound { .. } | Body::Close { .. })) {
            return compare(feed, journal, Look::Closely).await;
        }
        return Ok(());
    }
    if frame.seq > standing.last + 1 && !injected(Fault::ContiguityCheckOff) {
        metrics::counter!(names::TAIL_REPAIRS).increment(1);
        repair(feed, journal, frame.seq - 1).await?;
        // What was read may have reached past this frame, or over the end of its epoch.
        if feed.standing().is_none_or(|now| now.epoch != frame.epoch || now.last + 1 != frame.seq) {
            return Ok(());
        }
    }
    deliver(feed, &frame)
}

/// How much is compared: the number of the last frame, or also who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    AtTheTip,
    Closely,
}

/// Compares with the journal's tip and repairs what the live subject has lost.
async fn compare(feed: &Feed, journal: &dyn Journal, look: Look) -> Result<(), TailError> {
    let tip = journal.tip(feed.partition).await?;
    catch_up(feed, journal, tip, look).await
}

/// Brings the feed to `tip`, over the ends of epochs.
async fn catch_up(
    feed: &Feed,
    journal: &dyn Journal,
    tip: Tip,
    look: Look,
) -> Result<(), TailError> {
    while let Some(standing) = feed.standing() {
        if standing.epoch >= tip.epoch {
            let evidence = gone_back(feed, journal, standing, tip, look).await?;
            let Some(evidence) = evidence else { return repair(feed, journal, tip.last).await };
            // APPENDER E1: whoever remembers lets the log itself say it; who writes it then stops.
            return Err(if rewind::prove(journal, feed.partition, evidence).await? {
                TailError::Rewound { seen: standing.last }
            } else {
                TailError::Behind { due: standing.last, last: tip.last }
            });
        }
        let logs = journal.epochs(feed.partition).await?;
        let log = logs.iter().find(|log| log.epoch == standing.epoch);
        let next = logs.iter().find(|log| log.epoch > standing.epoch);
        match (log, next) {
            (Some(log), _) if log.last > standing.last => {
                repair(feed, journal, log.last).await?;
            }
            // Its close was not among the frames behind what was delivered: something is lost, and the
            // reader tells it to whoever was live.
            (_, Some(next)) => {
                feed.skip_to(Standing { epoch: next.epoch, last: next.first.saturating_sub(1) });
            }
            (_, None) => return Ok(()),
        }
    }
    Ok(())
}

/// Whether the log lacks what was delivered, as far as its leader says.
async fn gone_back(
    feed: &Feed,
    journal: &dyn Journal,
    standing: Standing,
    tip: Tip,
    look: Look,
) -> Result<Option<Evidence>, JournalError> {
    let Standing { epoch, last: seen } = standing;
    if tip.epoch < epoch || tip.last < seen {
        return Ok(Some(Evidence { epoch, seen, replaced: false }));
    }
    let (Look::Closely, Some(known)) = (look, feed.last_id()) else { return Ok(None) };
    let found = journal.frame(feed.partition, epoch, seen).await?;
    let found = found.and_then(|frame| Frame::peek_id(&frame.bytes).ok());
    let replaced = found.is_some_and(|found| found != known);
    Ok(replaced.then_some(Evidence { epoch, seen, replaced }))
}

/// Reads and delivers every frame up to `through`. A frame that the journal no longer has is not
/// skipped silently: whoever is live is parked, and the reader gives it to them from the archive. Ends
/// as well with the epoch.
async fn repair(feed: &Feed, journal: &dyn Journal, through: FrameSeq) -> Result<(), TailError> {
    let Some(Standing { epoch, .. }) = feed.standing() else { return Ok(()) };
    let here = || feed.standing().filter(|standing| standing.epoch == epoch);
    loop {
        let Some(standing) = here().filter(|standing| standing.last < through) else {
            return Ok(());
        };
        if injected(Fault::HoleRepairOff) {
            feed.start(Standing { epoch: standing.epoch, last: through });
            return Ok(());
        }
        let due = standing.last + 1;
        let frames =
            journal.read(feed.partition, standing.epoch, due, REPAIR_FRAMES, REPAIR_BYTES).await?;
        for frame in &frames {
            let Some(Standing { last, .. }) = here() else { return Ok(()) };
            if frame.seq == last + 1 {
                deliver(feed, frame)?;
            } else if frame.seq > last + 1 {
                break;
            }
        }
        if here().is_none_or(|now| now.last >= due) {
            continue;
        }
        // Nothing at `due`: ask the one who knows before calling it gone.
        if let Some(frame) = journal.frame(feed.partition, standing.epoch, due).await? {
            deliver(feed, &frame)?;
            continue;
        }
        let logs = journal.epochs(feed.partition).await?;
        let log = logs.iter().find(|log| log.epoch == epoch);
        let Some(tip) = log.filter(|log| log.last >= due) else {
            return Err(TailError::Behind { due, last: log.map_or(0, |log| log.last) });
        };
        tracing::warn!(
            partition = feed.partition.0,
            frame = due,
            first = tip.first,
            "frame left the journal before it was delivered; readers go through the archive"
        );
        let last = frames.first().map_or(tip.last, |frame| frame.seq - 1).max(due);
        feed.skip_to(Standing { epoch: standing.epoch, last });
    }
}

fn deliver(feed: &Feed, stored: &StoredFrame) -> Result<(), TailError> {
    match Frame::decode(&stored.bytes) {
        Ok(Frame { body: Body::Close { next, first_seq, lost_from }, .. }) => {
            let standing = Standing { epoch: next, last: first_seq.saturating_sub(1) };
            tracing::info!(partition = feed.partition.0, epoch = %next, first_seq, "a new epoch begins");
            if lost_from.is_some() {
                // Whoever was live is told of the gap by the reader, which reads the close itself.
                feed.skip_to(standing);
            } else {
                feed.start(standing);
            }
        }
        Ok(frame) => feed.deliver(stored.seq, stored.ts, &frame, stored.bytes.len()),
        // A newer program wrote it: stop here, never skip.
        Err(error @ FrameError::NewerVersion(_)) => {
            let partition = feed.partition.0;
            return Err(TailError::Frame { partition, seq: stored.seq, error });
        }
        // Nobody can read it: the worker makes it a dead letter and a gap. Whoever is live learns of
        // that gap from the archive.
        Err(error) => {
            tracing::error!(partition = feed.partition.0, frame = stored.seq, %error, "frame cannot be read");
            feed.skip_to(Standing { epoch: stored.epoch, last: stored.seq });
        }
    }
    Ok(())
}
