//! Epochs: several logs of one partition, the highest of which is current.

use super::{E, LOG_BYTES_MAX, P, Subject, body, fill, in_time, seqs};
use crate::epoch::{Begun, EpochError, MARGIN, NewEpoch, begin_next};
use crate::rewind::{self, Evidence, Rewound};
use crate::{AppendError, Journal, TailEvent};
use futures::StreamExt as _;
use futures::future::join_all;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_wire::frame::{FrameId, claim, close};

const NEXT: Epoch = Epoch(2);

async fn epochs(journal: &dyn Journal) -> Vec<(u32, u64, u64)> {
    let logs = journal.epochs(P).await.expect("the logs are listed");
    logs.iter().map(|log| (log.epoch.0, log.first, log.last)).collect()
}

/// Making a log, once, twice and side by side.
pub async fn a_later_epoch_begins_where_it_is_told_and_is_current(subject: &Subject) {
    let journal = &*subject.journal;
    assert_eq!(epochs(journal).await, []);
    fill(journal, P, 3, 50).await;
    let made = join_all((0..4).map(|_| journal.begin(P, NEXT, 1_000))).await;
    for tip in made {
        let tip = tip.expect("the log is made");
        assert_eq!((tip.epoch, tip.first, tip.last), (NEXT, 1_000, 999));
    }
    assert_eq!(epochs(journal).await, [(1, 1, 3), (2, 1_000, 999)]);
    for tip in [journal.open(P).await, journal.tip(P).await] {
        assert_eq!(tip.map(|tip| (tip.epoch, tip.first, tip.last)), Ok((NEXT, 1_000, 999)));
    }
    let refused = journal.append(P, NEXT, 0, body(1, 50)).await;
    assert_eq!(refused, Err(AppendError::WrongLast { expected: 0 }));
    assert_eq!(journal.append(P, NEXT, 999, body(1_000, 50)).await, Ok(1_000));
    assert_eq!(journal.append(P, NEXT, 1_000, body(1_001, 50)).await, Ok(1_001));
    // A log that is there is left as it is, whatever number it is asked to begin with.
    let again = journal.begin(P, NEXT, 1_000).await.expect("it is there");
    assert_eq!((again.first, again.last), (1_000, 1_001));
    let page = journal.read(P, NEXT, 1, 10, 1 << 20).await.expect("the log is read");
    assert_eq!(seqs(&page), [1_000, 1_001]);
    assert!(page.iter().all(|frame| frame.epoch == NEXT && frame.bytes == body(frame.seq, 50)));
    journal.trim(P, NEXT, 1_000).await.expect("the log is trimmed");
    assert_eq!(epochs(journal).await, [(1, 1, 3), (2, 1_001, 1_001)]);
    journal.open(Partition(5)).await.expect("another partition is untouched");
    assert_eq!(journal.tip(Partition(5)).await.map(|tip| tip.epoch), Ok(E));
}

/// What is left of an epoch that has ended.
pub async fn an_ended_epoch_stays_readable_until_it_is_removed(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 5, 50).await;
    journal.begin(P, NEXT, 100).await.expect("the log is made");
    assert_eq!(journal.append(P, NEXT, 99, body(100, 50)).await, Ok(100));
    let page = journal.read(P, E, 2, 10, 1 << 20).await.expect("the old log is read");
    assert_eq!(seqs(&page), [2, 3, 4, 5]);
    let frame = journal.frame(P, E, 5).await.expect("it is read").expect("it is there");
    assert_eq!((frame.epoch, frame.bytes), (E, body(5, 50)));
    for _ in 0..2 {
        journal.remove(P, E).await.expect("the old log is removed");
        assert_eq!(epochs(journal).await, [(2, 100, 100)]);
    }
    assert_eq!(journal.frame(P, E, 5).await, Ok(None));
    assert_eq!(journal.read(P, E, 1, 10, 1 << 20).await, Ok(Vec::new()));
    assert!(journal.append(P, E, 5, body(6, 50)).await.is_err(), "it takes nothing more");
    assert_eq!(journal.append(P, NEXT, 100, body(101, 50)).await, Ok(101));
}

/// One tail for all epochs.
pub async fn a_tail_follows_into_a_later_epoch(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 1, 50).await;
    let mut tail = journal.tail(&[P]).await.expect("a tail is given");
    fill(journal, P, 1, 50).await;
    journal.begin(P, NEXT, 50).await.expect("the log is made");
    assert_eq!(journal.append(P, NEXT, 49, body(50, 50)).await, Ok(50));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = in_time("both frames are told", tail.next()).await.expect("the tail goes on");
        // A tail begins about now: the frame before it may still be told.
        if let TailEvent::Frame(frame) = event
            && (frame.epoch, frame.seq) != (E, 1)
        {
            heard.push((frame.epoch, frame.seq));
        }
    }
    assert_eq!(heard, [(E, 2), (NEXT, 50)]);
}

fn new(archived: Option<(Epoch, FrameSeq)>, discard: bool) -> NewEpoch {
    NewEpoch { archived, id: FrameId { appender: [9; 16], counter: 1 }, discard }
}

async fn next(journal: &dyn Journal, archived: Option<(Epoch, FrameSeq)>) -> Begun {
    in_time("an epoch begins", begin_next(journal, P, new(archived, false)))
        .await
        .expect("the epoch begins")
}

