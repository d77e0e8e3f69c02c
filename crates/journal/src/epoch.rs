//! Rules E2 and E3: how an epoch ends and the next one begins.
//!
//! An epoch is ended in its own log, by a close frame that is written by the same check as every frame:
//! whoever writes the log is fenced by it, and whoever reads it is led on. Only then is the next log made;
//! whoever finds a close at the end of the highest log may make it, so that an operator's command may be
//! killed between its steps, or run twice.

use crate::port::{AppendError, Journal, JournalError, Tail, TailEvent, Tip};
use futures::{FutureExt as _, StreamExt as _};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_wire::frame::{Body, Frame, FrameId, close};

/// How far above every number that is known to have been handed out the next epoch begins: what was
/// acknowledged, is lost and is remembered by nobody lies below it as well.
pub const MARGIN: FrameSeq = 1 << 20;
/// Frames at a log's end among which the word is looked for that it has gone back.
const END_FRAMES: u64 = 64;
/// Bytes of them that are read at once.
const END_BYTES: usize = 8 << 20;
/// Attempts to be the next writer of a log that somebody else writes as well.
const ATTEMPTS: usize = 256;
/// How long the next frame of a log that somebody writes is awaited.
const LIVE_WITHIN: Duration = Duration::from_millis(100);
/// Attempts while the log takes nothing, and the pause between them.
const REFUSALS: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// A new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The epoch that is over.
    pub ended: Epoch,
    /// Its last frame of its own.
    pub last: FrameSeq,
    /// The first number whose frame may be lost, where the log had gone back.
    pub lost_from: Option<FrameSeq>,
    /// The epoch that has begun.
    pub epoch: Epoch,
    /// The number of its first frame.
    pub first: FrameSeq,
    /// Whether the log that is over was removed because it could not be closed.
    pub discarded: bool,
}

