//! The table of producers: what each has stored lately, so that a repeat is known for one.
//!
//! A pure function of the log since the horizon: it moves only when a frame is settled. It never
//! guesses: what it cannot tell is `unknown_outcome` or `forgotten`, never a duplicate.

mod image;
mod keep;
mod ranges;
mod users;

pub use image::ImageError;

use crate::publish::ProducerKey;
use hashbrown::HashTable;
use ranges::Ranges;
use std::time::Duration;
use stormwire_core::{Offset, Timestamp};
use users::Users;

/// How far back the table reaches when nothing forces it to reach less far.
pub const HORIZON: Duration = Duration::from_secs(600);
/// How far the clocks of gateways and journal may be apart, both ways together and with room.
pub const SKEW: Duration = Duration::from_secs(5);

/// What the table says about a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its events from `skip` on are new. Those before are stored, the first of them at `first`.
    Append {
        /// Events at the head that are stored.
        skip: u32,
        /// The offset of the first of them.
        first: Option<Offset>,
    },
    /// All of it is stored.
    Duplicate {
        /// The first event's offset.
        first: Offset,
        /// The last event's.
        last: Offset,
    },
    /// Its number was used and it does not say that it is a repeat.
    Conflict,
    /// It may be stored, further back than this producer's entry tells.
    UnknownOutcome,
    /// It may be stored, further back than the table reaches.
    Forgotten,
    /// A part of it is in the frame that is being made; that frame's answer decides.
    Wait,
}

/// From here on a number is no place in a producer's sequence but stands for the whole of its one publish
/// (a hash of it): what comes under another such number is another publish. Clients number below 2^53.
pub const BODY_NUMBERS: u64 = 1 << 63;

/// The numbers of a publish that is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The first event's.
    pub seq: u64,
    /// How many events, at least one.
    pub count: u32,
    /// For a repeat: when it was sent first.
    pub first_sent: Option<Timestamp>,
}

/// A producer's place in the table, good until the next [`Repeats::forget_before`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

#[derive(Debug)]
struct Producer {
    key: ProducerKey,
    ranges: Ranges,
    /// The highest number in the frame that is being made or under way; 0 if none.
    pending: u64,
    /// Unix seconds of the last write.
    written: u32,
    /// Whose it is: a place among the users, or [`VACANT`].
    user: u32,
}

/// In place of a user: the place is free.
const VACANT: u32 = u32::MAX;

impl Producer {
    /// What it takes in all tables together.
    fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * size_of::<u32>() + self.ranges.heap_bytes()
    }
}

/// The table of one partition.
#[derive(Debug)]
pub struct Repeats {
    index: HashTable<u32>,
    producers: Vec<Producer>,
    free: Vec<u32>,
    users: Users,
    horizon: Timestamp,
    bytes_max: usize,
    /// What it took when it was last kept within its bytes, and about how much it has grown since.
    kept_bytes: usize,
    grown: usize,
}

impl Repeats {
    /// An empty table that covers every write since `horizon`, in at most about `bytes_max` bytes.
    #[must_use]
    pub const fn new(horizon: Timestamp, bytes_max: usize) -> Self {
        Self {
            index: HashTable::new(),
            producers: Vec::new(),
            free: Vec::new(),
            users: Users::new(),
            horizon,
            bytes_max,
            kept_bytes: 0,
            grown: 0,
        }
    }

    /// The time since which every write is covered.
    #[must_use]
    pub const fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Covers less: nothing is known about writes before `horizon`.
    pub fn raise_horizon(&mut self, horizon: Timestamp) {
        self.horizon = self.horizon.max(horizon);
    }

