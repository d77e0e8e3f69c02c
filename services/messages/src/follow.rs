//! A partition's frames as they come: from the live tail where it goes on without a hole, else read from
//! the journal, and repaired where neither has the next one.

use crate::plan::{Missing, Place, missing, missing_of_ended};
use futures::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{Journal, JournalError, StoredFrame, Tail, TailEvent};
use stormwire_wire::frame::{Frame, FrameId};
use tokio::time::{Instant, sleep, timeout};

/// Most frames asked for at once while something is missing one by one.
const PROBES: u64 = 64;
/// Bounds of the wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Looks at something missing before it is believed to be.
const LOOKS: u32 = 10;

/// What is known about the place that was asked for.
#[derive(Debug)]
pub(crate) enum Found {
    /// It and what follows it, without a hole.
    Frames(Vec<StoredFrame>),
    /// It is missing for good, up to `through`.
    Gap { through: FrameSeq, reason: &'static str },
    /// Its epoch is over without a close frame that could be read; `epoch` begins after `through`.
    Ended { epoch: Epoch, through: FrameSeq },
    /// The log ends before frames that were already read, or has others in their place: to be compared
    /// with the ledger anew.
    Shorter,
}

/// At most so much at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

pub(crate) struct Follow {
    journal: Arc<dyn Journal>,
    partition: Partition,
    check_every: Duration,
    hole_proof: Duration,
    tail: Option<Tail>,
    behind: bool,
    /// The last frame that was read, and whether the journal has said since that it may be another log.
    last: Option<(Epoch, FrameSeq, FrameId)>,
    disturbed: bool,
    /// What was missing at every look since then: this place and all up to this frame.
    doubted: Option<(Place, FrameSeq, Instant)>,
    backoff: Duration,
}

impl Follow {
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        partition: Partition,
        check_every: Duration,
        hole_proof: Duration,
    ) -> Self {
        let (tail, last) = (None, None);
        Self {
            journal,
            partition,
            check_every,
            hole_proof,
            tail,
            behind: true,
            last,
            disturbed: false,
            doubted: None,
            backoff: BACKOFF_MIN,
        }
    }

