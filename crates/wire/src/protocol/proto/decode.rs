//! What a client says, in protobuf.

use super::messages as pb;
use super::raw::{Broken, Fields, Value};
use crate::frame::{EventParts, EventTooLarge, EventsBuilder};
use crate::protocol::bounds::{
    EventLimits, EventPath, check_attribute, message_too_large, too_many_channels, too_many_events,
    too_many_operations, unknown_op,
};
use crate::protocol::{
    CHANNELS_PER_SUBSCRIBE_MAX, Connect, Cursor, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, History,
    INTEGER_MAX, MEMBERS_CURSOR_BYTES_MAX, MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX, MessageLimits,
    Mode, Operation, Page, Payload, PresenceQuery, Publish, REQUEST_ID_BYTES_MAX, Receipt,
    Rejected, Request, RequestId, Signal, Since, Subscribe, TOKEN_BYTES_MAX, Target, channel,
    check_producer,
};
use crate::protocol::{bounds, json};
use prost::Message;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, ErrorCode, Offset, Position, Refusal, Timestamp};

/// Reads the operations of one message, one after the other.
#[derive(Debug)]
pub struct Requests<'a, 'b> {
    fields: Fields<'a>,
    events: &'b mut EventsBuilder,
    limits: MessageLimits,
    taken: usize,
    done: bool,
}

impl<'a, 'b> Requests<'a, 'b> {
    /// Begins to read `bytes`. `events` is where publishes are packed.
    pub fn new(bytes: &'a [u8], limits: MessageLimits, events: &'b mut EventsBuilder) -> Self {
        Self { fields: Fields::new(bytes), events, limits, taken: 0, done: false }
    }

    fn advance(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        let (bytes, max) = (self.fields.len(), self.limits.message_bytes);
        if self.taken == 0 && bytes > max {
            return Err(message_too_large(bytes, max));
        }
        while let Some((number, value)) = self.fields.next().map_err(malformed)? {
            let (1, Value::Bytes(request)) = (number, value) else { continue };
            self.taken += 1;
            if self.taken > self.limits.operations {
                return Err(too_many_operations(self.limits.operations));
            }
            return Ok(Some(request));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Requests<'a, '_> {
    type Item = Result<Request<'a>, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.advance() {
            Ok(Some(bytes)) => Some(request(bytes, self.events, &self.limits)),
            Ok(None) => None,
            Err(refusal) => {
                self.done = true;
                Some(Err(Rejected { id: None, refusal, fatal: true }))
            }
        }
    }
}

fn malformed(error: impl fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::Malformed, error.to_string())
}

fn request<'a>(
    bytes: &'a [u8],
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<Request<'a>, Rejected> {
    let mut id = Ok(None);
    let mut op = None;
    let mut fields = Fields::new(bytes);
    let broken = loop {
        match fields.next() {
            Ok(None) => break None,
            Err(error) => break Some(malformed(error)),
            Ok(Some((1, Value::Varint(number)))) => {
                id = Ok(Some(RequestId::Number(number.cast_signed())));
            }
            Ok(Some((2, Value::Bytes(text)))) => id = text_id(text),
            Ok(Some((number, Value::Bytes(body)))) => op = Some((number, body)),
            Ok(Some(_)) => {}
        }
    };
    let fatal = broken.is_some();
    let read = broken.map_or_else(|| operation(op, builder, limits), Err);
    match (id, read) {
        (Ok(id), Ok(op)) => Ok(Request { id, op }),
        (Ok(id), Err(refusal)) => Err(Rejected { id, refusal, fatal }),
        (Err(refusal), _) => Err(Rejected { id: None, refusal, fatal }),
    }
}

fn text_id(bytes: &[u8]) -> Result<Option<RequestId>, Refusal> {
    let id = text("id", bytes)?;
    check_len("id", id, REQUEST_ID_BYTES_MAX)?;
    Ok(Some(RequestId::Text(id.into())))
}

fn text<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| Refusal::invalid_field(field, error))
}

fn check_len(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if (1..=max).contains(&text.len()) {
        return Ok(());
    }
    Err(Refusal::invalid_field(field, format!("1 to {max} bytes are due, not {}", text.len())))
}

