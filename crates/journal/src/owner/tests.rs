use super::*;
use crate::message::Notice;

const P: Partition = Partition(3);

fn at(millis: u64) -> Now {
    let wall = Timestamp(1_000_000_000 + i64::try_from(millis).unwrap());
    Now { mono: Duration::from_millis(millis), wall }
}

fn members(alone: bool) -> Members {
    Members::new("a", [1; 16], PartitionCount::DEFAULT, alone, Duration::ZERO)
}

fn beat(gateway: &str, owned: &[(Partition, u64)]) -> Heartbeat {
    let owned = owned.iter().map(|(p, claim)| (*p, Epoch::FIRST, *claim)).collect();
    Heartbeat { gateway: gateway.to_owned(), process: [2; 16], leaving: false, owned }
}

fn log(last: FrameSeq, written: Option<u64>) -> Option<LogEnd> {
    let written = written.map(|millis| at(millis).wall);
    Some(LogEnd { epoch: Epoch::FIRST, last, written })
}

/// A name that should own P beside "a", and one that should not.
fn names() -> (String, String) {
    let better = |name: &String| weight(name, P) > weight("a", P);
    let mut names = (0..).map(|n| format!("g{n}"));
    let winner = names.find(better).unwrap();
    (winner, names.find(|name| !better(name)).unwrap())
}

#[test]
fn d6_alone_there_is_no_waiting() {
    let (members, mut ownership) = (members(true), Ownership::new(P));
    assert_eq!(ownership.decide(at(0), &members, None), Decision::ReadLog);
    assert_eq!(ownership.decide(at(0), &members, log(9, Some(0))), Decision::Claim);
}

#[test]
fn d3_a_joiner_listens_first() {
    let (members, mut ownership) = (members(false), Ownership::new(P));
    assert_eq!(ownership.decide(at(1499), &members, log(0, None)), Decision::Wait);
    assert_eq!(ownership.decide(at(1500), &members, None), Decision::ReadLog);
    assert_eq!(ownership.decide(at(1500), &members, log(0, None)), Decision::Claim);
}

#[test]
fn d1_the_highest_weight_among_the_living_should_own() {
    let (winner, loser) = names();
    let mut members = members(false);
    let mut ownership = Ownership::new(P);
    assert_eq!(members.hear(at(1000), &beat(&winner, &[])), Ok(true));
    assert_eq!(members.hear(at(1000), &beat(&loser, &[])), Ok(true));
    assert_eq!(members.should_own(P, at(2000).mono), Some(&*winner));
    assert_eq!(ownership.decide(at(2000), &members, None), Decision::StandDown);
    // Silent for 1.5 s it counts as gone; one that is leaving does at once.
    assert_eq!(members.should_own(P, at(2500).mono), Some("a"));
    let leaving = Heartbeat { leaving: true, ..beat(&winner, &[]) };
    assert_eq!(members.hear(at(3000), &leaving), Ok(true));
    assert_eq!(members.should_own(P, at(3000).mono), Some("a"));
    members.leave();
    assert_eq!(members.should_own(P, at(9000).mono), None);
}

#[test]
fn d3_an_owner_that_lives_is_asked_and_never_fenced() {
    let (_, loser) = names();
    let (mut members, mut ownership) = (members(false), Ownership::new(P));
    let _ = members.hear(at(1900), &beat(&loser, &[(P, 7)]));
    let asked = ownership.decide(at(2000), &members, log(9, None));
    let owner = Claim { gateway: Arc::from(&*loser), epoch: Epoch::FIRST, seq: 7 };
    assert_eq!(asked, Decision::Ask(owner.clone()));
    ownership.asked(at(2000).mono);
    // Asked once a second, not with every look.
    assert_eq!(ownership.decide(at(2100), &members, log(9, None)), Decision::Wait);
    members.note_end(P, &owner);
    ownership.granted(at(2200).mono);
    assert!(ownership.is_granted(at(2300).mono));
    assert_eq!(ownership.decide(at(2300), &members, None), Decision::ReadLog);
    // The owner's last frame is young, but it has let go.
    assert_eq!(ownership.decide(at(2300), &members, log(9, Some(2200))), Decision::Claim);
}

#[test]
fn d1_a_frame_within_three_seconds_says_that_its_writer_lives() {
    let (members, mut ownership) = (members(false), Ownership::new(P));
    let young = log(9, Some(4000));
    assert_eq!(ownership.decide(at(5000), &members, young), Decision::ReadLog);
    assert_eq!(ownership.decide(at(5100), &members, young), Decision::Wait);
    assert_eq!(ownership.decide(at(6999), &members, young), Decision::ReadLog);
    assert_eq!(ownership.decide(at(7000), &members, young), Decision::Claim);
}

