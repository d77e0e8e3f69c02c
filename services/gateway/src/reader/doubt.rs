//! What is said to be missing, until it is believed.
//!
//! One that is cut off from the others and may not write the log any more may still answer for a while,
//! and its log ends earlier; beside it the one answers that may. "There are later frames, and not this
//! one" may then have been said by two, and "the log ends here" by the wrong one. What is told as a gap
//! is never given, so it is not believed at once.
//!
//! Who asks for a place has seen it or what stands behind it: what was acknowledged there was acknowledged
//! before the first look. One that leads and lacks it was cut off before that, so that it answers no
//! longer when [`Journal::stale_max`](stormwire_journal::Journal::stale_max) has gone by since: a look that begins
//! later and misses it as well is right. That holds for the place that was asked for and for no other: a
//! look for one place says nothing of what is acknowledged below it later.

use super::{Page, Reader, journal_refusal};
use crate::hub::after_frame;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use stormwire_core::{Epoch, ErrorCode, FrameSeq, Partition, PartitionCount, Position, Refusal};
use tokio::time::Instant;

/// Within the time that is waited for, so often is it worth asking again.
const LOOKS: u32 = 4;
/// Places of a partition that are doubted at the same time; the oldest doubts go.
const DOUBTED_MAX: usize = 1_024;

/// What there is above a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Above {
    /// Frames, or the log may yet come there.
    Something,
    /// Nothing: the log ends here.
    Nothing(Position),
    /// Nothing, by a word that is not proved.
    Doubted(Position),
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// Nothing stands here, though there is something behind it.
    Missing(Epoch, FrameSeq),
    /// The log ends before this.
    EndsBefore(Position),
}

/// The doubts of this process.
#[derive(Debug)]
pub(super) struct Doubts {
    /// Of each partition, with when the answer of the first look had come.
    partitions: Box<[Mutex<BTreeMap<Said, Instant>>]>,
    stale_max: Duration,
}

impl Doubts {
    pub(super) fn new(count: PartitionCount, stale_max: Duration) -> Self {
        Self { partitions: count.all().map(|_| Mutex::default()).collect(), stale_max }
    }

    fn of(&self, partition: Partition) -> MutexGuard<'_, BTreeMap<Said, Instant>> {
        self.partitions[usize::from(partition.0)].lock()
    }

    /// A look that began at `asked` was told this: whether it is believed.
    fn hears(&self, doubts: &mut BTreeMap<Said, Instant>, said: Said, asked: Instant) -> bool {
        let first = *doubts.entry(said).or_insert_with(Instant::now);
        if doubts.len() > DOUBTED_MAX {
            let oldest = doubts.iter().min_by_key(|(_, since)| **since).map(|(said, _)| *said);
            oldest.and_then(|said| doubts.remove(&said));
        }
        asked > first + self.stale_max
    }

    /// The first of the frames `missing`, which a look at `seen` that began at `asked` has called so, that
    /// is not to be called so yet.
    pub(super) fn missing(
        &self,
        partition: Partition,
        (epoch, seen): (Epoch, RangeInclusive<FrameSeq>),
        missing: &[FrameSeq],
        asked: Instant,
    ) -> Option<FrameSeq> {
        if self.stale_max.is_zero() {
            return None;
        }
        let mut doubts = self.of(partition);
        doubts.retain(|said, _| match said {
            Said::Missing(of, seq) => *of != epoch || !seen.contains(seq) || missing.contains(seq),
            Said::EndsBefore(_) => true,
        });
        let mut first = None;
        for seq in missing {
            let believed = self.hears(&mut doubts, Said::Missing(epoch, *seq), asked);
            first = first.or((!believed).then_some(*seq));
        }
        first
    }

    /// A look that began at `asked` found that the log ends before `position`: whether that is believed.
    pub(super) fn ends_before(
        &self,
        partition: Partition,
        position: Position,
        asked: Instant,
    ) -> bool {
        self.stale_max.is_zero()
            || self.hears(&mut self.of(partition), Said::EndsBefore(position), asked)
    }

    /// A look found that the log reaches `position`: whatever was said to end before it was wrong.
    pub(super) fn reaches(&self, partition: Partition, position: Position) {
        self.of(partition).retain(|said, _| match said {
            Said::EndsBefore(above) => *above > position,
            Said::Missing(..) => true,
        });
    }

    /// What is answered meanwhile.
    pub(super) fn refusal(&self) -> Refusal {
        let text = "the journal's servers may not agree at present on where its log ends";
        Refusal::new(ErrorCode::JournalUnavailable, text).retry_after(self.stale_max / LOOKS)
    }
}

