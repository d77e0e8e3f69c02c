use super::*;
use crate::flight::Found;
use crate::port::{AppendError, StoredFrame, Tip};
use crate::publish::{ProducerKey, Stored};
use bytes::Bytes;
use std::sync::Arc;
use stormwire_core::{Channel, ErrorCode, MAX_EVENTS_PER_FRAME, Offset, Partition, Timestamp};
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame};

type TestAppender = Appender<&'static str>;

fn at(millis: u64) -> Now {
    let wall = Timestamp(1_000_000_000 + i64::try_from(millis).unwrap());
    Now { mono: Duration::from_millis(millis), wall }
}

fn appender(linger: Duration) -> TestAppender {
    let gateway = "here".to_owned();
    Appender::new(AppenderConfig { gateway, linger, repeats_bytes_max: 1 << 20 })
}

/// An appender that owns an empty log since its claim, frame 1.
fn owner() -> TestAppender {
    let mut appender = appender(Duration::ZERO);
    appender.read_log();
    assert_eq!(appender.poll(at(0)).0, Some(Op::Open));
    let tip = Tip { epoch: Epoch::FIRST, first: 1, last: 0, bytes: 0, bytes_max: 0 };
    appender.complete(at(0), OpResult::Opened(Ok(tip)));
    appender.claim(at(0), [9; 16]);
    assert_eq!(frame(&mut appender, 0).0, 0);
    appender.complete(at(0), OpResult::Appended(Ok(1)));
    let events: Vec<_> = appender.events().collect();
    assert_eq!(events, [Event::Claimed { epoch: Epoch::FIRST, claim: 1 }]);
    appender
}

/// The frame that is to be appended now, and the last sequence that it expects.
fn frame(appender: &mut TestAppender, millis: u64) -> (FrameSeq, Bytes) {
    match appender.poll(at(millis)).0 {
        Some(Op::Append { expected_last, frame, .. }) => (expected_last, frame),
        other => panic!("an append was due, not {other:?}"),
    }
}

fn publish(connection: u64, producer: &str, seq: u64, count: usize) -> Publish {
    let mut events = EventsBuilder::default();
    for _ in 0..count {
        events.push(&EventParts { data: b"1", ..Default::default() }).unwrap();
    }
    Publish {
        connection,
        channel: Channel::parse("x:y").unwrap(),
        user: Arc::from("alice"),
        producer: Arc::from(producer),
        key: ProducerKey::of("alice", producer),
        seq,
        first_sent: None,
        events: events.take(),
        trace: None,
    }
}

fn again(publish: Publish) -> Publish {
    Publish { first_sent: Some(Timestamp(1_000_000_000)), ..publish }
}

fn outcomes(appender: &mut TestAppender) -> Vec<(&'static str, Vec<Outcome>)> {
    appender.answers().map(|answer| (answer.origin, answer.outcomes)).collect()
}

fn stored(seq: FrameSeq, first: u16, last: u16) -> Outcome {
    let (first, last) = (Offset::new(seq, first), Offset::new(seq, last));
    Outcome::Stored(Stored { first, last, duplicate: false })
}

fn code(outcome: &Outcome) -> ErrorCode {
    match outcome {
        Outcome::Refused(refusal) => refusal.code,
        other => panic!("a refusal was due, not {other:?}"),
    }
}

#[test]
fn one_frame_is_under_way_and_what_comes_meanwhile_goes_together() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    assert_eq!(frame(&mut appender, 1).0, 1);
    appender.push(at(2), "b", vec![publish(2, "q", 1, 2)]);
    appender.push(at(3), "c", vec![publish(3, "r", 1, 1)]);
    assert_eq!(appender.poll(at(3)), (None, None));
    appender.complete(at(4), OpResult::Appended(Ok(2)));
    assert_eq!(outcomes(&mut appender), [("a", vec![stored(2, 0, 0)])]);
    let (expected, bytes) = frame(&mut appender, 4);
    assert_eq!(expected, 2);
    assert_eq!(Frame::decode(&bytes).unwrap().events().unwrap().len(), 3);
    appender.complete(at(5), OpResult::Appended(Ok(3)));
    let expected = [("b", vec![stored(3, 0, 1)]), ("c", vec![stored(3, 2, 2)])];
    assert_eq!(outcomes(&mut appender), expected);
}

