//! What becomes of a partition between its owners.

use crate::stage::{A, B, BASE, Send, Stage, send};
use std::time::Duration;
use stormwire_core::{Partition, PartitionCount};
use stormwire_journal::appender::Event;
use stormwire_journal::owner::{Decision, Members, Ownership};
use stormwire_journal::{AppendError, Op, OpResult};

/// Proves: of two that both believe to own the partition, one is fenced by the log; what it could not
/// write goes through the other, once and in order.
#[test]
fn two_owners() {
    let mut stage = Stage::owned();
    let q = |seq| Send { producer: Some("q"), connection: 5, ..send(seq) };
    stage.publish(A, send(1));
    stage.run(A);
    // B takes A for dead; A knows nothing of it, and both append.
    let claim = stage.own(B);
    assert!(stage.owner(A).is_some());
    stage.publish(A, send(2));
    stage.publish(A, send(3));
    stage.publish(B, q(1));
    let (of_a, of_b) = (stage.frame(A), stage.frame(B));
    let (refused, stored) = (stage.land(&of_a), stage.land(&of_b));
    assert_eq!(refused, OpResult::Appended(Err(AppendError::WrongLast { expected: 2 })));
    stage.complete(B, stored);
    stage.complete(A, refused);
    stage.run(A);
    assert!(stage.events(A).contains(&Event::Fenced));
    let batch = stage.ask(A);
    stage.arrive(A, B, &claim, batch);
    stage.run(B);
    assert_eq!(stage.told(A), ["1:1 stored 2.0", "1:2 stored 5.0", "1:3 stored 5.1"]);
    assert_eq!(stage.stored(), ["p:1", "q:1", "p:2", "p:3"]);
}

/// Proves: an owner that dies between the journal's acknowledgement and its own leaves a copy that the next
/// owner finds; the lane's repeat gets its offsets and no second copy, with and without a producer.
#[test]
fn owner_dies_after_append() {
    for producer in [Some("p"), None] {
        let mut stage = Stage::new();
        let claim = stage.own(A);
        stage.publish(B, Send { producer, ..send(1) });
        let batch = stage.ask(B);
        stage.arrive(B, A, &claim, batch);
        let frame = stage.frame(A);
        assert_eq!(stage.land(&frame), OpResult::Appended(Ok(2)));
        // A is gone, its heartbeats have stopped.
        stage.now += 4000;
        stage.give_up(B);
        stage.own(B);
        stage.run(B);
        assert_eq!(stage.told(B), ["1:1 stored 2.0"]);
        assert_eq!(stage.stored().len(), 1);
    }
}

/// Proves: a first copy that is under way while another claims either lands before the claim and is found,
/// or never lands; the second copy is the only other one.
#[test]
fn takeover_between_two_copies() {
    for lands_before_the_claim in [true, false] {
        let mut stage = Stage::new();
        let claim = stage.own(A);
        stage.publish(B, send(1));
        let batch = stage.ask(B);
        stage.arrive(B, A, &claim, batch);
        let first_copy = stage.frame(A);
        stage.time_out(A);
        stage.give_up(B);
        stage.read(B);
        stage.claim(B);
        let claim = stage.poll(B).expect("the claim is sent");
        if lands_before_the_claim {
            assert_eq!(stage.land(&first_copy), OpResult::Appended(Ok(2)));
        }
        let answer = stage.land(&claim);
        stage.complete(B, answer);
        stage.run(B);
        if lands_before_the_claim {
            assert_eq!(stage.events(B), [Event::ClaimRefused]);
            stage.claim(B);
            stage.run(B);
        } else {
            let late = OpResult::Appended(Err(AppendError::WrongLast { expected: 1 }));
            assert_eq!(stage.land(&first_copy), late);
        }
        stage.run(B);
        let told = if lands_before_the_claim { "1:1 stored 2.0" } else { "1:1 stored 3.0" };
        assert_eq!(stage.told(B), [told]);
        assert_eq!(stage.stored(), ["p:1"]);
    }
}

