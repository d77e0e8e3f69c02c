//! Each way to be wrong has its stable code, and names what is wrong.

use crate::frame::EventsBuilder;
use crate::protocol::*;
use stormwire_core::ErrorCode::{self, InvalidField, TooLarge, UnknownOp};

fn refused(text: &str) -> Rejected {
    let mut events = EventsBuilder::default();
    let limits = MessageLimits { message_bytes: 4096, operations: 3, events: 3, event_bytes: 20 };
    let read: Vec<_> = json::Requests::new(text, limits, &mut events).collect();
    read.into_iter().find_map(Result::err).unwrap_or_else(|| panic!("{text} was taken"))
}

#[test]
fn what_is_not_json_ends_the_message() {
    let cases = [
        "",
        "x",
        "1",
        "null",
        "\"op\"",
        "{",
        "{}x",
        "{\"op\"}",
        "{\"op\":}",
        "{\"op\":\"ping\",}",
        "[{\"op\":\"ping\"},]",
        "[{\"op\":\"ping\"}",
        "{\"op\":\"pi\nng\"}",
        "{\"op\":\"\\x\"}",
        "{\"op\":\"ping\",\"x\":01}",
        "{\"op\":\"ping\",\"x\":1.}",
        "{\"op\":\"ping\",\"x\":tru}",
        "{\"op\":\"ping\"}{\"op\":\"ping\"}",
        "{\"op\":\"ping\",\"op\":\"ping\"}",
    ];
    for text in cases {
        let rejected = refused(text);
        assert_eq!(rejected.refusal.code, ErrorCode::Malformed, "{text}: {rejected}");
        assert!(rejected.fatal, "{text}");
    }
    let deep = format!("{{\"op\":\"ping\",\"x\":{}{}}}", "[".repeat(129), "]".repeat(129));
    assert!(refused(&deep).refusal.message.contains("deeper than 128"));
}

