//! The conformance suite of the port [`Journal`]: what every engine must pass. For tests only.
//!
//! An engine's test file says
//! `stormwire_journal::journal_suite!(fresh);` with `async fn fresh() -> Option<Subject>`, which makes an
//! empty journal whose logs take [`LOG_BYTES_MAX`]; `None` skips the test (the server is not on this
//! machine). The macro makes one test of each property.

mod epochs;
mod follow;
mod model;
mod tables;

pub use epochs::{
    a_later_epoch_begins_where_it_is_told_and_is_current,
    a_log_says_that_it_has_gone_back_only_if_it_has,
    a_log_that_cannot_be_closed_goes_only_if_it_is_discarded, a_tail_follows_into_a_later_epoch,
    an_ended_epoch_stays_readable_until_it_is_removed,
    an_epoch_ends_in_its_own_log_and_the_next_begins_above_it,
    an_epoch_is_closed_while_it_is_written,
    an_epoch_that_was_closed_is_followed_by_the_one_it_names,
};
pub use follow::{
    a_tail_tells_nothing_of_other_partitions, a_tail_with_repair_misses_nothing_and_keeps_order,
    what_follows_the_tip_comes_over_a_tail_taken_before,
};
pub use model::the_journal_agrees_with_a_model;
pub use tables::{
    a_saved_table_comes_back_as_it_was, an_older_table_never_takes_the_place_of_a_newer_one,
    tables_saved_side_by_side_leave_one_whole,
};

use crate::{AppendError, Journal, StoredFrame};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use tokio::time::timeout;

/// What each log of a subject takes before appends are refused.
pub const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long the suite waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
const P: Partition = Partition(3);
const E: Epoch = Epoch::FIRST;

/// Takes one frame out of the middle of a log, past the port.
pub type MakeHole = Box<dyn Fn(Partition, Epoch, FrameSeq) -> BoxFuture<'static, ()> + Send + Sync>;

