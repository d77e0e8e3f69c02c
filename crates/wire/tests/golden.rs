//! Bytes that are pinned: a change of any of them is a change of the protocol or of the frame.
//!
//! `golden/protocol.jsonl` has every message in JSON (the first eight are the examples of the design);
//! `golden/protocol.hex` the same in protobuf, line by line; `golden/frame.hex` frames of version 1.
//! `UPDATE_GOLDEN=1` writes the two hex files anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use bytes::{Bytes, BytesMut};
use std::path::PathBuf;
use stormwire_core::{Channel, Epoch};
use stormwire_wire::frame::{self, EventParts, EventsBuilder, FrameBuilder, FrameId, TraceContext};
use stormwire_wire::protocol::{
    Codec, MessageBatch, MessageLimits, Request, ServerMessage, json, message, proto, request,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn lines(name: &str) -> Vec<String> {
    std::fs::read_to_string(path(name)).unwrap().lines().map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Compares with the pinned lines, or pins them.
fn pinned(name: &str, found: &[String]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path(name), found.join("\n") + "\n").unwrap();
    }
    assert_eq!(lines(name), found, "{name} has changed");
}

enum Message<'a> {
    Client(Vec<Request<'a>>),
    Server(Vec<ServerMessage<'a>>),
}

/// Of one name for both directions (`history`, `signal` ..) only one side's reading gives the text back.
fn read(text: &str) -> Message<'_> {
    let mut events = EventsBuilder::default();
    let requests: Result<Vec<_>, _> =
        json::Requests::new(text, MessageLimits::default(), &mut events).collect();
    match requests {
        Ok(requests) if write(Codec::Json, &Message::Client(requests.clone())) == text => {
            Message::Client(requests)
        }
        _ => Message::Server(json::server_messages(text).unwrap_or_else(|e| panic!("{text}: {e}"))),
    }
}

fn write(codec: Codec, list: &Message<'_>) -> Bytes {
    let mut batch = MessageBatch::new(codec);
    match list {
        Message::Client(list) => list.iter().for_each(|one| request(codec, batch.slot(), one)),
        Message::Server(list) => list.iter().for_each(|one| message(codec, batch.slot(), one)),
    }
    batch.finish()
}

#[test]
fn json_is_written_as_it_was_read() {
    for line in lines("protocol.jsonl") {
        assert_eq!(std::str::from_utf8(&write(Codec::Json, &read(&line))), Ok(line.as_str()));
    }
}

#[test]
fn protobuf_is_pinned_and_says_the_same() {
    let texts = lines("protocol.jsonl");
    let found: Vec<_> =
        texts.iter().map(|line| hex(&write(Codec::Protobuf, &read(line)))).collect();
    pinned("protocol.hex", &found);
    for (line, bytes) in texts.iter().zip(&found) {
        let bytes = unhex(bytes);
        match read(line) {
            Message::Client(list) => {
                let mut events = EventsBuilder::default();
                let read = proto::Requests::new(&bytes, MessageLimits::default(), &mut events);
                assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(list));
            }
            Message::Server(list) => assert_eq!(proto::server_messages(&bytes), Ok(list)),
        }
    }
}

#[test]
fn frames_are_pinned() {
    let id = FrameId { appender: *b"0123456789abcdef", counter: 7 };
    let mut events = EventsBuilder::default();
    let plain = EventParts { kind: Some("flight"), data: b"{\"n\":1}", ..Default::default() };
    let (key, client_id) = (Some("N14228"), Some("mine"));
    let binary = EventParts { key, id: client_id, data: &[0, 1, 255], binary: true, ..plain };
    events.push(&plain).unwrap();
    events.push(&binary).unwrap();
    let two = events.take();
    let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let channel = |name| Channel::parse(name).unwrap();
    let mut builder = FrameBuilder::default();
    builder.push(&channel("flights:JFK-AA"), "alice", "9f3c", 5, trace, &two);
    builder.push(&channel("flights:JFK-UA"), "bob", "", 0, None, &two);
    let mut all = BytesMut::new();
    let frames = [
        builder.finish(id),
        frame::claim(id, "gateway-1"),
        frame::close(id, Epoch(2), 8192, Some(77)),
        frame::rewound(77, 101),
    ];
    frames.iter().for_each(|frame| all.extend_from_slice(frame));
    pinned("frame.hex", &frames.map(|frame| hex(&frame)));
    for line in lines("frame.hex") {
        let decoded = frame::Frame::decode(&Bytes::from(unhex(&line))).unwrap();
        let kept = decoded.id == id || matches!(decoded.body, frame::Body::Rewound { .. });
        assert!(kept, "{:?}", decoded.id);
    }
}
