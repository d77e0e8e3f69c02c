//! What a client says, in JSON.

use super::read::{self, given, missing, request_id, required, slots, twice, wrong};
use super::scan::{Scanner, SyntaxError};
use crate::frame::{EncodedEvents, EventParts, EventTooLarge, EventsBuilder};
use crate::protocol::bounds::{
    EventLimits, EventPath, check_attribute, message_too_large, page_of_key, page_of_keys, pattern,
    too_many_channels, too_many_events, too_many_operations, unknown_op,
};
use crate::protocol::{
    CHANNELS_PER_SUBSCRIBE_MAX, Connect, Cursor, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, History,
    INTEGER_MAX, MEMBERS_CURSOR_BYTES_MAX, MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX, MessageLimits,
    Mode, Operation, Page, Payload, PresenceQuery, Publish, Receipt, Rejected, Request, RequestId,
    Signal, Since, Subscribe, TOKEN_BYTES_MAX, Target, channel, check_producer,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::time::Duration;
use stormwire_core::{Channel, Position, Refusal, Timestamp};

/// Why a value was not taken: the text is broken from here on, or only this value is wrong.
pub(crate) enum Problem {
    Syntax(SyntaxError),
    Refused(Refusal),
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        Self::Syntax(error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Problem {
    pub(crate) fn into_refusal(self) -> Refusal {
        match self {
            Self::Syntax(error) => super::malformed(error),
            Self::Refused(refusal) => refusal,
        }
    }
}

/// Reads the operations of one message, one after the other.
#[derive(Debug)]
pub struct Requests<'a, 'b> {
    scanner: Scanner<'a>,
    events: &'b mut EventsBuilder,
    limits: MessageLimits,
    state: State,
    taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    InArray,
    Done,
}

impl<'a, 'b> Requests<'a, 'b> {
    /// Begins to read `text`. `events` is where publishes are packed; it may be kept for the next
    /// message, whose events then go into what is left of its buffer.
    pub fn new(text: &'a str, limits: MessageLimits, events: &'b mut EventsBuilder) -> Self {
        Self { scanner: Scanner::new(text), events, limits, state: State::Start, taken: 0 }
    }

    fn fatal(&mut self, id: Option<RequestId>, refusal: Refusal) -> Option<Read<'a>> {
        self.state = State::Done;
        Some(Err(Rejected { id, refusal, fatal: true }))
    }

    /// Stands before the next operation, or ends.
    fn advance(&mut self) -> Result<bool, Refusal> {
        let bytes = self.scanner.len();
        let found = match self.state {
            State::Done => return Ok(false),
            State::Start if bytes > self.limits.message_bytes => {
                return Err(message_too_large(bytes, self.limits.message_bytes));
            }
            State::Start if self.scanner.eat(b'[') => {
                self.state = State::InArray;
                !self.scanner.eat(b']')
            }
            State::Start => true,
            State::InArray => self.scanner.more(b']').map_err(super::malformed)?,
        };
        if !found {
            self.state = State::Done;
            self.scanner.end().map_err(super::malformed)?;
        }
        self.taken += usize::from(found);
        if self.taken > self.limits.operations {
            return Err(too_many_operations(self.limits.operations));
        }
        Ok(found)
    }
}

type Read<'a> = Result<Request<'a>, Rejected>;

impl<'a> Iterator for Requests<'a, '_> {
    type Item = Read<'a>;

    fn next(&mut self) -> Option<Read<'a>> {
        match self.advance() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(refusal) => return self.fatal(None, refusal),
        }
        let mut fields = Fields::default();
        let mut events = None;
        let scanned = scan(&mut self.scanner, &mut fields, &mut events, self.events, &self.limits);
        let id = request_id(fields.id);
        if let Err(problem) = scanned {
            return self.fatal(id.unwrap_or_default(), problem.into_refusal());
        }
        if self.state == State::Start {
            self.state = State::Done;
            if let Err(error) = self.scanner.end() {
                return self.fatal(id.unwrap_or_default(), super::malformed(error));
            }
        }
        Some(match id {
            Err(refusal) => Err(Rejected { id: None, refusal, fatal: false }),
            Ok(id) => match operation(&fields, events) {
                Ok(op) => Ok(Request { id, op }),
                Err(refusal) => Err(Rejected { id, refusal, fatal: false }),
            },
        })
    }
}

slots! {
    /// The members of every operation, as text.
    Fields {
        op "op", id "id", token "token", producer "producer", channel "channel",
        channels "channels", pattern "pattern", since "since", mode "mode", presence "presence",
        seq "seq", again "again", receipt "receipt", data "data", data_base64 "data_base64",
        before "before", after "after", limit "limit", key "key", keys_after "keys_after",
    }
}

