use super::*;

fn key(name: &str) -> ProducerKey {
    ProducerKey::of("alice", name)
}

fn numbers(seq: u64, count: u32, first_sent: Option<i64>) -> Numbers {
    Numbers { seq, count, first_sent: first_sent.map(Timestamp) }
}

/// A table with one producer, `p`, that stored these (seq, count, offset) at second 1000.
fn table(stored: &[(u64, u32, u64)]) -> Repeats {
    let mut repeats = Repeats::new(Timestamp(0), 1 << 20);
    for (seq, count, offset) in stored {
        repeats.replay(key("p"), *seq, *count, Offset(*offset), Timestamp(1_000_000));
    }
    repeats
}

fn judge(repeats: &Repeats, seq: u64, count: u32, first_sent: Option<i64>) -> Verdict {
    repeats.judge(key("p"), repeats.find(key("p")), numbers(seq, count, first_sent))
}

const NEW: Verdict = Verdict::Append { skip: 0, first: None };

#[test]
fn b2_a_duplicate_needs_a_stored_range_and_the_word_again() {
    let repeats = table(&[(1, 3, 100), (7, 2, 200)]);
    let again = Some(900_000);
    let first_copy = Verdict::Duplicate { first: Offset(101), last: Offset(102) };
    assert_eq!(judge(&repeats, 2, 2, again), first_copy);
    assert_eq!(judge(&repeats, 2, 2, None), Verdict::Conflict);
    assert_eq!(judge(&repeats, 5, 1, None), Verdict::Conflict);
    assert_eq!(judge(&repeats, 5, 1, again), Verdict::UnknownOutcome);
    assert_eq!(judge(&repeats, 9, 1, None), NEW);
    assert_eq!(judge(&repeats, 9, 1, again), NEW);
}

#[test]
fn a_number_that_stands_for_a_body_is_the_only_one_of_its_producer() {
    let (low, mine, high) = (BODY_NUMBERS, BODY_NUMBERS + (7 << 16), BODY_NUMBERS + (9 << 16));
    let again = Some(900_000);
    let mut repeats = table(&[]);
    assert_eq!(judge(&repeats, mine, 3, again), NEW);
    let slot = repeats.reserve(repeats.find(key("p")), key("p"), mine + 2);
    for other in [low, mine, high] {
        assert_eq!(judge(&repeats, other, 3, again), Verdict::Wait, "that frame's answer decides");
    }
    repeats.settle(slot, mine, 3, Offset(100), Timestamp(1_000_000));
    let first_copy = Verdict::Duplicate { first: Offset(100), last: Offset(102) };
    assert_eq!(judge(&repeats, mine, 3, again), first_copy);
    for other in [low, high] {
        assert_eq!(judge(&repeats, other, 3, again), Verdict::Conflict);
    }
    let rest = Verdict::Append { skip: 3, first: Some(Offset(100)) };
    assert_eq!(judge(&repeats, mine, 5, again), rest, "a part of it was stored");
    assert_eq!(judge(&repeats, mine + 3, 2, again), NEW, "the rest of it");
}

#[test]
fn a5_a_publish_is_judged_event_by_event() {
    let repeats = table(&[(1, 3, 100), (4, 2, 200)]);
    let rest = Verdict::Append { skip: 3, first: Some(Offset(102)) };
    assert_eq!(judge(&repeats, 3, 6, Some(900_000)), rest);
    let across = Verdict::Duplicate { first: Offset(101), last: Offset(201) };
    assert_eq!(judge(&repeats, 2, 4, Some(900_000)), across);
}

#[test]
fn b3_what_was_sent_before_the_horizon_is_forgotten() {
    let mut repeats = Repeats::new(Timestamp(500_000), 1 << 20);
    let edge = 500_000 + 5_000;
    assert_eq!(judge(&repeats, 1, 1, Some(edge - 1)), Verdict::Forgotten);
    assert_eq!(judge(&repeats, 1, 1, Some(edge)), NEW);
    assert_eq!(judge(&repeats, 1, 1, None), NEW);
    repeats.replay(key("p"), 1, 1, Offset(1), Timestamp(600_000));
    repeats.forget_before(Timestamp(700_000));
    assert!(repeats.is_empty());
    assert_eq!(judge(&repeats, 1, 1, Some(600_000)), Verdict::Forgotten);
}

#[test]
fn a4_the_table_moves_only_when_the_frame_is_settled() {
    let mut repeats = table(&[]);
    let slot = repeats.reserve(None, key("p"), 3);
    assert_eq!(judge(&repeats, 1, 3, Some(900_000)), Verdict::Wait);
    assert_eq!(judge(&repeats, 3, 2, Some(900_000)), Verdict::Wait);
    assert_eq!(judge(&repeats, 1, 3, None), Verdict::Conflict);
    assert_eq!(judge(&repeats, 4, 1, None), NEW);
    repeats.release(slot);
    assert!(repeats.is_empty());
    assert_eq!(judge(&repeats, 1, 3, Some(900_000)), NEW);
    let slot = repeats.reserve(None, key("p"), 3);
    repeats.settle(slot, 1, 3, Offset(40), Timestamp(1_000_000));
    let first_copy = Verdict::Duplicate { first: Offset(40), last: Offset(42) };
    assert_eq!(judge(&repeats, 1, 3, Some(900_000)), first_copy);
}