#[test]
fn a4_a_repeat_of_what_is_under_way_waits_for_that_frames_answer() {
    let mut appender = owner();
    let both = vec![publish(1, "p", 1, 1), again(publish(2, "p", 1, 1)), publish(2, "p", 2, 1)];
    appender.push(at(1), "a", both);
    let (_, bytes) = frame(&mut appender, 1);
    assert_eq!(Frame::decode(&bytes).unwrap().events().unwrap().len(), 1);
    appender.complete(at(2), OpResult::Appended(Ok(2)));
    assert!(outcomes(&mut appender).is_empty());
    // The repeat is answered from the table, what came behind it on its connection is written after it.
    assert_eq!(frame(&mut appender, 2).0, 2);
    appender.complete(at(3), OpResult::Appended(Ok(3)));
    let first = Offset::new(2, 0);
    let copy = Outcome::Stored(Stored { first, last: first, duplicate: true });
    assert_eq!(outcomes(&mut appender), [("a", vec![stored(2, 0, 0), copy, stored(3, 0, 0)])]);
}

#[test]
fn a2_a_fenced_appender_gives_back_what_it_will_never_store() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 1);
    appender.push(at(1), "b", vec![publish(2, "q", 1, 1)]);
    let wrong = AppendError::WrongLast { expected: 1 };
    appender.complete(at(2), OpResult::Appended(Err(wrong)));
    assert_eq!(appender.poll(at(2)).0, Some(Op::Find { epoch: Epoch::FIRST, seq: 2 }));
    let id = FrameId { appender: [8; 16], counter: 1 };
    let (partition, epoch) = (Partition(0), Epoch::FIRST);
    let ts = at(2).wall;
    let bytes = claim(id, "there");
    let found = Found::Frame(StoredFrame { partition, epoch, seq: 2, ts, bytes });
    appender.complete(at(3), OpResult::Found(Ok(found)));
    let lost = |name| (name, vec![Outcome::NotStored]);
    assert_eq!(outcomes(&mut appender), [lost("a"), lost("b")]);
    assert_eq!(appender.events().next_back(), Some(Event::Fenced));
    assert_eq!(appender.owned(), None);
    appender.push(at(4), "c", vec![publish(1, "p", 1, 1)]);
    assert_eq!(outcomes(&mut appender), [lost("c")]);
}

#[test]
fn a3_what_nobody_can_tell_any_more_is_unknown_and_what_waited_behind_is_not_stored() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 1);
    appender.push(at(1), "b", vec![publish(2, "q", 1, 1)]);
    for _ in 0..2 {
        let unknown = AppendError::Unknown("no answer".to_owned());
        appender.complete(at(2), OpResult::Appended(Err(unknown)));
        let _ = appender.poll(at(2));
    }
    let gone = Tip { epoch: Epoch::FIRST, first: 9, last: 12, bytes: 0, bytes_max: 0 };
    appender.complete(at(3), OpResult::Found(Ok(Found::Absent(gone))));
    let expected = [("a", vec![Outcome::Unknown]), ("b", vec![Outcome::NotStored])];
    assert_eq!(outcomes(&mut appender), expected);
}

#[test]
fn a5_a_publish_larger_than_a_frame_is_cut() {
    let mut appender = owner();
    let large = MAX_EVENTS_PER_FRAME + 10;
    appender.push(
        at(1),
        "a",
        vec![publish(1, "p", 1, large), publish(1, "p", 1 + large as u64, 1)],
    );
    frame(&mut appender, 1);
    appender.complete(at(2), OpResult::Appended(Ok(2)));
    assert!(outcomes(&mut appender).is_empty());
    let (_, bytes) = frame(&mut appender, 2);
    assert_eq!(Frame::decode(&bytes).unwrap().events().unwrap().len(), 11);
    appender.complete(at(3), OpResult::Appended(Ok(3)));
    let (first, last) = (Offset::new(2, 0), Offset::new(3, 9));
    let whole = Outcome::Stored(Stored { first, last, duplicate: false });
    assert_eq!(outcomes(&mut appender), [("a", vec![whole, stored(3, 10, 10)])]);
}

#[test]
fn c1_behind_a_temporary_refusal_nothing_of_the_connection_is_taken() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 9, 1)]);
    frame(&mut appender, 1);
    appender.complete(at(2), OpResult::Appended(Ok(2)));
    let _ = outcomes(&mut appender);
    // 8 is below the highest and in no range.
    let batch = vec![again(publish(1, "p", 8, 1)), publish(1, "p", 10, 1), publish(2, "q", 1, 1)];
    appender.push(at(3), "b", batch);
    frame(&mut appender, 3);
    appender.complete(at(4), OpResult::Appended(Ok(3)));
    let answers = outcomes(&mut appender);
    let (_, answers) = &answers[0];
    assert_eq!(code(&answers[0]), ErrorCode::UnknownOutcome);
    assert_eq!(code(&answers[1]), ErrorCode::OutOfOrder);
    assert_eq!(answers[2], stored(3, 0, 0));
}

