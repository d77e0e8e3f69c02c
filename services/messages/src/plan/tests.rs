//! The plan against short lists and random ones.

use super::*;
use proptest::prelude::*;
use stormwire_core::Channel;
use stormwire_wire::frame::{self, EventParts, EventsBuilder, FrameBuilder};

fn id(seq: FrameSeq) -> FrameId {
    FrameId { appender: [3; 16], counter: seq }
}

fn stored(epoch: u32, seq: FrameSeq, bytes: Bytes) -> StoredFrame {
    let ts = Timestamp(i64::try_from(seq).unwrap());
    StoredFrame { partition: stormwire_core::Partition(0), epoch: Epoch(epoch), seq, ts, bytes }
}

fn events(seq: FrameSeq) -> Bytes {
    let mut one = EventsBuilder::default();
    one.push(&EventParts { data: b"1", ..Default::default() }).unwrap();
    let mut builder = FrameBuilder::default();
    builder.push(&Channel::parse("a:b").unwrap(), "u", "", 0, None, &one.take());
    builder.finish(id(seq))
}

fn tip(epoch: u32, first: FrameSeq, last: FrameSeq) -> Tip {
    Tip { epoch: Epoch(epoch), first, last, bytes: 0, bytes_max: 1 << 30 }
}

const fn place(epoch: u32, next: FrameSeq) -> Place {
    Place { epoch: Epoch(epoch), next }
}

fn ledger(epoch: u32, last_seq: FrameSeq) -> Option<LedgerEntry> {
    Some(LedgerEntry { epoch: Epoch(epoch), last_seq, last_frame: Some(id(last_seq)) })
}

#[test]
fn the_ledger_says_where_to_go_on_and_what_to_verify() {
    let at = |epoch, next, verify| Start::At { place: place(epoch, next), verify };
    assert_eq!(start(None, tip(1, 5, 9)), at(1, 1, None));
    assert_eq!(start(ledger(1, 7), tip(1, 5, 9)), at(1, 8, Some(7)));
    assert_eq!(start(ledger(1, 9), tip(1, 9, 9)), at(1, 10, Some(9)));
    assert_eq!(start(ledger(1, 7), tip(1, 8, 9)), at(1, 8, None), "trimmed: nothing to compare");
    assert_eq!(start(ledger(1, 7), tip(2, 8, 9)), at(1, 8, None), "the old epoch first");
    assert_eq!(start(ledger(1, 9), tip(1, 1, 8)), Start::Behind);
    assert_eq!(start(ledger(2, 9), tip(1, 1, 20)), Start::Behind);
}

#[test]
fn another_frame_at_the_ledgers_place_is_a_rewound_journal() {
    assert!(is_same(Some(id(7)), Some(&events(7))));
    assert!(!is_same(Some(id(7)), Some(&events(8))));
    assert!(is_same(Some(id(7)), None), "gone proves nothing");
    assert!(is_same(None, Some(&events(8))));
}

#[test]
fn not_there_means_what_the_leader_says() {
    assert_eq!(missing(place(1, 4), tip(1, 6, 9)), Missing::Trimmed(5));
    assert_eq!(missing(place(1, 6), tip(1, 6, 9)), Missing::Hole);
    assert_eq!(missing(place(1, 9), tip(1, 6, 9)), Missing::Hole);
    assert_eq!(missing(place(1, 10), tip(1, 6, 9)), Missing::NotYet);
    assert_eq!(missing(place(1, 11), tip(1, 6, 9)), Missing::Shorter);
    assert_eq!(missing(place(2, 1), tip(1, 1, 9)), Missing::NotYet);
    let ended = Missing::Ended { epoch: Epoch(2), through: 19 };
    assert_eq!(missing(place(1, 10), tip(2, 20, 25)), ended);
}

#[test]
fn rubbish_is_a_dead_letter_and_a_newer_version_ends_the_batch_before_it() {
    let mut pending = Pending::at(place(1, 1));
    assert!(pending.push(stored(1, 1, events(1))));
    assert!(pending.push(stored(1, 2, Bytes::from_static(b"rubbish"))));
    let mut newer = events(3).to_vec();
    newer[1] = 9;
    assert!(pending.push(stored(1, 3, Bytes::from(newer))));
    assert!(!pending.push(stored(1, 4, events(4))), "nothing after it");
    let stop = Some(Stop::NewerVersion { seq: 3, version: 9 });
    assert_eq!(pending.stop(), stop);
    let Prepared { batch, events, .. } = pending.take();
    assert_eq!((batch.through, batch.frames.len(), batch.undecodable.len(), events), (2, 1, 1, 1));
    assert_eq!(batch.last_frame, None, "nobody knows who wrote rubbish");
    assert!(pending.is_empty() && pending.stop() == stop);
}

