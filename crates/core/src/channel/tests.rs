//! Names, patterns and the pinned partition map.

use super::*;
use proptest::prelude::*;

#[test]
fn a_channel_has_a_namespace_and_a_name() {
    let channel = Channel::parse("flights:JFK-AA").unwrap();
    assert_eq!(channel.namespace(), "flights");
    assert_eq!(channel.name(), "JFK-AA");
}

#[test]
fn a_bad_name_is_told_which_rule_it_breaks() {
    let cases = [
        ("flights", "has no colon"),
        (":a", "namespace of a channel has 1 to 64 bytes, this one has 0"),
        ("a:", "name of a channel has 1 to 190 bytes, this one has 0"),
        ("a:b:c", "':' at byte 3"),
        ("a:b*", "'*' at byte 3 is not allowed; a wildcard is for subscribing"),
        ("a:b\u{0}", "'\\0' at byte 3"),
        ("a:é", "'é' at byte 2"),
    ];
    for (text, expected) in cases {
        let message = Channel::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    assert!(Channel::parse(&format!("a:{}", "x".repeat(191))).is_err());
    assert!(Channel::parse(&format!("{}:x", "n".repeat(65))).is_err());
    assert!(Channel::parse(&format!("{}:{}", "n".repeat(64), "x".repeat(190))).is_ok());
}

#[test]
fn a_star_stands_only_as_the_last_segment() {
    for good in ["*", "orders:*", "orders:eu.*", "orders:eu"] {
        assert_eq!(Pattern::parse(good).unwrap().to_string(), good);
    }
    for bad in ["", "or*", "orders:e*", "orders:*.eu", "*:x", "orders:**"] {
        assert!(Pattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_pattern_matches_what_is_below_it() {
    let below = Pattern::parse("orders:eu.*").unwrap();
    assert!(below.matches("orders:eu.de"));
    assert!(!below.matches("orders:eu"));
    assert!(!below.matches("orders:us.ny"));
    assert!(Pattern::parse("*").unwrap().matches("a:b"));
}

/// Pinned: a changed map would tear every channel of a living cluster from its log.
#[test]
fn the_partition_map_never_changes() {
    let eight = PartitionCount::new(8).unwrap();
    assert_eq!((eight.of(b"a").0, eight.of(b"b").0, eight.of(b"zz").0), (4, 5, 5));
    let channel = Channel::parse("flights:JFK-AA").unwrap();
    let hash = fnv1a32(b"flights:JFK-AA");
    assert_eq!(u32::from(channel.partition(PartitionCount::DEFAULT).0), hash % 16);
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,40}") {
        if let Ok(channel) = Channel::parse(&text) {
            prop_assert_eq!(channel.as_str(), &text);
            prop_assert!(Pattern::parse(&text).unwrap().matches(&text));
        }
        let _ = Pattern::parse(&text);
    }

    #[test]
    fn a_partition_is_below_the_count(bytes: Vec<u8>, count in 1u16..=64) {
        prop_assert!(PartitionCount::new(count).unwrap().of(&bytes).0 < count);
    }
}
