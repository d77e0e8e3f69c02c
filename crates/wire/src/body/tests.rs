use super::*;

fn read(format: BodyFormat, body: &str) -> Result<EncodedEvents, Refusal> {
    events(format, body.as_bytes(), &MessageLimits::default())
}

fn code(result: Result<EncodedEvents, Refusal>) -> (ErrorCode, String) {
    let refusal = result.unwrap_err();
    (refusal.code, refusal.message.into_owned())
}

#[test]
fn every_format_gives_the_same_packed_events() {
    let array = r#"[{"type":"t","key":"k","id":"1","data":{"n": 1}},{"type":"t","id":"2","data_base64":"AAE="}]"#;
    let due = read(BodyFormat::Json, array).unwrap();
    let lines = "{\"type\":\"t\",\"key\":\"k\",\"id\":\"1\",\"data\":{\"n\": 1}}\r\n\n {\"id\":\"2\",\"type\":\"t\",\"data_base64\":\"AAE=\"}\n";
    assert_eq!(read(BodyFormat::Ndjson, lines).unwrap(), due);
    let clouds = r#"[{"specversion":"1.0","source":"/s","type":"t","subject":"k","id":"1","data":{"n": 1}},
        {"specversion":"1.0","source":"/s","type":"t","id":"2","time":"2026-11-21T00:00:00Z","data_base64":"AAE="}]"#;
    assert_eq!(read(BodyFormat::CloudEvents, clouds).unwrap(), due);
    let parts: Vec<_> = due.iter().collect();
    assert_eq!((parts[0].key, parts[0].data), (Some("k"), &b"{\"n\": 1}"[..]));
    assert_eq!((parts[1].binary, parts[1].data), (true, &[0u8, 1][..]));
}

#[test]
fn one_event_needs_no_array() {
    assert_eq!(read(BodyFormat::Json, r#" {"data":null} "#).unwrap().len(), 1);
    let cloud = r#"{"specversion":"1.0","source":"/s","type":"t","id":"1","partitionkey":"p","subject":"s"}"#;
    let events = read(BodyFormat::CloudEvent, cloud).unwrap();
    let event = events.iter().next().unwrap();
    assert_eq!((event.key, event.data), (Some("p"), &b"null"[..]));
}

#[test]
fn a_bad_body_is_refused_with_its_code_and_field() {
    let cases = [
        (BodyFormat::Json, "", ErrorCode::Malformed, "byte 0"),
        (BodyFormat::Json, "{\"data\":1} x", ErrorCode::Malformed, "byte 11"),
        (BodyFormat::Json, "[1]", ErrorCode::Malformed, "an event"),
        (BodyFormat::Json, "[]", ErrorCode::InvalidField, "at least one"),
        (BodyFormat::Ndjson, "\n\n", ErrorCode::InvalidField, "at least one"),
        (
            BodyFormat::Json,
            r#"[{"data":1},{"type":1,"data":2}]"#,
            ErrorCode::InvalidField,
            "events[1].type",
        ),
        (BodyFormat::Json, r#"{"type":"a\u0000b","data":2}"#, ErrorCode::InvalidField, "control"),
        (
            BodyFormat::Json,
            r#"{"type":"t"}"#,
            ErrorCode::InvalidField,
            "data: this field is required",
        ),
        (
            BodyFormat::Json,
            r#"{"data":1,"data_base64":"AA=="}"#,
            ErrorCode::InvalidField,
            "not both",
        ),
        (BodyFormat::Json, r#"{"data_base64":"A"}"#, ErrorCode::InvalidField, "base64"),
        (BodyFormat::Json, r#"{"data":1,"data":2}"#, ErrorCode::Malformed, "twice"),
        (
            BodyFormat::Ndjson,
            "{\"data\":1}\n{\"data\":",
            ErrorCode::Malformed,
            "value should begin",
        ),
        (BodyFormat::Ndjson, "{\"data\":1} {\"data\":2}", ErrorCode::Malformed, "should end"),
        (BodyFormat::CloudEvent, r#"{"data":1}"#, ErrorCode::InvalidField, "specversion"),
        (BodyFormat::CloudEvent, r#"{"specversion":"0.3"}"#, ErrorCode::InvalidField, "\"1.0\""),
        (
            BodyFormat::CloudEvents,
            r#"[{"specversion":"1.0","id":"1","type":"t"}]"#,
            ErrorCode::InvalidField,
            "events[0].source",
        ),
        (BodyFormat::CloudEvents, "{}", ErrorCode::Malformed, "array"),
    ];
    for (format, body, expected, part) in cases {
        let (found, message) = code(read(format, body));
        assert_eq!(found, expected, "{body}: {message}");
        assert!(message.contains(part), "{body}: {message}");
    }
    let (found, _) =
        code(events(BodyFormat::Json, b"{\"data\":\"\xff\"}", &MessageLimits::default()));
    assert_eq!(found, ErrorCode::Malformed);
}

#[test]
fn bounds_are_kept() {
    let limits = MessageLimits { message_bytes: 200, events: 2, event_bytes: 10, operations: 1 };
    let read = |body: &str| code(events(BodyFormat::Json, body.as_bytes(), &limits)).0;
    assert_eq!(read(&format!("{{\"data\":\"{}\"}}", "x".repeat(9))), ErrorCode::TooLarge);
    assert_eq!(read(r#"[{"data":1},{"data":2},{"data":3}]"#), ErrorCode::TooLarge);
    assert_eq!(read(&" ".repeat(201)), ErrorCode::TooLarge);
}

#[test]
fn a_body_for_many_channels_is_sorted_by_channel() {
    let body =
        r#"[{"channel":"x:b","data":1},{"channel":"x:a","data":2},{"channel":"x:b","data":3}]"#;
    let read = |body: &str| {
        events_by_channel(BodyFormat::Json, body.as_bytes(), &MessageLimits::default())
    };
    let groups = read(body).unwrap();
    let found: Vec<_> =
        groups.iter().map(|(channel, events)| (channel.as_str(), events.len())).collect();
    assert_eq!(found, [("x:b", 2), ("x:a", 1)]);
    let missing = read(r#"[{"channel":"x:b","data":1},{"data":2}]"#).unwrap_err();
    assert!(missing.message.starts_with("events[1].channel:"), "{missing}");
    let bad = read(r#"{"channel":"x:*","data":1}"#).unwrap_err();
    assert_eq!(bad.code, ErrorCode::InvalidField);
}

#[test]
fn a_content_type_says_the_format() {
    assert_eq!(BodyFormat::of(None), Ok(BodyFormat::Json));
    assert_eq!(BodyFormat::of(Some("Application/JSON; charset=\"UTF-8\"")), Ok(BodyFormat::Json));
    assert_eq!(
        BodyFormat::of(Some("application/cloudevents-batch+json")),
        Ok(BodyFormat::CloudEvents)
    );
    for bad in ["text/plain", "application/json; charset=latin1", ""] {
        assert_eq!(BodyFormat::of(Some(bad)).unwrap_err().code, ErrorCode::InvalidField, "{bad}");
    }
}
