use super::*;
use stormwire_core::{Partition, Timestamp};

const ID: FrameId = FrameId { appender: [7; 16], counter: 3 };
const OTHER: FrameId = FrameId { appender: [8; 16], counter: 1 };

fn flight() -> Flight {
    let frame = stormwire_wire::frame::claim(ID, "here");
    Flight::new(Duration::ZERO, Epoch::FIRST, 41, ID, frame)
}

fn stored(id: FrameId) -> Found {
    let bytes = stormwire_wire::frame::claim(id, "there");
    let (partition, epoch) = (Partition(0), Epoch::FIRST);
    Found::Frame(StoredFrame { partition, epoch, seq: 42, ts: Timestamp(0), bytes })
}

fn absent(first: FrameSeq, last: FrameSeq) -> Found {
    Found::Absent(Tip { epoch: Epoch::FIRST, first, last, bytes: 0, bytes_max: 0 })
}

fn unknown() -> Result<FrameSeq, AppendError> {
    Err(AppendError::Unknown("no answer".to_owned()))
}

fn asks(flight: &Flight, now: Duration) -> bool {
    matches!(flight.op(now), Ok(Op::Find { seq: 42, .. }))
}

fn sends(flight: &Flight, now: Duration) -> bool {
    matches!(flight.op(now), Ok(Op::Append { expected_last: 41, .. }))
}

#[test]
fn a2_an_acknowledgement_settles_only_as_expected_plus_one() {
    assert_eq!(flight().appended(Duration::ZERO, Ok(42)), Some(Settled::Stored));
    let mut odd = flight();
    assert_eq!(odd.appended(Duration::ZERO, Ok(43)), None);
    assert!(asks(&odd, Duration::ZERO));
}

/// The frame is expected behind 41, and the log ends at 30.
fn proves(flight: &Flight, now: Duration) -> bool {
    let Ok(Op::Append { expected_last: 30, frame, .. }) = flight.op(now) else { return false };
    let body = stormwire_wire::frame::Frame::decode(&frame).unwrap().body;
    matches!(body, stormwire_wire::frame::Body::Rewound { lost_from: 31, seen: 41 })
}

#[test]
fn e1_a_shorter_log_has_gone_back_only_if_it_takes_the_word_of_it() {
    let refused = Err(AppendError::WrongLast { expected: 30 });
    for (result, settled) in
        [(Ok(31), Some(Settled::Rewound)), (Ok(32), None), (refused, None), (unknown(), None)]
    {
        let mut flight = flight();
        let now = Duration::ZERO;
        assert_eq!(flight.appended(now, Err(AppendError::WrongLast { expected: 41 })), None);
        assert!(asks(&flight, now));
        assert_eq!(flight.found(now, Ok(absent(1, 30))), None);
        assert!(proves(&flight, now), "who answers a shorter log may be cut off from the others");
        assert_eq!(flight.appended(now, result), settled);
        let later = now + Duration::from_secs(5);
        assert!(settled.is_some() || sends(&flight, later), "it goes on as before");
    }
}

#[test]
fn a3_unknown_is_sent_again_then_asked_after_in_turn_with_back_off() {
    let mut flight = flight();
    let mut now = Duration::from_secs(2);
    assert_eq!(flight.appended(now, unknown()), None);
    assert!(sends(&flight, now));
    assert_eq!(flight.appended(now, unknown()), None);
    assert!(asks(&flight, now));
    for _ in 0..10 {
        assert_eq!(flight.found(now, Ok(absent(1, 41))), None);
        let until = flight.op(now).unwrap_err();
        assert!(until > now && until <= now + BACKOFF_MAX);
        now = until;
        assert!(sends(&flight, now));
        assert_eq!(flight.appended(now, unknown()), None);
        assert!(asks(&flight, now));
    }
    assert_eq!(flight.found(now, Ok(stored(ID))), Some(Settled::Stored));
}

#[test]
fn a2_no_refusal_settles_a_frame_while_an_earlier_copy_is_unknown() {
    let refusals = [
        AppendError::WrongLast { expected: 41 },
        AppendError::Full,
        AppendError::Refused("nobody answers".to_owned()),
    ];
    for refusal in refusals {
        let mut flight = flight();
        assert_eq!(flight.appended(Duration::ZERO, unknown()), None);
        let late = Duration::from_secs(60);
        assert_eq!(flight.appended(late, Err(refusal.clone())), None, "{refusal}");
        assert!(asks(&flight, late), "{refusal}");
    }
}

#[test]
fn a2_anothers_frame_in_its_place_fences() {
    let mut flight = flight();
    let wrong = AppendError::WrongLast { expected: 41 };
    assert_eq!(flight.appended(Duration::ZERO, Err(wrong)), None);
    assert_eq!(flight.found(Duration::ZERO, Ok(stored(OTHER))), Some(Settled::Fenced));
}

#[test]
fn a3_below_the_first_sequence_the_outcome_stays_unknown() {
    let mut uncertain = flight();
    uncertain.appended(Duration::ZERO, unknown());
    uncertain.appended(Duration::ZERO, unknown());
    let gone = Ok(absent(43, 60));
    assert_eq!(uncertain.found(Duration::ZERO, gone.clone()), Some(Settled::FencedUnknown));
    let mut refused = flight();
    refused.appended(Duration::ZERO, Err(AppendError::WrongLast { expected: 41 }));
    assert_eq!(refused.found(Duration::ZERO, gone), Some(Settled::Fenced));
}

#[test]
fn a_frame_that_only_was_refused_is_tried_for_a_while_and_then_refused() {
    let refused = || Err(AppendError::Refused("no leader".to_owned()));
    let mut flight = flight();
    assert_eq!(flight.appended(Duration::ZERO, refused()), None);
    assert!(matches!(flight.appended(REFUSED_AFTER, refused()), Some(Settled::Refused(_))));
    let mut full = self::flight();
    let settled = full.appended(Duration::ZERO, Err(AppendError::Full));
    assert_eq!(settled, Some(Settled::Refused(AppendError::Full)));
}
