//! Writing events: each once per codec, whoever is to read them.

use super::encode::position_json;
use super::json::write::{self, Object, list};
use super::proto::{self, raw};
use super::{Codec, Cursor, RequestId};
use crate::frame::{Event, Run};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use stormwire_core::{Epoch, FrameSeq, Offset, Partition, Position, Timestamp};

/// An event to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutEvent<'a> {
    /// Where it stands.
    pub offset: Offset,
    /// When the journal took it.
    pub ts: Timestamp,
    /// The publisher's id; without one it is `partition-epoch-offset`.
    pub id: Option<&'a str>,
    /// What kind of event.
    pub kind: Option<&'a str>,
    /// What it is about.
    pub key: Option<&'a str>,
    /// Who published it.
    pub from: &'a str,
    /// JSON text as it came in, or bytes.
    pub data: &'a [u8],
    /// Whether `data` is anything but JSON.
    pub binary: bool,
}

impl<'a> OutEvent<'a> {
    /// An event of frame `seq`.
    #[must_use]
    pub fn of(run: &Run<'a>, event: &Event<'a>, seq: FrameSeq, ts: Timestamp) -> Self {
        Self {
            offset: Offset::new(seq, event.index),
            ts,
            id: event.id,
            kind: event.kind,
            key: event.key,
            from: run.user,
            data: event.data,
            binary: event.binary,
        }
    }
}

/// Gathers encoded events of one partition and epoch, and puts a message's head and tail around them.
#[derive(Debug)]
pub struct EventsEncoder {
    codec: Codec,
    partition: Partition,
    epoch: Epoch,
    body: BytesMut,
    len: usize,
    last: Offset,
}

impl EventsEncoder {
    /// An encoder without events.
    #[must_use]
    pub fn new(codec: Codec, partition: Partition, epoch: Epoch) -> Self {
        Self { codec, partition, epoch, body: BytesMut::new(), len: 0, last: Offset(0) }
    }

