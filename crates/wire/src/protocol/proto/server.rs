//! What a server says, in protobuf, both ways.

use super::client::{data, id, position};
use super::messages as pb;
use crate::protocol::encode::millis;
use crate::protocol::{
    Connected, ConnectedLimits, Cursor, DeliveredEvent, ErrorMessage, EventsMessage, Gap,
    GapTarget, HistoryPage, Member, MemberChange, MembersPage, Payload, Published, RequestId,
    ServerMessage, Subscribed, channel,
};
use bytes::BytesMut;
use prost::Message as _;
use std::borrow::Cow;
use std::time::Duration;
use stormwire_core::{Epoch, ErrorCode, Offset, Partition, Position, Refusal, Timestamp};

/// Appends a whole message with one server message.
pub(crate) fn message(out: &mut BytesMut, message: &ServerMessage<'_>) {
    let (id, op) = operation(message);
    let message = pb::ServerMessage { id: id.map(self::id), op: Some(op) };
    prost::encoding::message::encode(1, &message, out);
}

fn operation<'m>(message: &'m ServerMessage<'_>) -> (Option<&'m RequestId>, pb::ServerMessageOp) {
    use pb::ServerMessageOp as Op;
    match message {
        ServerMessage::Connected(m) => (m.id.as_ref(), Op::Connected(connected(m))),
        ServerMessage::Subscribed(m) => {
            let (id, m) = subscribed(m);
            (id, Op::Subscribed(m))
        }
        ServerMessage::Published(m) => (m.id.as_ref(), Op::Published(published(m))),
        ServerMessage::Events(m) => (None, Op::Events(events(m))),
        ServerMessage::Gap(m) => (None, Op::Gap(gap(m))),
        ServerMessage::History(m) => (m.id.as_ref(), Op::History(history(m))),
        ServerMessage::Presence(m) => (m.id.as_ref(), Op::Presence(members_page(m))),
        ServerMessage::Joined(m) => (None, Op::Joined(change(m))),
        ServerMessage::Left(m) => (None, Op::Left(change(m))),
        ServerMessage::Signal { channel, from, data: payload } => {
            let (data, binary) = data(payload);
            let (channel, from) = (channel.to_string(), from.to_string());
            (None, Op::Signal(pb::Signalled { channel, from, data, binary }))
        }
        ServerMessage::Unsubscribed { id, target } => {
            (id.as_ref(), Op::Unsubscribed(pb::Unsubscribed { target: target.to_string() }))
        }
        ServerMessage::Refreshed { id, expires_in } => {
            (id.as_ref(), Op::Refreshed(pb::Refreshed { expires_in_ms: millis(*expires_in) }))
        }
        ServerMessage::Pong { id, server_time } => {
            (id.as_ref(), Op::Pong(pb::Pong { server_time: server_time.0 }))
        }
        ServerMessage::Moving { reconnect_after } => {
            (None, Op::Moving(pb::Moving { reconnect_after_ms: millis(*reconnect_after) }))
        }
        ServerMessage::Error(m) => (m.id.as_ref(), Op::Error(error(m))),
    }
}

fn connected(m: &Connected) -> pb::Connected {
    pb::Connected {
        session: m.session.to_string(),
        user: m.user.to_string(),
        heartbeat_ms: millis(m.heartbeat),
        limits: Some(pb::ConnectedLimits { unacked: m.limits.unacked }),
        server_time: m.server_time.0,
    }
}

fn subscribed(m: &Subscribed) -> (Option<&RequestId>, pb::Subscribed) {
    match m {
        Subscribed::Channel { id, channel, position, recovered } => {
            let (epoch, offset) = (position.epoch.0, position.offset.0);
            let (channel, recovered) = (channel.to_string(), *recovered);
            let none = pb::Subscribed::default();
            (id.as_ref(), pb::Subscribed { channel, epoch, offset, recovered, ..none })
        }
        Subscribed::Pattern { id, pattern, cursor, recovered } => {
            let (pattern, cursor) = (Some(pattern.to_string()), Some(cursor.encode()));
            let recovered = *recovered;
            (id.as_ref(), pb::Subscribed { pattern, cursor, recovered, ..Default::default() })
        }
    }
}

fn published(m: &Published) -> pb::Published {
    pb::Published {
        epoch: m.epoch.0,
        first: m.first.0,
        last: m.last.0,
        server_time: m.server_time.0,
        duplicate: m.duplicate,
        dead_letters: m.dead_letters,
    }
}

fn event(event: &DeliveredEvent<'_>) -> pb::Event {
    let (data, binary) = data(&event.data);
    pb::Event {
        offset: event.offset.0,
        ts: event.ts.0,
        id: event.id.to_string(),
        kind: event.kind.as_deref().map(str::to_owned),
        key: event.key.as_deref().map(str::to_owned),
        from: event.from.to_string(),
        data,
        binary,
    }
}

