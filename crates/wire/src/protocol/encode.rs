//! Writing messages in either codec.

use super::json::write::{self, Object, list};
use super::{
    Codec, Connected, Cursor, ErrorMessage, EventsEncoder, GapTarget, Member, MemberChange,
    MembersPage, Mode, Operation, Page, Payload, Published, Receipt, Request, RequestId,
    ServerMessage, Since, Subscribe, Subscribed, Target, proto,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::time::Duration;
use stormwire_core::{Epoch, Partition, Position, Refusal};

/// Whole milliseconds, as the protocol counts them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds, rounded up: who waits this long has waited long enough.
pub(crate) fn millis_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Appends a `published` message.
pub fn published(codec: Codec, out: &mut BytesMut, message: &Published) {
    match codec {
        Codec::Json => published_json(out, message),
        Codec::Protobuf => proto::message(out, &ServerMessage::Published(message.clone())),
    }
}

/// Appends an `error` message.
pub fn error(codec: Codec, out: &mut BytesMut, id: Option<&RequestId>, refusal: &Refusal) {
    match codec {
        Codec::Json => {
            let mut object = Object::op(out, "error", id);
            object.text("code", refusal.code.as_str());
            object.text("message", &refusal.message);
            object.flag("temporary", refusal.is_temporary());
            if let Some(after) = refusal.retry_after {
                object.number("retry_after_ms", millis_up(after));
            }
            if let Some(expected) = refusal.expected {
                object.number("expected", expected);
            }
            object.end();
        }
        Codec::Protobuf => {
            let mut message = ErrorMessage::new(id.cloned(), refusal);
            message.retry_after =
                refusal.retry_after.map(|after| Duration::from_millis(millis_up(after)));
            proto::message(out, &ServerMessage::Error(message));
        }
    }
}

/// Appends any server message. The gateway writes events by [`EventsEncoder`] instead.
pub fn message(codec: Codec, out: &mut BytesMut, message: &ServerMessage<'_>) {
    match codec {
        Codec::Json => message_json(out, message),
        Codec::Protobuf => proto::message(out, message),
    }
}

/// Appends a request.
pub fn request(codec: Codec, out: &mut BytesMut, request: &Request<'_>) {
    match codec {
        Codec::Json => request_json(out, request),
        Codec::Protobuf => proto::request(out, request),
    }
}

/// Joins encoded messages into one WebSocket message.
#[derive(Debug)]
pub struct MessageBatch {
    codec: Codec,
    out: BytesMut,
    len: usize,
}

impl MessageBatch {
    /// An empty one.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, out: BytesMut::new(), len: 0 }
    }

    /// How many messages it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Where the next message is to be appended by one of this module's functions.
    pub fn slot(&mut self) -> &mut BytesMut {
        if self.codec == Codec::Json {
            self.out.put_u8(if self.len == 0 { b'[' } else { b',' });
        }
        self.len += 1;
        &mut self.out
    }

    /// Appends an encoded message.
    pub fn push(&mut self, message: &[u8]) {
        self.slot().put_slice(message);
    }

    /// The message: one alone is not made an array. The batch is empty afterwards.
    pub fn finish(&mut self) -> Bytes {
        match (self.codec, self.len) {
            (Codec::Json, 0) => self.out.put_slice(b"[]"),
            (Codec::Json, 1) => self.out.advance(1),
            (Codec::Json, _) => self.out.put_u8(b']'),
            (Codec::Protobuf, _) => {}
        }
        self.len = 0;
        self.out.split().freeze()
    }
}

fn published_json(out: &mut BytesMut, message: &Published) {
    out.reserve(128);
    let mut object = Object::op(out, "published", message.id.as_ref());
    object.number("epoch", message.epoch.0);
    object.number("first", message.first.0);
    object.number("last", message.last.0);
    object.number("server_time", message.server_time.0);
    if message.duplicate {
        object.flag("duplicate", true);
    }
    if message.dead_letters > 0 {
        object.number("dead_letters", message.dead_letters);
    }
    object.end();
}

