//! Epochs: several logs of one partition, the highest of which is current.

use super::{E, P, Subject, body, fill, in_time, seqs};
use crate::{AppendError, Journal, TailEvent};
use futures::StreamExt as _;
use futures::future::join_all;
use stormwire_core::{Epoch, Partition};

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