#[test]
fn a_number_used_before_is_a_conflict_and_stops_nothing() {
    let mut appender = owner();
    appender.push(
        at(1),
        "a",
        vec![publish(1, "p", 5, 1), publish(1, "p", 5, 1), publish(1, "p", 6, 1)],
    );
    frame(&mut appender, 1);
    appender.complete(at(2), OpResult::Appended(Ok(2)));
    let answers = outcomes(&mut appender);
    assert_eq!(code(&answers[0].1[1]), ErrorCode::Conflict);
    assert_eq!(answers[0].1[2], stored(2, 1, 1));
}

#[test]
fn a_full_journal_refuses_all_that_waits_and_the_next_publish_is_tried_anew() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 1);
    appender.push(at(1), "b", vec![publish(1, "p", 2, 1)]);
    appender.complete(at(2), OpResult::Appended(Err(AppendError::Full)));
    let answers = outcomes(&mut appender);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|(_, o)| code(&o[0]) == ErrorCode::JournalUnavailable));
    appender.push(at(3), "c", vec![again(publish(1, "p", 1, 1))]);
    assert_eq!(frame(&mut appender, 3).0, 1);
}

#[test]
fn d3_a_release_writes_what_waits_and_takes_nothing_more() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    appender.release();
    assert!(appender.is_between() && appender.owned().is_none());
    appender.push(at(1), "b", vec![publish(1, "p", 2, 1)]);
    frame(&mut appender, 1);
    appender.complete(at(2), OpResult::Appended(Ok(2)));
    let _ = appender.poll(at(2));
    let answers = outcomes(&mut appender);
    assert_eq!(answers, [("b", vec![Outcome::NotStored]), ("a", vec![stored(2, 0, 0)])]);
    assert!(matches!(appender.events().next_back(), Some(Event::Released { table: Some(_) })));
}

#[test]
fn an_idle_appender_lingers_and_a_busy_one_does_not() {
    let mut appender = owner();
    appender.config.linger = Duration::from_millis(2);
    appender.push(at(10), "a", vec![publish(1, "p", 1, 1)]);
    assert_eq!(appender.poll(at(10)), (None, Some(at(12).mono)));
    frame(&mut appender, 12);
    appender.complete(at(20), OpResult::Appended(Ok(2)));
    appender.push(at(20), "b", vec![publish(1, "p", 2, 1)]);
    assert_eq!(frame(&mut appender, 20).0, 2);
    appender.complete(at(30), OpResult::Appended(Ok(3)));
    let _ = appender.poll(at(30));
    appender.push(at(40), "c", vec![publish(1, "p", 3, LINGER_EVENTS)]);
    frame(&mut appender, 40);
}

#[test]
fn an_answer_to_a_reading_that_was_given_up_is_dropped() {
    let mut appender = appender(Duration::ZERO);
    appender.read_log();
    assert_eq!(appender.poll(at(0)).0, Some(Op::Open));
    appender.stand_down();
    appender.read_log();
    assert_eq!(appender.poll(at(0)), (None, None));
    let stale = Tip { epoch: Epoch::FIRST, first: 50, last: 49, bytes: 0, bytes_max: 0 };
    appender.complete(at(1), OpResult::Opened(Ok(stale)));
    assert_eq!(appender.poll(at(1)).0, Some(Op::Open));
    assert_eq!(appender.log_end(), None);
}

#[test]
fn d5_an_owner_that_gives_up_leaves_its_frame_unknown_and_takes_no_answer_for_it() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 1);
    appender.push(at(2), "b", vec![publish(2, "q", 1, 1)]);
    let away = || OpResult::Appended(Err(AppendError::Unknown("away".to_owned())));
    appender.complete(at(2000), away());
    frame(&mut appender, 2000);
    assert!(!appender.is_cut_off(at(10_000)), "nine seconds are too few");
    assert!(appender.is_cut_off(at(10_001)));
    appender.give_up();
    let expected = [("a", vec![Outcome::Unknown]), ("b", vec![Outcome::NotStored])];
    assert_eq!(outcomes(&mut appender), expected);
    assert_eq!(appender.events().collect::<Vec<_>>(), [Event::GaveUp]);
    assert_eq!(appender.owned(), None);
    // What comes for the frame that was left is nobody's: the log is read from its beginning.
    appender.read_log();
    assert_eq!(appender.poll(at(10_002)), (None, None));
    appender.complete(at(10_003), OpResult::Appended(Ok(2)));
    assert_eq!(appender.poll(at(10_003)).0, Some(Op::Open));
}