/// A fresh journal under test.
pub struct Subject {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// How to make a hole, where the engine can have one.
    pub hole: Option<MakeHole>,
    /// What must live as long: a folder, a server.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes one test of each property of the suite, each on what `$fresh` makes.
#[macro_export]
macro_rules! journal_suite {
    ($fresh:path) => {
        $crate::journal_suite! { @tests $fresh;
            a_journal_that_is_there_answers
            bytes_come_back_as_they_were
            frames_are_numbered_from_one_without_a_hole
            of_appends_with_the_same_expected_last_one_is_stored
            an_append_behind_or_ahead_of_the_log_is_refused
            a_log_or_epoch_that_was_not_made_takes_nothing
            opening_again_changes_nothing
            a_page_is_bounded_by_frames_and_by_bytes
            a_frame_is_there_from_its_append_to_its_trim
            a_hole_is_left_out
            a_trimmed_log_goes_on_counting
            a_full_log_refuses_and_goes_on_after_a_trim
            an_append_that_was_dropped_is_stored_once_or_not_at_all
            time_never_goes_back
            partitions_are_written_side_by_side
            a_saved_table_comes_back_as_it_was
            an_older_table_never_takes_the_place_of_a_newer_one
            tables_saved_side_by_side_leave_one_whole
            what_follows_the_tip_comes_over_a_tail_taken_before
            a_tail_with_repair_misses_nothing_and_keeps_order
            a_tail_tells_nothing_of_other_partitions
            a_later_epoch_begins_where_it_is_told_and_is_current
            an_ended_epoch_stays_readable_until_it_is_removed
            a_tail_follows_into_a_later_epoch
            a_log_says_that_it_has_gone_back_only_if_it_has
            an_epoch_ends_in_its_own_log_and_the_next_begins_above_it
            an_epoch_that_was_closed_is_followed_by_the_one_it_names
            an_epoch_is_closed_while_it_is_written
            a_log_that_cannot_be_closed_goes_only_if_it_is_discarded
            the_journal_agrees_with_a_model
        }
    };
    (@tests $fresh:path; $($property:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $property() {
            if let Some(subject) = $fresh().await {
                $crate::suite::$property(&subject).await;
            }
        }
    )+};
}

/// Bytes that tell the frame apart from others.
fn body(n: u64, len: usize) -> Bytes {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(len.max(8), b'.');
    Bytes::from(bytes)
}

async fn fill(journal: &dyn Journal, partition: Partition, frames: u64, len: usize) {
    let last = journal.open(partition).await.expect("the log opens").last;
    for seq in last + 1..=last + frames {
        let stored = journal.append(partition, E, seq - 1, body(seq, len)).await;
        assert_eq!(stored, Ok(seq));
    }
}

async fn all(journal: &dyn Journal, partition: Partition) -> Vec<StoredFrame> {
    let mut found: Vec<StoredFrame> = Vec::new();
    let mut from = 1;
    loop {
        let page = journal.read(partition, E, from, 100, 1 << 20).await.expect("the log is read");
        let Some(last) = page.last() else { return found };
        from = last.seq + 1;
        found.extend(page);
    }
}

fn seqs(frames: &[StoredFrame]) -> Vec<FrameSeq> {
    frames.iter().map(|frame| frame.seq).collect()
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Reachability.
pub async fn a_journal_that_is_there_answers(subject: &Subject) {
    assert_eq!(subject.journal.ping().await, Ok(()));
    subject.journal.persisted(P, E, 1).await;
}

/// Content.
pub async fn bytes_come_back_as_they_were(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    let bodies = [
        Bytes::from_static(&[0]),
        Bytes::from_iter(0..=255u8),
        Bytes::from(vec![0xff; 256 * 1024]),
        Bytes::from_static(b"\r\n\0NATS/1.0\r\n"),
    ];
    for (body, last) in bodies.iter().zip(0..) {
        assert_eq!(journal.append(P, E, last, body.clone()).await, Ok(last + 1));
    }
    let found: Vec<Bytes> = all(journal, P).await.into_iter().map(|frame| frame.bytes).collect();
    assert_eq!(found, bodies);
}

/// Numbering, and the tip that goes with it.
pub async fn frames_are_numbered_from_one_without_a_hole(subject: &Subject) {
    let journal = &*subject.journal;
    let empty = journal.open(P).await.expect("the log opens");
    assert_eq!((empty.epoch, empty.first, empty.last), (E, 1, 0));
    assert!(empty.bytes_max > 0 && empty.bytes_max <= LOG_BYTES_MAX);
    fill(journal, P, 20, 100).await;
    let found = all(journal, P).await;
    assert_eq!(seqs(&found), (1..=20).collect::<Vec<_>>());
    for frame in &found {
        assert_eq!((frame.partition, frame.epoch), (P, E));
        assert_eq!(frame.bytes, body(frame.seq, 100));
    }
    let tip = journal.tip(P).await.expect("the tip is told");
    assert_eq!((tip.first, tip.last), (1, 20));
    assert!(tip.bytes >= 2000, "{tip:?}");
}

/// The check that the whole log rests on.
pub async fn of_appends_with_the_same_expected_last_one_is_stored(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    for last in 0..20 {
        let duel = (0..6).map(|n| journal.append(P, E, last, body(last * 10 + n, 50)));
        let results = join_all(duel).await;
        let won: Vec<_> = (0..).zip(&results).filter(|(_, result)| result.is_ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        assert_eq!(won[0].1, &Ok(last + 1));
        let stored = journal.frame(P, E, last + 1).await.expect("it is read").expect("it is there");
        assert_eq!(
            stored.bytes,
            body(last * 10 + won[0].0, 50),
            "the winner's frame is the stored one"
        );
    }
    assert_eq!(all(journal, P).await.len(), 20);
}

/// Refusals leave nothing behind.
pub async fn an_append_behind_or_ahead_of_the_log_is_refused(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 5, 50).await;
    for expected in [0, 4, 6, 1000] {
        let refused = journal.append(P, E, expected, body(99, 50)).await;
        assert_eq!(refused, Err(AppendError::WrongLast { expected }));
    }
    assert_eq!(journal.append(P, E, 5, body(6, 50)).await, Ok(6));
    assert_eq!(seqs(&all(journal, P).await), [1, 2, 3, 4, 5, 6]);
}

/// Logs and epochs that are not there.
pub async fn a_log_or_epoch_that_was_not_made_takes_nothing(subject: &Subject) {
    let journal = &*subject.journal;
    assert!(journal.append(Partition(9), E, 0, body(1, 50)).await.is_err());
    fill(journal, P, 2, 50).await;
    assert!(journal.append(P, Epoch(2), 2, body(1, 50)).await.is_err());
    assert!(journal.append(P, Epoch(2), 0, body(1, 50)).await.is_err());
    assert!(journal.read(P, Epoch(2), 1, 10, 1000).await.map_or(true, |page| page.is_empty()));
    let tip = journal.open(Partition(9)).await.expect("the log opens");
    assert_eq!((tip.first, tip.last), (1, 0), "the refused frame is not there");
    assert_eq!(seqs(&all(journal, P).await), [1, 2]);
}

/// Idempotence of `open`, also side by side.
pub async fn opening_again_changes_nothing(subject: &Subject) {
    let journal = &*subject.journal;
    let opened = join_all((0..4).map(|_| journal.open(P))).await;
    assert!(opened.iter().all(|tip| tip == &opened[0] && tip.is_ok()), "{opened:?}");
    fill(journal, P, 3, 50).await;
    let tip = journal.open(P).await.expect("the log opens again");
    assert_eq!((tip.epoch, tip.first, tip.last), (E, 1, 3));
}

/// Bounds of `read`.
pub async fn a_page_is_bounded_by_frames_and_by_bytes(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 30, 1000).await;
    let page = |from, frames, bytes| async move {
        seqs(&journal.read(P, E, from, frames, bytes).await.expect("the log is read"))
    };
    assert_eq!(page(1, 7, 1 << 20).await, (1..=7).collect::<Vec<_>>());
    assert_eq!(page(28, 100, 1 << 20).await, [28, 29, 30]);
    assert_eq!(page(5, 100, 1).await, [5], "one frame is always there");
    let some = page(5, 100, 4500).await;
    assert!((3..=8).contains(&some.len()), "about 4,500 bytes: {some:?}");
    assert_eq!(some, (5..5 + some.len() as u64).collect::<Vec<_>>());
    assert!(page(31, 10, 1000).await.is_empty());
    assert!(page(31_000, 10, 1000).await.is_empty());
}

/// Single frames.
pub async fn a_frame_is_there_from_its_append_to_its_trim(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 6, 50).await;
    journal.trim(P, E, 3).await.expect("the log is trimmed");
    for seq in [1, 3, 7, 500] {
        assert_eq!(journal.frame(P, E, seq).await, Ok(None), "frame {seq}");
    }
    for seq in 4..=6 {
        let frame = journal.frame(P, E, seq).await.expect("it is read").expect("it is there");
        assert_eq!((frame.seq, frame.bytes), (seq, body(seq, 50)));
    }
}

