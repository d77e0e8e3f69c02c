//! The table of producers: what each has stored lately, so that a repeat is known for one.
//!
//! A pure function of the log since the horizon: it moves only when a frame is settled. It never
//! guesses: what it cannot tell is `unknown_outcome` or `forgotten`, never a duplicate.

mod ranges;

use crate::publish::ProducerKey;
use hashbrown::HashTable;
use ranges::Ranges;
use std::time::Duration;
use stormwire_core::{Offset, Timestamp};

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
    vacant: bool,
}

/// The table of one partition.
#[derive(Debug)]
pub struct Repeats {
    index: HashTable<u32>,
    producers: Vec<Producer>,
    free: Vec<u32>,
    horizon: Timestamp,
    bytes_max: usize,
}

impl Repeats {
    /// An empty table that covers every write since `horizon`, in at most about `bytes_max` bytes.
    #[must_use]
    pub const fn new(horizon: Timestamp, bytes_max: usize) -> Self {
        Self {
            index: HashTable::new(),
            producers: Vec::new(),
            free: Vec::new(),
            horizon,
            bytes_max,
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
            + history
    }

    /// Bytes of what it says, without the room that is free for more.
    fn live_bytes(&self) -> usize {
        let history: usize = self.producers.iter().map(|p| p.ranges.heap_bytes()).sum();
        self.len() * (size_of::<Producer>() + 2 * size_of::<u32>()) + history
    }

    /// Where the producer stands, if it is known.
    #[must_use]
    pub fn find(&self, key: ProducerKey) -> Option<Slot> {
        let producers = &self.producers;
        self.index
            .find(key.hash(), |slot| producers[*slot as usize].key == key)
            .map(|slot| Slot(*slot))
    }

    /// What is to be done with a publish of the producer at `slot` (`None`: it is not known).
    #[must_use]
    pub fn judge(&self, slot: Option<Slot>, publish: Numbers) -> Verdict {
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
        // A4: a repeat of what is in the frame under way waits for that frame's answer.
        if pending > 0 && seq <= pending && last > highest {
            return Verdict::Wait;
        }
        // B3: sent first before the horizon, give or take the skew: nobody knows any more.
        let forgotten = first_sent < self.horizon.plus(SKEW);
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
        producer.ranges.push(seq, count, offset);
        producer.pending = 0;
        producer.written = producer.written.max(seconds(at));
    }

    /// Notes that what was reserved is not stored and never will be by this frame.
    pub fn release(&mut self, slot: Slot) {
        let producer = &mut self.producers[slot.0 as usize];
        producer.pending = 0;
        if producer.ranges.highest() == 0 && !producer.vacant {
            self.remove(slot.0);
        }
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

    /// Forgets every producer that wrote nothing since `cutoff`, and raises the horizon to it.
    pub fn forget_before(&mut self, cutoff: Timestamp) {
        self.raise_horizon(cutoff);
        let cutoff = seconds(cutoff);
        for at in 0..u32::try_from(self.producers.len()).unwrap_or(u32::MAX) {
            let producer = &self.producers[at as usize];
            if !producer.vacant && producer.pending == 0 && producer.written < cutoff {
                self.remove(at);
            }
        }
    }

    /// Keeps the table within its horizon and its bytes. When it is too large it reaches less far back,
    /// then each producer's entry becomes shorter: both only make it say less.
    pub fn keep_within(&mut self, now: Timestamp) {
        let back =
            |age: Duration| Timestamp(now.0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        self.forget_before(back(HORIZON));
        for age in [300, 120, 60, 30] {
            if self.live_bytes() <= self.bytes_max {
                return;
            }
            self.forget_before(back(Duration::from_secs(age)));
        }
        for keep in [128, 64, 32, 0] {
            if self.live_bytes() <= self.bytes_max {
                return;
            }
            self.producers.iter_mut().for_each(|producer| producer.ranges.shorten(keep));
        }
    }

    fn insert(&mut self, key: ProducerKey) -> Slot {
        let producer =
            Producer { key, ranges: Ranges::default(), pending: 0, written: 0, vacant: false };
        let at = if let Some(at) = self.free.pop() {
            self.producers[at as usize] = producer;
            at
        } else {
            self.producers.push(producer);
            u32::try_from(self.producers.len() - 1).unwrap_or(u32::MAX)
        };
        let producers = &self.producers;
        self.index.insert_unique(key.hash(), at, |slot| producers[*slot as usize].key.hash());
        Slot(at)
    }

    fn remove(&mut self, at: u32) {
        let producer = &mut self.producers[at as usize];
        producer.vacant = true;
        producer.ranges = Ranges::default();
        let hash = producer.key.hash();
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == at) {
            entry.remove();
        }
        self.free.push(at);
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.0.max(0) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