/// Proves: a frame and another's claim for the same place: the log takes one, and whoever lost knows for
/// certain; an event of the loser is stored once, by the other.
#[test]
fn fence_race() {
    let mut stage = Stage::owned();
    stage.read(B);
    stage.publish(A, send(1));
    let frame = stage.frame(A);
    stage.claim(B);
    let claim = stage.poll(B).expect("the claim is sent");
    let (won, lost) = (stage.land(&claim), stage.land(&frame));
    stage.complete(B, won);
    stage.complete(A, lost);
    stage.run(A);
    assert!(stage.events(A).contains(&Event::Fenced));
    assert!(stage.told(A).is_empty(), "it is not stored, so the lane asks the new owner");
    let batch = stage.ask(A);
    let claim = stage.owner(B).expect("B owns it");
    stage.arrive(A, B, &claim, batch);
    stage.run(B);
    assert_eq!(stage.told(A), ["1:1 stored 3.0"]);

    // The other way about: the frame is first, the claim is refused and reads the frame.
    stage.read(A);
    stage.publish(B, send(2));
    let frame = stage.frame(B);
    stage.claim(A);
    let claim = stage.poll(A).expect("the claim is sent");
    let (won, lost) = (stage.land(&frame), stage.land(&claim));
    stage.complete(B, won);
    stage.complete(A, lost);
    stage.run(A);
    assert!(stage.events(A).contains(&Event::ClaimRefused));
    stage.own(A);
    stage.publish(A, send(2).again(1));
    stage.run(A);
    assert_eq!(stage.told(A), ["2:2 duplicate 4.0"]);
    assert_eq!(stage.stored(), ["p:1", "p:2"]);
}

/// Proves: gateways that cannot hear each other do not claim in turn: a young frame in the log says that its
/// writer lives, and when it stops the other takes over.
#[test]
fn duel() {
    let partition = Partition(0);
    let mut stage = Stage::new();
    let members = ["a", "b"].map(|name| {
        Members::new(name, [1; 16], PartitionCount::new(1).unwrap(), false, Duration::ZERO)
    });
    let mut ownerships = [Ownership::new(partition), Ownership::new(partition)];
    let (mut claims, mut seq, mut dead) = (0, 0, None);
    for step in 0..600u64 {
        stage.now = stage.now.max(step * 100);
        for at in [A, B].into_iter().filter(|at| dead != Some(*at)) {
            if stage.owner(at).is_some() {
                // The owner writes now and then, and one that was fenced finds out by it.
                if step % 25 == 0 {
                    seq += 1;
                    stage.publish(at, Send { connection: step, ..send(seq) });
                    stage.run(at);
                }
            } else {
                let (now, log) = (stage.time(), stage.log_end(at));
                match ownerships[at].decide(now, &members[at], log) {
                    Decision::ReadLog => stage.read(at),
                    Decision::Claim => {
                        stage.claim(at);
                        stage.run(at);
                    }
                    Decision::StandDown | Decision::Wait => {}
                    Decision::Ask(of) => panic!("nobody was heard, {of:?}"),
                }
            }
            for event in stage.events(at) {
                match event {
                    Event::Claimed { .. } => claims += 1,
                    Event::Fenced | Event::ClaimRefused => {
                        ownerships[at].lost(stage.time().mono, 0.0)
                    }
                    _ => {}
                }
            }
        }
        if step == 300 {
            assert_eq!(claims, 1, "one claim in half a minute");
            dead = [A, B].into_iter().find(|at| stage.owner(*at).is_some());
        }
    }
    assert_eq!(claims, 2, "the other one takes over, once");
    assert!(stage.told(A).iter().chain(&stage.told(B)).all(|told| told.contains("stored")));
    assert_eq!(stage.stored().len(), usize::try_from(seq).unwrap());
}