fn message_json(out: &mut BytesMut, message: &ServerMessage<'_>) {
    match message {
        ServerMessage::Connected(m) => connected_json(out, m),
        ServerMessage::Subscribed(m) => subscribed_json(out, m),
        ServerMessage::Published(m) => published_json(out, m),
        ServerMessage::Events(m) => {
            let mut encoder = EventsEncoder::new(Codec::Json, Partition(0), m.epoch);
            m.events.iter().for_each(|event| encoder.push(&event.as_out()));
            let cursor = m.cursor.as_ref().map(Cursor::encode);
            encoder.body().write(out, &m.channel, m.pattern.as_deref(), cursor.as_deref());
        }
        ServerMessage::History(m) => {
            let mut encoder = EventsEncoder::new(Codec::Json, Partition(0), m.epoch);
            m.events.iter().for_each(|event| encoder.push(&event.as_out()));
            out.put_slice(&encoder.history(m.id.as_ref(), &m.channel, m.more, &m.gaps));
        }
        ServerMessage::Gap(m) => {
            let mut object = Object::op(out, "gap", None);
            let cursor = match &m.target {
                GapTarget::Channel(channel) => {
                    object.text("channel", channel.as_str());
                    None
                }
                GapTarget::Pattern { pattern, partition, cursor } => {
                    object.text("pattern", pattern);
                    object.number("partition", partition.0);
                    Some(cursor.encode())
                }
            };
            position_json(object.member("from"), m.from);
            position_json(object.member("to"), m.to);
            object.optional_text("cursor", cursor.as_deref());
            object.end();
        }
        ServerMessage::Presence(m) => members_json(out, m),
        ServerMessage::Joined(m) => change_json(out, "joined", m),
        ServerMessage::Left(m) => change_json(out, "left", m),
        other => small_json(out, other),
    }
}

/// The messages of one or two members.
fn small_json(out: &mut BytesMut, message: &ServerMessage<'_>) {
    let (op, id) = match message {
        ServerMessage::Signal { .. } => ("signal", None),
        ServerMessage::Unsubscribed { id, .. } => ("unsubscribed", id.as_ref()),
        ServerMessage::Refreshed { id, .. } => ("refreshed", id.as_ref()),
        ServerMessage::Pong { id, .. } => ("pong", id.as_ref()),
        ServerMessage::Moving { .. } => ("moving", None),
        ServerMessage::Error(m) => ("error", m.id.as_ref()),
        _ => return,
    };
    let mut object = Object::op(out, op, id);
    match message {
        ServerMessage::Signal { channel, from, data } => {
            object.text("channel", channel.as_str());
            object.text("from", from);
            payload_json(&mut object, data);
        }
        ServerMessage::Unsubscribed { target, .. } => {
            object.text(if target.ends_with('*') { "pattern" } else { "channel" }, target);
        }
        ServerMessage::Refreshed { expires_in, .. } => {
            object.number("expires_in_ms", millis(*expires_in));
        }
        ServerMessage::Pong { server_time, .. } => object.number("server_time", server_time.0),
        ServerMessage::Moving { reconnect_after } => {
            object.number("reconnect_after_ms", millis(*reconnect_after));
        }
        ServerMessage::Error(m) => {
            object.text("code", &m.code);
            object.text("message", &m.message);
            object.flag("temporary", m.temporary);
            if let Some(after) = m.retry_after {
                object.number("retry_after_ms", millis(after));
            }
            if let Some(expected) = m.expected {
                object.number("expected", expected);
            }
        }
        _ => {}
    }
    object.end();
}

fn connected_json(out: &mut BytesMut, m: &Connected) {
    let mut object = Object::op(out, "connected", m.id.as_ref());
    object.text("session", &m.session);
    object.text("user", &m.user);
    object.number("heartbeat_ms", millis(m.heartbeat));
    let mut limits = Object::new(object.member("limits"));
    limits.number("unacked", m.limits.unacked);
    limits.end();
    object.number("server_time", m.server_time.0);
    object.end();
}

fn subscribed_json(out: &mut BytesMut, m: &Subscribed) {
    match m {
        Subscribed::Channel { id, channel, position, recovered } => {
            let mut object = Object::op(out, "subscribed", id.as_ref());
            object.text("channel", channel.as_str());
            object.number("epoch", position.epoch.0);
            object.number("offset", position.offset.0);
            object.flag("recovered", *recovered);
            object.end();
        }
        Subscribed::Pattern { id, pattern, cursor, recovered } => {
            let mut object = Object::op(out, "subscribed", id.as_ref());
            object.text("pattern", pattern);
            object.text("cursor", &cursor.encode());
            object.flag("recovered", *recovered);
            object.end();
        }
    }
}

