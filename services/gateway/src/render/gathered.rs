//! What one subscription is sent at once when it is not live: events of one channel, or of all channels
//! that a pattern matches, and the gaps among them.

use super::{Message, frame, message, pattern_events};
use crate::hub::{Place, Selection, append, runs_by_channel};
use crate::reader::{Page, Told};
use std::collections::HashMap;
use stormwire_archive::StoredEvent;
use stormwire_core::{Channel, Epoch, Partition, Position};
use stormwire_wire::frame::Events;
use stormwire_wire::protocol::{
    Codec, Cursor, EventsBody, EventsEncoder, Gap, GapTarget, ServerMessage,
};

/// Gaps, and events by channel: between two gaps, in the order in which each channel came first.
pub(crate) struct Gathered {
    codec: Codec,
    items: Vec<Item>,
    /// Where the newest events of each channel are, of one epoch and behind the last gap.
    index: HashMap<Box<str>, usize>,
    epoch: Epoch,
    bytes: usize,
}

enum Item {
    Events { channel: Box<str>, encoder: EventsEncoder },
    Gap(Position, Position),
}

impl Gathered {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { codec, items: Vec::new(), index: HashMap::new(), epoch: Epoch(0), bytes: 0 }
    }

    /// A page that was read, of `partition`.
    pub(crate) fn of(codec: Codec, partition: Partition, page: Page) -> Self {
        let mut gathered = Self::new(codec);
        for told in page.into_told() {
            match told {
                Told::Gap(from, to) => gathered.gap(from, to),
                Told::Event(event) => gathered.stored(partition, &event),
            }
        }
        gathered
    }

    /// Takes what is selected of a frame and lies behind `place.before`.
    pub(crate) fn frame(&mut self, events: &Events, place: &Place, selection: &Selection) {
        for (channel, runs) in runs_by_channel(events, |channel| selection.wants(channel)) {
            self.push(channel, place.partition, place.epoch, |encoder| {
                append(encoder, runs.into_iter(), place, place.before);
            });
        }
    }

    /// Takes a gap.
    pub(crate) fn gap(&mut self, from: Position, to: Position) {
        self.index.clear();
        self.items.push(Item::Gap(from, to));
    }

    fn stored(&mut self, partition: Partition, event: &StoredEvent) {
        let (channel, epoch) = (event.channel.as_str(), event.position.epoch);
        self.push(channel, partition, epoch, |encoder| encoder.push(&super::out_event(event)));
    }

    fn push(
        &mut self,
        channel: &str,
        partition: Partition,
        epoch: Epoch,
        push: impl FnOnce(&mut EventsEncoder),
    ) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.index.clear();
        }
        let at = self.index.get(channel).copied().unwrap_or_else(|| {
            let encoder = EventsEncoder::new(self.codec, partition, epoch);
            self.items.push(Item::Events { channel: channel.into(), encoder });
            self.index.insert(channel.into(), self.items.len() - 1);
            self.items.len() - 1
        });
        if let Item::Events { encoder, .. } = &mut self.items[at] {
            let before = encoder.bytes();
            push(encoder);
            self.bytes += encoder.bytes() - before;
        }
    }

    /// Bytes of the encoded events.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages for one channel's subscription.
    pub(crate) fn for_channel(self, channel: &Channel, mut send: impl FnMut(Message)) {
        for item in self.items {
            match item {
                Item::Events { encoder, .. } if encoder.is_empty() => {}
                Item::Events { channel, mut encoder } => {
                    send(frame(self.codec, encoder.events(&channel)));
                }
                Item::Gap(from, to) => {
                    let target = GapTarget::Channel(channel.clone());
                    send(message(self.codec, &ServerMessage::Gap(Gap { target, from, to })));
                }
            }
        }
    }

    /// Messages for a pattern's subscription, which stands at `cursor` afterwards. Each is whole by
    /// itself and has the cursor that is true behind it: what comes before a gap, the gap, the rest.
    pub(crate) fn for_pattern(
        self,
        pattern: &str,
        partition: Partition,
        cursor: &Cursor,
        mut send: impl FnMut(Message),
    ) {
        let codec = self.codec;
        let mut waiting: Vec<(Box<str>, EventsBody)> = Vec::new();
        let flush = |waiting: &mut Vec<(Box<str>, EventsBody)>, cursor: &Cursor| {
            let bodies = waiting.iter().map(|(channel, body)| (&**channel, body.clone()));
            let bodies: Vec<_> = bodies.collect();
            let message = pattern_events(codec, pattern, &bodies, cursor);
            waiting.clear();
            message
        };
        let at = |position: Position| {
            let mut cursor = cursor.clone();
            cursor.set(partition, position);
            cursor
        };
        for item in self.items {
            match item {
                Item::Events { encoder, .. } if encoder.is_empty() => {}
                Item::Events { channel, mut encoder } => waiting.push((channel, encoder.body())),
                Item::Gap(from, to) => {
                    if !waiting.is_empty() {
                        send(flush(&mut waiting, &at(from)));
                    }
                    let pattern = pattern.into();
                    let target = GapTarget::Pattern { pattern, partition, cursor: at(to) };
                    send(message(codec, &ServerMessage::Gap(Gap { target, from, to })));
                }
            }
        }
        if !waiting.is_empty() {
            send(flush(&mut waiting, cursor));
        }
    }
}