#[test]
fn d2_silence_counts_only_with_no_frame_in_the_log() {
    let (_, loser) = names();
    let (mut members, mut ownership) = (members(false), Ownership::new(P));
    let _ = members.hear(at(4000), &beat(&loser, &[(P, 7)]));
    // Silent, but it wrote a second after its last heartbeat.
    assert_eq!(ownership.decide(at(5600), &members, log(9, Some(5000))), Decision::ReadLog);
    // Silent, and its last frame is of the time when it still spoke.
    assert_eq!(ownership.decide(at(5600), &members, log(9, Some(4100))), Decision::Claim);
}

#[test]
fn d1_whoever_was_fenced_or_refused_backs_off() {
    for (random, first) in [(0.0, 500), (1.0, 8000)] {
        let (members, mut ownership) = (members(false), Ownership::new(P));
        ownership.lost(at(2000).mono, random);
        let before = at(2000 + first - 1);
        assert_eq!(ownership.decide(before, &members, log(0, None)), Decision::Wait);
        let then = at(2000 + first);
        assert_eq!(ownership.decide(then, &members, log(0, None)), Decision::Claim);
    }
}

#[test]
fn claims_are_ordered_by_the_log() {
    let mut members = members(false);
    let claim =
        |gateway: &str, seq| Claim { gateway: Arc::from(gateway), epoch: Epoch::FIRST, seq };
    assert!(members.note_claim(P, claim("b", 7)));
    assert!(!members.note_claim(P, claim("c", 5)));
    assert_eq!(members.owner(P).unwrap().seq, 7);
    assert!(members.is_outdated(P, Epoch::FIRST, 6) && !members.is_outdated(P, Epoch::FIRST, 7));
    members.note_end(P, &claim("c", 5));
    assert!(members.owner(P).is_some());
    // A heartbeat that no longer names the partition ends the claim, one that names it restores it.
    let _ = members.hear(at(10), &beat("b", &[]));
    assert!(members.owner(P).is_none());
    let _ = members.hear(at(20), &beat("b", &[(P, 7)]));
    assert_eq!(members.owner(P).unwrap().seq, 7);
    assert_eq!(members.others(at(30).mono), 1);
}

#[test]
fn a_second_process_of_this_name_is_noticed() {
    let mut members = members(false);
    assert_eq!(members.hear(at(0), &beat("a", &[])), Err([2; 16]));
    let own = Heartbeat { process: [1; 16], ..beat("a", &[]) };
    assert_eq!(members.hear(at(0), &own), Ok(false));
}

#[test]
fn partitions_spread_over_gateways() {
    let mut members = members(false);
    for name in ["b", "c", "d"] {
        let _ = members.hear(at(0), &beat(name, &[]));
    }
    let mut owners = HashMap::new();
    for p in 0..64 {
        let owner = members.should_own(Partition(p), at(0).mono).unwrap().to_owned();
        *owners.entry(owner).or_insert(0) += 1;
    }
    assert!(owners.len() == 4 && owners.values().all(|count| *count >= 8), "{owners:?}");
}

fn notice(gateway: &str, given_up: &[Partition]) -> Notice {
    Notice {
        gateway: gateway.to_owned(),
        process: [2; 16],
        reaches_journal: true,
        given_up: given_up.to_vec(),
        connected: Vec::new(),
    }
}

#[test]
fn d5_what_was_given_up_is_another_s_for_a_while() {
    let (winner, loser) = names();
    let mut members = members(false);
    members.hear(at(1000), &beat(&winner, &[])).unwrap();
    members.hear(at(1000), &beat(&loser, &[])).unwrap();
    assert!(!members.another_reaches_journal(at(1000).mono), "nobody has said so");
    assert!(!members.hear_notice(at(1000).mono, &notice("stranger", &[])));
    assert!(!members.hear_notice(at(1000).mono, &notice(&winner, &[])));
    assert!(members.another_reaches_journal(at(1000).mono));
    assert!(!members.another_reaches_journal(at(2500).mono), "what it said is too old");
    // A heartbeat does not make forget what was said; the winner gives the partition up.
    members.hear(at(2600), &beat(&winner, &[])).unwrap();
    members.hear(at(2600), &beat(&loser, &[])).unwrap();
    assert!(members.hear_notice(at(2600).mono, &notice(&winner, &[P])));
    assert_eq!(members.should_own(P, at(2600).mono), Some("a"));
    members.give_up(P, at(2600).mono);
    assert_eq!(members.should_own(P, at(2600).mono), Some(&*loser));
    assert_eq!(members.given_up(at(2600).mono), [P]);
    assert!(members.given_up(at(2600).mono + GIVEN_UP).is_empty());
    let mut ownership = Ownership::new(P);
    assert_eq!(ownership.decide(at(2600), &members, log(1, None)), Decision::StandDown);
}