/// Holes, for engines that can have them.
pub async fn a_hole_is_left_out(subject: &Subject) {
    let Some(make_hole) = &subject.hole else { return };
    let journal = &*subject.journal;
    fill(journal, P, 6, 50).await;
    make_hole(P, E, 4).await;
    assert_eq!(journal.frame(P, E, 4).await, Ok(None));
    assert_eq!(seqs(&all(journal, P).await), [1, 2, 3, 5, 6]);
    let page = journal.read(P, E, 4, 2, 1 << 20).await.expect("the log is read");
    assert_eq!(page.first().map(|frame| frame.seq), Some(5), "a page goes over a hole");
    let tip = journal.tip(P).await.expect("the tip is told");
    assert_eq!((tip.first, tip.last), (1, 6));
    assert_eq!(journal.append(P, E, 6, body(7, 50)).await, Ok(7));
}

/// Trimming, up to an empty log.
pub async fn a_trimmed_log_goes_on_counting(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 10, 50).await;
    for (through, first) in [(4, 5), (4, 5), (2, 5), (10, 11)] {
        journal.trim(P, E, through).await.expect("the log is trimmed");
        let tip = journal.tip(P).await.expect("the tip is told");
        assert_eq!((tip.first, tip.last), (first, 10), "trimmed through {through}");
    }
    assert!(all(journal, P).await.is_empty());
    assert_eq!(
        journal.append(P, E, 0, body(1, 50)).await,
        Err(AppendError::WrongLast { expected: 0 })
    );
    assert_eq!(journal.append(P, E, 10, body(11, 50)).await, Ok(11));
    let tip = journal.tip(P).await.expect("the tip is told");
    assert_eq!((tip.first, tip.last), (11, 11));
}

