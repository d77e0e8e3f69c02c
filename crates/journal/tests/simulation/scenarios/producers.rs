//! What producers and their clients go through.

use crate::stage::{A, B, Send, Stage, send};
use stormwire_journal::{AppendError, Op, OpResult};

const MINUTE: u64 = 60_000;

/// Proves: what nobody remembers is refused for good, its number is used up, and the producer goes on.
#[test]
fn forgotten_producer() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    stage.run(A);
    assert_eq!(stage.told(A), ["1:1 stored 2.0"]);
    stage.now += 11 * MINUTE;
    stage.publish(A, send(2).again(660));
    stage.publish(A, Send { connection: 2, ..send(3) });
    stage.run(A);
    assert_eq!(stage.told(A), ["2:2 forgotten", "2:3 stored 3.0"]);
    assert_eq!(stage.stored(), ["p:1", "p:3"]);
}

/// Proves: a frame that lands long after its time-out, after refusals of every kind and after its client
/// was answered, is found and counts once; the repeat gets its offsets.
#[test]
fn late_landing_frame() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    let first_copy = stage.frame(A);
    stage.time_out(A);
    let refusals = [
        AppendError::WrongLast { expected: 1 },
        AppendError::Refused("nobody answers".to_owned()),
        AppendError::Full,
        AppendError::WrongLast { expected: 1 },
    ];
    for refusal in refusals {
        stage.now += 2000;
        assert!(matches!(stage.poll(A), Some(Op::Append { .. })), "the same frame again");
        stage.complete(A, OpResult::Appended(Err(refusal)));
        stage.now += 2000;
        let find = stage.poll(A).expect("then its place is read");
        let absent = stage.land(&find);
        stage.complete(A, absent);
    }
    assert!(stage.now > 15_000);
    stage.expire(A);
    assert_eq!(stage.told(A), ["1:1 unknown_outcome"]);
    stage.publish(A, send(1).again(18));
    assert_eq!(stage.land(&first_copy), OpResult::Appended(Ok(2)), "it lands");
    stage.now += 2000;
    stage.run(A);
    assert_eq!(stage.told(A), ["2:1 duplicate 2.0"]);
    assert_eq!(stage.stored(), ["p:1"]);
}

/// Proves: `again` reckoned by server times tells a laptop that slept with its lid closed that nobody
/// remembers; its own clock, which stood still, would have had the event stored twice.
#[test]
fn sleeping_laptop() {
    for (asleep, told) in [(9 * 60, "2:1 duplicate 2.0"), (11 * 60, "2:1 forgotten")] {
        let mut stage = Stage::owned();
        stage.publish(A, send(1));
        stage.run(A);
        stage.now += asleep * 1000;
        stage.publish(A, send(1).again(asleep));
        stage.run(A);
        assert_eq!(stage.told(A)[1], told);
        assert_eq!(stage.stored(), ["p:1"]);
    }
}

/// Proves: a producer id that begins at 1 again is told so; nothing is swallowed as a repeat, nothing is
/// stored under a number twice, and it goes on above its highest number.
#[test]
fn restarted_producer_id() {
    let mut stage = Stage::owned();
    for seq in 1..=2 {
        stage.publish(A, send(seq));
        stage.run(A);
    }
    stage.told(A);
    for seq in 1..=3 {
        stage.publish(A, Send { connection: 9, ..send(seq) });
    }
    stage.run(A);
    assert_eq!(stage.told(A), ["9:1 conflict", "9:2 conflict", "9:3 stored 4.0"]);
    assert_eq!(stage.stored(), ["p:1", "p:2", "p:3"]);
}

/// Proves: a refusal in the middle of a pipeline (a full journal, a limiter) stops all behind it until it
/// comes again, also when there is room again before they are looked at: the order is kept.
#[test]
fn refuse_then_retry() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    stage.run(A);
    stage.log.full = true;
    stage.publish(A, send(2));
    let frame = stage.frame(A);
    stage.publish(A, send(3));
    let full = stage.land(&frame);
    stage.log.full = false;
    stage.complete(A, full);
    stage.publish(A, send(4));
    stage.run(A);
    let expected =
        ["1:1 stored 2.0", "1:2 journal_unavailable", "1:3 out_of_order 2", "1:4 out_of_order 2"];
    assert_eq!(stage.told(A), expected);
    for seq in 2..=4 {
        stage.publish(A, Send { again: Some(1), ..send(seq) });
    }
    stage.run(A);
    assert_eq!(stage.told(A), ["1:2 stored 3.0", "1:3 stored 3.1", "1:4 stored 3.2"]);
    stage.limit(A, send(5));
    stage.publish(A, send(6));
    assert_eq!(stage.told(A), ["1:6 out_of_order 5"]);
    stage.publish(A, send(5));
    stage.publish(A, send(6));
    stage.run(A);
    assert_eq!(stage.stored(), ["p:1", "p:2", "p:3", "p:4", "p:5", "p:6"]);
}

/// Proves: whoever takes another user's producer id touches nothing of that user's; and a second
/// connection of the same user and producer that numbers by itself is refused, not mixed in.
#[test]
fn hijacked_producer() {
    let mut stage = Stage::owned();
    let mallory = |seq| Send { user: "mallory", connection: 3, ..send(seq) };
    stage.publish(A, send(1));
    stage.run(A);
    stage.publish(A, mallory(1));
    stage.publish(A, mallory(7));
    stage.publish(A, Send { connection: 3, ..mallory(8).again(1) });
    stage.run(A);
    let expected = ["1:1 stored 2.0", "3:1 stored 3.0", "3:7 stored 3.1", "3:8 stored 3.2"];
    assert_eq!(stage.told(A), expected);
    stage.publish(A, send(2));
    stage.run(A);
    stage.publish(A, Send { connection: 4, ..send(1) });
    stage.publish(A, send(1).again(5));
    stage.run(A);
    assert_eq!(stage.told(A), ["1:2 stored 4.0", "4:1 conflict", "2:1 duplicate 2.0"]);
    assert_eq!(stage.stored(), ["p:1", "mallory/p:1", "mallory/p:7", "mallory/p:8", "p:2"]);
}

/// Proves: the saved table knows every repeat of which the frames were trimmed, for the next owner too.
#[test]
fn repeat_of_what_was_trimmed() {
    let mut stage = Stage::owned();
    for seq in 1..=5 {
        stage.publish(A, send(seq));
        stage.run(A);
    }
    stage.now += 10_000;
    stage.save(A);
    stage.log.first = stage.log.saved_through;
    stage.publish(A, send(6));
    stage.run(A);
    stage.own(B);
    for seq in 1..=7 {
        stage.publish(B, send(seq).again(12));
    }
    stage.run(B);
    let mut expected: Vec<_> =
        (1..=6).map(|seq| format!("2:{seq} duplicate {}.0", seq + 1)).collect();
    expected.push("2:7 stored 9.0".to_owned());
    assert_eq!(stage.told(B), expected);
}
