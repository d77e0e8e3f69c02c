//! Standard output: lines for scripts. A reader that has hung up ends the process quietly.

use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use stormwire_client::{Event, Payload};

/// Writes one line and flushes it.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // `stormwire subscribe … | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
    }
}

/// An event as the REST interface shows it, with its channel.
pub(crate) fn event(channel: &str, event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("channel".to_owned(), json!(channel));
    object.insert("epoch".to_owned(), json!(event.position.epoch.0));
    object.insert("offset".to_owned(), json!(event.position.offset.0));
    object.insert("ts".to_owned(), json!(event.ts.0));
    object.insert("id".to_owned(), json!(event.id));
    let optional = [("type", &event.kind), ("key", &event.key)];
    for (name, text) in optional {
        if let Some(text) = text {
            object.insert(name.to_owned(), json!(text));
        }
    }
    object.insert("from".to_owned(), json!(event.from));
    Value::Object(object)
}

/// The same as one line; the data stands in it byte for byte as it was published.
pub(crate) fn event_line(channel: &str, of: &Event) -> String {
    let mut line = event(channel, of).to_string();
    line.pop();
    match &of.data {
        Payload::Json(text) => line + ",\"data\":" + text + "}",
        Payload::Binary(bytes) => line + ",\"data_base64\":\"" + &base64(bytes) + "\"}",
    }
}

/// Base64 with padding, as CloudEvents has it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::{Epoch, Offset, Position, Timestamp};

    #[test]
    fn an_event_is_one_line_with_its_data_as_it_was() {
        let mut shown = Event {
            channel: stormwire_core::Channel::parse("a:b").unwrap(),
            position: Position { epoch: Epoch(1), offset: Offset(4096) },
            ts: Timestamp(7),
            id: "i".to_owned(),
            kind: Some("t".to_owned()),
            key: None,
            from: "alice".to_owned(),
            data: Payload::Json("{\"b\":1.0,\"a\":2}".into()),
        };
        let line = event_line("a:b", &shown);
        assert!(line.ends_with(",\"data\":{\"b\":1.0,\"a\":2}}"), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["offset"], &value["type"], &value["key"]),
            (&json!(4096), &json!("t"), &Value::Null)
        );
        shown.data = Payload::Binary(b"\x00\xff".as_slice().into());
        assert!(event_line("a:b", &shown).ends_with(",\"data_base64\":\"AP8=\"}"));
    }
}
