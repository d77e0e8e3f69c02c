use super::*;
use proptest::prelude::*;
use stormwire_wire::frame::{EventParts, EventsBuilder};

fn arb_claim() -> impl Strategy<Value = Claim> {
    ("[a-z0-9-]{1,64}", any::<u32>(), any::<u64>()).prop_map(|(gateway, epoch, seq)| Claim {
        gateway: Arc::from(gateway),
        epoch: Epoch(epoch),
        seq,
    })
}

prop_compose! {
    fn arb_publish()(
        connection in any::<u64>(),
        names in ("[a-z]{1,9}:[a-z]{1,9}", ".{0,40}", "[a-f0-9]{1,64}"),
        seq in 1..u64::MAX / 2,
        first_sent in proptest::option::of(0..i64::MAX),
        trace in proptest::option::of(any::<([u8; 16], [u8; 8], u8)>()),
        data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
    ) -> Publish {
        let mut events = EventsBuilder::default();
        for data in &data {
            events.push(&EventParts { data, binary: true, ..Default::default() }).unwrap();
        }
        Publish {
            connection,
            channel: Channel::parse(&names.0).unwrap(),
            key: ProducerKey::of(&names.1, &names.2),
            user: Arc::from(names.1),
            producer: Arc::from(names.2),
            seq,
            first_sent: first_sent.map(Timestamp),
            events: events.take(),
            trace: trace.map(|(trace, span, flags)| TraceContext { trace, span, flags }),
        }
    }
}

fn arb_outcome() -> impl Strategy<Value = Outcome> {
    let codes = proptest::sample::select(ErrorCode::ALL);
    prop_oneof![
        any::<(u64, u64, bool)>().prop_map(|(first, last, duplicate)| {
            Outcome::Stored(Stored { first: Offset(first), last: Offset(last), duplicate })
        }),
        Just(Outcome::NotStored),
        Just(Outcome::Unknown),
        (codes, "[ -~]{0,80}", proptest::option::of(0..1_000_000u64), 0..9u64).prop_map(
            |(code, text, after, expected)| {
                let mut refusal = Refusal::new(code, text);
                refusal.retry_after = after.map(Duration::from_millis);
                refusal.expected = (expected > 0).then_some(expected);
                Outcome::Refused(refusal)
            }
        ),
    ]
}

proptest! {
    #[test]
    fn a_batch_comes_over_as_it_was(
        sent in any::<i64>(),
        from in "[a-z0-9-]{1,64}",
        to in arb_claim(),
        items in proptest::collection::vec(arb_publish(), 0..6),
    ) {
        let bytes = Ask::encode(Timestamp(sent), &from, &to, Some(&items));
        let ask = Ask::decode(&bytes).unwrap();
        prop_assert_eq!((ask.sent, &ask.from, &ask.to), (Timestamp(sent), &from, &to));
        let AskBody::Append(found) = ask.body else { panic!("a batch") };
        prop_assert_eq!(format!("{items:?}"), format!("{found:?}"));
        for cut in 0..bytes.len() {
            prop_assert!(Ask::decode(&bytes.slice(..cut)).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn answers_and_heartbeats_come_over_as_they_were(
        outcomes in proptest::collection::vec(arb_outcome(), 0..20),
        to in proptest::option::of(arb_claim()),
        owned in proptest::collection::vec((0..64u16, any::<u32>(), any::<u64>()), 0..20),
        process in any::<[u8; 16]>(),
        leaving in any::<bool>(),
    ) {
        let done = Reply::Done { epoch: Epoch(3), outcomes };
        prop_assert_eq!(Reply::decode(&done.encode()).unwrap(), done);
        let moved = Reply::Moved(to.clone());
        prop_assert_eq!(Reply::decode(&moved.encode()).unwrap(), moved);
        if let Some(to) = to {
            let bytes = Ask::encode(Timestamp(1), "a", &to, None);
            prop_assert!(matches!(Ask::decode(&bytes).unwrap().body, AskBody::HandOver));
        }
        let owned = owned.into_iter().map(|(p, e, c)| (Partition(p), Epoch(e), c)).collect();
        let beat = Heartbeat { gateway: "gw".to_owned(), process, leaving, owned };
        prop_assert_eq!(Heartbeat::decode(&beat.encode()).unwrap(), beat);
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(
        kind in 0..7u8,
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = vec![VERSION, kind];
        bytes.extend(rest);
        let bytes = Bytes::from(bytes);
        let _ = (Heartbeat::decode(&bytes), Ask::decode(&bytes), Reply::decode(&bytes));
    }
}

#[test]
fn another_version_is_not_understood() {
    let mut bytes = Reply::Moved(None).encode().to_vec();
    bytes[0] = VERSION + 1;
    assert!(Reply::decode(&Bytes::from(bytes)).is_err());
}

#[test]
fn a_notice_comes_back_and_says_nothing_to_who_does_not_know_it() {
    let notice = Notice {
        gateway: "gw-1".to_owned(),
        process: [7; 16],
        reaches_journal: true,
        given_up: vec![Partition(3), Partition(9)],
        connected: vec![(ProducerKey::of("alice", "p"), Timestamp(1234))],
    };
    let bytes = notice.encode();
    assert_eq!(Notice::decode(&bytes), Ok(notice));
    assert!(Heartbeat::decode(&bytes).is_err(), "an older program takes it for no heartbeat");
    let mut longer = bytes.to_vec();
    longer.extend_from_slice(b"of a later program");
    assert!(Notice::decode(&Bytes::from(longer)).is_ok());
    for len in 0..bytes.len() {
        assert!(Notice::decode(&bytes.slice(..len)).is_err(), "{len} bytes");
    }
}
