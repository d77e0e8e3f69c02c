//! What is kept between the batches of a partition: the channels known to have their row, and counts
//! that are not in the table yet.
//!
//! Updating a row a channel with every batch would cost more than storing the events when a batch
//! touches thousands of channels. So counts gather here and go along when that is cheap or some seconds
//! have passed. Nothing is lost with them: the ledger says how far the table counts, readers add what
//! is beyond it, and whoever takes a partition over has Postgres count the rest first.

use crate::persist::Refused;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use stormwire_archive::{Batch, Lease};
use stormwire_core::{Channel, FrameSeq, Offset, Partition, Timestamp};
use tokio::time::Instant;

/// A batch smaller than this shows that the database keeps up: counts go along at once.
const SMALL_BATCH_EVENTS: u64 = 1_000;
/// Counts go along when a row stands for at least so many events: below a twentieth of the batch's cost.
const EVENTS_PER_COUNT: u64 = 64;
/// Longest that counts are held back while batches go on.
const HOLD_BACK: Duration = Duration::from_secs(5);
/// Most channels counted here.
const COUNTS_MAX: usize = 65_536;
/// Most channels remembered to have their row.
const KNOWN_MAX: usize = 262_144;

/// The memories of all partitions.
#[derive(Default)]
pub(crate) struct Memories(Mutex<HashMap<Partition, Memory>>);

/// The memory of one partition. Taken out for a batch and put back only after its commit: whatever
/// fails on the way leaves none, and the next batch begins from the tables.
pub(crate) struct Memory {
    token: u64,
    through: FrameSeq,
    /// Where the table's counts end; `None` until Postgres was asked.
    pub(crate) counted_from: Option<FrameSeq>,
    known: HashSet<Box<str>>,
    counts: HashMap<Box<str>, Count>,
    events: u64,
    since: Instant,
    pub(crate) buffer: Vec<u8>,
}

/// What was stored of a channel since the table's counts.
pub(crate) struct Count {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) last: Offset,
    pub(crate) last_at: Timestamp,
}

/// A channel whose row may not be there.
pub(crate) struct Fresh {
    pub(crate) name: Box<str>,
    pub(crate) at: Timestamp,
    pub(crate) by: Box<str>,
    pub(crate) first: Offset,
}

impl Memories {
    /// What is known for `lease` at `expected`, or a memory that knows nothing.
    pub(crate) fn take(&self, lease: &Lease, expected: FrameSeq) -> Memory {
        let memory = self.0.lock().remove(&lease.partition);
        match memory {
            Some(memory) if memory.token == lease.token && memory.through == expected => memory,
            _ => Memory {
                token: lease.token,
                through: expected,
                counted_from: None,
                known: HashSet::new(),
                counts: HashMap::new(),
                events: 0,
                since: Instant::now(),
                buffer: Vec::new(),
            },
        }
    }

    /// Keeps `memory` for the batch after `through`.
    pub(crate) fn put(&self, partition: Partition, mut memory: Memory, through: FrameSeq) {
        memory.through = through;
        self.0.lock().insert(partition, memory);
    }

    pub(crate) fn forget(&self, partition: Partition) {
        self.0.lock().remove(&partition);
    }
}

impl Memory {
    /// Counts the stored events of a batch and finds the channels whose row may be missing.
    pub(crate) fn count(&mut self, batch: &Batch, refused: &Refused) -> Vec<Fresh> {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let mut fresh = Vec::new();
        for (seq, ts, frame) in &batch.frames {
            let Some(events) = frame.events() else { continue };
            for run in events.runs() {
                let first = Offset::new(*seq, run.first);
                let last = Offset::new(*seq, run.first + run.count.saturating_sub(1));
                let stored = stored(first, last, refused);
                let Some((first, last, count)) = stored else { continue };
                let is_stored = |index| !refused.contains_key(&Offset::new(*seq, index));
                let kept =
                    run.events().filter(|event| refused.is_empty() || is_stored(event.index));
                let bytes = kept.map(|event| event.data.len() as u64).sum();
                if !self.known.contains(run.channel) {
                    self.known.insert(run.channel.into());
                    let (name, by) = (run.channel.into(), run.user.into());
                    fresh.push(Fresh { name, at: *ts, by, first });
                }
                self.add(run.channel, (count, bytes), last, *ts);
            }
        }
        fresh
    }

    fn add(
        &mut self,
        channel: &str,
        (events, bytes): (u64, u64),
        last: Offset,
        last_at: Timestamp,
    ) {
        self.events += events;
        if let Some(count) = self.counts.get_mut(channel) {
            count.events += events;
            count.bytes += bytes;
            (count.last, count.last_at) = (last, last_at);
        } else {
            self.counts.insert(channel.into(), Count { events, bytes, last, last_at });
        }
    }