impl Reader {
    /// For somebody who stands above what is known here: that is behind, or there is nothing up there.
    pub(super) async fn above(
        &self,
        partition: Partition,
        after: Position,
    ) -> Result<Page, Refusal> {
        let (next, gaps) = match self.end_below(partition, after).await? {
            Above::Nothing(end) => (end, vec![(after, end)]),
            Above::Something => (after, Vec::new()),
            Above::Doubted(_) => return Err(self.doubts.refusal()),
        };
        Ok(Page { next: Some(next), gaps, ..Page::default() })
    }

    /// Whether `position` is above the end of the partition's log, by the word of the one who may write
    /// it. What it says of its end may be older than its newest frame: the frame decides.
    ///
    /// # Errors
    /// `journal_unavailable`.
    pub(crate) async fn end_below(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<Above, Refusal> {
        let asked = Instant::now();
        let tip = self.log(partition).await?;
        let end = after_frame(tip.epoch, tip.last);
        if position <= end {
            self.doubts.reaches(partition, end);
            return Ok(Above::Something);
        }
        let seq = position.offset.seq();
        if position.epoch == tip.epoch {
            let found = self.journal.frame(partition, tip.epoch, seq).await;
            if found.map_err(journal_refusal)?.is_some() {
                self.doubts.reaches(partition, position);
                return Ok(Above::Something);
            }
        }
        let believed = self.doubts.ends_before(partition, position, asked);
        Ok(if believed { Above::Nothing(end) } else { Above::Doubted(end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::Offset;
    use tokio::time::advance;

    const P: Partition = Partition(0);
    const STALE_MAX: Duration = Duration::from_secs(15);

    fn doubts(stale_max: Duration) -> Doubts {
        Doubts::new(PartitionCount::new(1).unwrap(), stale_max)
    }

    /// A look at frames 1 to 9; the first of those missing that is doubted.
    fn look(doubts: &Doubts, missing: &[FrameSeq]) -> Option<FrameSeq> {
        doubts.missing(P, (Epoch::FIRST, 1..=9), missing, Instant::now())
    }

    fn at(seq: FrameSeq) -> Position {
        Position { epoch: Epoch::FIRST, offset: Offset::new(seq, 4095) }
    }

    fn ends_before(doubts: &Doubts, seq: FrameSeq) -> bool {
        doubts.ends_before(P, at(seq), Instant::now())
    }

    /// Comes back as the refusal asks for until `is_believed`; how long that took.
    async fn until(doubts: &Doubts, mut is_believed: impl FnMut() -> bool) -> Duration {
        let begun = Instant::now();
        while !is_believed() {
            advance(doubts.refusal().retry_after.unwrap()).await;
            assert!(begun.elapsed() < STALE_MAX * 3, "it is never believed");
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_missing_when_it_stays_so_for_long_enough() {
        let doubts = doubts(STALE_MAX);
        // Many looks at once are one.
        assert!((0..100).all(|_| look(&doubts, &[4, 5]) == Some(4)));
        let took = until(&doubts, || look(&doubts, &[4, 5]).is_none()).await;
        assert!(took > STALE_MAX && took < STALE_MAX * 3 / 2, "{took:?}");
        // One look that finds it takes all of that back.
        assert_eq!(look(&doubts, &[5]), None);
        assert_eq!(look(&doubts, &[4, 5]), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_ends_before_what_it_does_not_reach_for_long_enough() {
        let doubts = doubts(STALE_MAX);
        let took = until(&doubts, || ends_before(&doubts, 9)).await;
        assert!(took > STALE_MAX && took < STALE_MAX * 3 / 2, "{took:?}");
        // What stands below may have been acknowledged since.
        assert!(!ends_before(&doubts, 5));
        // A look that finds less than what was asked for takes nothing back, one that finds it does.
        doubts.reaches(P, at(8));
        assert!(ends_before(&doubts, 9));
        doubts.reaches(P, at(9));
        assert!(!ends_before(&doubts, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn the_word_of_a_look_that_began_too_early_is_not_enough() {
        let doubts = doubts(STALE_MAX);
        let asked = Instant::now() + STALE_MAX;
        assert!(!ends_before(&doubts, 9));
        advance(STALE_MAX * 2).await;
        assert!(!doubts.ends_before(P, at(9), asked));
        assert!(ends_before(&doubts, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_doubts_go() {
        let doubts = doubts(STALE_MAX);
        for seq in 1..=3_000 {
            assert!(!ends_before(&doubts, seq));
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(doubts.of(P).len(), DOUBTED_MAX);
        advance(STALE_MAX * 2).await;
        assert!(!ends_before(&doubts, 3));
        assert!(ends_before(&doubts, 2_999));
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_one_who_answers_he_is_believed() {
        let doubts = doubts(Duration::ZERO);
        assert_eq!(look(&doubts, &[4, 5]), None);
        assert!(ends_before(&doubts, 9));
    }
}
