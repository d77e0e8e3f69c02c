//! What a server says, in JSON: the client's side.

use super::decode::{base64, position};
use super::read::{self, given, members, request_id, required, slots};
use super::scan::{Scanner, SyntaxError};
use crate::protocol::{
    Connected, ConnectedLimits, Cursor, DeliveredEvent, ErrorMessage, EventsMessage, Gap,
    GapTarget, HistoryPage, INTEGER_MAX, Member, MemberChange, MembersPage, Payload, Published,
    RequestId, ServerMessage, Subscribed, channel,
};
use std::borrow::Cow;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Refusal, Timestamp};

type Read<T> = Result<T, Refusal>;

slots! {
    Fields {
        op "op", id "id", session "session", user "user", heartbeat "heartbeat_ms",
        limits "limits", server_time "server_time", channel "channel", pattern "pattern", partition "partition",
        epoch "epoch", offset "offset", recovered "recovered", cursor "cursor", first "first",
        last "last", duplicate "duplicate", dead_letters "dead_letters", from "from", to "to", more "more", gaps "gaps", members "members",
        data "data", data_base64 "data_base64", reconnect "reconnect_after_ms", code "code",
        message "message", temporary "temporary", retry_after "retry_after_ms",
        expected "expected", expires "expires_in_ms", since "since", version "version",
        users "users", sessions "sessions", next "next", partial "partial", resync "resync",
    }
}

slots! {
    EventFields {
        offset "offset", ts "ts", id "id", kind "type", key "key", from "from", data "data",
        data_base64 "data_base64",
    }
}

slots! {
    MemberFields { user "user", session "session", }
}

slots! {
    GapFields { from "from", to "to", }
}

slots! {
    LimitFields { unacked "unacked", }
}

/// Reads what a server sent. Messages of a kind that this version does not know are left out.
///
/// # Errors
/// `malformed` if the text is not such a message, `invalid_field` if a known field is not what it should
/// be.
pub fn server_messages(text: &str) -> Read<Vec<ServerMessage<'_>>> {
    let mut scanner = Scanner::new(text);
    let mut messages = Vec::with_capacity(1);
    if !scanner.eat(b'[') {
        messages.extend(one(&mut scanner)?);
    } else if !scanner.eat(b']') {
        loop {
            messages.extend(one(&mut scanner)?);
            if !scanner.more(b']').map_err(super::malformed)? {
                break;
            }
        }
    }
    scanner.end().map_err(super::malformed)?;
    Ok(messages)
}

fn one<'a>(scanner: &mut Scanner<'a>) -> Read<Option<ServerMessage<'a>>> {
    let mut fields = Fields::default();
    let mut events = Vec::new();
    scan(scanner, &mut fields, &mut events)?;
    message(&fields, events)
}

fn scan<'a>(
    scanner: &mut Scanner<'a>,
    fields: &mut Fields<'a>,
    events: &mut Vec<DeliveredEvent<'a>>,
) -> Read<()> {
    let fail = super::malformed;
    if !scanner.eat(b'{') {
        return scanner.fail("a message, which is an object, should begin").map_err(fail);
    }
    if scanner.eat(b'}') {
        return Ok(());
    }
    loop {
        let key = scanner.key().map_err(fail)?.text().unwrap_or_default();
        if key == "events" {
            read_events(scanner, events)?;
        } else {
            let value = scanner.value().map_err(fail)?;
            if let Some(slot) = fields.slot(&key) {
                *slot = Some(value);
            }
        }
        if !scanner.more(b'}').map_err(fail)? {
            return Ok(());
        }
    }
}

fn read_events<'a>(scanner: &mut Scanner<'a>, events: &mut Vec<DeliveredEvent<'a>>) -> Read<()> {
    let fail = super::malformed;
    if !scanner.eat(b'[') {
        return scanner.fail("an array of events should begin").map_err(fail);
    }
    if scanner.eat(b']') {
        return Ok(());
    }
    loop {
        let fields = event_fields(scanner).map_err(fail)?;
        events.push(event(&fields)?);
        if !scanner.more(b']').map_err(fail)? {
            return Ok(());
        }
    }
}