fn events(m: &EventsMessage<'_>) -> pb::Events {
    pb::Events {
        channel: m.channel.to_string(),
        epoch: m.epoch.0,
        events: m.events.iter().map(event).collect(),
        cursor: m.cursor.as_ref().map(Cursor::encode),
        pattern: m.pattern.as_deref().map(str::to_owned),
    }
}

fn history(m: &HistoryPage<'_>) -> pb::HistoryPage {
    pb::HistoryPage {
        channel: m.channel.to_string(),
        epoch: m.epoch.0,
        events: m.events.iter().map(event).collect(),
        more: m.more,
        gaps: m.gaps.iter().map(|gap| stretch(*gap)).collect(),
    }
}

pub(crate) fn stretch((from, to): (Position, Position)) -> pb::Stretch {
    pb::Stretch { from: Some(position(from)), to: Some(position(to)) }
}

fn gap(m: &Gap) -> pb::Gap {
    let (from, to) = (Some(position(m.from)), Some(position(m.to)));
    let gap = pb::Gap { from, to, ..pb::Gap::default() };
    match &m.target {
        GapTarget::Channel(channel) => pb::Gap { channel: channel.to_string(), ..gap },
        GapTarget::Pattern { pattern, partition, cursor } => pb::Gap {
            pattern: Some(pattern.to_string()),
            partition: Some(partition.0.into()),
            cursor: Some(cursor.encode()),
            ..gap
        },
    }
}

fn member(m: &Member) -> pb::Member {
    pb::Member { user: m.user.to_string(), session: m.session.to_string() }
}

fn members_page(m: &MembersPage) -> pb::Members {
    pb::Members {
        channel: m.channel.to_string(),
        members: m.members.iter().map(member).collect(),
        version: m.version,
        users: m.users,
        sessions: m.sessions,
        next: m.next.as_deref().map(str::to_owned),
        partial: m.partial,
        resync: m.resync,
    }
}

fn change(m: &MemberChange) -> pb::MemberChange {
    pb::MemberChange {
        channel: m.channel.to_string(),
        since: m.since,
        version: m.version,
        users: m.users,
        sessions: m.sessions,
        members: m.members.iter().map(member).collect(),
        more: m.more,
    }
}

fn error(m: &ErrorMessage) -> pb::Error {
    pb::Error {
        code: m.code.to_string(),
        message: m.message.to_string(),
        temporary: m.temporary,
        retry_after_ms: m.retry_after.map(millis),
        expected: m.expected,
    }
}

type Read<T> = Result<T, Refusal>;

/// Reads what a server sent. Messages of a kind that this version does not know are left out.
///
/// # Errors
/// `malformed` if the bytes are not such a message.
pub fn server_messages(bytes: &[u8]) -> Result<Vec<ServerMessage<'static>>, Refusal> {
    let list = pb::ServerMessages::decode(bytes)
        .map_err(|error| Refusal::new(ErrorCode::Malformed, error.to_string()))?;
    let known = list.messages.into_iter().filter_map(|message| {
        let id = message.id.map(|id| match id {
            pb::RequestId::Number(number) => RequestId::Number(number),
            pb::RequestId::Text(text) => RequestId::Text(text.into()),
        });
        message.op.map(|op| read(id, op))
    });
    known.collect()
}

fn read(id: Option<RequestId>, op: pb::ServerMessageOp) -> Read<ServerMessage<'static>> {
    use pb::ServerMessageOp as Op;
    Ok(match op {
        Op::Connected(m) => ServerMessage::Connected(read_connected(id, m)),
        Op::Subscribed(m) => ServerMessage::Subscribed(read_subscribed(id, m)?),
        Op::Published(m) => ServerMessage::Published(Published {
            id,
            epoch: Epoch(m.epoch),
            first: Offset(m.first),
            last: Offset(m.last),
            server_time: Timestamp(m.server_time),
            duplicate: m.duplicate,
            dead_letters: m.dead_letters,
        }),
        Op::Events(m) => ServerMessage::Events(EventsMessage {
            channel: Cow::Owned(m.channel),
            epoch: Epoch(m.epoch),
            events: m.events.into_iter().map(read_event).collect::<Read<_>>()?,
            cursor: m.cursor.map(|text| read_cursor(&text)).transpose()?,
            pattern: m.pattern.map(Cow::Owned),
        }),
        Op::Gap(m) => ServerMessage::Gap(read_gap(m)?),
        Op::History(m) => ServerMessage::History(HistoryPage {
            id,
            channel: Cow::Owned(m.channel),
            epoch: Epoch(m.epoch),
            events: m.events.into_iter().map(read_event).collect::<Read<_>>()?,
            more: m.more,
            gaps: m
                .gaps
                .into_iter()
                .map(|gap| (read_position(gap.from), read_position(gap.to)))
                .collect(),
        }),
        Op::Presence(m) => ServerMessage::Presence(read_members_page(id, m)?),
        Op::Joined(m) => ServerMessage::Joined(read_change(m)?),
        Op::Left(m) => ServerMessage::Left(read_change(m)?),
        Op::Signal(m) => {
            let (channel, from) = (channel("channel", &m.channel)?, Cow::Owned(m.from));
            ServerMessage::Signal { channel, from, data: read_data(m.data, m.binary)? }
        }
        Op::Unsubscribed(m) => ServerMessage::Unsubscribed { id, target: Cow::Owned(m.target) },
        Op::Refreshed(m) => {
            ServerMessage::Refreshed { id, expires_in: Duration::from_millis(m.expires_in_ms) }
        }
        Op::Pong(m) => ServerMessage::Pong { id, server_time: Timestamp(m.server_time) },
        Op::Moving(m) => {
            let reconnect_after = Duration::from_millis(m.reconnect_after_ms);
            ServerMessage::Moving { reconnect_after }
        }
        Op::Error(m) => ServerMessage::Error(read_error(id, m)),
    })
}

