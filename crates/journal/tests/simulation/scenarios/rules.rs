//! Rules that random worlds hardly ever break by themselves, each at the moment when it counts.

use crate::stage::{A, B, Send, Stage, send};

/// Proves B1: every publish that may rightly come again is known, with its own offsets.
#[test]
fn b1_the_last_256_publishes_are_known() {
    let mut stage = Stage::owned();
    for seq in 1..=256 {
        stage.publish(A, send(seq));
        stage.run(A);
    }
    stage.told(A);
    stage.own(B);
    for seq in 1..=256 {
        stage.publish(B, send(seq).again(1));
    }
    stage.run(B);
    let expected: Vec<_> =
        (1..=256).map(|seq| format!("2:{seq} duplicate {}.0", seq + 1)).collect();
    assert_eq!(stage.told(B), expected);
}

/// Proves B2: a number that was passed over is never called a duplicate because it is low.
#[test]
fn b2_low_is_not_stored() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    stage.publish(A, send(3));
    stage.run(A);
    stage.publish(A, send(2).again(1));
    stage.publish(A, Send { connection: 4, ..send(2) });
    stage.run(A);
    assert_eq!(stage.told(A)[2..], ["2:2 unknown_outcome", "4:2 conflict"]);
    assert_eq!(stage.stored(), ["p:1", "p:3"]);
}

/// Proves C1 within a batch: above what an appender refuses, it takes nothing of the same connection, and
/// all of the others.
#[test]
fn c1_within_a_batch() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    stage.publish(A, send(3));
    stage.run(A);
    stage.publish(A, send(2).again(1));
    stage.publish(A, Send { connection: 2, ..send(4) });
    stage.publish(A, Send { producer: Some("q"), connection: 3, ..send(1) });
    stage.run(A);
    let expected = ["2:2 unknown_outcome", "2:4 out_of_order 2", "3:1 stored 3.0"];
    assert_eq!(stage.told(A)[2..], expected);
    assert_eq!(stage.stored(), ["p:1", "p:3", "q:1"]);
}

/// Proves A3: of a frame whose place was trimmed away nobody can say that it is not stored; as a repeat its
/// events get the offsets of the copy that is.
#[test]
fn a3_below_the_first() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    let frame = stage.frame(A);
    stage.land(&frame);
    stage.time_out(A);
    let claim = stage.own(B);
    stage.now += 2000;
    stage.save(B);
    stage.log.first = stage.log.saved_through;
    assert_eq!(stage.log.first, 3);
    stage.run(A);
    let batch = stage.ask(A);
    stage.arrive(A, B, &claim, batch);
    stage.run(B);
    assert_eq!(stage.told(A), ["1:1 stored 2.0"]);
}

/// Proves A4 and C1: what waits for the frame that is being made is not overtaken on its connection.
#[test]
fn a4_what_is_held_is_not_overtaken() {
    let mut stage = Stage::owned();
    stage.publish(A, Send { count: 2, ..send(1) });
    stage.publish(A, Send { count: 4, ..send(1).again(1) });
    stage.publish(A, Send { connection: 2, ..send(5) });
    stage.run(A);
    assert_eq!(stage.told(A), ["1:1 stored 2.0", "2:1 stored 2.0", "2:5 stored 3.2"]);
    assert_eq!(stage.stored(), ["p:1", "p:2", "p:3", "p:4", "p:5"]);
}

/// Proves D4: an owner takes nothing that was meant for an earlier claim, though it is the same gateway:
/// what was answered as not stored meanwhile would be stored.
#[test]
fn d4_a_request_of_an_earlier_claim() {
    let mut stage = Stage::new();
    let earlier = stage.own(A);
    stage.publish(B, Send { producer: None, ..send(1) });
    let on_its_way = stage.ask(B);
    stage.give_up(B);
    stage.read(B);
    stage.claim(B);
    let claim = stage.poll(B).expect("the claim is sent");
    let claimed = stage.land(&claim);
    stage.log.full = true;
    stage.complete(B, claimed);
    stage.run(B);
    assert_eq!(stage.told(B), ["1:1 journal_unavailable"]);
    stage.log.full = false;
    // A hears of the newer claim, lets go, and claims again later.
    stage.release(A);
    stage.own(A);
    stage.arrive(B, A, &earlier, on_its_way);
    stage.run(A);
    assert!(stage.stored().is_empty());
    assert_eq!(stage.last(), 3, "three claims");
}

/// Proves C4: events without a producer are stored once, whoever their lane has to ask.
#[test]
fn c4_a_lane_that_asks_twice() {
    let mut stage = Stage::new();
    let claim = stage.own(A);
    for seq in 1..=3 {
        stage.publish(B, Send { producer: None, ..send(seq) });
    }
    let batch = stage.ask(B);
    stage.arrive(B, A, &claim, batch);
    let frame = stage.frame(A);
    stage.land(&frame);
    stage.give_up(B);
    stage.own(B);
    stage.run(B);
    assert_eq!(stage.told(B), ["1:1 stored 2.0", "1:2 stored 2.1", "1:3 stored 2.2"]);
    assert_eq!(stage.stored().len(), 3);
}
