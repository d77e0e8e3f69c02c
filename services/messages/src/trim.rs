//! What the journal may forget.
//!
//! Trimmed is only what is persisted, and then either what is older than the recovery window or, while
//! the log is above half of its bound, as much of the oldest as brings it below. The frame at the
//! ledger's last number always stays: it is how a journal that has gone back is recognised. So does the
//! last frame of the appender's saved table with all behind it, which the next claim reads, and what the
//! copy of the archive that must keep all does not have yet.

use std::collections::VecDeque;
use std::time::Duration;
use stormwire_archive::{ArchiveError, LedgerEntry};
use stormwire_core::{Epoch, FrameSeq, Timestamp};
use stormwire_journal::Tip;
use tokio::time::Instant;

/// What was persisted within this time is not trimmed for want of space: a reader that looked where the
/// journal begins, and then found the archive up to there, still finds the rest in the journal.
const SPACE_DELAY: Duration = Duration::from_secs(5);
/// Batches closer together than this are remembered as one.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Some persisted frames: up to which number, of which time, since when, and how many bytes.
#[derive(Debug, Clone, Copy)]
struct Mark {
    through: FrameSeq,
    newest: Timestamp,
    at: Instant,
    bytes: u64,
}

/// What was persisted and is still in the journal, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Persisted {
    marks: VecDeque<Mark>,
}

impl Persisted {
    /// Begins with what an earlier worker persisted. When it did is not known: the window begins now, and
    /// its bytes are estimated from the log's average.
    pub(crate) fn begin(last_seq: FrameSeq, tip: Tip, now: Timestamp) -> Self {
        let frames = (tip.last + 1).saturating_sub(tip.first).max(1);
        let persisted = (last_seq + 1).saturating_sub(tip.first).min(frames);
        let bytes = u128::from(tip.bytes) * u128::from(persisted) / u128::from(frames);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mark = Mark { through: last_seq, newest: now, at: Instant::now(), bytes };
        Self { marks: VecDeque::from_iter((persisted > 0).then_some(mark)) }
    }

    /// Notes a batch.
    pub(crate) fn add(&mut self, through: FrameSeq, newest: Timestamp, bytes: u64) {
        let at = Instant::now();
        let may_merge = self.marks.len() > 1;
        match self.marks.back_mut() {
            Some(mark) if may_merge && at - mark.at < MARK_EVERY => {
                // `at` stays the first batch's: a mark is at most `MARK_EVERY` younger than it says.
                mark.through = through;
                mark.newest = mark.newest.max(newest);
                mark.bytes += bytes;
            }
            _ => self.marks.push_back(Mark { through, newest, at, bytes }),
        }
    }

    /// Up to where the journal may be trimmed now; `None` if there is nothing. `kept`: the first frame that
    /// must stay.
    pub(crate) fn trim(
        &mut self,
        kept: FrameSeq,
        tip: Tip,
        now: Timestamp,
        window: Duration,
    ) -> Option<FrameSeq> {
        let mut excess = tip.bytes.saturating_sub(tip.bytes_max / 2);
        let mut through = 0;
        while let Some(mark) = self.marks.front() {
            let is_old = now.since(mark.newest) >= window;
            let for_space = excess > 0 && mark.at.elapsed() >= SPACE_DELAY + MARK_EVERY;
            if mark.through >= kept || !(is_old || for_space) {
                // Of the mark that it is in, what lies before it goes.
                if mark.through >= kept && (is_old || for_space) {
                    through = kept.saturating_sub(1);
                }
                break;
            }
            through = mark.through;
            excess = excess.saturating_sub(mark.bytes);
            self.marks.pop_front();
        }
        (through >= tip.first && through > 0).then_some(through)
    }
}

/// APPENDER B7: the first frame of epoch `epoch` that a claim needs, given the table that was saved last:
/// without one, all of them.
pub(crate) fn needed_by_claims(saved: Option<(Epoch, FrameSeq)>, epoch: Epoch) -> FrameSeq {
    match saved {
        Some((of, through)) if of == epoch => through,
        Some((of, _)) if of > epoch => FrameSeq::MAX,
        _ => 0,
    }
}

/// From which frame on the copy of the archive that must keep all may need this epoch's log. While it
/// does not answer it may need all of it.
pub(crate) fn needed_by_the_copy(
    copy: &Result<Option<LedgerEntry>, ArchiveError>,
    epoch: Epoch,
) -> FrameSeq {
    match copy {
        Ok(None) => FrameSeq::MAX,
        Ok(Some(entry)) if entry.epoch == epoch => entry.last_seq,
        Ok(Some(entry)) if entry.epoch > epoch => FrameSeq::MAX,
        Ok(Some(_)) | Err(_) => 0,
    }
}