#[test]
fn a_close_frame_leads_into_the_next_epoch_without_a_gap() {
    let mut pending = Pending::at(place(1, 7));
    let close = frame::close(id(7), Epoch(2), 100, None);
    assert!(pending.push(stored(1, 7, close)));
    assert!(!pending.has_room(10, 10));
    let Prepared { batch, .. } = pending.take();
    assert_eq!((batch.epoch, batch.expected_last, batch.through), (Epoch(1), 6, 7));
    assert_eq!(pending.place(), place(2, 100));
    assert!(!pending.is_empty(), "the ledger has to step over");
    assert!(pending.push(stored(2, 100, events(100))));
    let Prepared { batch, .. } = pending.take();
    assert_eq!((batch.epoch, batch.expected_last, batch.through), (Epoch(2), 7, 100));
    assert!(batch.gaps.is_empty());
}

#[test]
fn what_a_close_says_to_be_lost_is_a_gap() {
    let mut pending = Pending::at(place(1, 7));
    assert!(pending.push(stored(1, 7, frame::rewound(7, 20))));
    assert!(pending.push(stored(1, 8, frame::close(id(8), Epoch(2), 100, Some(7)))));
    let Prepared { batch, .. } = pending.take();
    assert_eq!((batch.through, batch.gaps.len()), (8, 1));
    let gap = &batch.gaps[0];
    assert_eq!((gap.epoch, gap.from.seq(), gap.to.seq()), (Epoch(1), 7, 99));
    assert_eq!(gap.reason, REWOUND);
    assert_eq!(pending.place(), place(2, 100));
}

#[test]
fn what_is_left_of_an_epoch_that_is_over_is_read_before_the_next() {
    let logs = [tip(1, 4, 9), tip(3, 500, 510)];
    assert_eq!(missing_of_ended(place(1, 2), &logs), Missing::Trimmed(3));
    assert_eq!(missing_of_ended(place(1, 9), &logs), Missing::Hole);
    let next = |through| Missing::Ended { epoch: Epoch(3), through };
    assert_eq!(missing_of_ended(place(1, 10), &logs), next(499));
    assert_eq!(missing_of_ended(place(1, 40), &logs), next(499), "the log had gone back");
    // Its log was removed, or never was: stepped over, not waited for.
    assert_eq!(missing_of_ended(place(2, 30), &logs), next(499));
    assert_eq!(missing_of_ended(place(1, 1), &logs[1..]), next(499));
    assert_eq!(missing_of_ended(place(1, 10), &logs[..1]), Missing::NotYet);
}

#[test]
fn an_epoch_that_ended_without_a_close_leaves_a_gap() {
    let mut pending = Pending::at(place(1, 8));
    pending.step(Epoch(2), 19, "lost");
    let Prepared { batch, .. } = pending.take();
    assert_eq!((batch.epoch, batch.through, batch.gaps.len()), (Epoch(1), 19, 1));
    assert_eq!((pending.place(), pending.is_empty()), (place(2, 20), true));
    let mut nothing_left = Pending::at(place(1, 20));
    nothing_left.step(Epoch(2), 19, "lost");
    assert!(nothing_left.is_empty() && nothing_left.has_room(1, 1));
    assert_eq!(nothing_left.place(), place(2, 20));
}

proptest! {
    /// Whatever comes in whatever order: batches are contiguous, and hold exactly what was due.
    #[test]
    fn batches_follow_each_other_and_hold_every_frame_once(
        offered in prop::collection::vec((0u64..6, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let mut pending = Pending::at(place(1, 1));
        let (mut due, mut last) = (1, 0);
        let mut taken = Vec::new();
        for (ahead, gap, take) in offered {
            let seq = (due + ahead).saturating_sub(2);
            if gap && ahead == 3 {
                pending.push_gap(due + 1, "hole");
                due += 2;
            } else {
                let is_taken = pending.push(stored(1, seq, events(seq)));
                prop_assert_eq!(is_taken, seq == due);
                if is_taken { due += 1; }
            }
            prop_assert_eq!(pending.place().next, due);
            if take && !pending.is_empty() {
                let Prepared { batch, .. } = pending.take();
                prop_assert_eq!(batch.expected_last, last);
                last = batch.through;
                let mut seqs: Vec<_> = batch.frames.iter().map(|(seq, ..)| *seq).collect();
                seqs.extend(batch.gaps.iter().flat_map(|gap| gap.from.seq()..=gap.to.seq()));
                taken.extend(seqs);
            }
        }
        taken.sort_unstable();
        prop_assert_eq!(taken, (1..=last).collect::<Vec<_>>());
    }
}