type EventsRead = Option<Result<EncodedEvents, Refusal>>;

/// Takes one operation's members. Events are read on the way; what is wrong with them counts only if
/// the operation turns out to be one that has events.
fn scan<'a>(
    scanner: &mut Scanner<'a>,
    fields: &mut Fields<'a>,
    events: &mut EventsRead,
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<(), Problem> {
    if !scanner.eat(b'{') {
        return Ok(scanner.fail("an operation, which is an object, should begin")?);
    }
    if scanner.eat(b'}') {
        return Ok(());
    }
    loop {
        let key = scanner.key()?.text().unwrap_or_default();
        if key == "events" {
            if events.is_some() {
                return Err(twice("events").into());
            }
            *events = Some(read_events(scanner, builder, limits)?);
        } else {
            let value = scanner.value()?;
            if fields.slot(&key).is_some_and(|slot| slot.replace(value).is_some()) {
                return Err(twice(&key).into());
            }
        }
        if !scanner.more(b'}')? {
            return Ok(());
        }
    }
}

fn read_events(
    scanner: &mut Scanner<'_>,
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<Result<EncodedEvents, Refusal>, SyntaxError> {
    scanner.peek();
    let start = scanner.position();
    let read = push_events(scanner, builder, limits);
    let events = builder.take();
    match read {
        Ok(()) if events.is_empty() => {
            Ok(Err(Refusal::invalid_field("events", "at least one event is due")))
        }
        Ok(()) => Ok(Ok(events)),
        Err(Problem::Syntax(error)) => Err(error),
        Err(Problem::Refused(refusal)) => {
            // The operation goes on behind it, and may have its id there.
            scanner.rewind(start);
            scanner.value()?;
            Ok(Err(refusal))
        }
    }
}

fn push_events(
    scanner: &mut Scanner<'_>,
    builder: &mut EventsBuilder,
    limits: &MessageLimits,
) -> Result<(), Problem> {
    if !scanner.eat(b'[') {
        let raw = scanner.value()?;
        return Err(wrong("events", raw, "an array of events").into());
    }
    if scanner.eat(b']') {
        return Ok(());
    }
    loop {
        let path = EventPath { list: "events", index: builder.len() };
        push_event(scanner, builder, EventLimits::from(limits), path)?;
        if !scanner.more(b']')? {
            return Ok(());
        }
    }
}

slots! {
    /// The members of an event.
    EventFields { kind "type", key "key", id "id", data "data", data_base64 "data_base64", }
}

/// Takes one event and packs it.
pub(crate) fn push_event(
    scanner: &mut Scanner<'_>,
    builder: &mut EventsBuilder,
    limits: EventLimits,
    path: EventPath,
) -> Result<(), Problem> {
    if builder.len() >= limits.events {
        return Err(too_many_events(limits.events).into());
    }
    if !scanner.eat(b'{') {
        let raw = scanner.value()?;
        let field = path.to_string();
        let field = field.strip_suffix('.').unwrap_or("the event");
        return Err(wrong(field, raw, "an event, which is an object with data,").into());
    }
    let mut fields = EventFields::default();
    if !scanner.eat(b'}') {
        loop {
            let key = scanner.key()?.text().unwrap_or_default();
            let value = scanner.value()?;
            if fields.slot(&key).is_some_and(|slot| slot.replace(value).is_some()) {
                return Err(twice(&path.of(&key)).into());
            }
            if !scanner.more(b'}')? {
                break;
            }
        }
    }
    let kind = attribute(path, "type", fields.kind)?;
    let key = attribute(path, "key", fields.key)?;
    let id = attribute(path, "id", fields.id)?;
    let parts = EventParts {
        kind: kind.as_deref(),
        key: key.as_deref(),
        id: id.as_deref(),
        ..Default::default()
    };
    Ok(push_data(builder, parts, fields.data, fields.data_base64, limits, path)?)
}

/// Completes `parts` by one of `data` and `data_base64` and packs the event.
pub(crate) fn push_data(
    builder: &mut EventsBuilder,
    parts: EventParts<'_>,
    data: Option<&str>,
    data_base64: Option<&str>,
    limits: EventLimits,
    path: EventPath,
) -> Result<(), Refusal> {
    let decoded;
    let (data, binary) = match (data, given(data_base64)) {
        (Some(data), None) => (data.as_bytes(), false),
        (None, Some(raw)) => {
            decoded = base64(&path.of("data_base64"), raw)?;
            (decoded.as_slice(), true)
        }
        (None, None) => return Err(missing(&path.of("data"))),
        (Some(_), Some(_)) => {
            let problem = "an event has either data or data_base64, not both";
            return Err(Refusal::invalid_field(&path.of("data_base64"), problem));
        }
    };
    if data.len() > limits.event_bytes {
        let (len, max) = (data.len(), limits.event_bytes);
        return Err(path.too_large(EventTooLarge { field: "data", len, max }));
    }
    builder.push(&EventParts { data, binary, ..parts }).map_err(|error| path.too_large(error))
}

pub(crate) fn attribute<'a>(
    path: EventPath,
    field: &str,
    raw: Option<&'a str>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(raw) = given(raw) else { return Ok(None) };
    let Ok(text) = Scanner::new(raw).string() else {
        return Err(wrong(&path.of(field), raw, "a string"));
    };
    let text =
        text.text().ok_or_else(|| wrong(&path.of(field), raw, "a string of whole characters"))?;
    check_attribute(&path, field, &text)?;
    Ok(Some(text))
}