    /// Waits until something is known about `place`. Takes and returns itself, so that the wait can be
    /// kept while its owner does other things.
    pub(crate) async fn next(mut self, place: Place, page: Page) -> (Self, Found) {
        loop {
            match self.step(place, page).await {
                Ok(Some(found)) => {
                    self.backoff = BACKOFF_MIN;
                    if let Found::Frames(frames) = &found {
                        self.last = frames.last().and_then(|frame| {
                            let id = Frame::peek_id(&frame.bytes).ok()?;
                            Some((frame.epoch, frame.seq, id))
                        });
                    }
                    return (self, found);
                }
                Ok(None) => self.backoff = BACKOFF_MIN,
                Err(error) => {
                    tracing::warn!(partition = self.partition.0, error = %error, "frames could not be read; trying again");
                    self.behind = true;
                    sleep(self.backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn step(&mut self, place: Place, page: Page) -> Result<Option<Found>, JournalError> {
        if self.tail.is_none() {
            // Listening begins before reading, so that nothing falls between the two.
            self.tail = Some(self.journal.tail(&[self.partition]).await?);
            self.behind = true;
        }
        let live = self.live(place, page);
        if !live.is_empty() {
            return Ok(Some(Found::Frames(live)));
        }
        if self.disturbed {
            // E1: a journal that was away may have come back older, and grown since.
            if self.is_another_log().await? {
                return Ok(Some(Found::Shorter));
            }
            self.disturbed = false;
        }
        if self.behind {
            let found = self.read(place, page).await?;
            self.behind = found.is_some();
            return Ok(found);
        }
        self.wait(place).await
    }

    async fn is_another_log(&mut self) -> Result<bool, JournalError> {
        let Some((epoch, seq, id)) = self.last else { return Ok(false) };
        let found = self.journal.frame(self.partition, epoch, seq).await?;
        let found = found.and_then(|frame| Frame::peek_id(&frame.bytes).ok());
        Ok(found.is_some_and(|found| found != id))
    }

    /// What the tail holds ready, as far as it goes on from `place`.
    fn live(&mut self, place: Place, page: Page) -> Vec<StoredFrame> {
        let mut frames = Vec::new();
        let (mut next, mut bytes) = (place.next, 0);
        while frames.len() < page.frames && bytes < page.bytes {
            let Some(tail) = &mut self.tail else { break };
            match tail.next().now_or_never() {
                Some(Some(TailEvent::Frame(frame))) => {
                    if frame.epoch == place.epoch && frame.seq == next {
                        next += 1;
                        bytes += frame.bytes.len();
                        frames.push(frame);
                    } else if frame.epoch > place.epoch || frame.seq > next {
                        self.behind = true;
                        break;
                    }
                }
                Some(Some(TailEvent::Check)) => (self.behind, self.disturbed) = (true, true),
                Some(None) => (self.tail, self.disturbed) = (None, true),
                None => break,
            }
        }
        frames
    }

    async fn read(&mut self, place: Place, page: Page) -> Result<Option<Found>, JournalError> {
        let Place { epoch, next } = place;
        let mut frames =
            self.journal.read(self.partition, epoch, next, page.frames, page.bytes).await?;
        let due = frames.iter().zip(next..).take_while(|(frame, seq)| frame.seq == *seq).count();
        frames.truncate(due);
        if !frames.is_empty() {
            return Ok(Some(Found::Frames(frames)));
        }
        match self.state_of(place).await? {
            Missing::NotYet => {
                self.doubted = None;
                Ok(None)
            }
            Missing::Shorter => Ok(Some(Found::Shorter)),
            Missing::Trimmed(through) => Ok(Some(Found::Gap { through, reason: "trimmed" })),
            Missing::Ended { epoch: present, through } => {
                match self.journal.frame(self.partition, epoch, next).await? {
                    Some(frame) => Ok(Some(Found::Frames(vec![frame]))),
                    None => {
                        let believed = self.believe(place, next).await.is_some();
                        Ok(believed.then_some(Found::Ended { epoch: present, through }))
                    }
                }
            }
            Missing::Hole => self.prove(place).await,
        }
    }

    /// What it means that the next frame is not there, by the word of those who may write the logs.
    async fn state_of(&mut self, place: Place) -> Result<Missing, JournalError> {
        let tip = self.journal.tip(self.partition).await?;
        if place.epoch < tip.epoch {
            let logs = self.journal.epochs(self.partition).await?;
            return Ok(missing_of_ended(place, &logs));
        }
        Ok(missing(place, tip))
    }

    /// Asks the leader for each of the next frames: what it does not have although it has later ones is
    /// a hole, unless it was trimmed while we asked, and if that stays so.
    async fn prove(&mut self, place: Place) -> Result<Option<Found>, JournalError> {
        let logs = self.journal.epochs(self.partition).await?;
        let log = logs.iter().find(|log| log.epoch == place.epoch);
        let last = log.map_or(0, |log| log.last);
        let mut through = place.next - 1;
        for seq in place.next..=last.min(place.next + PROBES - 1) {
            match self.journal.frame(self.partition, place.epoch, seq).await? {
                Some(frame) if seq == place.next => return Ok(Some(Found::Frames(vec![frame]))),
                Some(_) => break,
                None => through = seq,
            }
        }
        if through < place.next {
            return Ok(None);
        }
        Ok(match self.state_of(place).await? {
            Missing::Trimmed(through) => Some(Found::Gap { through, reason: "trimmed" }),
            Missing::Hole => {
                let believed = self.believe(place, through).await;
                believed.map(|through| Found::Gap { through, reason: "hole" })
            }
            // The log is shorter or another than a moment ago: look again.
            Missing::Ended { .. } | Missing::NotYet | Missing::Shorter => {
                self.doubted = None;
                None
            }
        })
    }

    /// An old leader that is cut off from the others may answer one question, and the new one the next:
    /// then "it has later ones, and not this one" was said by two. What is called missing is never
    /// stored, so it is believed only when it was so at every look for longer than an old leader lasts.
    async fn believe(&mut self, place: Place, through: FrameSeq) -> Option<FrameSeq> {
        let (through, since) = match self.doubted {
            Some((doubted, so_far, since)) if doubted == place => (through.min(so_far), since),
            _ => (through, Instant::now()),
        };
        self.doubted = Some((place, through, since));
        if since.elapsed() >= self.hole_proof {
            return Some(through);
        }
        sleep(self.hole_proof / LOOKS).await;
        None
    }

    /// Waits for the tail, or until it is time to compare with the tip: a lost last message is announced
    /// by nothing else.
    async fn wait(&mut self, place: Place) -> Result<Option<Found>, JournalError> {
        let Some(tail) = &mut self.tail else { return Ok(None) };
        match timeout(self.check_every, tail.next()).await {
            Ok(Some(TailEvent::Frame(frame))) => {
                if frame.epoch == place.epoch && frame.seq == place.next {
                    return Ok(Some(Found::Frames(vec![frame])));
                }
                self.behind = frame.epoch != place.epoch || frame.seq > place.next;
            }
            Ok(Some(TailEvent::Check)) => (self.behind, self.disturbed) = (true, true),
            Ok(None) => (self.tail, self.disturbed) = (None, true),
            Err(_) => self.behind = self.state_of(place).await? != Missing::NotYet,
        }
        Ok(None)
    }
}