/// Proves: what an owner leaves behind that gives the partition up without an answer is stored once.
#[test]
fn owner_gives_up() {
    for lands in [true, false] {
        let mut stage = Stage::owned();
        stage.publish(A, send(1));
        let frame = stage.frame(A);
        stage.time_out(A);
        stage.give_partition_up(A);
        if lands {
            stage.land(&frame);
        }
        let claim = stage.own(B);
        stage.land(&frame);
        let batch = stage.ask(A);
        stage.arrive(A, B, &claim, batch);
        stage.run(B);
        assert_eq!(stage.told(A), [if lands { "1:1 stored 2.0" } else { "1:1 stored 3.0" }]);
        assert_eq!(stage.stored(), ["p:1"]);
    }
}

/// Proves: a partition that is handed over takes its table along, and the next owner knows every repeat.
#[test]
fn handed_over() {
    let mut stage = Stage::owned();
    stage.publish(A, send(1));
    stage.run(A);
    stage.release(A);
    assert_eq!(stage.log.saved_through, 2);
    stage.log.first = stage.log.saved_through;
    stage.own(B);
    stage.publish(B, send(1).again(1));
    stage.run(B);
    assert_eq!(stage.told(B), ["2:1 duplicate 2.0"]);
}

/// Proves: an owner with nothing to write that was asleep while another claimed, and was never told, finds it
/// in the log within seconds; else both would wait for each other when the other is gone.
#[test]
fn idle_owner_that_slept() {
    let mut stage = Stage::owned();
    stage.own(B);
    stage.release(B);
    assert!(stage.owner(A).is_some(), "nobody has told it");
    stage.now += 5000;
    stage.run(A);
    assert!(stage.owner(A).is_none());
    assert_eq!(stage.events(A).last(), Some(&Event::Fenced));
    stage.own(A);
    stage.publish(A, send(1));
    stage.run(A);
    assert_eq!(stage.told(A), ["1:1 stored 4.0"]);
}

/// `lying-old-leader`. Proves: one that is cut off from the others answers from its shorter log, says old
/// acknowledgements again and takes what it cannot keep; nothing acknowledged is written over, lost or
/// stored twice by its word, and no sound log is called gone back.
#[test]
fn lying_old_leader() {
    let mut stage = Stage::owned();
    for seq in 1..=3 {
        stage.publish(A, send(seq));
        stage.run(A);
    }
    let mut old = stage.log.as_of(2);
    // Of the owner's next frame it says what it said of an earlier one, and then that the log ends long
    // before it: only a write could prove that.
    stage.publish(A, send(4));
    stage.frame(A);
    stage.complete(A, OpResult::Appended(Ok(2)));
    let asked = stage.poll(A).expect("an acknowledgement of another number settles nothing");
    let shorter = old.answer(BASE, &asked);
    stage.complete(A, shorter);
    let proof = stage.poll(A).expect("it is not believed");
    assert!(matches!(proof, Op::Append { expected_last: 2, .. }), "{proof:?}");
    assert_eq!(stage.land(&proof), OpResult::Appended(Err(AppendError::WrongLast { expected: 2 })));
    stage.time_out(A);
    // Another reads from it that the log ends there, and claims.
    std::mem::swap(&mut stage.log, &mut old);
    stage.read(B);
    std::mem::swap(&mut stage.log, &mut old);
    assert_eq!(stage.log_end(B).map(|end| end.last), Some(2));
    stage.claim(B);
    stage.poll(B).expect("the claim is sent");
    stage.time_out(B);
    stage.run(B);
    assert_eq!(stage.events(B), [Event::ClaimRefused]);
    assert_eq!(stage.owner(B), None);
    // It knows better now.
    stage.run(A);
    assert!(stage.owner(A).is_some(), "nobody has claimed");
    let told = stage.told(A);
    assert_eq!(told, ["1:1 stored 2.0", "1:2 stored 3.0", "1:3 stored 4.0", "1:4 stored 5.0"]);
    assert_eq!(stage.stored(), ["p:1", "p:2", "p:3", "p:4"]);
    assert!(!stage.log.is_told());
}