/// E3: whether the log of an epoch that is over may go: all of it is persisted, also in the copy that must
/// keep all, and older than the recovery window.
pub(crate) fn may_go(
    epoch: Epoch,
    is_persisted: bool,
    copy: &Result<Option<LedgerEntry>, ArchiveError>,
    age: Duration,
    window: Duration,
) -> bool {
    is_persisted && needed_by_the_copy(copy, epoch) == FrameSeq::MAX && age >= window
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(600);
    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn tip(first: FrameSeq, last: FrameSeq, bytes: u64) -> Tip {
        Tip { epoch: Epoch(1), first, last, bytes, bytes_max: 1000 }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_older_than_the_window_goes() {
        let mut persisted = Persisted::default();
        for seq in 1..=10u64 {
            persisted.add(seq, Timestamp(NOW.0 + seq as i64 * 60_000), 10);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        let at = |minutes: i64| Timestamp(NOW.0 + minutes * 60_000);
        assert_eq!(persisted.trim(10, tip(1, 10, 100), at(10), WINDOW), None);
        assert_eq!(persisted.trim(10, tip(1, 10, 100), at(13), WINDOW), Some(3));
        assert_eq!(persisted.trim(10, tip(4, 10, 70), at(13), WINDOW), None);
        assert_eq!(persisted.trim(10, tip(4, 10, 70), at(60), WINDOW), Some(9), "10 stays");
        assert_eq!(persisted.trim(10, tip(10, 10, 10), at(60), WINDOW), None);
    }

    #[tokio::test(start_paused = true)]
    async fn want_of_space_takes_the_oldest_and_no_more_than_it_must() {
        let mut persisted = Persisted::begin(4, tip(1, 4, 400), NOW);
        for seq in 5..=8 {
            tokio::time::advance(Duration::from_secs(2)).await;
            persisted.add(seq, NOW, 100);
        }
        assert_eq!(persisted.trim(8, tip(1, 8, 500), NOW, WINDOW), None, "half is enough");
        assert_eq!(persisted.trim(8, tip(1, 8, 800), NOW, WINDOW), Some(4));
        assert_eq!(
            persisted.trim(8, tip(5, 8, 900), NOW, WINDOW),
            Some(5),
            "the rest is too fresh"
        );
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(persisted.trim(8, tip(6, 8, 900), NOW, WINDOW), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn b7_nothing_goes_that_the_next_claim_reads() {
        let mut persisted = Persisted::default();
        persisted.add(4, NOW, 10);
        tokio::time::advance(Duration::from_secs(2)).await;
        persisted.add(10, NOW, 10);
        let later = Timestamp(NOW.0 + 3_600_000);
        let mut trim = |saved| {
            let needed = needed_by_claims(saved, Epoch(2));
            persisted.trim(10.min(needed), tip(1, 10, 900), later, WINDOW)
        };
        assert_eq!(trim(None), None, "no table was saved");
        assert_eq!(trim(Some((Epoch(1), 100))), None, "only in the epoch before");
        assert_eq!(trim(Some((Epoch(2), 3))), Some(2));
        assert_eq!(trim(Some((Epoch(2), 7))), Some(6));
        assert_eq!(trim(Some((Epoch(2), 8))), Some(7));
        assert_eq!(trim(Some((Epoch(3), 1))), Some(9), "the ledger's own frame stays");
    }

    #[test]
    fn a_copy_that_must_keep_all_holds_back_what_it_lacks() {
        let entry = |epoch| LedgerEntry { epoch: Epoch(epoch), last_seq: 7, last_frame: None };
        let needed = |copy| needed_by_the_copy(&copy, Epoch(2));
        assert_eq!(needed(Ok(None)), FrameSeq::MAX);
        assert_eq!(needed(Ok(Some(entry(2)))), 7);
        assert_eq!(needed(Ok(Some(entry(3)))), FrameSeq::MAX);
        assert_eq!(needed(Ok(Some(entry(1)))), 0);
        assert_eq!(needed(Err(ArchiveError::Unavailable("away".to_owned()))), 0);
    }

    #[test]
    fn e3_the_log_of_an_epoch_that_is_over_goes_when_nobody_lacks_it() {
        let copy =
            |epoch| Ok(Some(LedgerEntry { epoch: Epoch(epoch), last_seq: 7, last_frame: None }));
        let goes = |is_persisted, copy, age| may_go(Epoch(2), is_persisted, &copy, age, WINDOW);
        assert!(goes(true, Ok(None), WINDOW));
        assert!(!goes(false, Ok(None), WINDOW));
        assert!(!goes(true, Ok(None), WINDOW - Duration::from_secs(1)));
        assert!(goes(true, copy(3), WINDOW), "the copy has the beginning of a later one");
        assert!(!goes(true, copy(2), WINDOW), "the copy may lack its end");
        assert!(!goes(true, Err(ArchiveError::Unavailable("away".to_owned())), WINDOW));
    }

    proptest! {
        #[test]
        fn nothing_unpersisted_and_never_the_ledgers_own_frame(
            batches in prop::collection::vec((1u64..50, 0u64..1000), 1..40),
            first in 1u64..100, bytes in 0u64..2000, minutes in 0i64..30,
        ) {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
                let mut persisted = Persisted::begin(first, tip(first, first, 10), NOW);
                let mut last = first;
                for (frames, bytes) in batches {
                    last += frames;
                    tokio::time::advance(Duration::from_millis(700)).await;
                    persisted.add(last, NOW, bytes);
                }
                let now = Timestamp(NOW.0 + minutes * 60_000);
                let through = persisted.trim(last, tip(first, last + 5, bytes), now, WINDOW);
                if let Some(through) = through {
                    prop_assert!(through < last && through >= first);
                }
                if minutes < 10 && bytes <= 500 {
                    prop_assert_eq!(through, None);
                }
                Ok(())
            })?;
        }
    }
}