pub(crate) fn base64(field: &str, raw: &str) -> Result<Vec<u8>, Refusal> {
    let text = read::text(field, raw)?;
    STANDARD.decode(text.as_bytes()).map_err(|error| {
        Refusal::invalid_field(field, format!("base64 with padding is due, but: {error}"))
    })
}

fn operation<'a>(fields: &Fields<'a>, events: EventsRead) -> Result<Operation<'a>, Refusal> {
    let name = read::text("op", required("op", fields.op)?)?;
    Ok(match &*name {
        "publish" => Operation::Publish(publish(fields, events)?),
        "subscribe" => Operation::Subscribe(subscribe(fields)?),
        "connect" => Operation::Connect(connect(fields)?),
        "signal" => Operation::Signal(signal(fields)?),
        "history" => Operation::History(history(fields)?),
        "presence" => Operation::Presence(presence(fields)?),
        "unsubscribe" => Operation::Unsubscribe(target(fields)?),
        "refresh" => {
            let token = required("token", fields.token)?;
            Operation::Refresh(read::text_up_to("token", token, TOKEN_BYTES_MAX)?.into())
        }
        "ping" => Operation::Ping,
        other => return Err(unknown_op(other)),
    })
}

fn publish<'a>(fields: &Fields<'a>, events: EventsRead) -> Result<Publish<'a>, Refusal> {
    let channel = read::text("channel", required("channel", fields.channel)?)?;
    let seq = read::optional_whole("seq", fields.seq, 1, INTEGER_MAX)?;
    let again = read::optional_whole("again", fields.again, 0, INTEGER_MAX)?;
    let receipt = match given(fields.receipt) {
        None | Some("\"journal\"") => Receipt::Journal,
        Some("\"archive\"") => Receipt::Archive,
        Some(raw) => return Err(wrong("receipt", raw, "\"journal\" or \"archive\"")),
    };
    let events = events.ok_or_else(|| missing("events"))??;
    Ok(Publish { channel, seq, again: again.map(Duration::from_millis), receipt, events })
}

fn connect(fields: &Fields<'_>) -> Result<Connect, Refusal> {
    let token = given(fields.token)
        .map(|raw| read::text_up_to("token", raw, TOKEN_BYTES_MAX))
        .transpose()?;
    let producer = given(fields.producer).map(|raw| read::text("producer", raw)).transpose()?;
    producer.as_deref().map(check_producer).transpose()?;
    Ok(Connect { token: token.map(Into::into), producer: producer.map(Into::into) })
}

fn subscribe(fields: &Fields<'_>) -> Result<Subscribe, Refusal> {
    let mode = match given(fields.mode) {
        None | Some("\"all\"") => Mode::All,
        Some("\"latest\"") => Mode::Latest,
        Some(raw) => return Err(wrong("mode", raw, "\"all\" or \"latest\"")),
    };
    let presence = read::flag("presence", fields.presence)?;
    let since = given(fields.since).map(since).transpose()?;
    Ok(Subscribe { target: target(fields)?, since, mode, presence })
}

fn signal<'a>(fields: &Fields<'a>) -> Result<Signal<'a>, Refusal> {
    let channel = one_channel(fields)?;
    let data = match (fields.data, given(fields.data_base64)) {
        (Some(data), None) => Payload::Json(Cow::Borrowed(data)),
        (None, Some(raw)) => Payload::Binary(Cow::Owned(base64("data_base64", raw)?)),
        _ => return Err(Refusal::invalid_field("data", "one of data and data_base64 is due")),
    };
    Ok(Signal { channel, data })
}

