//! What the frame keeps, and what it refuses.

use super::*;
use bytes::Bytes;
use stormwire_core::Channel;

fn id() -> FrameId {
    FrameId { appender: *b"0123456789abcdef", counter: 7 }
}

#[test]
fn a_frame_holds_runs_of_several_channels() {
    let mut events = EventsBuilder::default();
    events
        .push(&EventParts { kind: Some("flight"), data: b"{\"n\":1}", ..Default::default() })
        .unwrap();
    events
        .push(&EventParts {
            key: Some("k"),
            id: Some("i"),
            data: &[0, 1],
            binary: true,
            ..Default::default()
        })
        .unwrap();
    let two = events.take();
    let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let mut frame = FrameBuilder::default();
    let (a, b) = (Channel::parse("x:a").unwrap(), Channel::parse("x:b").unwrap());
    assert_eq!(frame.push(&a, "alice", "p1", 5, trace, &two), 2);
    assert_eq!(frame.push(&b, "bob", "", 0, None, &two), 2);
    let size = frame.size();
    let bytes = frame.finish(id());
    assert_eq!(bytes.len(), size);
    let decoded = Frame::decode(&bytes).unwrap();
    assert_eq!(decoded.id, id());
    let events = decoded.events().unwrap();
    assert_eq!(events.channels().collect::<Vec<_>>(), ["x:a", "x:b"]);
    let runs: Vec<_> = events.runs().collect();
    assert_eq!(
        (runs[0].channel, runs[0].user, runs[0].producer, runs[0].seq),
        ("x:a", "alice", Some("p1"), 5)
    );
    assert_eq!(runs[0].trace, trace);
    assert_eq!((runs[1].channel, runs[1].producer, runs[1].first), ("x:b", None, 2));
    let last = runs[1].events().last().unwrap();
    assert_eq!(
        (last.index, last.key, last.id, last.data, last.binary),
        (3, Some("k"), Some("i"), &[0u8, 1][..], true)
    );
    for cut in 0..bytes.len() {
        assert!(Frame::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_frame_takes_only_what_fits() {
    let mut events = EventsBuilder::default();
    for _ in 0..100 {
        events.push(&EventParts { data: &[b'1'; 4000], ..Default::default() }).unwrap();
    }
    let many = events.take();
    let mut frame = FrameBuilder::default();
    let taken = frame.push(&Channel::parse("x:a").unwrap(), "u", "p", 1, None, &many);
    assert!(taken > 60 && taken < 66, "{taken}");
    assert!(frame.size() <= FRAME_BYTES_MAX);
    let (head, rest) = many.split(taken, usize::MAX);
    assert_eq!((head.len(), rest.len()), (taken, 100 - taken));
    assert_eq!(
        EncodedEvents::from_wire(rest.as_bytes().clone(), u32::try_from(rest.len()).unwrap())
            .unwrap(),
        rest
    );
}

#[test]
fn the_end_of_an_epoch_comes_back_as_it_was_written() {
    let body = |bytes: Bytes| Frame::decode(&bytes).unwrap().body;
    let next = stormwire_core::Epoch(2);
    for lost in [None, Some(40)] {
        let Body::Close { next: read, first_seq, lost_from } = body(close(id(), next, 900, lost))
        else {
            panic!("no close")
        };
        assert_eq!((read, first_seq, lost_from), (next, 900, lost));
    }
    let Body::Rewound { lost_from, seen } = body(rewound(40, 70)) else { panic!("another") };
    assert_eq!((lost_from, seen), (40, 70));
    for bytes in [close(id(), next, 900, None), rewound(40, 70)] {
        for cut in 0..bytes.len() {
            assert!(Frame::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn a_newer_version_is_told_apart_from_rubbish() {
    let bytes = claim(id(), "gateway-1");
    assert!(
        matches!(Frame::decode(&bytes).unwrap().body, Body::Claim { gateway } if &*gateway == "gateway-1")
    );
    let mut newer = bytes.to_vec();
    newer[1] = 2;
    assert_eq!(Frame::decode(&Bytes::from(newer)).unwrap_err(), FrameError::NewerVersion(2));
    assert_eq!(Frame::decode(&Bytes::from_static(b"hello")).unwrap_err(), FrameError::NotAFrame);
}