fn event_fields<'a>(scanner: &mut Scanner<'a>) -> Result<EventFields<'a>, SyntaxError> {
    let mut fields = EventFields::default();
    if !scanner.eat(b'{') {
        return scanner.fail("an event, which is an object, should begin");
    }
    if scanner.eat(b'}') {
        return Ok(fields);
    }
    loop {
        let key = scanner.key()?.text().unwrap_or_default();
        let value = scanner.value()?;
        if let Some(slot) = fields.slot(&key) {
            *slot = Some(value);
        }
        if !scanner.more(b'}')? {
            return Ok(fields);
        }
    }
}

fn event<'a>(fields: &EventFields<'a>) -> Read<DeliveredEvent<'a>> {
    let optional =
        |field, raw: Option<&'a str>| given(raw).map(|raw| read::text(field, raw)).transpose();
    Ok(DeliveredEvent {
        offset: read::offset("offset", required("offset", fields.offset)?)?,
        ts: Timestamp(read::signed("ts", required("ts", fields.ts)?)?),
        id: read::text("id", required("id", fields.id)?)?,
        kind: optional("type", fields.kind)?,
        key: optional("key", fields.key)?,
        from: read::text("from", required("from", fields.from)?)?,
        data: payload(fields.data, fields.data_base64)?,
    })
}

fn payload<'a>(data: Option<&'a str>, data_base64: Option<&'a str>) -> Read<Payload<'a>> {
    if let Some(raw) = given(data_base64) {
        return Ok(Payload::Binary(Cow::Owned(base64("data_base64", raw)?)));
    }
    let data = data.ok_or_else(|| read::missing("data"))?;
    Ok(Payload::Json(Cow::Borrowed(data)))
}