fn history(fields: &Fields<'_>) -> Result<History, Refusal> {
    let limit = read::optional_whole("limit", fields.limit, 1, u64::from(HISTORY_LIMIT_MAX))?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(HISTORY_LIMIT_DEFAULT);
    let places = [
        given(fields.after).map(|raw| position("after", raw).map(Page::After)),
        given(fields.before).map(|raw| position("before", raw).map(Page::Before)),
        given(fields.key).map(|raw| page_of_key(&read::text("key", raw)?)),
        given(fields.keys_after).map(|raw| page_of_keys(&read::text("keys_after", raw)?)),
    ];
    let mut places = places.into_iter().flatten();
    let page = places.next().transpose()?.unwrap_or(Page::Last);
    if places.next().is_some() {
        let problem = "give one of after, before, key and keys_after";
        return Err(Refusal::invalid_field("before", problem));
    }
    Ok(History { channel: one_channel(fields)?, page, limit })
}

fn presence(fields: &Fields<'_>) -> Result<PresenceQuery, Refusal> {
    let limit = read::optional_whole("limit", fields.limit, 1, u64::from(MEMBERS_LIMIT_MAX))?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(MEMBERS_LIMIT_DEFAULT);
    let after = given(fields.after)
        .map(|raw| read::text_up_to("after", raw, MEMBERS_CURSOR_BYTES_MAX).map(Into::into))
        .transpose()?;
    Ok(PresenceQuery { channel: one_channel(fields)?, after, limit })
}

fn one_channel(fields: &Fields<'_>) -> Result<Channel, Refusal> {
    channel("channel", &read::text("channel", required("channel", fields.channel)?)?)
}

fn target(fields: &Fields<'_>) -> Result<Target, Refusal> {
    match (given(fields.channel), given(fields.channels), given(fields.pattern)) {
        (Some(_), None, None) => Ok(Target::Channels(vec![one_channel(fields)?])),
        (None, Some(raw), None) => {
            let mut channels = Vec::new();
            read::elements("channels", raw, |element| {
                if channels.len() == CHANNELS_PER_SUBSCRIBE_MAX {
                    return Err(too_many_channels());
                }
                channels.push(channel("channels", &read::text("channels", element)?)?);
                Ok(())
            })?;
            if channels.is_empty() {
                return Err(Refusal::invalid_field("channels", "at least one channel is due"));
            }
            Ok(Target::Channels(channels))
        }
        (None, None, Some(raw)) => pattern(&read::text("pattern", raw)?),
        (None, None, None) => Err(missing("channel")),
        _ => Err(Refusal::invalid_field("channel", "give one of channel, channels and pattern")),
    }
}

slots! {
    SinceFields { epoch "epoch", offset "offset", time "time", last "last", cursor "cursor", }
}

fn since(raw: &str) -> Result<Since, Refusal> {
    let mut fields = SinceFields::default();
    read::members("since", raw, &mut fields, |fields, key| fields.slot(key))?;
    let SinceFields { epoch, offset, time, last, cursor } = fields;
    match (given(epoch), given(offset), given(time), given(last), given(cursor)) {
        (Some(epoch), Some(offset), None, None, None) => Ok(Since::Position(Position {
            epoch: read::epoch("since.epoch", epoch)?,
            offset: read::offset("since.offset", offset)?,
        })),
        (None, None, Some(raw), None, None) => {
            let time = read::whole("since.time", raw, 0, INTEGER_MAX)?;
            Ok(Since::Time(Timestamp(i64::try_from(time).unwrap_or(i64::MAX))))
        }
        (None, None, None, Some(raw), None) => {
            let last = read::whole("since.last", raw, 0, u64::from(HISTORY_LIMIT_MAX))?;
            Ok(Since::Last(u32::try_from(last).unwrap_or(HISTORY_LIMIT_MAX)))
        }
        (None, None, None, None, Some(raw)) => {
            let text = read::text("since.cursor", raw)?;
            let cursor = Cursor::decode(&text);
            cursor
                .map(Since::Cursor)
                .ok_or_else(|| wrong("since.cursor", raw, "a cursor of `events`"))
        }
        _ => Err(wrong("since", raw, "{epoch, offset}, {time}, {last} or {cursor}")),
    }
}

slots! {
    PositionFields { epoch "epoch", offset "offset", }
}

pub(super) fn position(field: &str, raw: &str) -> Result<Position, Refusal> {
    let mut fields = PositionFields::default();
    read::members(field, raw, &mut fields, |fields, key| fields.slot(key))?;
    let (epoch, offset) = (format!("{field}.epoch"), format!("{field}.offset"));
    Ok(Position {
        epoch: read::epoch(&epoch, required(&epoch, fields.epoch)?)?,
        offset: read::offset(&offset, required(&offset, fields.offset)?)?,
    })
}
