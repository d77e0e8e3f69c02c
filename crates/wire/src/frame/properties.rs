//! Any frame comes back as it was; whatever is cut off, split or spoilt is refused without a panic.

use super::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stormwire_core::Channel;

#[derive(Debug, Clone)]
struct AnEvent {
    texts: [Option<String>; 3],
    data: Vec<u8>,
    binary: bool,
}

impl AnEvent {
    fn parts(&self) -> EventParts<'_> {
        let [kind, key, id] = self.texts.each_ref().map(Option::as_deref);
        EventParts { kind, key, id, data: &self.data, binary: self.binary }
    }
}

fn event() -> impl Strategy<Value = AnEvent> {
    let text = || option::of("\\PC{0,20}");
    ((text(), text(), text()), vec(any::<u8>(), 0..50), any::<bool>()).prop_map(
        |((kind, key, id), data, binary)| AnEvent { texts: [kind, key, id], data, binary },
    )
}

fn encoded(events: &[AnEvent]) -> EncodedEvents {
    let mut builder = EventsBuilder::default();
    events.iter().for_each(|event| builder.push(&event.parts()).unwrap());
    builder.take()
}

#[derive(Debug, Clone)]
struct ARun {
    channel: Channel,
    user: String,
    producer: String,
    seq: u64,
    trace: Option<TraceContext>,
    events: Vec<AnEvent>,
}

fn run() -> impl Strategy<Value = ARun> {
    let trace = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>())
        .prop_map(|(trace, span, flags)| TraceContext { trace, span, flags });
    ("x:[a-c]", "[a-c]{1,3}", "p?", any::<u64>(), option::of(trace), vec(event(), 1..6)).prop_map(
        |(channel, user, producer, seq, trace, events)| {
            let channel = Channel::parse(&channel).unwrap();
            ARun { channel, user, producer, seq, trace, events }
        },
    )
}

fn frame(runs: &[ARun]) -> Bytes {
    let mut builder = FrameBuilder::default();
    for run in runs {
        let events = encoded(&run.events);
        let taken =
            builder.push(&run.channel, &run.user, &run.producer, run.seq, run.trace, &events);
        assert_eq!(taken, run.events.len());
    }
    let size = builder.size();
    let bytes = builder.finish(FrameId { appender: [7; 16], counter: 3 });
    assert_eq!(bytes.len(), size);
    assert!(builder.is_empty());
    bytes
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(runs in vec(run(), 0..8)) {
        let decoded = Frame::decode(&frame(&runs)).unwrap();
        let events = decoded.events().unwrap();
        let total: usize = runs.iter().map(|run| run.events.len()).sum();
        prop_assert_eq!(usize::from(events.len()), total);
        prop_assert_eq!(events.runs().count(), runs.len());
        let mut index = 0;
        for (found, due) in events.runs().zip(&runs) {
            prop_assert_eq!(found.channel, due.channel.as_str());
            prop_assert_eq!((found.user, found.seq, found.trace), (&*due.user, due.seq, due.trace));
            prop_assert_eq!(found.producer.unwrap_or_default(), &due.producer);
            prop_assert_eq!(found.first, index);
            for (event, wanted) in found.events().zip(&due.events) {
                let wanted = wanted.parts();
                prop_assert_eq!(event.index, index);
                prop_assert_eq!((event.kind, event.key, event.id), (wanted.kind, wanted.key, wanted.id));
                prop_assert_eq!((event.data, event.binary), (wanted.data, wanted.binary));
                index += 1;
            }
        }
    }

    #[test]
    fn a_frame_that_ends_early_is_refused(runs in vec(run(), 1..4)) {
        let bytes = frame(&runs);
        for cut in 0..bytes.len() {
            prop_assert!(Frame::decode(&bytes.slice(..cut)).is_err());
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        prop_assert!(Frame::decode(&longer).is_err());
    }

    #[test]
    fn a_spoilt_frame_never_panics(runs in vec(run(), 1..4), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = frame(&runs).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        if let Ok(decoded) = Frame::decode(&Bytes::from(bytes)) {
            decoded.events().into_iter().flat_map(Events::runs).for_each(|run| {
                assert_eq!(run.events().count(), usize::from(run.count));
            });
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..300), kind in 1u8..5) {
        let _ = Frame::decode(&Bytes::from(bytes.clone()));
        bytes.splice(0..0, [b'S', 1, kind, 0]);
        let _ = Frame::decode(&Bytes::from(bytes.clone()));
        let _ = EncodedEvents::from_wire(Bytes::from(bytes), u32::from(kind));
    }

    #[test]
    fn events_split_anywhere_are_the_same_events(list in vec(event(), 0..12), at in 0usize..14, room in 0usize..400) {
        let whole = encoded(&list);
        let (head, rest) = whole.split(at, room);
        prop_assert!(head.len() <= at && head.as_bytes().len() <= room);
        prop_assert_eq!(head.len() + rest.len(), whole.len());
        let again: Vec<_> = head.iter().chain(rest.iter()).collect();
        prop_assert_eq!(again, list.iter().map(AnEvent::parts).collect::<Vec<_>>());
        for part in [&head, &rest] {
            let count = u32::try_from(part.len()).unwrap();
            prop_assert_eq!(&EncodedEvents::from_wire(part.as_bytes().clone(), count).unwrap(), part);
        }
        // The head is as long as it may be.
        if let Some(next) = list.get(head.len()).filter(|_| head.len() < at) {
            prop_assert!(head.as_bytes().len() + encoded(std::slice::from_ref(next)).as_bytes().len() > room);
        }
    }

    #[test]
    fn a_trace_is_read_as_it_is_written(trace: [u8; 16], span: [u8; 8], flags: u8, text in "\\PC{0,60}") {
        let context = TraceContext { trace, span, flags };
        let valid = trace != [0; 16] && span != [0; 8];
        prop_assert_eq!(TraceContext::parse(&context.to_traceparent()), valid.then_some(context));
        let _ = TraceContext::parse(&text);
    }
}
