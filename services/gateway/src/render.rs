//! WebSocket messages from what `wire` encodes: text for JSON, binary for protobuf.

use crate::hub::Place;
use crate::reader::Page;
use axum::extract::ws::{Message, Utf8Bytes};
use bytes::{Bytes, BytesMut};
use stormwire_archive::StoredEvent;
use stormwire_core::{Channel, Epoch, Partition, PartitionCount, Position, Refusal};
use stormwire_wire::frame::{Event, Run};
use stormwire_wire::protocol::{
    self, Codec, EventsEncoder, Gap, GapTarget, OutEvent, Published, RequestId, ServerMessage,
};

/// Bytes that an answer without events fits into, as a rule.
const SMALL_MESSAGE: usize = 128;

/// Gathers events of one channel for one message.
pub(crate) struct EventsText {
    codec: Codec,
    encoder: EventsEncoder,
}

impl EventsText {
    pub(crate) fn new(codec: Codec, partition: Partition, epoch: Epoch) -> Self {
        Self { codec, encoder: EventsEncoder::new(codec, partition, epoch) }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.encoder.bytes()
    }

    pub(crate) fn push(&mut self, place: &Place, run: &Run<'_>, event: &Event<'_>) {
        self.encoder.push(&OutEvent::of(run, event, place.seq, place.ts));
    }

    /// The `events` message, unless there are none.
    pub(crate) fn finish(mut self, channel: &str) -> Option<Message> {
        if self.encoder.is_empty() {
            return None;
        }
        Some(frame(self.codec, self.encoder.events(channel, None)))
    }
}

/// One message per codec, rendered when it is first asked for and shared by all who get it.
#[derive(Default)]
pub(crate) struct Rendered {
    messages: [Option<Option<Message>>; Codec::ALL.len()],
}

impl Rendered {
    pub(crate) fn get(
        &mut self,
        codec: Codec,
        render: impl FnOnce(Codec) -> Option<Message>,
    ) -> Option<&Message> {
        let slot = match codec {
            Codec::Json => &mut self.messages[0],
            Codec::Protobuf => &mut self.messages[1],
        };
        slot.get_or_insert_with(|| render(codec)).as_ref()
    }
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

/// A gap in a subscription.
pub(crate) fn gap(codec: Codec, channel: &Channel, from: Position, to: Position) -> Message {
    let target = GapTarget::Channel(channel.clone());
    message(codec, &ServerMessage::Gap(Gap { target, from, to }))
}

/// `events` messages of a page, one for each epoch in it.
pub(crate) fn page(
    codec: Codec,
    channel: &Channel,
    partitions: PartitionCount,
    events: &[StoredEvent],
    mut send: impl FnMut(Message),
) {
    for events in events.chunk_by(|a, b| a.position.epoch == b.position.epoch) {
        let Some(mut encoder) = encoder_of(codec, channel, partitions, events) else { continue };
        send(frame(codec, encoder.events(channel.as_str(), None)));
    }
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
