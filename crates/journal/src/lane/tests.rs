use super::*;
use stormwire_core::Offset;
use stormwire_wire::frame::{EventParts, EventsBuilder};

type TestLane = Lane<&'static str>;

fn lane() -> TestLane {
    Lane::new(LaneConfig {
        producer: Arc::from("lane"),
        bytes_max: 20_000,
        connection_bytes_max: 8_000,
        deadline: Duration::from_secs(15),
    })
}

fn at(seconds: u64) -> Now {
    let wall = Timestamp(1_000_000_000 + i64::try_from(seconds * 1000).unwrap());
    Now { mono: Duration::from_secs(seconds), wall }
}

fn request(connection: u64, producer: Option<&str>, seq: u64, bytes: usize) -> Request {
    let mut events = EventsBuilder::default();
    events.push(&EventParts { data: &vec![b'1'; bytes], ..Default::default() }).unwrap();
    Request {
        connection,
        channel: Channel::parse("x:y").unwrap(),
        user: Arc::from("alice"),
        producer: producer.map(Arc::from),
        seq,
        again: None,
        events: events.take(),
        trace: None,
    }
}

fn submit(lane: &mut TestLane, now: u64, seq: u64, name: &'static str) -> Option<Refusal> {
    lane.submit(at(now), request(1, Some("p"), seq, 10), name).err().map(|(_, refusal)| refusal)
}

fn stored(offset: u64) -> Outcome {
    let at = Offset(offset);
    Outcome::Stored(Stored { first: at, last: at, duplicate: false })
}

fn refused(code: ErrorCode) -> Outcome {
    Outcome::Refused(Refusal::new(code, "no"))
}

fn settle(lane: &mut TestLane, batch: Vec<Publish>, outcomes: Vec<Outcome>) {
    lane.settle(Epoch::FIRST, batch, outcomes);
}

fn codes(lane: &mut TestLane) -> Vec<(&'static str, Option<ErrorCode>)> {
    lane.answers().into_iter().map(|(t, answer)| (t, answer.err().map(|r| r.code))).collect()
}

#[test]
fn one_batch_is_under_way_at_a_time() {
    let mut lane = lane();
    assert_eq!(lane.submit(at(0), request(1, Some("p"), 1, 10), "a"), Ok(true));
    assert_eq!(lane.submit(at(0), request(1, Some("p"), 2, 10), "b"), Ok(false));
    let batch = lane.take().unwrap();
    assert_eq!(batch.len(), 2);
    assert!(submit(&mut lane, 0, 3, "c").is_none());
    assert!(lane.take().is_none());
    settle(&mut lane, batch, vec![stored(1), stored(2)]);
    assert_eq!(codes(&mut lane), [("a", None), ("b", None)]);
    assert_eq!(lane.take().unwrap()[0].seq, 3);
}

#[test]
fn c1_above_a_refused_number_nothing_is_taken_until_it_comes_again() {
    let mut lane = lane();
    for (seq, name) in [(1, "a"), (2, "b")] {
        assert!(submit(&mut lane, 0, seq, name).is_none());
    }
    let batch = lane.take().unwrap();
    assert!(submit(&mut lane, 0, 3, "c").is_none());
    let outcomes = vec![refused(ErrorCode::UnknownOutcome), refused(ErrorCode::OutOfOrder)];
    settle(&mut lane, batch, outcomes);
    // What waited behind is refused in the same step.
    let expected = [
        ("a", Some(ErrorCode::UnknownOutcome)),
        ("b", Some(ErrorCode::OutOfOrder)),
        ("c", Some(ErrorCode::OutOfOrder)),
    ];
    assert_eq!(codes(&mut lane), expected);
    assert_eq!(submit(&mut lane, 1, 2, "b").unwrap().expected, Some(1));
    // Another connection notices nothing.
    assert_eq!(lane.submit(at(1), request(2, Some("q"), 9, 10), "z"), Ok(true));
    for (seq, name) in [(1, "a"), (2, "b"), (3, "c")] {
        assert!(submit(&mut lane, 1, seq, name).is_none());
    }
}

#[test]
fn c1_a_permanent_refusal_uses_its_number_up() {
    let mut lane = lane();
    assert!(submit(&mut lane, 0, 1, "a").is_none());
    let batch = lane.take().unwrap();
    settle(&mut lane, batch, vec![refused(ErrorCode::Forgotten)]);
    assert!(submit(&mut lane, 0, 2, "b").is_none());
    lane.refused(1, 3, true);
    assert_eq!(submit(&mut lane, 0, 4, "d").unwrap().expected, Some(3));
    lane.refused(1, 3, false);
    assert!(submit(&mut lane, 0, 4, "d").is_none());
}

#[test]
fn c2_a_limiters_refusal_sets_the_fence_and_it_goes_with_the_connection() {
    let mut lane = lane();
    lane.refused(1, 5, true);
    assert_eq!(submit(&mut lane, 0, 6, "f").unwrap().code, ErrorCode::OutOfOrder);
    lane.closed(1);
    assert!(submit(&mut lane, 0, 6, "f").is_none());
    let batch = lane.take().unwrap();
    settle(&mut lane, batch, vec![stored(1)]);
    assert_eq!(lane.connections.len(), 0);
}