#[test]
fn b1_the_last_256_publishes_of_a_producer_are_kept() {
    let mut repeats = table(&[]);
    for n in 0..2000u64 {
        // Gaps in numbers and offsets, so that no two ranges merge.
        repeats.replay(key("p"), 1 + n * 3, 2, Offset(n * 5000), Timestamp(1_000_000));
        for back in [0, 1, 100, 255] {
            let Some(m) = n.checked_sub(back) else { continue };
            let copy = Verdict::Duplicate { first: Offset(m * 5000), last: Offset(m * 5000 + 1) };
            assert_eq!(judge(&repeats, 1 + m * 3, 2, Some(900_000)), copy, "{m} after {n}");
        }
    }
    assert_eq!(judge(&repeats, 1, 2, Some(900_000)), Verdict::UnknownOutcome);
}

#[test]
fn slots_of_forgotten_producers_are_used_again() {
    let mut repeats = table(&[]);
    for round in 1..50 {
        for name in 0..100 {
            let at = Timestamp(round * 1_000_000);
            repeats.replay(key(&format!("{round}-{name}")), 1, 1, Offset(round as u64), at);
        }
        repeats.forget_before(Timestamp(round * 1_000_000));
        assert_eq!(repeats.len(), 100);
    }
    assert!(repeats.producers.len() <= 200, "{}", repeats.producers.len());
}

#[test]
fn a_million_producers_fit_in_256_mib() {
    const PARTITION: u32 = 1_000_000 / 16;
    let mut repeats = Repeats::new(Timestamp(0), usize::MAX);
    for n in 0..PARTITION {
        let key = key(&n.to_string());
        for publish in 0..8 {
            let offset = Offset((publish * 100_000 + u64::from(n)) * 4096);
            repeats.replay(key, 1 + publish * 16, 1, offset, Timestamp(1_000_000));
        }
    }
    // What the allocator adds to a small block is not counted by `bytes`: 16 bytes each, two a producer.
    let each = repeats.bytes() / PARTITION as usize + 32;
    println!("{each} bytes a producer of eight publishes");
    assert!(each * 1_000_000 <= 256 << 20, "{each} bytes a producer");
}

#[test]
fn past_its_bytes_the_table_says_less_and_never_anything_false() {
    let mut repeats = Repeats::new(Timestamp(0), 120_000);
    for n in 0..4000i64 {
        let at = Timestamp(1_000_000 + n * 100);
        repeats.replay(ProducerKey::of(&n.to_string(), "p"), 1, 1, Offset(n as u64), at);
    }
    let now = Timestamp(1_000_000 + 400_000);
    repeats.keep_within(now);
    assert!(repeats.live_bytes() <= 120_000, "{}", repeats.live_bytes());
    assert_eq!(repeats.horizon(), Timestamp(now.0 - 120_000));
    let first = ProducerKey::of("0", "p");
    let gone = repeats.find(first);
    let verdict = repeats.judge(first, gone, numbers(1, 1, Some(1_000_000)));
    assert_eq!(verdict, Verdict::Forgotten);
}

#[test]
fn b6_past_the_share_only_that_users_oldest_entries_go() {
    let mut repeats = Repeats::new(Timestamp(0), 100_000);
    let of = |user: &str, n: i64| ProducerKey::of(user, &n.to_string());
    for n in 0..4000i64 {
        let at = Timestamp(1_000_000 + n * 100);
        repeats.replay(of("loud", n), 1, 1, Offset(n as u64), at);
        if n % 100 == 0 {
            repeats.replay(of("calm", n), 1, 1, Offset(n as u64), at);
        }
    }
    assert!(repeats.is_over());
    repeats.keep_within(Timestamp(1_400_000));
    assert!(!repeats.is_over() && repeats.live_bytes() <= 100_000, "{}", repeats.live_bytes());
    assert_eq!(repeats.horizon(), Timestamp(800_000), "nobody else knows less");
    let judge = |user: &str, n: i64| {
        let key = of(user, n);
        repeats.judge(key, repeats.find(key), numbers(1, 1, Some(1_000_000 + n * 100)))
    };
    for n in (0..4000).step_by(100) {
        let at = Offset(n as u64);
        assert_eq!(judge("calm", n), Verdict::Duplicate { first: at, last: at });
    }
    assert_eq!(judge("loud", 0), Verdict::Forgotten);
    assert!(matches!(judge("loud", 3999), Verdict::Duplicate { .. }));
    // Never anything false: what is not there was written before the user's horizon.
    for n in 0..4000 {
        let known = matches!(judge("loud", n), Verdict::Duplicate { .. } | Verdict::Forgotten);
        assert!(known, "{n}: {:?}", judge("loud", n));
    }
}