impl<'a> Fields<'a> {
    fn text(&self, field: &str, raw: Option<&'a str>) -> Read<Cow<'a, str>> {
        read::text(field, required(field, raw)?)
    }

    fn boxed(&self, field: &str, raw: Option<&'a str>) -> Read<Box<str>> {
        self.text(field, raw).map(Into::into)
    }

    fn channel(&self) -> Read<Channel> {
        channel("channel", &self.text("channel", self.channel)?)
    }

    fn epoch(&self) -> Read<Epoch> {
        read::epoch("epoch", required("epoch", self.epoch)?)
    }

    fn offset(&self, field: &str, raw: Option<&str>) -> Read<Offset> {
        read::offset(field, required(field, raw)?)
    }

    fn server_time(&self) -> Read<Timestamp> {
        let raw = required("server_time", self.server_time)?;
        read::signed("server_time", raw).map(Timestamp)
    }

    fn dead_letters(&self) -> Read<u32> {
        let raw = self.dead_letters;
        let count = read::optional_whole("dead_letters", raw, 0, u64::from(u32::MAX))?;
        Ok(count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
    }

    fn duration(&self, field: &str, raw: Option<&str>) -> Read<Duration> {
        let raw = required(field, raw)?;
        read::whole(field, raw, 0, u64::MAX).map(Duration::from_millis)
    }

    fn position(&self, field: &str, raw: Option<&str>) -> Read<Position> {
        position(field, required(field, raw)?)
    }

    /// A whole number that is 0 where it is not given.
    fn number(&self, field: &str, raw: Option<&str>) -> Read<u64> {
        Ok(read::optional_whole(field, raw, 0, INTEGER_MAX)?.unwrap_or(0))
    }

    fn gap_target(&self) -> Read<GapTarget> {
        let Some(raw) = given(self.pattern) else {
            return Ok(GapTarget::Channel(self.channel()?));
        };
        let pattern = read::text("pattern", raw)?.into();
        let cursor = self.cursor()?.ok_or_else(|| read::missing("cursor"))?;
        let partition = required("partition", self.partition)?;
        let number = read::whole("partition", partition, 0, u64::from(u16::MAX))?;
        let partition = Partition(u16::try_from(number).unwrap_or(u16::MAX));
        Ok(GapTarget::Pattern { pattern, partition, cursor })
    }

    fn cursor(&self) -> Read<Option<Cursor>> {
        let Some(raw) = given(self.cursor) else { return Ok(None) };
        let cursor = Cursor::decode(&read::text("cursor", raw)?);
        cursor.map(Some).ok_or_else(|| read::wrong("cursor", raw, "a cursor"))
    }
}

fn message<'a>(
    fields: &Fields<'a>,
    events: Vec<DeliveredEvent<'a>>,
) -> Read<Option<ServerMessage<'a>>> {
    let id = request_id(fields.id)?;
    let op = fields.text("op", fields.op)?;
    Ok(Some(match &*op {
        "published" => ServerMessage::Published(published(fields, id)?),
        "events" => ServerMessage::Events(EventsMessage {
            channel: fields.text("channel", fields.channel)?,
            epoch: fields.epoch()?,
            events,
            pattern: given(fields.pattern).map(|raw| read::text("pattern", raw)).transpose()?,
            cursor: fields.cursor()?,
        }),
        "error" => ServerMessage::Error(error(fields, id)?),
        "connected" => ServerMessage::Connected(connected(fields, id)?),
        "subscribed" => ServerMessage::Subscribed(subscribed(fields, id)?),
        "history" => ServerMessage::History(HistoryPage {
            id,
            channel: fields.text("channel", fields.channel)?,
            epoch: fields.epoch()?,
            events,
            more: read::flag("more", fields.more)?,
            gaps: gap_list(fields.gaps)?,
        }),
        "gap" => ServerMessage::Gap(Gap {
            target: fields.gap_target()?,
            from: fields.position("from", fields.from)?,
            to: fields.position("to", fields.to)?,
        }),
        _ => return other(&op, fields, id),
    }))
}

fn other<'a>(
    op: &str,
    fields: &Fields<'a>,
    id: Option<RequestId>,
) -> Read<Option<ServerMessage<'a>>> {
    Ok(Some(match op {
        "presence" => ServerMessage::Presence(members_page(fields, id)?),
        "joined" => ServerMessage::Joined(member_change(fields)?),
        "left" => ServerMessage::Left(member_change(fields)?),
        "signal" => ServerMessage::Signal {
            channel: fields.channel()?,
            from: fields.text("from", fields.from)?,
            data: payload(fields.data, fields.data_base64)?,
        },
        "unsubscribed" => {
            let target = fields.text("channel", given(fields.pattern).or(fields.channel))?;
            ServerMessage::Unsubscribed { id, target }
        }
        "refreshed" => {
            let expires_in = fields.duration("expires_in_ms", fields.expires)?;
            ServerMessage::Refreshed { id, expires_in }
        }
        "pong" => ServerMessage::Pong { id, server_time: fields.server_time()? },
        "moving" => {
            let reconnect_after = fields.duration("reconnect_after_ms", fields.reconnect)?;
            ServerMessage::Moving { reconnect_after }
        }
        _ => return Ok(None),
    }))
}

fn published(fields: &Fields<'_>, id: Option<RequestId>) -> Read<Published> {
    Ok(Published {
        id,
        epoch: fields.epoch()?,
        first: fields.offset("first", fields.first)?,
        last: fields.offset("last", fields.last)?,
        server_time: fields.server_time()?,
        duplicate: read::flag("duplicate", fields.duplicate)?,
        dead_letters: fields.dead_letters()?,
    })
}