#[test]
fn c3_past_the_bounds_it_is_overloaded_and_the_fence_is_set() {
    let mut lane = lane();
    let big = |connection, seq| request(connection, Some("p"), seq, 5_000);
    assert!(lane.submit(at(0), big(1, 1), "a").is_ok());
    let (_, refusal) = lane.submit(at(0), big(1, 2), "b").unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    assert!(refusal.retry_after.is_some());
    assert_eq!(submit(&mut lane, 0, 3, "c").unwrap().expected, Some(2));
    assert!(lane.submit(at(0), big(2, 1), "d").is_ok());
    assert!(lane.submit(at(0), big(3, 1), "e").is_ok());
    let (_, refusal) = lane.submit(at(0), big(4, 1), "f").unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    assert!(lane.bytes() <= 20_000);
}

#[test]
fn c4_a_lane_asks_again_by_itself_and_as_a_repeat_where_it_does_not_know() {
    let mut lane = lane();
    assert!(submit(&mut lane, 0, 1, "a").is_none());
    assert!(lane.submit(at(0), request(2, None, 0, 10), "b").is_ok());
    let batch = lane.take().unwrap();
    settle(&mut lane, batch, vec![Outcome::NotStored, Outcome::Unknown]);
    assert!(!lane.has_answers());
    let batch = lane.take().unwrap();
    assert_eq!(batch[0].first_sent, None);
    assert_eq!(batch[1].first_sent, Some(at(0).wall));
    // Without a producer the lane is the producer, so the second copy is known for one.
    assert_eq!((&*batch[1].producer, batch[1].seq), ("lane", 1));
    let twice = Outcome::Stored(Stored { first: Offset(9), last: Offset(9), duplicate: true });
    settle(&mut lane, batch, vec![stored(8), twice]);
    let answers = lane.answers();
    // B2: the client said nothing of a repeat, so it is told of none.
    assert!(!answers[1].1.as_ref().unwrap().1.duplicate);
}

#[test]
fn a4_the_deadline_ends_the_answer_and_not_the_frame() {
    let mut lane = lane();
    assert!(submit(&mut lane, 0, 1, "a").is_none());
    let batch = lane.take().unwrap();
    assert!(submit(&mut lane, 5, 2, "b").is_none());
    assert_eq!(lane.expires(), Some(Duration::from_secs(15)));
    lane.expire(at(15));
    let expected = [("a", Some(ErrorCode::UnknownOutcome)), ("b", Some(ErrorCode::OutOfOrder))];
    assert_eq!(codes(&mut lane), expected);
    assert!(!lane.is_empty() && lane.take().is_none());
    settle(&mut lane, batch, vec![stored(1)]);
    assert!(lane.is_empty() && !lane.has_answers());
}

#[test]
fn what_was_under_way_behind_an_expired_publish_is_not_asked_again() {
    let mut lane = lane();
    assert!(submit(&mut lane, 0, 1, "a").is_none());
    assert!(submit(&mut lane, 9, 2, "b").is_none());
    let batch = lane.take().unwrap();
    lane.expire(at(15));
    assert_eq!(codes(&mut lane), [("a", Some(ErrorCode::UnknownOutcome))]);
    assert!(submit(&mut lane, 16, 1, "a again").is_none());
    settle(&mut lane, batch, vec![Outcome::NotStored, Outcome::NotStored]);
    // Asked again now, it would overtake the first.
    assert_eq!(codes(&mut lane), [("b", Some(ErrorCode::JournalUnavailable))]);
    assert_eq!(lane.take().unwrap().len(), 1);
}

#[test]
fn d5_without_an_owner_everything_is_refused() {
    let mut lane = lane();
    assert!(submit(&mut lane, 0, 1, "a").is_none());
    lane.set_unavailable(Some(Refusal::new(ErrorCode::JournalUnavailable, "no owner")));
    assert_eq!(codes(&mut lane), [("a", Some(ErrorCode::JournalUnavailable))]);
    assert_eq!(submit(&mut lane, 0, 1, "a").unwrap().code, ErrorCode::JournalUnavailable);
    lane.set_unavailable(None);
    assert_eq!(submit(&mut lane, 0, 2, "b").unwrap().expected, Some(1));
    assert!(submit(&mut lane, 0, 1, "a").is_none());
}

#[test]
fn impossible_numbers_and_sizes_are_refused_for_good() {
    let mut lane = lane();
    for seq in [0, SEQ_MAX + 1, u64::MAX] {
        assert_eq!(submit(&mut lane, 0, seq, "a").unwrap().code, ErrorCode::InvalidField, "{seq}");
    }
    let mut empty = request(1, Some("p"), 1, 1);
    empty.events = EncodedEvents::default();
    assert_eq!(lane.submit(at(0), empty, "a").unwrap_err().1.code, ErrorCode::InvalidField);
    assert!(submit(&mut lane, 0, 1, "a").is_none());
}