fn members_json(out: &mut BytesMut, m: &MembersPage) {
    let mut object = Object::op(out, "presence", m.id.as_ref());
    object.text("channel", m.channel.as_str());
    object.number("version", m.version);
    object.number("users", m.users);
    object.number("sessions", m.sessions);
    member_list_json(&mut object, &m.members);
    object.optional_text("next", m.next.as_deref());
    for (name, set) in [("partial", m.partial), ("resync", m.resync)] {
        if set {
            object.flag(name, true);
        }
    }
    object.end();
}

fn change_json(out: &mut BytesMut, op: &str, m: &MemberChange) {
    let mut object = Object::op(out, op, None);
    object.text("channel", m.channel.as_str());
    object.number("since", m.since);
    object.number("version", m.version);
    object.number("users", m.users);
    object.number("sessions", m.sessions);
    member_list_json(&mut object, &m.members);
    if m.more {
        object.flag("more", true);
    }
    object.end();
}

fn member_list_json(object: &mut Object<'_>, members: &[Member]) {
    list(object.member("members"), members, |out, member| {
        let mut object = Object::new(out);
        object.text("user", &member.user);
        object.text("session", &member.session);
        object.end();
    });
}

pub(super) fn position_json(out: &mut BytesMut, position: Position) {
    let Position { epoch: Epoch(epoch), offset } = position;
    let mut object = Object::new(out);
    object.number("epoch", epoch);
    object.number("offset", offset.0);
    object.end();
}

fn payload_json(object: &mut Object<'_>, payload: &Payload<'_>) {
    let (data, binary) = payload.parts();
    object.data(data, binary);
}

fn request_json(out: &mut BytesMut, request: &Request<'_>) {
    let mut object = Object::op(out, request.op.name(), request.id.as_ref());
    match &request.op {
        Operation::Connect(op) => {
            object.optional_text("token", op.token.as_deref());
            object.optional_text("producer", op.producer.as_deref());
        }
        Operation::Subscribe(op) => subscribe_json(&mut object, op),
        Operation::Publish(op) => {
            object.text("channel", &op.channel);
            if let Some(seq) = op.seq {
                object.number("seq", seq);
            }
            if let Some(again) = op.again {
                object.number("again", millis(again));
            }
            if op.receipt == Receipt::Archive {
                object.text("receipt", "archive");
            }
            list(object.member("events"), op.events.iter(), |out, event| {
                let mut object = Object::new(out);
                object.optional_text("type", event.kind);
                object.optional_text("key", event.key);
                object.optional_text("id", event.id);
                object.data(event.data, event.binary);
                object.end();
            });
        }
        Operation::Signal(op) => {
            object.text("channel", op.channel.as_str());
            payload_json(&mut object, &op.data);
        }
        Operation::History(op) => {
            object.text("channel", op.channel.as_str());
            match &op.page {
                Page::Last => {}
                Page::After(at) => position_json(object.member("after"), *at),
                Page::Before(at) => position_json(object.member("before"), *at),
                Page::Key(key) => object.text("key", key),
                Page::KeysAfter(key) => object.text("keys_after", key),
            }
            object.number("limit", op.limit);
        }
        Operation::Presence(op) => {
            object.text("channel", op.channel.as_str());
            object.optional_text("after", op.after.as_deref());
            object.number("limit", op.limit);
        }
        Operation::Unsubscribe(target) => target_json(&mut object, target),
        Operation::Refresh(token) => object.text("token", token),
        Operation::Ping => {}
    }
    object.end();
}

fn target_json(object: &mut Object<'_>, target: &Target) {
    match target {
        Target::Channels(channels) => match &channels[..] {
            [channel] => object.text("channel", channel.as_str()),
            channels => list(object.member("channels"), channels, |out, channel| {
                write::text(out, channel.as_str());
            }),
        },
        Target::Pattern(pattern) => object.text("pattern", &pattern.to_string()),
    }
}

fn subscribe_json(object: &mut Object<'_>, op: &Subscribe) {
    target_json(object, &op.target);
    if let Some(since) = &op.since {
        let out = object.member("since");
        if let Since::Position(position) = since {
            position_json(out, *position);
        } else {
            let mut since_object = Object::new(out);
            match since {
                Since::Position(_) => {}
                Since::Time(time) => since_object.number("time", time.0),
                Since::Last(last) => since_object.number("last", *last),
                Since::Cursor(cursor) => since_object.text("cursor", &Cursor::encode(cursor)),
            }
            since_object.end();
        }
    }
    if op.mode == Mode::Latest {
        object.text("mode", "latest");
    }
    if op.presence {
        object.flag("presence", true);
    }
}
