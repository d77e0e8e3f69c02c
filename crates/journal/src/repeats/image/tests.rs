use super::super::{Numbers, Verdict};
use super::*;
use proptest::prelude::*;
use stormwire_core::Offset;

const LAST: FrameId = FrameId { appender: [7; 16], counter: 3 };

fn key(n: u64) -> ProducerKey {
    ProducerKey::of(&format!("user {}", n % 3), &n.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A table with a user that has a horizon of its own, and a producer with several ranges.
fn table() -> Repeats {
    let mut repeats = Repeats::new(Timestamp(1_000_000), 1 << 20);
    for publish in 0..3 {
        let offset = Offset(4096 * (10 + publish * 5));
        repeats.replay(key(1), 1 + publish * 300, 2, offset, Timestamp(2_000_000));
    }
    repeats.replay(key(2), 5, 1, Offset(99), Timestamp(3_000_000));
    repeats.users.raise(42, 1500);
    repeats
}

#[test]
fn version_1_is_pinned() {
    let pinned = include_str!("golden.hex").split_whitespace().collect::<String>();
    assert_eq!(hex(&table().image(LAST)), pinned, "a change of these bytes is a new version");
    let byte = |at| u8::from_str_radix(&pinned[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..pinned.len()).step_by(2).map(byte).collect();
    let (read, id) = Repeats::from_image(&bytes, 1 << 20).unwrap();
    assert_eq!((id, read.len(), read.horizon()), (LAST, 2, Timestamp(1_000_000)));
    assert_eq!(read.image(LAST), table().image(LAST));
}

#[test]
fn an_image_that_would_be_too_large_leaves_the_oldest_out_and_says_so() {
    let mut repeats = Repeats::new(Timestamp(0), 1 << 20);
    for n in 0..100u64 {
        let at = Timestamp(1_000_000 + n as i64 * 1000);
        repeats.replay(key(n), 1, 1, Offset(n), at);
    }
    let image = repeats.image_within(LAST, 5000);
    assert!(image.len() <= 5000);
    let (read, _) = Repeats::from_image(&image, 1 << 20).unwrap();
    assert!(!read.is_empty() && read.len() < 100);
    for n in 0..100 {
        let first_sent = Some(Timestamp(1_000_000 + n as i64 * 1000));
        let numbers = Numbers { seq: 1, count: 1, first_sent };
        let verdict = read.judge(key(n), read.find(key(n)), numbers);
        assert!(matches!(verdict, Verdict::Duplicate { .. } | Verdict::Forgotten), "{verdict:?}");
    }
}

#[test]
fn what_is_cut_or_lies_about_its_length_is_no_table() {
    let image = table().image(LAST);
    for len in 0..image.len() {
        assert!(Repeats::from_image(&image[..len], 1 << 20).is_err(), "{len} bytes");
    }
    let mut longer = image.to_vec();
    longer.push(0);
    assert!(Repeats::from_image(&longer, 1 << 20).is_err());
    let mut huge = image.to_vec();
    huge[34..38].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Repeats::from_image(&huge, 1 << 20).is_err());
}

proptest! {
    #[test]
    fn a_table_that_was_read_back_says_the_same(
        writes in prop::collection::vec((0usize..8, 1u64..40, 1u32..5, 1u64..20_000, 0i64..500), 0..600),
    ) {
        let mut repeats = Repeats::new(Timestamp(1_000_000), 1 << 20);
        let (mut seqs, mut offset, mut at) = ([1u64; 8], 0, 1_000_000);
        for (who, skip, count, distance, pause) in writes {
            seqs[who] += skip;
            (offset, at) = (offset + distance, at + pause);
            let seq = seqs[who];
            repeats.replay(key(who as u64), seq, count, Offset(offset), Timestamp(at));
            seqs[who] += u64::from(count);
        }
        let image = repeats.image(LAST);
        let (read, id) = Repeats::from_image(&image, 1 << 20).unwrap();
        prop_assert_eq!(id, LAST);
        prop_assert_eq!(read.image(LAST), image);
        for (who, highest) in (0u64..).zip(seqs) {
            for seq in (1..highest + 3).rev().take(400) {
                let numbers = Numbers { seq, count: 2, first_sent: Some(Timestamp(1_200_000)) };
                let before = repeats.judge(key(who), repeats.find(key(who)), numbers);
                prop_assert_eq!(read.judge(key(who), read.find(key(who)), numbers), before);
            }
        }
    }

    #[test]
    fn spoilt_bytes_never_panic(at in 0usize..200, to in any::<u8>(), seq in 1u64..1000) {
        let mut image = table().image(LAST).to_vec();
        let at = at % image.len();
        image[at] = to;
        if let Ok((read, _)) = Repeats::from_image(&image, 1 << 20) {
            let numbers = Numbers { seq, count: 1, first_sent: Some(Timestamp(2_000_000)) };
            let _ = read.judge(key(1), read.find(key(1)), numbers);
        }
    }
}
