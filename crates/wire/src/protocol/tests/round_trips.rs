//! What one side writes the other reads, in both codecs; and whatever is cut off, spoilt or made up is
//! refused without a panic.

use super::arbitrary;
use crate::frame::EventsBuilder;
use crate::protocol::*;
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use stormwire_core::Partition;

fn read_requests<'a>(
    codec: Codec,
    bytes: &'a [u8],
    events: &mut EventsBuilder,
) -> Vec<Result<Request<'a>, Rejected>> {
    let limits = MessageLimits::default();
    match codec {
        Codec::Json => {
            let text = std::str::from_utf8(bytes).unwrap_or("\u{fffd}");
            json::Requests::new(text, limits, events).collect()
        }
        Codec::Protobuf => proto::Requests::new(bytes, limits, events).collect(),
    }
}

fn read_server(
    codec: Codec,
    bytes: &[u8],
) -> Result<Vec<ServerMessage<'_>>, stormwire_core::Refusal> {
    match codec {
        Codec::Json => json::server_messages(std::str::from_utf8(bytes).unwrap_or("\u{fffd}")),
        Codec::Protobuf => proto::server_messages(bytes),
    }
}

proptest! {
    #[test]
    fn every_request_comes_back_as_it_was(list in vec(arbitrary::request(), 1..4)) {
        for codec in Codec::ALL {
            let mut batch = MessageBatch::new(codec);
            list.iter().for_each(|one| request(codec, batch.slot(), one));
            let bytes = batch.finish();
            let read = read_requests(codec, &bytes, &mut EventsBuilder::default());
            let read: Result<Vec<_>, _> = read.into_iter().collect();
            prop_assert_eq!(read.as_ref(), Ok(&list), "{:?}: {}", codec, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn every_server_message_comes_back_as_it_was(list in vec(arbitrary::server_message(), 1..4)) {
        for codec in Codec::ALL {
            let mut batch = MessageBatch::new(codec);
            list.iter().for_each(|one| message(codec, batch.slot(), one));
            let bytes = batch.finish();
            let read = read_server(codec, &bytes);
            prop_assert_eq!(read.as_ref(), Ok(&list), "{:?}: {}", codec, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_message_that_ends_early_is_refused_and_loses_only_its_end(one in arbitrary::request()) {
        for codec in Codec::ALL {
            let mut bytes = BytesMut::new();
            request(codec, &mut bytes, &one);
            for cut in 0..bytes.len() {
                let read = read_requests(codec, &bytes[..cut], &mut EventsBuilder::default());
                // An empty protobuf message is an empty list.
                let empty = codec == Codec::Protobuf && cut == 0;
                prop_assert!(empty || matches!(&read[..], [Err(Rejected { fatal: true, .. })]), "{:?} {}: {:?}", codec, cut, read);
            }
        }
    }

    #[test]
    fn a_server_message_that_ends_early_is_refused(one in arbitrary::server_message()) {
        for codec in Codec::ALL {
            let mut bytes = BytesMut::new();
            message(codec, &mut bytes, &one);
            for cut in 1..bytes.len() {
                prop_assert!(read_server(codec, &bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for codec in Codec::ALL {
            read_requests(codec, &bytes, &mut EventsBuilder::default());
            let _ = read_server(codec, &bytes);
        }
    }

    #[test]
    fn a_spoilt_message_never_panics(
        one in arbitrary::request(),
        answer in arbitrary::server_message(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        for codec in Codec::ALL {
            let (mut bytes, mut said) = (BytesMut::new(), BytesMut::new());
            request(codec, &mut bytes, &one);
            message(codec, &mut said, &answer);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            read_requests(codec, &bytes, &mut EventsBuilder::default());
            let place = at.index(said.len());
            said[place] = byte;
            let _ = read_server(codec, &said);
        }
    }

    #[test]
    fn json_is_what_serde_json_says_it_is(text in prop_oneof![arbitrary::json(), "[\\[\\]{},:\"0-9a-z.eE+ \\\\-]{0,24}"]) {
        let oracle = serde_json::from_str::<&serde_json::value::RawValue>(&text);
        let read = json::check(&text);
        prop_assert_eq!(read.is_ok(), oracle.is_ok(), "{}: {:?} {:?}", text, read, oracle);
        if let (Ok(read), Ok(oracle)) = (read, oracle) {
            prop_assert_eq!(read, oracle.get().trim_ascii());
        }
    }

    #[test]
    fn strings_are_what_serde_json_says_they_are(text in any::<String>(), escaped in "\"(\\\\[\"\\\\/bfnrt]|\\\\u(d[89a-f]|00)[0-9a-f]{2}|[ -!#-\\[\\]-~])*\"") {
        let mut out = BytesMut::new();
        json::write::text(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        let read = json::read::text("f", &escaped).ok().map(std::borrow::Cow::into_owned);
        prop_assert_eq!(read, serde_json::from_str::<String>(&escaped).ok());
    }

    #[test]
    fn requests_read_by_hand_are_what_prost_reads(list in vec(arbitrary::request(), 0..3)) {
        let mut batch = MessageBatch::new(Codec::Protobuf);
        list.iter().for_each(|one| request(Codec::Protobuf, batch.slot(), one));
        let bytes = batch.finish();
        let decoded = proto::messages::ClientMessage::decode(bytes.clone()).unwrap();
        prop_assert_eq!(decoded.requests.len(), list.len());
        prop_assert_eq!(decoded.encode_to_vec(), bytes);
    }

    #[test]
    fn events_written_by_hand_are_what_the_messages_say(one in arbitrary::server_message()) {
        let (expected, codec_bytes): (_, Vec<_>) = match &one {
            ServerMessage::Events(m) => (&one, Codec::ALL.map(|codec| {
                let mut encoder = EventsEncoder::new(codec, Partition(5), m.epoch);
                m.events.iter().for_each(|event| encoder.push(&event.as_out()));
                let cursor = m.cursor.as_ref().map(Cursor::encode);
                let mut out = BytesMut::new();
                encoder.body().write(&mut out, &m.channel, m.pattern.as_deref(), cursor.as_deref());
                (codec, out.freeze())
            }).into()),
            ServerMessage::History(m) => (&one, Codec::ALL.map(|codec| {
                let mut encoder = EventsEncoder::new(codec, Partition(5), m.epoch);
                m.events.iter().for_each(|event| encoder.push(&event.as_out()));
                (codec, encoder.history(m.id.as_ref(), &m.channel, m.more, &m.gaps))
            }).into()),
            _ => return Ok(()),
        };
        for (codec, bytes) in codec_bytes {
            prop_assert_eq!(read_server(codec, &bytes), Ok(vec![expected.clone()]));
        }
    }

    #[test]
    fn cursors_round_trip(cursor in arbitrary::cursor(), text in any::<String>()) {
        prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        let _ = Cursor::decode(&text);
    }
}
