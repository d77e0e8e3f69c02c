//! The bodies of REST publishes: JSON (one event or an array), NDJSON, and CloudEvents 1.0 in its
//! structured and its batch form. All of them become the same packed events as a publish on a socket.
//!
//! Of a CloudEvent the `type`, `id` and data are kept, and as key its `partitionkey`, else its
//! `subject`; its other attributes are not stored. Where a body is for many channels, each event says
//! its own in the member `channel` (in a CloudEvent an extension of that name).

use crate::frame::{EncodedEvents, EventParts, EventsBuilder};
use crate::protocol::bounds::{EventLimits, EventPath, message_too_large, too_many_events};
use crate::protocol::json::read::{given, members, missing, slots, text, twice, wrong};
use crate::protocol::json::scan::Scanner;
use crate::protocol::json::{Problem, attribute, base64, check, malformed, push_data};
use crate::protocol::{MessageLimits, Payload, channel};
use std::borrow::Cow;
use std::collections::HashMap;
use stormwire_core::{Channel, ErrorCode, Refusal};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`: one event or an array of them.
    Json,
    /// `application/x-ndjson`: one event a line.
    Ndjson,
    /// `application/cloudevents+json`: one CloudEvent.
    CloudEvent,
    /// `application/cloudevents-batch+json`: an array of CloudEvents.
    CloudEvents,
}

impl BodyFormat {
    /// The content types that are taken, for a message or a document.
    pub const CONTENT_TYPES: [&'static str; 4] = [
        "application/json",
        "application/x-ndjson",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    ];

    /// The format of a `Content-Type`; JSON without one.
    ///
    /// # Errors
    /// `invalid_field` for any other type, or a character set that is not UTF-8.
    pub fn of(content_type: Option<&str>) -> Result<Self, Refusal> {
        let Some(content_type) = content_type else { return Ok(Self::Json) };
        let mut parts = content_type.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let utf8 = parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        });
        match essence.as_str() {
            "application/json" if utf8 => Ok(Self::Json),
            "application/x-ndjson" | "application/jsonl" if utf8 => Ok(Self::Ndjson),
            "application/cloudevents+json" if utf8 => Ok(Self::CloudEvent),
            "application/cloudevents-batch+json" if utf8 => Ok(Self::CloudEvents),
            _ => Err(Refusal::invalid_field(
                "Content-Type",
                format!("one of {} is due, in UTF-8", Self::CONTENT_TYPES.join(", ")),
            )),
        }
    }

    const fn is_cloud(self) -> bool {
        matches!(self, Self::CloudEvent | Self::CloudEvents)
    }
}

/// Reads the events of a body that is for one channel.
///
/// # Errors
/// `malformed`, `invalid_field` or `too_large`, naming the event and its field.
pub fn events(
    format: BodyFormat,
    body: &[u8],
    limits: &MessageLimits,
) -> Result<EncodedEvents, Refusal> {
    let mut builder = EventsBuilder::default();
    walk(format, body, limits, |item, path| item.push(format, &mut builder, limits.into(), path))?;
    Ok(builder.take())
}

/// Reads the events of a body that is for many channels: the channels in the order of their first
/// event, and each one's events in the order of the body.
///
/// # Errors
/// As [`events`]; also for an event without a channel.
pub fn events_by_channel(
    format: BodyFormat,
    body: &[u8],
    limits: &MessageLimits,
) -> Result<Vec<(Channel, EncodedEvents)>, Refusal> {
    let mut index: HashMap<Channel, usize> = HashMap::new();
    let mut groups: Vec<(Channel, EventsBuilder)> = Vec::new();
    walk(format, body, limits, |item, path| {
        let raw = given(item.channel).ok_or_else(|| missing(&path.of("channel")))?;
        let name = text(&path.of("channel"), raw)?;
        let at = match index.get(&*name) {
            Some(at) => *at,
            None => {
                let channel = channel(&path.of("channel"), &name)?;
                groups.push((channel.clone(), EventsBuilder::default()));
                index.insert(channel, groups.len() - 1);
                groups.len() - 1
            }
        };
        item.push(format, &mut groups[at].1, limits.into(), path)
    })?;
    Ok(groups.into_iter().map(|(channel, mut builder)| (channel, builder.take())).collect())
}

slots! {
    /// The members of a signal.
    SignalItem { data "data", data_base64 "data_base64", }
}

/// Reads the data of a signal: an object with `data` or `data_base64`.
///
/// # Errors
/// `malformed` or `invalid_field`.
pub fn signal(body: &str) -> Result<Payload<'_>, Refusal> {
    let mut item = SignalItem::default();
    members("the body", check(body)?, &mut item, |item, key| item.slot(key))?;
    match (item.data, given(item.data_base64)) {
        (Some(data), None) => Ok(Payload::Json(Cow::Borrowed(data))),
        (None, Some(raw)) => Ok(Payload::Binary(Cow::Owned(base64("data_base64", raw)?))),
        _ => Err(Refusal::invalid_field("data", "one of data and data_base64 is due")),
    }
}

slots! {
    /// The members of an event or of a CloudEvent.
    Item {
        kind "type", key "key", id "id", data "data", data_base64 "data_base64", channel "channel",
        version "specversion", source "source", subject "subject", partition_key "partitionkey",
    }
}

impl Item<'_> {
    fn push(
        &self,
        format: BodyFormat,
        builder: &mut EventsBuilder,
        limits: EventLimits,
        path: EventPath,
    ) -> Result<(), Refusal> {
        let (mut raw_key, mut data) = (self.key, self.data);
        if format.is_cloud() {
            self.check_cloud(path)?;
            raw_key = given(self.partition_key).or(self.subject);
            data = data.or(if given(self.data_base64).is_none() { Some("null") } else { None });
        }
        let kind = attribute(path, "type", self.kind)?;
        let key = attribute(path, "key", raw_key)?;
        let id = attribute(path, "id", self.id)?;
        let (kind, key, id) = (kind.as_deref(), key.as_deref(), id.as_deref());
        let parts = EventParts { kind, key, id, ..Default::default() };
        push_data(builder, parts, data, self.data_base64, limits, path)
    }

    /// What CloudEvents 1.0 requires.
    fn check_cloud(&self, path: EventPath) -> Result<(), Refusal> {
        match given(self.version) {
            Some("\"1.0\"") => {}
            Some(raw) => return Err(wrong(&path.of("specversion"), raw, "\"1.0\"")),
            None => return Err(missing(&path.of("specversion"))),
        }
        for (field, raw) in [("id", self.id), ("source", self.source), ("type", self.kind)] {
            let raw = given(raw).ok_or_else(|| missing(&path.of(field)))?;
            if text(&path.of(field), raw)?.is_empty() {
                return Err(Refusal::invalid_field(&path.of(field), "a text is due, not \"\""));
            }
        }
        Ok(())
    }
}

/// Calls `each` with every event of the body; there is at least one.
fn walk<'a>(
    format: BodyFormat,
    body: &'a [u8],
    limits: &MessageLimits,
    mut each: impl FnMut(&Item<'a>, EventPath) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if body.len() > limits.message_bytes {
        return Err(message_too_large(body.len(), limits.message_bytes));
    }
    let body = std::str::from_utf8(body).map_err(|error| {
        Refusal::new(ErrorCode::Malformed, format!("the body is not UTF-8: {error}"))
    })?;
    let mut count = 0;
    let mut take = |scanner: &mut Scanner<'a>, list| -> Result<(), Refusal> {
        let path = EventPath { list, index: count };
        if count == limits.events {
            return Err(too_many_events(limits.events));
        }
        count += 1;
        let item = item(scanner, path).map_err(Problem::into_refusal)?;
        each(&item, path)
    };
    if format == BodyFormat::Ndjson {
        for line in body.lines().filter(|line| !line.trim_ascii().is_empty()) {
            let mut scanner = Scanner::new(line);
            take(&mut scanner, "lines")?;
            scanner.end().map_err(malformed)?;
        }
    } else {
        let mut scanner = Scanner::new(body);
        let batch = match format {
            BodyFormat::CloudEvents => true,
            BodyFormat::CloudEvent => false,
            _ => scanner.peek() == Some(b'['),
        };
        if !batch {
            take(&mut scanner, "")?;
        } else if !scanner.eat(b'[') {
            return scanner.fail("an array of events should begin").map_err(malformed);
        } else if !scanner.eat(b']') {
            loop {
                take(&mut scanner, "events")?;
                if !scanner.more(b']').map_err(malformed)? {
                    break;
                }
            }
        }
        scanner.end().map_err(malformed)?;
    }
    if count == 0 {
        return Err(Refusal::invalid_field("events", "at least one event is due"));
    }
    Ok(())
}

fn item<'a>(scanner: &mut Scanner<'a>, path: EventPath) -> Result<Item<'a>, Problem> {
    let mut item = Item::default();
    if !scanner.eat(b'{') {
        return Ok(scanner.fail("an event, which is an object with data, should begin")?);
    }
    if scanner.eat(b'}') {
        return Ok(item);
    }
    loop {
        let key = scanner.key()?.text().unwrap_or_default();
        let value = scanner.value()?;
        if item.slot(&key).is_some_and(|slot| slot.replace(value).is_some()) {
            return Err(twice(&path.of(&key)).into());
        }
        if !scanner.more(b'}')? {
            return Ok(item);
        }
    }
}

#[cfg(test)]
mod tests;