    /// How many events it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the encoded events.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Where the last event stands.
    #[must_use]
    pub const fn last(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// Appends an event.
    pub fn push(&mut self, event: &OutEvent<'_>) {
        match self.codec {
            Codec::Json => self.push_json(None, event),
            Codec::Protobuf => self.push_proto(event),
        }
        self.len += 1;
        self.last = event.offset;
    }

    /// Appends an event of any channel, partition and epoch, which says itself where it stands (JSON
    /// only). What it is written into is [`EventsEncoder::fragments`] or [`EventsEncoder::pattern_page`].
    pub fn push_placed(
        &mut self,
        channel: &str,
        partition: Partition,
        epoch: Epoch,
        event: &OutEvent<'_>,
    ) {
        (self.partition, self.epoch) = (partition, epoch);
        self.push_json(Some(channel), event);
        self.len += 1;
        self.last = event.offset;
    }

    /// The `events` message of these events. The encoder is empty afterwards.
    pub fn events(&mut self, channel: &str) -> Bytes {
        let mut out = BytesMut::new();
        self.body().write(&mut out, channel, None, None);
        out.freeze()
    }

    /// These events, to be written into several messages. The encoder is empty afterwards.
    pub fn body(&mut self) -> EventsBody {
        self.len = 0;
        EventsBody { codec: self.codec, epoch: self.epoch, bytes: self.body.split().freeze() }
    }

    /// The answer to `history` with these events. The encoder is empty afterwards.
    pub fn history(
        &mut self,
        id: Option<&RequestId>,
        channel: &str,
        more: bool,
        gaps: &[(Position, Position)],
    ) -> Bytes {
        match self.codec {
            Codec::Json => {
                let mut out = self.json_buffer(channel);
                let mut object = Object::op(&mut out, "history", id);
                object.text("channel", channel);
                object.number("epoch", self.epoch.0);
                json_body(&mut object, &self.body);
                object.flag("more", more);
                if !gaps.is_empty() {
                    list(object.member("gaps"), gaps, |out, (from, to)| {
                        let mut object = Object::new(out);
                        position_json(object.member("from"), *from);
                        position_json(object.member("to"), *to);
                        object.end();
                    });
                }
                object.end();
                self.finish(out)
            }
            Codec::Protobuf => {
                let more = u64::from(more);
                let gaps: Vec<Vec<u8>> =
                    gaps.iter().map(|gap| proto::stretch(*gap).encode_to_vec()).collect();
                let gaps_len: usize = gaps.iter().map(|gap| raw::bytes_len(5, gap.len())).sum();
                let rest = raw::varint_len(4, more) + gaps_len;
                let mut out = BytesMut::new();
                proto_op(&mut out, HISTORY, id, channel, self.epoch, &self.body, rest);
                raw::put_varint(&mut out, 4, more);
                gaps.iter().for_each(|gap| raw::put_bytes(&mut out, 5, gap));
                self.finish(out)
            }
        }
    }

    /// A REST page with these events (JSON only): `next` is where the next page begins, `gaps` are the
    /// stretches in it that are missing. The encoder is empty afterwards.
    pub fn page(
        &mut self,
        channel: &str,
        more: bool,
        next: Option<Position>,
        gaps: &[(Position, Position)],
    ) -> Bytes {
        let mut out = self.json_buffer(channel);
        let mut object = Object::new(&mut out);
        object.text("channel", channel);
        object.number("epoch", self.epoch.0);
        json_body(&mut object, &self.body);
        let next = next.map(|next| next.to_string());
        page_end(object, more, next.as_deref(), gaps, |object, (from, to)| {
            gap_ends(object, *from, *to);
        });
        self.finish(out)
    }

    /// A REST page of newest events by key (JSON only): `next` is the key behind which the next page
    /// begins. The encoder is empty afterwards.
    pub fn latest_page(&mut self, channel: &str, more: bool, next: Option<&str>) -> Bytes {
        let mut out = self.json_buffer(channel);
        let mut object = Object::new(&mut out);
        object.text("channel", channel);
        object.number("epoch", self.epoch.0);
        json_body(&mut object, &self.body);
        page_end(object, more, next, &[], |_, (): &()| {});
        self.finish(out)
    }

    /// A REST page of a pattern's events, which were pushed with their places: `next` is the cursor
    /// where the next page begins. The encoder is empty afterwards.
    pub fn pattern_page(
        &mut self,
        pattern: &str,
        more: bool,
        next: &Cursor,
        gaps: &[(Partition, Position, Position)],
    ) -> Bytes {
        let mut out = self.json_buffer(pattern);
        let mut object = Object::new(&mut out);
        object.text("pattern", pattern);
        json_body(&mut object, &self.body);
        page_end(object, more, Some(&next.encode()), gaps, |object, (partition, from, to)| {
            object.number("partition", partition.0);
            gap_ends(object, *from, *to);
        });
        self.finish(out)
    }

    /// The bare events: in JSON objects with commas between them. The encoder is empty afterwards.
    pub fn fragments(&mut self) -> Bytes {
        self.len = 0;
        self.body.split().freeze()
    }

    fn finish(&mut self, out: BytesMut) -> Bytes {
        self.body.clear();
        self.len = 0;
        out.freeze()
    }

    fn push_json(&mut self, channel: Option<&str>, event: &OutEvent<'_>) {
        self.body.reserve(128 + event.data.len());
        if self.len > 0 {
            self.body.put_u8(b',');
        }
        let (partition, epoch) = (self.partition, self.epoch);
        let mut object = Object::new(&mut self.body);
        if let Some(channel) = channel {
            object.text("channel", channel);
            object.number("epoch", epoch.0);
        }
        object.number("offset", event.offset.0);
        object.number("ts", event.ts.0);
        match event.id {
            Some(id) => object.text("id", id),
            None => {
                let out = object.member("id");
                out.put_u8(b'"');
                put_derived_id(out, partition, epoch, event.offset);
                out.put_u8(b'"');
            }
        }
        object.optional_text("type", event.kind);
        object.optional_text("key", event.key);
        object.text("from", event.from);
        object.data(event.data, event.binary);
        object.end();
    }

    fn json_buffer(&self, channel: &str) -> BytesMut {
        BytesMut::with_capacity(192 + channel.len() + self.body.len())
    }

    fn push_proto(&mut self, event: &OutEvent<'_>) {
        let derived;
        let id = match event.id {
            Some(id) => id.as_bytes(),
            None => {
                let mut text = BytesMut::with_capacity(32);
                put_derived_id(&mut text, self.partition, self.epoch, event.offset);
                derived = text;
                &derived[..]
            }
        };
        let optional =
            |number, text: Option<&str>| text.map_or(0, |t| raw::bytes_len(number, t.len()));
        let (offset, ts) = (event.offset.0, event.ts.0.cast_unsigned());
        let len = raw::varint_len(1, offset)
            + raw::varint_len(2, ts)
            + raw::bytes_len(3, id.len())
            + optional(4, event.kind)
            + optional(5, event.key)
            + raw::bytes_len(6, event.from.len())
            + raw::bytes_len(7, event.data.len())
            + raw::varint_len(8, u64::from(event.binary));
        let out = &mut self.body;
        out.reserve(len + 8);
        raw::put_head(out, EVENT, len);
        raw::put_varint(out, 1, offset);
        raw::put_varint(out, 2, ts);
        raw::put_bytes(out, 3, id);
        for (number, text) in [(4, event.kind), (5, event.key)] {
            if let Some(text) = text {
                raw::put_bytes(out, number, text.as_bytes());
            }
        }
        raw::put_bytes(out, 6, event.from.as_bytes());
        raw::put_bytes(out, 7, event.data);
        raw::put_varint(out, 8, u64::from(event.binary));
    }
}

/// Encoded events of one epoch, to be written into the messages of many.
#[derive(Debug, Clone)]
pub struct EventsBody {
    codec: Codec,
    epoch: Epoch,
    bytes: Bytes,
}

impl EventsBody {
    /// Whether there are no events in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of the encoded events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the `events` message of `channel`; where it is for a pattern, with that pattern and, in
    /// the last of a WebSocket message, the text of its cursor.
    pub fn write(
        &self,
        out: &mut BytesMut,
        channel: &str,
        pattern: Option<&str>,
        cursor: Option<&str>,
    ) {
        match self.codec {
            Codec::Json => {
                let texts =
                    channel.len() + pattern.map_or(0, str::len) + cursor.map_or(0, str::len);
                out.reserve(192 + texts + self.bytes.len());
                let mut object = Object::op(out, "events", None);
                object.text("channel", channel);
                object.number("epoch", self.epoch.0);
                json_body(&mut object, &self.bytes);
                object.optional_text("pattern", pattern);
                object.optional_text("cursor", cursor);
                object.end();
            }
            Codec::Protobuf => {
                let texts = [(4, cursor), (5, pattern)];
                let len = |(field, text): (u32, Option<&str>)| {
                    text.map_or(0, |text| raw::bytes_len(field, text.len()))
                };
                let rest = texts.into_iter().map(len).sum();
                proto_op(out, EVENTS, None, channel, self.epoch, &self.bytes, rest);
                for (field, text) in texts {
                    if let Some(text) = text {
                        raw::put_bytes(out, field, text.as_bytes());
                    }
                }
            }
        }
    }
}

fn gap_ends(object: &mut Object<'_>, from: Position, to: Position) {
    object.text("from", &from.to_string());
    object.text("to", &to.to_string());
}

fn page_end<G>(
    mut object: Object<'_>,
    more: bool,
    next: Option<&str>,
    gaps: &[G],
    write: impl Fn(&mut Object<'_>, &G),
) {
    object.flag("more", more);
    object.optional_text("next", next);
    if !gaps.is_empty() {
        list(object.member("gaps"), gaps, |out, gap| {
            let mut object = Object::new(out);
            write(&mut object, gap);
            object.end();
        });
    }
    object.end();
}

fn json_body(object: &mut Object<'_>, body: &[u8]) {
    let out = object.member("events");
    out.put_u8(b'[');
    out.put_slice(body);
    out.put_u8(b']');
}

/// A message with one operation that has a channel, an epoch, encoded events and `rest` more bytes.
fn proto_op(
    out: &mut BytesMut,
    op: u32,
    id: Option<&RequestId>,
    channel: &str,
    epoch: Epoch,
    body: &[u8],
    rest: usize,
) {
    let epoch = u64::from(epoch.0);
    let channel_len = raw::bytes_len(1, channel.len());
    let len = channel_len + raw::varint_len(2, epoch) + body.len() + rest;
    let mut head = BytesMut::new();
    match id {
        None => {}
        // A member of a oneof is written even if it is the default.
        Some(RequestId::Number(0)) => head.put_slice(&[8, 0]),
        Some(RequestId::Number(number)) => raw::put_varint(&mut head, 1, number.cast_unsigned()),
        Some(RequestId::Text(text)) => raw::put_bytes(&mut head, 2, text.as_bytes()),
    }
    let message = head.len() + raw::bytes_len(op, len);
    out.reserve(raw::bytes_len(1, message));
    raw::put_head(out, 1, message);
    out.put_slice(&head);
    raw::put_head(out, op, len);
    raw::put_bytes(out, 1, channel.as_bytes());
    raw::put_varint(out, 2, epoch);
    out.put_slice(body);
}

/// Field numbers of `ServerMessage` and `Events`.
const EVENTS: u32 = 6;
const HISTORY: u32 = 8;
const EVENT: u32 = 3;

fn put_derived_id(out: &mut BytesMut, partition: Partition, epoch: Epoch, offset: Offset) {
    write::number(out, partition.0);
    out.put_u8(b'-');
    write::number(out, epoch.0);
    out.put_u8(b'-');
    write::number(out, offset.0);
}
