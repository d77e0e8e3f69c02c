//! One subscription of one connection, in one partition.

use super::{Feed, Wanted};
use crate::outbox::Outbox;
use crate::render;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stormwire_core::{Channel, Partition, Position};
use stormwire_wire::protocol::{Codec, Cursor, Mode};

/// Whose events, within one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One channel's.
    Channel(Channel),
    /// Those of all channels of the partition that begin with this text.
    Prefix(Partition, Arc<str>),
}

impl Selection {
    /// Whether events of `channel` belong to it.
    #[must_use]
    pub fn wants(&self, channel: &str) -> bool {
        match self {
            Self::Channel(wanted) => wanted.as_str() == channel,
            Self::Prefix(_, prefix) => channel.starts_with(&**prefix),
        }
    }
}

/// What is common to a pattern's subscriptions in all partitions: its name, and the cursor that goes
/// with whatever the client is sent. Who sends holds the cursor, so that it is exact at every message.
#[derive(Debug)]
pub(crate) struct Wide {
    /// The pattern as it was written.
    pub(crate) text: Box<str>,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    cursor: Cursor,
    /// Where it is live: there it has been given all that the feed is done with.
    live: Vec<Arc<Feed>>,
}

impl Wide {
    pub(crate) fn new(text: Box<str>, cursor: Cursor) -> Self {
        Self { text, parts: Mutex::new(Parts { cursor, live: Vec::new() }) }
    }

    /// Moves one partition on, where `send` sends what was on the way there, with the cursor that is
    /// true afterwards; the others in which it is live move with it, however quiet they are. `false`
    /// where `send` says that it was not sent; then nothing has moved.
    pub(crate) fn advance(
        &self,
        partition: Partition,
        position: Position,
        send: impl FnOnce(&Cursor) -> bool,
    ) -> bool {
        let mut parts = self.parts.lock();
        let mut next = parts.cursor.clone();
        // A feed is done with a frame after it has sent or parked, and for either it waits for us.
        for feed in parts.live.iter().filter(|feed| feed.partition != partition) {
            if let Some(done) = feed.done() {
                next.advance(feed.partition, done.position());
            }
        }
        next.set(partition, position);
        let sent = send(&next);
        if sent {
            parts.cursor = next;
        }
        sent
    }

    /// It is live in a partition; the caller holds the feed.
    pub(super) fn entered(&self, feed: &Arc<Feed>) {
        self.parts.lock().live.push(Arc::clone(feed));
    }

    /// It is no longer live in a partition; the caller holds the feed.
    pub(super) fn left(&self, partition: Partition) {
        self.parts.lock().live.retain(|feed| feed.partition != partition);
    }
}

/// One subscription of one connection. A pattern has one of these in each partition.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Unique in this process.
    pub(crate) id: u64,
    pub(crate) selection: Selection,
    /// The pattern that it is a part of.
    pub(crate) wide: Option<Arc<Wide>>,
    /// What it is given when its reader is slow.
    pub(crate) mode: Mode,
    pub(crate) codec: Codec,
    pub(crate) outbox: Arc<Outbox>,
    /// Keeps the partition's tail running.
    wanted: Wanted,
    cancelled: AtomicBool,
}

impl Subscription {
    pub(super) fn new(
        id: u64,
        (selection, wide): (Selection, Option<Arc<Wide>>),
        mode: Mode,
        codec: Codec,
        outbox: Arc<Outbox>,
        wanted: Wanted,
    ) -> Self {
        let cancelled = AtomicBool::new(false);
        Self { id, selection, wide, mode, codec, outbox, wanted, cancelled }
    }

    /// Its partition's feed.
    pub(crate) const fn feed(&self) -> &Arc<Feed> {
        &self.wanted.0
    }

    /// Whether it was ended; it never becomes live again then.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.outbox.is_gone()
    }

    /// It is no longer live; the caller holds the feed.
    pub(super) fn left(&self) {
        if let Some(wide) = &self.wide {
            wide.left(self.feed().partition);
        }
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Sends what was gathered up to `position`, whatever waits already: the caller has seen that there
    /// is room.
    pub(crate) fn answer(&self, gathered: render::Gathered, position: Position) {
        let Some(wide) = &self.wide else {
            let Selection::Channel(channel) = &self.selection else { return };
            return gathered.for_channel(channel, |message| self.outbox.answer(message));
        };
        wide.advance(self.feed().partition, position, |cursor| {
            let partition = self.feed().partition;
            gathered
                .for_pattern(&wide.text, partition, cursor, |message| self.outbox.answer(message));
            true
        });
    }
}