/// Why no new epoch has begun.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The journal does not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log takes no close frame.
    #[error("the log of epoch {epoch} cannot be closed: {error}")]
    NotClosed {
        /// Which.
        epoch: Epoch,
        /// What the last attempt said.
        error: AppendError,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct NewEpoch {
    /// How far the archive has the partition.
    pub archived: Option<(Epoch, FrameSeq)>,
    /// Who writes the close frame; never used before.
    pub id: FrameId,
    /// Whether a log that cannot be closed is removed, with all that it holds.
    pub discard: bool,
}

/// Ends the current epoch and begins the next one, or finishes what was begun.
///
/// # Errors
/// [`EpochError`]. It may be tried again.
pub async fn begin_next(
    journal: &dyn Journal,
    partition: Partition,
    new: NewEpoch,
) -> Result<Begun, EpochError> {
    let mut refusals = 0;
    let mut refused = AppendError::Unknown("somebody writes it all the time".to_owned());
    let mut live = None;
    for _ in 0..ATTEMPTS {
        let mut tip = journal.open(partition).await?;
        let end = End::read(journal, partition, tip).await?;
        if let Some((epoch, first, lost_from)) = end.closed {
            journal.begin(partition, epoch, first).await?;
            let (ended, last) = (tip.epoch, tip.last - 1);
            return Ok(Begun { ended, last, lost_from, epoch, first, discarded: false });
        }
        if let Some(live) = &mut live {
            // Somebody writes: what is asked for is old when it is answered, so the next frame is awaited.
            catch_up(live, &mut tip).await;
        }
        let (epoch, first, lost_from) = end.next(tip, new.archived);
        let frame = close(new.id, epoch, first, lost_from);
        match journal.append(partition, tip.epoch, tip.last, frame).await {
            Ok(_) => continue,
            Err(AppendError::WrongLast { .. }) => {
                if live.is_none() {
                    live = Some(journal.tail(&[partition]).await?);
                }
                continue;
            }
            // It may have been stored: the log's end tells.
            Err(error) => refused = error,
        }
        refusals += 1;
        if refusals < REFUSALS {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if !new.discard {
            return Err(EpochError::NotClosed { epoch: tip.epoch, error: refused });
        }
        // The next log first: with none at all, whoever claims would begin with epoch 1 again.
        journal.begin(partition, epoch, first).await?;
        journal.remove(partition, tip.epoch).await?;
        let (ended, last) = (tip.epoch, tip.last);
        return Ok(Begun { ended, last, lost_from, epoch, first, discarded: true });
    }
    let tip = journal.open(partition).await?;
    Err(EpochError::NotClosed { epoch: tip.epoch, error: refused })
}

/// Moves `tip` over the live frames that follow it, the next one awaited for [`LIVE_WITHIN`]. Stops where
/// one says something of the log's end, or is missing: the log must be read then.
async fn catch_up(live: &mut Tail, tip: &mut Tip) {
    let begun = tip.last;
    loop {
        let event = match live.next().now_or_never() {
            None if tip.last > begun => return,
            None => tokio::time::timeout(LIVE_WITHIN, live.next()).await.unwrap_or_default(),
            Some(event) => event,
        };
        let Some(TailEvent::Frame(frame)) = event else { return };
        if frame.epoch == tip.epoch && frame.seq <= tip.last {
            continue;
        }
        let body = Frame::decode(&frame.bytes).map(|decoded| decoded.body);
        let is_word = matches!(body, Ok(Body::Close { .. } | Body::Rewound { .. }));
        if is_word || frame.epoch != tip.epoch || frame.seq != tip.last + 1 {
            return;
        }
        tip.last = frame.seq;
    }
}

/// What the last frames of a log say.
#[derive(Debug, Default)]
struct End {
    closed: Option<(Epoch, FrameSeq, Option<FrameSeq>)>,
    lost_from: Option<FrameSeq>,
    seen: FrameSeq,
}

impl End {
    async fn read(
        journal: &dyn Journal,
        partition: Partition,
        tip: Tip,
    ) -> Result<Self, JournalError> {
        let mut end = Self::default();
        let from = tip.first.max((tip.last + 1).saturating_sub(END_FRAMES)).max(1);
        let most = usize::try_from(END_FRAMES).unwrap_or(usize::MAX);
        let page = journal.read(partition, tip.epoch, from, most, END_BYTES).await?;
        let mut page = page.into_iter().peekable();
        // A frame of an attempt of long ago may have landed behind the word, so not only the last one says it.
        for seq in from..=tip.last {
            let frame = match page.next_if(|frame| frame.seq == seq) {
                Some(frame) => Some(frame),
                // Whoever gave the page may be behind.
                None => journal.frame(partition, tip.epoch, seq).await?,
            };
            match frame.and_then(|frame| Frame::decode(&frame.bytes).ok()).map(|frame| frame.body) {
                Some(Body::Close { next, first_seq, lost_from }) if seq == tip.last => {
                    end.closed = Some((next, first_seq, lost_from));
                }
                Some(Body::Rewound { lost_from, seen }) => {
                    end.seen = end.seen.max(seen);
                    end.lost_from =
                        Some(end.lost_from.map_or(lost_from, |from| from.min(lost_from)));
                }
                _ => {}
            }
        }
        Ok(end)
    }

    /// Number, first frame and losses of the epoch that follows.
    fn next(
        &self,
        tip: Tip,
        archived: Option<(Epoch, FrameSeq)>,
    ) -> (Epoch, FrameSeq, Option<FrameSeq>) {
        let (of, persisted) = archived.unwrap_or((tip.epoch, 0));
        let epoch = Epoch(tip.epoch.max(of).0 + 1);
        let highest = tip.last.max(self.seen).max(persisted);
        let behind = of > tip.epoch || (of == tip.epoch && persisted > tip.last);
        let lost_from = self.lost_from.or_else(|| behind.then_some(tip.last + 1));
        (epoch, highest + 1 + MARGIN, lost_from)
    }
}