fn error(fields: &Fields<'_>, id: Option<RequestId>) -> Read<ErrorMessage> {
    let retry_after = read::optional_whole("retry_after_ms", fields.retry_after, 0, u64::MAX)?;
    Ok(ErrorMessage {
        id,
        code: fields.boxed("code", fields.code)?,
        message: fields.boxed("message", fields.message)?,
        temporary: read::flag("temporary", fields.temporary)?,
        retry_after: retry_after.map(Duration::from_millis),
        expected: read::optional_whole("expected", fields.expected, 0, u64::MAX)?,
    })
}

fn connected(fields: &Fields<'_>, id: Option<RequestId>) -> Read<Connected> {
    let mut limits = LimitFields::default();
    members("limits", required("limits", fields.limits)?, &mut limits, |limits, key| {
        limits.slot(key)
    })?;
    let unacked = required("limits.unacked", limits.unacked)?;
    let unacked = read::whole("limits.unacked", unacked, 0, u64::from(u32::MAX))?;
    Ok(Connected {
        id,
        session: fields.boxed("session", fields.session)?,
        user: fields.boxed("user", fields.user)?,
        heartbeat: fields.duration("heartbeat_ms", fields.heartbeat)?,
        limits: ConnectedLimits { unacked: u32::try_from(unacked).unwrap_or(u32::MAX) },
        server_time: fields.server_time()?,
    })
}

fn subscribed(fields: &Fields<'_>, id: Option<RequestId>) -> Read<Subscribed> {
    let recovered = read::flag("recovered", fields.recovered)?;
    if let Some(raw) = given(fields.pattern) {
        let cursor = fields.cursor()?.ok_or_else(|| read::missing("cursor"))?;
        let pattern = read::text("pattern", raw)?.into();
        return Ok(Subscribed::Pattern { id, pattern, cursor, recovered });
    }
    let position =
        Position { epoch: fields.epoch()?, offset: fields.offset("offset", fields.offset)? };
    Ok(Subscribed::Channel { id, channel: fields.channel()?, position, recovered })
}

fn members_page(fields: &Fields<'_>, id: Option<RequestId>) -> Read<MembersPage> {
    Ok(MembersPage {
        id,
        channel: fields.channel()?,
        version: fields.number("version", fields.version)?,
        users: fields.number("users", fields.users)?,
        sessions: fields.number("sessions", fields.sessions)?,
        members: member_list(required("members", fields.members)?)?,
        next: given(fields.next).map(|raw| read::text("next", raw).map(Into::into)).transpose()?,
        partial: read::flag("partial", fields.partial)?,
        resync: read::flag("resync", fields.resync)?,
    })
}

fn member_change(fields: &Fields<'_>) -> Read<MemberChange> {
    Ok(MemberChange {
        channel: fields.channel()?,
        since: fields.number("since", fields.since)?,
        version: fields.number("version", fields.version)?,
        users: fields.number("users", fields.users)?,
        sessions: fields.number("sessions", fields.sessions)?,
        members: member_list(required("members", fields.members)?)?,
        more: read::flag("more", fields.more)?,
    })
}

fn member_list(raw: &str) -> Read<Vec<Member>> {
    let mut list = Vec::new();
    read::elements("members", raw, |element| {
        let mut fields = MemberFields::default();
        members("members", element, &mut fields, |fields, key| fields.slot(key))?;
        list.push(Member {
            user: read::text("user", required("user", fields.user)?)?.into(),
            session: read::text("session", required("session", fields.session)?)?.into(),
        });
        Ok(())
    })?;
    Ok(list)
}

fn gap_list(raw: Option<&str>) -> Read<Vec<(Position, Position)>> {
    let mut list = Vec::new();
    let Some(raw) = given(raw) else { return Ok(list) };
    read::elements("gaps", raw, |element| {
        let mut fields = GapFields::default();
        members("gaps", element, &mut fields, |fields, key| fields.slot(key))?;
        let end = |name: &str, raw| position(name, required(name, raw)?);
        list.push((end("from", fields.from)?, end("to", fields.to)?));
        Ok(())
    })?;
    Ok(list)
}

const _: () = assert!(INTEGER_MAX == Offset::MAX.0);
