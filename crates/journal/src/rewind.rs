//! Rule E1 for those who read: a log that does not have what was in it has gone back, and says so itself.
//!
//! Nobody's answer is a proof: a leader that is cut off from the others has a shorter log for a while. A
//! write is one. The word that a log has gone back can be stored only behind its last frame, by the same
//! check as every frame; if it is stored below a number that was there before, that number is gone.

use crate::port::{AppendError, Journal, JournalError, Tip};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_wire::frame::{Body, Frame, rewound};

/// Attempts to be the next writer of a log that somebody else writes as well.
const ATTEMPTS: usize = 64;

/// What was seen of a log that it should still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The highest frame that was there.
    pub seen: FrameSeq,
    /// Whether another frame stands at number `seen` now, so that the log is no longer shorter.
    pub replaced: bool,
}

/// What a log says of having gone back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The first number whose frame may be lost.
    pub lost_from: FrameSeq,
    /// The highest number that is known to have been there.
    pub seen: FrameSeq,
}

/// What the end of the partition's log says.
///
/// # Errors
/// [`JournalError`].
pub async fn told(
    journal: &dyn Journal,
    partition: Partition,
    tip: Tip,
) -> Result<Option<Rewound>, JournalError> {
    Ok(match end(journal, partition, tip).await? {
        Some(Body::Rewound { lost_from, seen }) => {
            Some(Rewound { epoch: tip.epoch, lost_from, seen })
        }
        _ => None,
    })
}

/// The last frame, if it is there and can be read.
async fn end(
    journal: &dyn Journal,
    partition: Partition,
    tip: Tip,
) -> Result<Option<Body>, JournalError> {
    let last = journal.frame(partition, tip.epoch, tip.last).await?;
    Ok(last.and_then(|frame| Frame::decode(&frame.bytes).ok()).map(|frame| frame.body))
}

/// Lets the log say that it has gone back, if it has: `true` if it does, then or already. `false` proves
/// nothing; it is asked again later.
///
/// # Errors
/// [`JournalError`].
pub async fn prove(
    journal: &dyn Journal,
    partition: Partition,
    evidence: Evidence,
) -> Result<bool, JournalError> {
    let Evidence { epoch, seen, replaced } = evidence;
    for _ in 0..ATTEMPTS {
        let tip = journal.tip(partition).await?;
        let is_there = tip.epoch == epoch && tip.last >= seen && !replaced;
        if tip.epoch > epoch || is_there {
            return Ok(false);
        }
        match end(journal, partition, tip).await? {
            Some(Body::Rewound { seen: told, .. }) if told >= seen => return Ok(true),
            // The epoch is over; the next one has yet to be made, perhaps again.
            Some(Body::Close { next, first_seq, .. }) => {
                journal.begin(partition, next, first_seq).await?;
                continue;
            }
            _ => {}
        }
        let replaced = replaced && tip.epoch == epoch;
        let lost_from = if replaced { seen + 1 } else { tip.last + 1 };
        let frame = rewound(lost_from, seen.max(tip.last));
        match journal.append(partition, tip.epoch, tip.last, frame).await {
            Ok(_) => return Ok(true),
            // Somebody writes it: a moment later, from where it stands then.
            Err(AppendError::WrongLast { .. }) => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}