/// Members of a publish that has a channel and an id, the code, and a part of the message.
const BAD_PUBLISHES: &[(&str, ErrorCode, &str)] = &[
    (r#""events":[]"#, InvalidField, "at least one event"),
    (r#""seq":1"#, InvalidField, "events: this field is required"),
    (r#""events":{}"#, InvalidField, "an array of events is due, not {}"),
    (r#""events":[7]"#, InvalidField, "events[0]: an event"),
    (r#""events":[{"data":1},{"data":1,"key":""}]"#, InvalidField, "events[1].key: 1 to 255"),
    (r#""events":[{"data":1,"id":"\ud800"}]"#, InvalidField, "whole characters"),
    (r#""events":[{"data":1,"type":"a\u007fb"}]"#, InvalidField, "control"),
    (r#""events":[{}]"#, InvalidField, "events[0].data: this field is required"),
    (
        r#""events":[{"data":"123456789012345678901"}]"#,
        TooLarge,
        "events[0].data has 23 bytes, at most 20",
    ),
    (r#""events":[{"data":1},{"data":1},{"data":1},{"data":1}]"#, TooLarge, "at most 3 events"),
    (r#""seq":0,"events":[{"data":1}]"#, InvalidField, "seq: a whole number from 1"),
    (r#""seq":1.5,"events":[{"data":1}]"#, InvalidField, "not 1.5"),
    (r#""again":"no","events":[{"data":1}]"#, InvalidField, "again:"),
    (r#""receipt":"now","events":[{"data":1}]"#, InvalidField, "\"journal\" or \"archive\""),
];

/// Whole operations, the code, and a part of the message.
const BAD_OPERATIONS: &[(&str, ErrorCode, &str)] = &[
    (r#"{"op":"dance","id":7}"#, UnknownOp, "\"dance\""),
    (r#"{"id":7}"#, InvalidField, "op: this field is required"),
    (r#"{"op":5,"id":7}"#, InvalidField, "a string is due, not 5"),
    (
        r#"{"op":"publish","id":7,"events":[{"data":1}]}"#,
        InvalidField,
        "channel: this field is required",
    ),
    (r#"{"op":"subscribe","id":7}"#, InvalidField, "channel: this field is required"),
    (r#"{"op":"subscribe","id":7,"channel":"x:*"}"#, InvalidField, "wildcard"),
    (r#"{"op":"subscribe","id":7,"channel":"a\nb:c"}"#, InvalidField, "'\\n'"),
    (r#"{"op":"subscribe","id":7,"channels":[]}"#, InvalidField, "at least one"),
    (
        r#"{"op":"subscribe","id":7,"channels":["x:a"],"pattern":"x:*"}"#,
        InvalidField,
        "give one of",
    ),
    (r#"{"op":"subscribe","id":7,"channel":"x:a","mode":"some"}"#, InvalidField, "mode:"),
    (r#"{"op":"subscribe","id":7,"channel":"x:a","presence":1}"#, InvalidField, "true or false"),
    (r#"{"op":"subscribe","id":7,"channel":"x:a","since":{"offset":1}}"#, InvalidField, "since:"),
    (
        r#"{"op":"subscribe","id":7,"channel":"x:a","since":{"last":1001}}"#,
        InvalidField,
        "since.last",
    ),
    (
        r#"{"op":"subscribe","id":7,"channel":"x:a","since":{"cursor":"?"}}"#,
        InvalidField,
        "since.cursor",
    ),
    (r#"{"op":"history","id":7,"channel":"x:a","limit":0}"#, InvalidField, "limit:"),
    (
        r#"{"op":"history","id":7,"channel":"x:a","after":{"epoch":1}}"#,
        InvalidField,
        "after.offset",
    ),
    (r#"{"op":"signal","id":7,"channel":"x:a"}"#, InvalidField, "data"),
    (r#"{"op":"connect","id":7,"token":""}"#, InvalidField, "token:"),
    (
        r#"{"op":"connect","id":7,"producer":"ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp"}"#,
        InvalidField,
        "1 to 64 bytes",
    ),
    (r#"{"op":"refresh","id":7}"#, InvalidField, "token"),
];

#[test]
fn a_bad_field_is_named_with_its_value_and_the_request_goes_back() {
    let publish = |rest: &str| format!(r#"{{"op":"publish","channel":"x:a",{rest},"id":7}}"#);
    let publishes = BAD_PUBLISHES.iter().map(|(rest, code, part)| (publish(rest), *code, *part));
    let others = BAD_OPERATIONS.iter().map(|(text, code, part)| ((*text).to_owned(), *code, *part));
    for (text, code, part) in publishes.chain(others) {
        let rejected = refused(&text);
        assert_eq!(rejected.refusal.code, code, "{text}: {rejected}");
        assert!(rejected.refusal.message.contains(part), "{text}: {rejected}");
        assert_eq!(rejected.id, Some(RequestId::Number(7)), "{text}");
        assert!(!rejected.fatal, "{text}");
    }
}

#[test]
fn a_request_id_is_a_whole_number_or_a_text() {
    for bad in ["1.5", "-0", "true", "[]", "\"\"", "99999999999999999999", "1e3"] {
        let rejected = refused(&format!(r#"{{"op":"ping","id":{bad}}}"#));
        assert_eq!((rejected.id, rejected.refusal.code), (None, ErrorCode::InvalidField), "{bad}");
    }
}

#[test]
fn one_bad_operation_does_not_spoil_its_neighbours() {
    let mut events = EventsBuilder::default();
    let text =
        r#"[{"op":"ping","id":1},{"op":"dance","id":2},{"op":"ping","id":"3","new":{"a":[1]}}]"#;
    let read: Vec<_> = json::Requests::new(text, MessageLimits::default(), &mut events).collect();
    assert!(matches!(&read[..], [Ok(_), Err(Rejected { fatal: false, .. }), Ok(_)]), "{read:?}");
    let broken = r#"[{"op":"ping","id":1},{"op":"ping","id":2,,}]"#;
    let read: Vec<_> = json::Requests::new(broken, MessageLimits::default(), &mut events).collect();
    let [Ok(_), Err(Rejected { id, fatal: true, .. })] = &read[..] else { panic!("{read:?}") };
    assert_eq!(*id, Some(RequestId::Number(2)));
}

#[test]
fn a_message_has_its_bounds() {
    let pings = [r#"{"op":"ping"}"#; 4].join(",");
    let rejected = refused(&format!("[{pings}]"));
    assert_eq!((rejected.refusal.code, rejected.fatal), (ErrorCode::TooLarge, true));
    let rejected = refused(&" ".repeat(4097));
    assert_eq!((rejected.refusal.code, rejected.fatal), (ErrorCode::TooLarge, true));
}

#[test]
fn protobuf_is_refused_with_the_same_codes() {
    use crate::protocol::proto::messages as pb;
    use prost::Message as _;
    let event = |data: &[u8]| pb::PublishEvent { data: data.to_vec(), ..Default::default() };
    let publish = |channel: &str, events: Vec<pb::PublishEvent>| {
        let channel = channel.to_owned();
        Some(pb::RequestOp::Publish(pb::Publish { channel, events, ..Default::default() }))
    };
    let bad_kind = pb::PublishEvent { kind: Some("a\0".to_owned()), ..event(b"1") };
    let cases = [
        (None, ErrorCode::UnknownOp, "no operation"),
        (publish("", vec![event(b"1")]), ErrorCode::InvalidField, "channel"),
        (publish("x:a", vec![]), ErrorCode::InvalidField, "at least one event"),
        (publish("x:a", vec![event(b"{")]), ErrorCode::Malformed, "events[0].data"),
        (publish("x:a", vec![event(b"\xff")]), ErrorCode::InvalidField, "events[0].data"),
        (publish("x:a", vec![event(&[b'1'; 65537])]), ErrorCode::TooLarge, "events[0].data"),
        (publish("x:a", vec![event(b"1"), bad_kind]), ErrorCode::InvalidField, "events[1].type"),
        (
            Some(pb::RequestOp::Subscribe(pb::Subscribe::default())),
            ErrorCode::InvalidField,
            "channels",
        ),
        (Some(pb::RequestOp::Refresh(pb::Refresh::default())), ErrorCode::InvalidField, "token"),
    ];
    for (op, code, part) in cases {
        let request = pb::Request { id: Some(pb::RequestId::Text("r".to_owned())), op };
        let bytes = pb::ClientMessage { requests: vec![request] }.encode_to_vec();
        let mut events = EventsBuilder::default();
        let read: Vec<_> =
            proto::Requests::new(&bytes, MessageLimits::default(), &mut events).collect();
        let [Err(rejected)] = &read[..] else { panic!("{read:?}") };
        assert_eq!(rejected.refusal.code, code, "{rejected}");
        assert!(rejected.refusal.message.contains(part), "{rejected}");
        assert_eq!((&rejected.id, rejected.fatal), (&Some(RequestId::Text("r".into())), false));
    }
}