fn read_connected(id: Option<RequestId>, m: pb::Connected) -> Connected {
    Connected {
        id,
        session: m.session.into(),
        user: m.user.into(),
        heartbeat: Duration::from_millis(m.heartbeat_ms),
        limits: ConnectedLimits { unacked: m.limits.unwrap_or_default().unacked },
        server_time: Timestamp(m.server_time),
    }
}

fn read_subscribed(id: Option<RequestId>, m: pb::Subscribed) -> Read<Subscribed> {
    let recovered = m.recovered;
    if let Some(pattern) = m.pattern {
        let cursor = read_cursor(&m.cursor.unwrap_or_default())?;
        return Ok(Subscribed::Pattern { id, pattern: pattern.into(), cursor, recovered });
    }
    let position = Position { epoch: Epoch(m.epoch), offset: Offset(m.offset) };
    Ok(Subscribed::Channel { id, channel: channel("channel", &m.channel)?, position, recovered })
}

fn read_error(id: Option<RequestId>, m: pb::Error) -> ErrorMessage {
    ErrorMessage {
        id,
        code: m.code.into(),
        message: m.message.into(),
        temporary: m.temporary,
        retry_after: m.retry_after_ms.map(Duration::from_millis),
        expected: m.expected,
    }
}

fn read_event(m: pb::Event) -> Read<DeliveredEvent<'static>> {
    Ok(DeliveredEvent {
        offset: Offset(m.offset),
        ts: Timestamp(m.ts),
        id: Cow::Owned(m.id),
        kind: m.kind.map(Cow::Owned),
        key: m.key.map(Cow::Owned),
        from: Cow::Owned(m.from),
        data: read_data(m.data, m.binary)?,
    })
}

fn read_data(data: Vec<u8>, binary: bool) -> Read<Payload<'static>> {
    if binary {
        return Ok(Payload::Binary(Cow::Owned(data)));
    }
    let text = String::from_utf8(data);
    let text = text.map_err(|error| Refusal::invalid_field("data", error.utf8_error()))?;
    Ok(Payload::Json(Cow::Owned(text)))
}

fn read_gap(m: pb::Gap) -> Read<Gap> {
    let target = match m.pattern {
        None => GapTarget::Channel(channel("channel", &m.channel)?),
        Some(pattern) => {
            let cursor = read_cursor(&m.cursor.unwrap_or_default())?;
            let partition = m.partition.and_then(|number| number.try_into().ok().map(Partition));
            let partition = partition.ok_or_else(|| {
                Refusal::invalid_field("partition", "the number of a partition is due")
            })?;
            GapTarget::Pattern { pattern: pattern.into(), partition, cursor }
        }
    };
    Ok(Gap { target, from: read_position(m.from), to: read_position(m.to) })
}

fn read_cursor(text: &str) -> Read<Cursor> {
    Cursor::decode(text).ok_or_else(|| Refusal::invalid_field("cursor", "this is not a cursor"))
}

fn read_position(m: Option<pb::Position>) -> Position {
    let m = m.unwrap_or_default();
    Position { epoch: Epoch(m.epoch), offset: Offset(m.offset) }
}

fn read_member(m: pb::Member) -> Member {
    Member { user: m.user.into(), session: m.session.into() }
}

fn read_members_page(id: Option<RequestId>, m: pb::Members) -> Read<MembersPage> {
    Ok(MembersPage {
        id,
        channel: channel("channel", &m.channel)?,
        version: m.version,
        users: m.users,
        sessions: m.sessions,
        members: m.members.into_iter().map(read_member).collect(),
        next: m.next.map(Into::into),
        partial: m.partial,
        resync: m.resync,
    })
}

fn read_change(m: pb::MemberChange) -> Read<MemberChange> {
    Ok(MemberChange {
        channel: channel("channel", &m.channel)?,
        since: m.since,
        version: m.version,
        users: m.users,
        sessions: m.sessions,
        members: m.members.into_iter().map(read_member).collect(),
        more: m.more,
    })
}
