//! What the properties are written with: a worker of one partition that makes its own frames.

use super::Subject;
use crate::{
    Archive, Batch, HistoryPage, HistoryQuery, Lease, LedgerEntry, PersistError, StoredEvent,
};
use bytes::Bytes;
use std::time::Duration;
use stormwire_core::{
    Channel, Clock as _, Epoch, FrameSeq, Offset, Partition, PartitionCount, Position, SystemClock,
    Timestamp,
};
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};

/// Longer than any test.
pub(super) const TTL: Duration = Duration::from_secs(300);
/// How long the suite waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const PARTITIONS: PartitionCount = PartitionCount::DEFAULT;
pub(super) const E: Epoch = Epoch::FIRST;

pub(super) fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a channel's name")
}

pub(super) fn id(counter: u64) -> FrameId {
    FrameId { appender: *b"suite appender 1", counter }
}

pub(super) const fn json(data: &str) -> EventParts<'_> {
    EventParts { kind: None, key: None, id: None, data: data.as_bytes(), binary: false }
}

pub(super) const fn at(seq: FrameSeq, index: u16) -> Position {
    Position { epoch: E, offset: Offset::new(seq, index) }
}

/// A frame with one run for each entry: channel, user, events.
pub(super) fn frame(seq: FrameSeq, runs: &[(&str, &str, &[EventParts<'_>])]) -> Frame {
    let mut builder = FrameBuilder::default();
    for (name, user, events) in runs {
        let mut encoded = EventsBuilder::default();
        for event in *events {
            encoded.push(event).expect("an event that fits");
        }
        let taken = builder.push(&channel(name), user, "producer", 1, None, &encoded.take());
        assert_eq!(taken, events.len(), "the suite's frames fit");
    }
    Frame::decode(&builder.finish(id(seq))).expect("a frame that can be read")
}

/// The journal's time of a frame: now, for an archive that keeps tables by time, and 10 ms a frame.
pub(super) struct Times(Timestamp);

impl Times {
    pub(super) fn new() -> Self {
        Self(SystemClock.now())
    }

    pub(super) fn of(&self, seq: FrameSeq) -> Timestamp {
        self.0.plus(Duration::from_millis(10 * seq))
    }
}

/// The holder of one partition's lease.
pub(super) struct Worker<'a> {
    pub(super) archive: &'a dyn Archive,
    pub(super) lease: Lease,
    pub(super) times: Times,
}

impl<'a> Worker<'a> {
    /// A worker of `partition`, whose lease outlasts the test.
    pub(super) async fn of(subject: &'a Subject, partition: u16) -> Self {
        let archive = &*subject.archive;
        let leases = archive.acquire(&format!("worker {partition}"), PARTITIONS, 16, TTL).await;
        let mut mine = None;
        for lease in leases.expect("leases are given") {
            if lease.partition == Partition(partition) {
                mine = Some(lease);
            } else {
                archive.release(&lease).await.expect("a lease is given back");
            }
        }
        Self { archive, lease: mine.expect("the partition is free"), times: Times::new() }
    }

    pub(super) fn partition(&self) -> Partition {
        self.lease.partition
    }

    /// A batch of the frames that follow `expected_last`.
    pub(super) fn batch(&self, expected_last: FrameSeq, frames: Vec<Frame>) -> Batch {
        let through = expected_last + frames.len() as u64;
        let frames = (expected_last + 1..).zip(frames);
        let frames = frames.map(|(seq, frame)| (seq, self.times.of(seq), frame)).collect();
        Batch {
            epoch: E,
            expected_last,
            through,
            last_frame: Some(id(through)),
            frames,
            gaps: Vec::new(),
            undecodable: Vec::new(),
        }
    }

    pub(super) async fn persist(&self, batch: &Batch) -> Result<(), PersistError> {
        self.archive.persist(&self.lease, batch).await
    }

    /// Persists frames that follow `expected_last`, one event each on `name`, with data 1, 2, 3 …
    pub(super) async fn fill(&self, name: &str, expected_last: FrameSeq, frames: u64) {
        let numbers = expected_last + 1..=expected_last + frames;
        let frames = numbers.map(|seq| frame(seq, &[(name, "alice", &[json(&seq.to_string())])]));
        let batch = self.batch(expected_last, frames.collect());
        self.persist(&batch).await.expect("the batch is stored");
    }

    pub(super) async fn ledger(&self) -> Option<LedgerEntry> {
        self.archive.ledger(self.partition()).await.expect("the ledger is read")
    }

    pub(super) async fn page(&self, name: &str, query: HistoryQuery, limit: usize) -> HistoryPage {
        let name = channel(name);
        let page = self.archive.history(&name, self.partition(), query, limit, 1 << 24, START);
        page.await.expect("history is read")
    }

    /// Everything on a channel, page by page.
    pub(super) async fn all(&self, name: &str) -> Vec<StoredEvent> {
        let mut found: Vec<StoredEvent> = Vec::new();
        loop {
            let after = found.last().map_or(START, |event| event.position);
            let page = self.page(name, HistoryQuery::After(after), 500).await;
            found.extend(page.events);
            if !page.more {
                return found;
            }
        }
    }
}

/// Before the first event.
pub(super) const START: Position = Position { epoch: E, offset: Offset(0) };

pub(super) fn data(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| std::str::from_utf8(&event.data).expect("text")).collect()
}

pub(super) fn positions(events: &[StoredEvent]) -> Vec<Position> {
    events.iter().map(|event| event.position).collect()
}

/// What an event of the suite should come back as.
pub(super) fn expected(
    name: &str,
    position: Position,
    ts: Timestamp,
    user: &str,
    event: &EventParts<'_>,
) -> StoredEvent {
    StoredEvent {
        channel: channel(name),
        position,
        ts,
        id: event.id.map(str::to_owned),
        kind: event.kind.map(str::to_owned),
        key: event.key.map(str::to_owned),
        user: user.to_owned(),
        data: Bytes::copy_from_slice(event.data),
        binary: event.binary,
    }
}
