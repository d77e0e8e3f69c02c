//! What a page, a long poll or a stream reads from: a channel behind a position, or all channels that a
//! pattern matches behind a cursor.

use super::HttpState;
use super::watch::{self, Watch};
use crate::hub::Selection;
use crate::reader::{Reader, Told};
use crate::render;
use crate::session::{place_in, prefix_of};
use futures::future::try_join_all;
use std::sync::Arc;
use stormwire_core::{Channel, Partition, PartitionCount, Pattern, Position, Refusal};
use stormwire_wire::protocol::{Cursor, EventsEncoder};
use tokio::time::Instant;

/// A place that is read on from.
pub(super) struct Source {
    partitions: PartitionCount,
    parts: Vec<Part>,
    /// None where it is one channel.
    pattern: Option<String>,
    cursor: Cursor,
    /// Whose turn it is: no partition keeps another one waiting.
    turn: usize,
}

/// One partition of it.
struct Part {
    partition: Partition,
    selection: Selection,
    watch: Watch,
}

/// One thing that is told.
pub(super) struct Placed {
    pub(super) told: Told,
    pub(super) partition: Partition,
    /// The place behind it.
    pub(super) place: String,
}

/// What was read.
pub(super) struct Batch {
    pub(super) told: Vec<Placed>,
    /// Whether there is more already.
    pub(super) more: bool,
}

impl Source {
    /// A channel behind `after`, or from now on.
    pub(super) async fn channel(
        state: &HttpState,
        channel: &Channel,
        after: Option<Position>,
    ) -> Result<Self, Refusal> {
        let feed = state.hub.feed(channel);
        let watch = Watch::new(feed);
        let at = match after {
            Some(after) => after,
            None => state.reader.tip(channel).await?,
        };
        let selection = Selection::Channel(channel.clone());
        let parts = vec![Part { partition: feed.partition, selection, watch }];
        let cursor = Cursor::new([(feed.partition, at)]);
        Ok(Self { partitions: state.partitions, parts, pattern: None, cursor, turn: 0 })
    }

    /// A pattern's channels behind `after`, a cursor and the field that it came in, or from now on.
    pub(super) async fn pattern(
        state: &HttpState,
        pattern: &Pattern,
        after: Option<(&str, Cursor)>,
    ) -> Result<Self, Refusal> {
        let prefix = prefix_of(pattern)?;
        let part = |partition| {
            let selection = Selection::Prefix(partition, Arc::clone(prefix));
            let watch = Watch::new(state.hub.feed_of(&selection));
            Part { partition, selection, watch }
        };
        let parts: Vec<_> = state.partitions.all().map(part).collect();
        let start = async |partition| match &after {
            Some((field, cursor)) => place_in(field, cursor, partition).map(|at| (partition, at)),
            None => Ok((partition, state.reader.tip_of(partition).await?)),
        };
        let cursor = Cursor::new(try_join_all(state.partitions.all().map(start)).await?);
        let pattern = Some(pattern.to_string());
        Ok(Self { partitions: state.partitions, parts, pattern, cursor, turn: 0 })
    }

    /// Where it stands: what a client gives back to go on.
    pub(super) fn place(&self) -> String {
        match (&self.pattern, self.parts.first()) {
            (None, Some(part)) => {
                self.cursor.get(part.partition).map(|at| at.to_string()).unwrap_or_default()
            }
            _ => self.cursor.encode(),
        }
    }

    pub(super) const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Reads on: at most `limit` events and about `bytes` of data.
    pub(super) async fn read(
        &mut self,
        reader: &Reader,
        limit: usize,
        bytes: usize,
    ) -> Result<Batch, Refusal> {
        let (mut told, mut more) = (Vec::new(), false);
        let (mut events_left, mut bytes_left) = (limit, bytes);
        for _ in 0..self.parts.len() {
            if events_left == 0 || bytes_left == 0 {
                more = true;
                break;
            }
            let part = &self.parts[self.turn % self.parts.len()];
            self.turn = (self.turn + 1) % self.parts.len();
            let (partition, selection) = (part.partition, part.selection.clone());
            let Some(at) = self.cursor.get(partition) else { continue };
            let page = reader.after(&selection, at, events_left, bytes_left).await?;
            let data: usize = page.events.iter().map(|event| event.data.len()).sum();
            events_left = events_left.saturating_sub(page.events.len());
            bytes_left = bytes_left.saturating_sub(data);
            more |= page.more;
            let next = page.next.unwrap_or(at);
            for one in page.into_told() {
                let at = match &one {
                    Told::Event(event) => event.position,
                    Told::Gap(_, to) => *to,
                };
                self.cursor.set(partition, at);
                told.push(Placed { told: one, partition, place: self.place() });
            }
            self.cursor.set(partition, next);
        }
        Ok(Batch { told, more })
    }

    /// Whatever moves after this call ends the next wait: call it before reading.
    pub(super) fn mark(&mut self) {
        self.parts.iter_mut().for_each(|part| part.watch.mark());
    }

    /// Waits until something may have come; `false` at the deadline or when the gateway goes away.
    pub(super) async fn moved(&mut self, deadline: Instant, state: &HttpState) -> bool {
        let watches = self.parts.iter_mut().map(|part| &mut part.watch);
        watch::any_moved(watches, deadline, &state.draining).await
    }

    /// Whether it is all channels that a pattern matches.
    pub(super) const fn is_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    /// Writes an event as it is given in this source's pages and streams.
    pub(super) fn push(&self, encoder: &mut EventsEncoder, event: &stormwire_archive::StoredEvent) {
        let out = render::out_event(event);
        let partition = event.channel.partition(self.partitions);
        if self.pattern.is_some() {
            let epoch = event.position.epoch;
            encoder.push_placed(event.channel.as_str(), partition, epoch, &out);
        } else {
            encoder.push(&out);
        }
    }
}