    /// How many producers it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let history: usize = self.producers.iter().map(|p| p.ranges.heap_bytes()).sum();
        self.index.allocation_size()
            + self.producers.capacity() * size_of::<Producer>()
            + self.free.capacity() * size_of::<u32>()
            + self.users.bytes()
            + history
    }

    /// Bytes of what it says, without the room that is free for more.
    fn live_bytes(&self) -> usize {
        let known = self.producers.iter().filter(|producer| producer.user != VACANT);
        known.map(Producer::bytes).sum::<usize>() + self.users.live_bytes()
    }

    /// Where the producer stands, if it is known.
    #[must_use]
    pub fn find(&self, key: ProducerKey) -> Option<Slot> {
        let producers = &self.producers;
        self.index
            .find(key.hash(), |slot| producers[*slot as usize].key == key)
            .map(|slot| Slot(*slot))
    }

    /// What is to be done with a publish of producer `key`, which is at `slot` (`None`: it is not known).
    #[must_use]
    pub fn judge(&self, key: ProducerKey, slot: Option<Slot>, publish: Numbers) -> Verdict {
        let Numbers { seq, count, first_sent } = publish;
        let (highest, pending) = slot.map_or((0, 0), |Slot(at)| {
            let producer = &self.producers[at as usize];
            (producer.ranges.highest(), producer.pending)
        });
        let last = seq + u64::from(count) - 1;
        let Some(first_sent) = first_sent else {
            // B2: a number used before is never taken for a duplicate by comparison alone.
            let free = seq > highest.max(pending);
            return if free { Verdict::Append { skip: 0, first: None } } else { Verdict::Conflict };
        };
        let is_body = seq >= BODY_NUMBERS;
        // A4: a repeat of what is in the frame under way waits for that frame's answer. So does another
        // body: if that frame is stored, the producer is used up.
        let is_under_way = seq <= pending || is_body && seq != pending + 1;
        if pending > 0 && is_under_way && last > highest {
            return Verdict::Wait;
        }
        // What follows the highest number is the rest of the same body: two bodies are far apart.
        let is_other = || seq != highest + 1 && self.stored_head(slot, seq, seq).is_none();
        if is_body && highest > 0 && is_other() {
            return Verdict::Conflict;
        }
        // B3: sent first before the horizon, give or take the skew: nobody knows any more.
        let forgotten = first_sent < self.horizon_of(key).plus(SKEW);
        if seq > highest {
            return if forgotten {
                Verdict::Forgotten
            } else {
                Verdict::Append { skip: 0, first: None }
            };
        }
        match self.stored_head(slot, seq, last.min(highest)) {
            // B2: in no stored range, though at or below the highest.
            None if forgotten => Verdict::Forgotten,
            None => Verdict::UnknownOutcome,
            Some((first, at)) if last <= highest => Verdict::Duplicate { first, last: at },
            // A5: a publish of which a part is stored goes on behind it.
            Some((first, _)) => {
                let skip = u32::try_from(highest - seq + 1).unwrap_or(count);
                Verdict::Append { skip, first: Some(first) }
            }
        }
    }

    /// B6: past his share a user's own horizon is later than the table's.
    fn horizon_of(&self, ProducerKey([user, _]): ProducerKey) -> Timestamp {
        self.horizon.max(Timestamp(i64::from(self.users.horizon(user)) * 1000))
    }

    /// The offsets of `seq` and `last`, if every number between them is in a stored range.
    fn stored_head(&self, slot: Option<Slot>, seq: u64, last: u64) -> Option<(Offset, Offset)> {
        let ranges = &self.producers[slot?.0 as usize].ranges;
        let (first, mut through) = ranges.find(seq)?;
        while through < last {
            through = ranges.find(through + 1)?.1;
        }
        Some((first, ranges.find(last)?.0))
    }

    /// Notes that numbers up to `last` are in the frame that is being made.
    pub fn reserve(&mut self, slot: Option<Slot>, key: ProducerKey, last: u64) -> Slot {
        let slot = slot.unwrap_or_else(|| self.insert(key));
        let producer = &mut self.producers[slot.0 as usize];
        producer.pending = producer.pending.max(last);
        slot
    }

    /// Notes that `count` events from `seq` on are stored, the first at `offset`, at the time `at`.
    pub fn settle(&mut self, slot: Slot, seq: u64, count: u32, offset: Offset, at: Timestamp) {
        let producer = &mut self.producers[slot.0 as usize];
        let before = producer.ranges.heap_bytes();
        producer.ranges.push(seq, count, offset);
        self.grown += producer.ranges.heap_bytes().saturating_sub(before);
        producer.pending = 0;
        producer.written = producer.written.max(seconds(at));
    }

    /// Takes over a write from the log.
    pub fn replay(
        &mut self,
        key: ProducerKey,
        seq: u64,
        count: u32,
        offset: Offset,
        at: Timestamp,
    ) {
        let slot = self.find(key).unwrap_or_else(|| self.insert(key));
        self.settle(slot, seq, count, offset, at);
    }

    fn insert(&mut self, key: ProducerKey) -> Slot {
        let ProducerKey([user, _]) = key;
        let user = self.users.add(user);
        let producer = Producer { key, ranges: Ranges::default(), pending: 0, written: 0, user };
        self.grown += producer.bytes();
        let at = if let Some(at) = self.free.pop() {
            self.producers[at as usize] = producer;
            at
        } else {
            push_tight(&mut self.producers, producer);
            u32::try_from(self.producers.len() - 1).unwrap_or(u32::MAX)
        };
        let producers = &self.producers;
        self.index.insert_unique(key.hash(), at, |slot| producers[*slot as usize].key.hash());
        Slot(at)
    }
}

/// Grows by an eighth and not by all of itself: a table is large, and there are many.
fn push_tight<T>(all: &mut Vec<T>, one: T) {
    if all.len() == all.capacity() {
        all.reserve_exact((all.len() / 8).max(16));
    }
    all.push(one);
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.0.max(0) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