fn operation<'a>(
    op: Option<(u32, &'a [u8])>,
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<Operation<'a>, Refusal> {
    let Some((number, body)) = op else {
        return Err(Refusal::new(ErrorCode::UnknownOp, "the request names no operation"));
    };
    Ok(match number {
        3 => Operation::Connect(connect(decode(body)?)?),
        4 => Operation::Subscribe(subscribe(decode(body)?)?),
        5 => Operation::Publish(publish(body, builder, limits)?),
        6 => Operation::Signal(signal(decode(body)?)?),
        7 => Operation::History(history(decode(body)?)?),
        8 => Operation::Presence(presence(decode(body)?)?),
        9 => {
            let pb::Unsubscribe { channels, pattern } = decode(body)?;
            Operation::Unsubscribe(target(&channels, pattern.as_deref())?)
        }
        10 => {
            let token = decode::<pb::Refresh>(body)?.token;
            check_len("token", &token, TOKEN_BYTES_MAX)?;
            Operation::Refresh(token.into())
        }
        11 => decode::<pb::Ping>(body).map(|_| Operation::Ping)?,
        other => return Err(unknown_op(&format!("of field {other}"))),
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(malformed)
}

/// Reads a publish without the structs: the events go straight from the message into the builder.
fn publish<'a>(
    bytes: &'a [u8],
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<Publish<'a>, Refusal> {
    let mut fields = Fields::new(bytes);
    let (mut channel, mut seq, mut again) = ("", None, None);
    let mut receipt = Receipt::Journal;
    // What an operation before left there when it was refused.
    drop(builder.take());
    while let Some((number, value)) = fields.next().map_err(malformed)? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => channel = text("channel", bytes)?,
            (2, Value::Varint(number)) => seq = Some(whole("seq", number, 1)?),
            (3, Value::Varint(number)) => again = Some(whole("again", number, 0)?),
            (4, Value::Varint(number)) => {
                receipt = match number {
                    0 => Receipt::Journal,
                    1 => Receipt::Archive,
                    other => return Err(not_one_of("receipt", other)),
                }
            }
            (5, Value::Bytes(event)) => push_event(event, builder, limits.into())?,
            _ => {}
        }
    }
    if channel.is_empty() {
        return Err(Refusal::invalid_field("channel", "this field is required"));
    }
    if builder.is_empty() {
        return Err(Refusal::invalid_field("events", "at least one event is due"));
    }
    let again = again.map(Duration::from_millis);
    Ok(Publish { channel: Cow::Borrowed(channel), seq, again, receipt, events: builder.take() })
}

fn whole(field: &str, number: u64, min: u64) -> Result<u64, Refusal> {
    if (min..=INTEGER_MAX).contains(&number) {
        return Ok(number);
    }
    let problem = format!("a whole number from {min} to {INTEGER_MAX} is due, not {number}");
    Err(Refusal::invalid_field(field, problem))
}

fn not_one_of(field: &str, number: impl fmt::Display) -> Refusal {
    Refusal::invalid_field(field, format!("0 or 1 is due, not {number}"))
}

fn push_event(
    bytes: &[u8],
    builder: &mut EventsBuilder,
    limits: EventLimits,
) -> Result<(), Refusal> {
    if builder.len() >= limits.events {
        return Err(too_many_events(limits.events));
    }
    let path = EventPath { list: "events", index: builder.len() };
    let mut parts = EventParts::default();
    let mut fields = Fields::new(bytes);
    let broken = |error: Broken| malformed(format_args!("{path}{error}"));
    while let Some((number, value)) = fields.next().map_err(broken)? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => parts.kind = Some(attribute(path, "type", bytes)?),
            (2, Value::Bytes(bytes)) => parts.key = Some(attribute(path, "key", bytes)?),
            (3, Value::Bytes(bytes)) => parts.id = Some(attribute(path, "id", bytes)?),
            (4, Value::Bytes(bytes)) => parts.data = bytes,
            (5, Value::Varint(flag)) => parts.binary = flag != 0,
            _ => {}
        }
    }
    if parts.data.len() > limits.event_bytes {
        let (len, max) = (parts.data.len(), limits.event_bytes);
        return Err(path.too_large(EventTooLarge { field: "data", len, max }));
    }
    if !parts.binary {
        parts.data = json_data(&path.of("data"), parts.data)?;
    }
    builder.push(&parts).map_err(|error| path.too_large(error))
}

fn attribute<'a>(path: EventPath, field: &str, bytes: &'a [u8]) -> Result<&'a str, Refusal> {
    let text = text(field, bytes)?;
    check_attribute(&path, field, text)?;
    Ok(text)
}

fn json_data<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
    let text = text(field, bytes)?;
    let data = json::check(text).map_err(|refusal| {
        Refusal::new(
            refusal.code,
            format!("{field}: {}; set binary for other data", refusal.message),
        )
    })?;
    Ok(data.as_bytes())
}