#[test]
fn d5_an_answer_of_any_kind_says_that_the_journal_is_there() {
    let mut appender = owner();
    appender.push(at(1), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 1);
    let wrong = AppendError::WrongLast { expected: 1 };
    appender.complete(at(9000), OpResult::Appended(Err(wrong)));
    assert!(matches!(appender.poll(at(9000)).0, Some(Op::Find { .. })));
    assert!(!appender.is_cut_off(at(18_999)));
    assert!(appender.is_cut_off(at(19_000)));
}

#[test]
fn d5_refusals_by_somebody_else_are_no_answers() {
    let mut appender = owner();
    let refused = || OpResult::Appended(Err(AppendError::Refused("not connected".to_owned())));
    for (seq, millis) in [(1, 1), (2, 4001), (3, 8001), (4, 8002)] {
        appender.push(at(millis), "a", vec![publish(1, "p", seq, 1)]);
        while let (Some(_), _) = appender.poll(at(millis)) {
            appender.complete(at(millis + 10), refused());
        }
        assert!(!appender.is_cut_off(at(millis + 10)));
    }
    assert!(appender.is_cut_off(at(10_001)));
}

#[test]
fn a5_of_a_cut_publish_whose_rest_is_not_stored_a_part_is() {
    let many = MAX_EVENTS_PER_FRAME + 1;
    for stored_by_another in [true, false] {
        let mut appender = owner();
        appender.push(at(1), "a", vec![publish(1, "p", 1, many)]);
        frame(&mut appender, 1);
        appender.complete(at(2), OpResult::Appended(Ok(2)));
        frame(&mut appender, 2);
        if stored_by_another {
            let wrong = AppendError::WrongLast { expected: 2 };
            appender.complete(at(3), OpResult::Appended(Err(wrong)));
            appender.poll(at(3));
            let ts = Timestamp(1_000_000_000);
            let bytes =
                stormwire_wire::frame::claim(FrameId { appender: [3; 16], counter: 1 }, "x");
            let (partition, epoch) = (Partition(0), Epoch::FIRST);
            let other = StoredFrame { partition, epoch, seq: 3, ts, bytes };
            appender.complete(at(4), OpResult::Found(Ok(Found::Frame(other))));
            assert_eq!(outcomes(&mut appender), [("a", vec![Outcome::Unknown])]);
        } else {
            appender.complete(at(3), OpResult::Appended(Err(AppendError::Full)));
            let answers = outcomes(&mut appender);
            assert_eq!(code(&answers[0].1[0]), ErrorCode::UnknownOutcome);
        }
    }
}

#[test]
fn b7_the_table_is_saved_every_ten_seconds_if_it_has_changed() {
    let mut appender = owner();
    assert_eq!(appender.table_to_save(Duration::from_millis(999)), None);
    let first = appender.table_to_save(Duration::from_secs(1)).unwrap();
    assert_eq!((first.epoch, first.through), (Epoch::FIRST, 1));
    assert_eq!(appender.table_to_save(Duration::from_secs(30)), None, "one is under way");
    appender.saved(Duration::from_secs(30), false);
    assert_eq!(appender.table_to_save(Duration::from_secs(31)).unwrap().through, 1);
    appender.saved(Duration::from_secs(31), true);
    assert_eq!(appender.table_to_save(Duration::from_secs(100)), None, "nothing is new");
    appender.push(at(100_000), "a", vec![publish(1, "p", 1, 1)]);
    frame(&mut appender, 100_000);
    assert_eq!(
        appender.table_to_save(Duration::from_secs(100)),
        None,
        "not settled: not in the table"
    );
    appender.complete(at(100_001), OpResult::Appended(Ok(2)));
    assert_eq!(appender.table_to_save(Duration::from_secs(101)).unwrap().through, 2);
    // D3: what is let go takes its table along.
    appender.release();
    let Some(Event::Released { table: Some(table) }) = appender.events().last() else { panic!() };
    assert_eq!(table.through, 2);
}