/// E1: only a log that is shorter than it was takes the word that it has gone back, and then keeps it.
pub async fn a_log_says_that_it_has_gone_back_only_if_it_has(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 5, 50).await;
    let prove = async |epoch, seen, replaced| {
        rewind::prove(journal, P, Evidence { epoch, seen, replaced }).await
    };
    let told = async || {
        let tip = journal.tip(P).await.expect("the tip is told");
        rewind::told(journal, P, tip).await.expect("its end is read")
    };
    for seen in [0, 4, 5] {
        assert_eq!(prove(E, seen, false).await, Ok(false), "frame {seen} is there");
    }
    assert_eq!((told().await, journal.tip(P).await.map(|tip| tip.last)), (None, Ok(5)));
    assert_eq!(prove(E, 8, false).await, Ok(true));
    assert_eq!(told().await, Some(Rewound { epoch: E, lost_from: 6, seen: 8 }));
    let refused = journal.append(P, E, 5, body(6, 50)).await;
    assert_eq!(refused, Err(AppendError::WrongLast { expected: 5 }), "its writer is fenced");
    // Again, by one who knows less, and by one who knows of a higher number.
    assert_eq!(prove(E, 7, false).await, Ok(true));
    assert_eq!(journal.tip(P).await.map(|tip| tip.last), Ok(6), "it is said once");
    assert_eq!(prove(E, 20, false).await, Ok(true));
    assert_eq!(told().await, Some(Rewound { epoch: E, lost_from: 7, seen: 20 }));
    // Another frame where one was known, also while somebody writes.
    fill(journal, P, 3, 50).await;
    assert_eq!(prove(E, 9, true).await, Ok(true));
    // A frame of an attempt of long ago lands behind the word: it stands.
    fill(journal, P, 1, 50).await;
    let begun = next(journal, Some((E, 4))).await;
    assert_eq!((begun.epoch, begun.first, begun.lost_from), (NEXT, 21 + MARGIN, Some(6)));
    assert_eq!(prove(E, 100, false).await, Ok(false), "that epoch is over");
}

/// E2: an epoch is ended in its own log, above every number that is known to have been handed out.
pub async fn an_epoch_ends_in_its_own_log_and_the_next_begins_above_it(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 4, 50).await;
    let begun = next(journal, Some((E, 3))).await;
    let due = Begun {
        ended: E,
        last: 4,
        lost_from: None,
        epoch: NEXT,
        first: 5 + MARGIN,
        discarded: false,
    };
    assert_eq!(begun, due);
    assert_eq!(epochs(journal).await, [(1, 1, 5), (2, 5 + MARGIN, 4 + MARGIN)]);
    // Twice: another epoch, behind that one. The archive may know of higher numbers than the log.
    let begun = next(journal, Some((NEXT, 2 * MARGIN))).await;
    assert_eq!((begun.ended, begun.epoch, begun.first), (NEXT, Epoch(3), 3 * MARGIN + 1));
    assert_eq!(begun.lost_from, Some(5 + MARGIN), "what the archive has is not in the log");
}

/// E2: a command that was killed between its steps is finished by the next one, or by whoever claims.
pub async fn an_epoch_that_was_closed_is_followed_by_the_one_it_names(subject: &Subject) {
    let journal = &*subject.journal;
    fill(journal, P, 4, 50).await;
    let end = close(FrameId { appender: [8; 16], counter: 1 }, NEXT, 700, Some(3));
    assert_eq!(journal.append(P, E, 4, end).await, Ok(5));
    let begun = next(journal, None).await;
    assert_eq!((begun.last, begun.epoch, begun.first, begun.lost_from), (4, NEXT, 700, Some(3)));
    assert_eq!(epochs(journal).await, [(1, 1, 5), (2, 700, 699)]);
}

/// E2: the close takes its place among the frames of whoever writes at full speed, and fences them.
pub async fn an_epoch_is_closed_while_it_is_written(subject: &Subject) {
    let journal = std::sync::Arc::clone(&subject.journal);
    journal.open(P).await.expect("the log opens");
    let writer = tokio::spawn({
        let journal = std::sync::Arc::clone(&journal);
        async move {
            let mut last = 0;
            loop {
                match journal.append(P, E, last, body(last + 1, 200)).await {
                    Ok(seq) => last = seq,
                    Err(refused) => return (last, refused),
                }
            }
        }
    });
    in_time("something is written", async {
        while journal.tip(P).await.expect("the tip is told").last < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let begun = next(&*journal, None).await;
    let (last, refused) = in_time("the writer ends", writer).await.expect("it ends well");
    assert_eq!(refused, AppendError::WrongLast { expected: last });
    assert_eq!(begun.last, last, "the close stands behind the last acknowledged frame");
}

/// E2: a log that takes no close is left alone, unless it is to be discarded.
pub async fn a_log_that_cannot_be_closed_goes_only_if_it_is_discarded(subject: &Subject) {
    let journal = &*subject.journal;
    journal.open(P).await.expect("the log opens");
    let mut last = 0;
    for len in [100_000, 1_000, 10] {
        while last * 10 < LOG_BYTES_MAX {
            match journal.append(P, E, last, body(last + 1, len)).await {
                Ok(seq) => last = seq,
                Err(AppendError::Full) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
    let frame = claim(FrameId { appender: [7; 16], counter: 1 }, "x");
    assert_eq!(journal.append(P, E, last, frame).await, Err(AppendError::Full));
    let kept = in_time("the answer", begin_next(journal, P, new(None, false))).await;
    assert!(matches!(kept, Err(EpochError::NotClosed { epoch: E, .. })), "{kept:?}");
    assert_eq!(epochs(journal).await, [(1, 1, last)]);
    let begun = in_time("the answer", begin_next(journal, P, new(None, true))).await;
    let begun = begun.expect("the epoch begins");
    assert!(begun.discarded && begun.epoch == NEXT, "{begun:?}");
    assert_eq!(epochs(journal).await, [(2, last + 1 + MARGIN, last + MARGIN)]);
}