fn connect(message: pb::Connect) -> Result<Connect, Refusal> {
    if let Some(token) = &message.token {
        check_len("token", token, TOKEN_BYTES_MAX)?;
    }
    message.producer.as_deref().map(check_producer).transpose()?;
    Ok(Connect { token: message.token.map(Into::into), producer: message.producer.map(Into::into) })
}

fn subscribe(message: pb::Subscribe) -> Result<Subscribe, Refusal> {
    let mode = match message.mode {
        0 => Mode::All,
        1 => Mode::Latest,
        other => return Err(not_one_of("mode", other)),
    };
    let target = target(&message.channels, message.pattern.as_deref())?;
    let since = message.since.map(since).transpose()?;
    Ok(Subscribe { target, since, mode, presence: message.presence })
}

fn since(message: pb::Since) -> Result<Since, Refusal> {
    match message.since {
        Some(pb::SincePoint::Position(at)) => Ok(Since::Position(position("since", at)?)),
        Some(pb::SincePoint::Time(time)) if time >= 0 => Ok(Since::Time(Timestamp(time))),
        Some(pb::SincePoint::Time(time)) => Err(Refusal::invalid_field(
            "since.time",
            format!("Unix milliseconds are due, not {time}"),
        )),
        Some(pb::SincePoint::Last(last)) if last <= HISTORY_LIMIT_MAX => Ok(Since::Last(last)),
        Some(pb::SincePoint::Last(last)) => Err(Refusal::invalid_field(
            "since.last",
            format!("a whole number from 0 to {HISTORY_LIMIT_MAX} is due, not {last}"),
        )),
        Some(pb::SincePoint::Cursor(text)) => Cursor::decode(&text)
            .map(Since::Cursor)
            .ok_or_else(|| Refusal::invalid_field("since.cursor", "a cursor of `events` is due")),
        None => Err(Refusal::invalid_field("since", "a position, time, last or cursor is due")),
    }
}

fn position(field: &str, message: pb::Position) -> Result<Position, Refusal> {
    if message.epoch == 0 || message.offset > INTEGER_MAX {
        let problem = format!("an epoch from 1 and an offset up to {INTEGER_MAX} are due");
        return Err(Refusal::invalid_field(field, problem));
    }
    Ok(Position { epoch: Epoch(message.epoch), offset: Offset(message.offset) })
}

fn target(channels: &[String], pattern: Option<&str>) -> Result<Target, Refusal> {
    match (channels, pattern) {
        ([], Some(text)) => bounds::pattern(text),
        ([], None) => Err(Refusal::invalid_field("channels", "this field is required")),
        (_, Some(_)) => Err(Refusal::invalid_field("channels", "give channels or a pattern")),
        (names, None) if names.len() > CHANNELS_PER_SUBSCRIBE_MAX => Err(too_many_channels()),
        (names, None) => {
            let channels: Result<Vec<Channel>, _> =
                names.iter().map(|name| channel("channels", name)).collect();
            channels.map(Target::Channels)
        }
    }
}

fn signal(message: pb::Signal) -> Result<Signal<'static>, Refusal> {
    let data = if message.binary {
        Payload::Binary(Cow::Owned(message.data))
    } else {
        let text = text("data", json_data("data", &message.data)?)?;
        Payload::Json(Cow::Owned(text.to_owned()))
    };
    Ok(Signal { channel: channel("channel", &message.channel)?, data })
}

fn presence(message: pb::Presence) -> Result<PresenceQuery, Refusal> {
    if let Some(after) = &message.after {
        check_len("after", after, MEMBERS_CURSOR_BYTES_MAX)?;
    }
    Ok(PresenceQuery {
        channel: channel("channel", &message.channel)?,
        after: message.after.map(Into::into),
        limit: limit(message.limit, MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX)?,
    })
}

/// 0 stands for the usual one.
fn limit(given: u32, usual: u32, max: u32) -> Result<u32, Refusal> {
    match given {
        0 => Ok(usual),
        given if given <= max => Ok(given),
        given => Err(Refusal::invalid_field("limit", format!("1 to {max} is due, not {given}"))),
    }
}

fn history(message: pb::History) -> Result<History, Refusal> {
    let limit = limit(message.limit, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX)?;
    let page = match message.page {
        None => Page::Last,
        Some(pb::HistoryPoint::After(at)) => Page::After(position("after", at)?),
        Some(pb::HistoryPoint::Before(at)) => Page::Before(position("before", at)?),
        Some(pb::HistoryPoint::Key(key)) => bounds::page_of_key(&key)?,
        Some(pb::HistoryPoint::KeysAfter(key)) => bounds::page_of_keys(&key)?,
    };
    Ok(History { channel: channel("channel", &message.channel)?, page, limit })
}