    /// Whether the counts should go along with a batch of `batch_events`.
    pub(crate) fn is_due(&self, batch_events: u64) -> bool {
        let channels = self.counts.len();
        batch_events < SMALL_BATCH_EVENTS
            || self.events >= EVENTS_PER_COUNT * channels as u64
            || channels > COUNTS_MAX
            || self.since.elapsed() >= HOLD_BACK
    }

    /// The counts, by channel.
    pub(crate) const fn counts(&self) -> &HashMap<Box<str>, Count> {
        &self.counts
    }

    /// Notes that the table counts up to `through`.
    pub(crate) fn counted(&mut self, through: FrameSeq) {
        self.counted_from = Some(through);
        self.counts.clear();
        self.events = 0;
        self.since = Instant::now();
    }
}

/// First, last and number of the offsets from `first` to `last` that are not refused.
fn stored(first: Offset, last: Offset, refused: &Refused) -> Option<(Offset, Offset, u64)> {
    if refused.is_empty() {
        return Some((first, last, last.0 - first.0 + 1));
    }
    let mut left = (first.0..=last.0).map(Offset).filter(|offset| !refused.contains_key(offset));
    let first = left.next()?;
    let rest: Vec<_> = left.collect();
    Some((first, *rest.last().unwrap_or(&first), rest.len() as u64 + 1))
}

/// Events whose channel has a name that no channel can have: no gateway lets one through, and the table
/// of channels is no place for it.
pub(crate) fn nameless(batch: &Batch) -> Refused {
    let mut refused = Refused::new();
    for (seq, _, frame) in &batch.frames {
        let Some(events) = frame.events() else { continue };
        if events.channels().all(is_name) {
            continue;
        }
        for run in events.runs() {
            if let Err(error) = Channel::parse(run.channel) {
                let offsets = (run.first..run.first + run.count).map(|i| Offset::new(*seq, i));
                refused.extend(offsets.map(|offset| (offset, error.to_string())));
            }
        }
    }
    refused
}

/// The rule of [`Channel::parse`], without keeping the name.
fn is_name(text: &str) -> bool {
    let plain = |part: &str, max: usize| {
        (1..=max).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~-".contains(&b))
    };
    text.split_once(':').is_some_and(|(namespace, name)| plain(namespace, 64) && plain(name, 190))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(token: u64) -> Lease {
        Lease { partition: Partition(1), worker: "w".to_owned(), token }
    }

    #[test]
    fn a_memory_serves_only_its_own_lease_and_place() {
        let memories = Memories::default();
        let mut memory = memories.take(&lease(1), 10);
        assert_eq!(memory.counted_from, None);
        memory.counted(10);
        memories.put(Partition(1), memory, 20);
        let memory = memories.take(&lease(1), 20);
        assert_eq!(memory.counted_from, Some(10));
        assert_eq!(memories.take(&lease(1), 20).counted_from, None, "it was taken out");
        for (token, expected) in [(2, 20), (1, 21)] {
            let mut memory = memories.take(&lease(1), 20);
            memory.counted(10);
            memories.put(Partition(1), memory, 20);
            assert_eq!(memories.take(&lease(token), expected).counted_from, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_wait_while_they_would_cost_more_than_the_events() {
        let mut memory = Memories::default().take(&lease(1), 0);
        for i in 0..1000u64 {
            memory.add(&format!("a:{i}"), (5, 10), Offset(i), Timestamp(0));
        }
        assert!(!memory.is_due(5000));
        assert!(memory.is_due(999), "a small batch has time");
        tokio::time::advance(HOLD_BACK).await;
        assert!(memory.is_due(5000));
        memory.counted(7);
        memory.add("a:1", (64, 64), Offset(1), Timestamp(0));
        assert!(memory.is_due(5000), "one row for 64 events is cheap");
    }

    #[test]
    fn refused_events_are_not_counted() {
        let refused = [4096, 4098].map(|at| (Offset(at), String::new()));
        let refused = Refused::from(refused);
        assert_eq!(
            stored(Offset(4096), Offset(4099), &refused),
            Some((Offset(4097), Offset(4099), 2))
        );
        assert_eq!(stored(Offset(4096), Offset(4096), &refused), None);
    }

    proptest! {
        #[test]
        fn the_quick_rule_for_names_is_the_rule(text in "[a:.\u{0}é~*]{0,6}|[a-z]{1,66}:[a-z]{0,200}") {
            prop_assert_eq!(is_name(&text), Channel::parse(&text).is_ok());
        }
    }
}