/// The bound in bytes.
pub async fn a_full_log_refuses_and_goes_on_after_a_trim(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    let mut last = 0;
    let refused = loop {
        match journal.append(P, E, last, body(last + 1, 100_000)).await {
            Ok(seq) => last = seq,
            Err(error) => break error,
        }
        assert!(last * 100_000 <= LOG_BYTES_MAX, "the log grows past its bound");
    };
    assert_eq!(refused, AppendError::Full);
    assert!(last > 20, "full after only {last} frames");
    assert_eq!(all(journal, P).await.len() as u64, last, "nothing was dropped to make room");
    fill(journal, Partition(4), 1, 100_000).await;
    journal.trim(P, E, last - 2).await.expect("the log is trimmed");
    assert_eq!(journal.append(P, E, last, body(last + 1, 100_000)).await, Ok(last + 1));
}

/// Cancel safety.
pub async fn an_append_that_was_dropped_is_stored_once_or_not_at_all(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    let mut last = 0;
    for n in 0..20u64 {
        let mut append = journal.append(P, E, last, body(n, 50));
        // Polled once, then given up: its outcome is unknown.
        let early = (&mut append).now_or_never();
        drop(append);
        assert!(matches!(early, None | Some(Ok(_))), "{early:?}");
        let marker = body(1000 + n, 50);
        let stored = in_time("the log goes on after a dropped append", async {
            loop {
                let tip = journal.tip(P).await.expect("the tip is told");
                match journal.append(P, E, tip.last, marker.clone()).await {
                    Ok(seq) => break seq,
                    Err(AppendError::WrongLast { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        last = stored.await;
    }
    let found = all(journal, P).await;
    assert_eq!(seqs(&found), (1..=found.len() as u64).collect::<Vec<_>>());
    for n in 0..20 {
        let copies = |body: Bytes| found.iter().filter(|frame| frame.bytes == body).count();
        assert!(copies(body(n, 50)) <= 1, "a dropped append was stored twice");
        assert_eq!(copies(body(1000 + n, 50)), 1);
    }
}

/// Timestamps of one log.
pub async fn time_never_goes_back(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 50, 20).await;
    let found = all(journal, P).await;
    assert!(found.windows(2).all(|pair| pair[0].ts <= pair[1].ts));
    assert!(found[0].ts > Timestamp(0), "{:?}", found[0].ts);
}

/// Partitions do not see each other.
pub async fn partitions_are_written_side_by_side(subject: &Subject) {
    let journal = &*subject.journal;
    join_all((0..16).map(|p| fill(journal, Partition(p), 20, 200))).await;
    for partition in (0..16).map(Partition) {
        let found = all(journal, partition).await;
        assert_eq!(seqs(&found), (1..=20).collect::<Vec<_>>());
        assert!(found.iter().all(|frame| frame.partition == partition));
    }
}
