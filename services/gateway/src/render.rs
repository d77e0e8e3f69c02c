//! WebSocket messages from what `wire` encodes: text for JSON, binary for protobuf.

mod gathered;

pub(crate) use gathered::Gathered;

use crate::reader::Page;
use axum::extract::ws::{Message, Utf8Bytes};
use bytes::{Bytes, BytesMut};
use stormwire_archive::StoredEvent;
use stormwire_core::{Channel, Epoch, PartitionCount, Refusal};
use stormwire_wire::protocol::{
    self, Codec, Cursor, EventsBody, EventsEncoder, MessageBatch, OutEvent, Published, RequestId,
    ServerMessage,
};

/// Bytes that an answer without events fits into, as a rule.
const SMALL_MESSAGE: usize = 128;

/// `events` of one channel.
pub(crate) fn events(codec: Codec, channel: &str, body: &EventsBody) -> Message {
    write(codec, |out| body.write(out, channel, None, None))
}

/// What a pattern is given at once: `events` of each channel in one message, the last with the cursor.
pub(crate) fn pattern_events(
    codec: Codec,
    pattern: &str,
    channels: &[(&str, EventsBody)],
    cursor: &Cursor,
) -> Message {
    let mut batch = MessageBatch::new(codec);
    let text = cursor.encode();
    for (at, (channel, body)) in (1..).zip(channels) {
        let cursor = (at == channels.len()).then_some(&*text);
        body.write(batch.slot(), channel, Some(pattern), cursor);
    }
    frame(codec, batch.finish())
}

/// A message without events.
pub(crate) fn message(codec: Codec, message: &ServerMessage<'_>) -> Message {
    write(codec, |out| protocol::message(codec, out, message))
}

/// An acknowledgement.
pub(crate) fn published(codec: Codec, published: &Published) -> Message {
    write(codec, |out| protocol::published(codec, out, published))
}

/// A refusal.
pub(crate) fn error(codec: Codec, id: Option<&RequestId>, refusal: &Refusal) -> Message {
    write(codec, |out| protocol::error(codec, out, id, refusal))
}

/// Which end of a page the next page goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// The answer to `history`. A page holds one epoch: of a page that spans two, the part where it began,
/// and then there is more.
pub(crate) fn history(
    codec: Codec,
    id: Option<&RequestId>,
    channel: &Channel,
    partitions: PartitionCount,
    page: &Page,
    direction: Direction,
) -> Message {
    let events = &page.events;
    let mut epochs = events.chunk_by(|a, b| a.position.epoch == b.position.epoch);
    let near = match direction {
        Direction::Forward => epochs.next(),
        Direction::Backward => epochs.next_back(),
    }
    .unwrap_or(&[]);
    let more = page.more || near.len() < events.len();
    let mut encoder = encoder_of(codec, channel, partitions, near)
        .unwrap_or_else(|| EventsEncoder::new(codec, channel.partition(partitions), Epoch::FIRST));
    frame(codec, encoder.history(id, channel.as_str(), more, &page.gaps))
}

fn encoder_of(
    codec: Codec,
    channel: &Channel,
    partitions: PartitionCount,
    events: &[StoredEvent],
) -> Option<EventsEncoder> {
    let epoch = events.first()?.position.epoch;
    let mut encoder = EventsEncoder::new(codec, channel.partition(partitions), epoch);
    for event in events {
        encoder.push(&out_event(event));
    }
    Some(encoder)
}

/// A stored event as it is written.
pub(crate) fn out_event(event: &StoredEvent) -> OutEvent<'_> {
    OutEvent {
        offset: event.position.offset,
        ts: event.ts,
        id: event.id.as_deref(),
        kind: event.kind.as_deref(),
        key: event.key.as_deref(),
        from: &event.user,
        data: &event.data,
        binary: event.binary,
    }
}

fn write(codec: Codec, encode: impl FnOnce(&mut BytesMut)) -> Message {
    let mut out = BytesMut::with_capacity(SMALL_MESSAGE);
    encode(&mut out);
    frame(codec, out.freeze())
}

fn frame(codec: Codec, bytes: Bytes) -> Message {
    match codec {
        Codec::Protobuf => Message::Binary(bytes),
        Codec::Json => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Message::Text(text),
            // JSON is written from checked texts: this cannot be, and is not worth a crash.
            Err(_) => Message::Text(Utf8Bytes::from_static("{}")),
        },
    }
}
