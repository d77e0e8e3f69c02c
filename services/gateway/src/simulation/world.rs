//! The world of one seed: logs of two partitions, their tails' progress, and the readers.

use super::Server;
use super::reader::{SimReader, Want};
use crate::hub::{Hub, RecentFrame, Standing};
use crate::reader::{HistoryBounds, Reader};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, Batch, Lease};
use stormwire_core::{
    Channel, Epoch, FrameSeq, Offset, Partition, PartitionCount, Position, Timestamp,
};
use stormwire_embedded::Embedded;
use stormwire_journal::Journal;
use stormwire_telemetry::Tasks;
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};
use stormwire_wire::protocol::Mode;
use tokio::time::Instant;

/// Steps of one seed.
const STEPS: usize = 120;
/// How long the end may take: readers are given what is left.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happened in all worlds.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) events: usize,
    pub(super) given: usize,
    pub(super) left_out: usize,
    pub(super) parked: usize,
    pub(super) cuts: usize,
    pub(super) persisted: u64,
    pub(super) trimmed: u64,
    pub(super) restarts: usize,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.given += other.given;
        self.left_out += other.left_out;
        self.parked += other.parked;
        self.cuts += other.cuts;
        self.persisted += other.persisted;
        self.trimmed += other.trimmed;
        self.restarts += other.restarts;
    }
}

/// An event as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) channel: String,
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) key: Option<String>,
}

impl Logged {
    /// A frame of some random events on these channels.
    pub(super) fn frame(
        rng: &mut StdRng,
        channels: &[Channel],
        partition: Partition,
        (epoch, seq): (Epoch, FrameSeq),
    ) -> (Bytes, Vec<Self>) {
        let (mut builder, mut logged, mut index) = (FrameBuilder::default(), Vec::new(), 0);
        for _ in 0..rng.random_range(1..6) {
            let channel = &channels[rng.random_range(0..channels.len())];
            let mut events = EventsBuilder::default();
            for _ in 0..rng.random_range(1..4) {
                let key = rng.random_range(0..5usize);
                let key = (key > 0).then(|| format!("k{key}"));
                let filler = "x".repeat(rng.random_range(0..60));
                let data = format!("\"{filler}\"");
                let parts = EventParts {
                    key: key.as_deref(),
                    data: data.as_bytes(),
                    ..EventParts::default()
                };
                events.push(&parts).unwrap();
                let position = Position { epoch, offset: Offset::new(seq, index) };
                let channel = channel.to_string();
                logged.push(Self { channel, partition, position, key });
                index += 1;
            }
            builder.push(channel, "alice", "", 0, None, &events.take());
        }
        (builder.finish(FrameId { appender: [1; 16], counter: seq }), logged)
    }
}

struct Log {
    lease: Lease,
    epoch: Epoch,
    /// Before this world.
    base: FrameSeq,
    last: FrameSeq,
    /// What the tail has handed to the feed; none while it is stopped.
    delivered: Option<FrameSeq>,
    persisted: FrameSeq,
    frames: Vec<(FrameSeq, Timestamp, Bytes)>,
}

pub(super) struct World {
    rng: StdRng,
    server: Server,
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    channels: Vec<Channel>,
    namespace: String,
    logs: Vec<Log>,
    events: Vec<Logged>,
    readers: Vec<SimReader>,
    summary: Summary,
}

impl World {
    pub(super) async fn new(seed: u64, engine: &Embedded) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = PartitionCount::new(2).unwrap();
        let (journal, archive) = (engine.journal(), engine.archive());
        let hub = Arc::new(Hub::new(count, rng.random_range(300..6_000)));
        let reader = Arc::new(Reader::new(
            Arc::clone(&hub),
            Arc::clone(&journal),
            Arc::clone(&archive),
            HistoryBounds::default(),
        ));
        let worker = format!("worker {seed}");
        let mut logs = Vec::new();
        for lease in archive.acquire(&worker, count, 2, Duration::from_secs(300)).await.unwrap() {
            let tip = journal.open(lease.partition).await.unwrap();
            let ledger = archive.ledger(lease.partition).await.unwrap();
            let persisted = ledger.map_or(0, |entry| entry.last_seq);
            let standing = Standing { epoch: tip.epoch, last: tip.last };
            hub.feeds()[usize::from(lease.partition.0)].start(standing);
            logs.push(Log {
                lease,
                epoch: tip.epoch,
                base: tip.last,
                last: tip.last,
                delivered: Some(tip.last),
                persisted,
                frames: Vec::new(),
            });
        }
        logs.sort_by_key(|log| log.lease.partition);
        assert_eq!(logs.len(), 2, "both partitions are free");
        let namespace = format!("n{seed}");
        let names = ["a", "b", "c", "s.a", "s.b", "s.c"].map(|name| format!("{namespace}:{name}"));
        let beside = ["a", "s.a"].map(|name| format!("{namespace}x:{name}"));
        let channels = names.iter().chain(&beside);
        let channels = channels.map(|name| Channel::parse(name).unwrap()).collect();
        let (events, readers, summary) = (Vec::new(), Vec::new(), Summary::default());
        let server = Server { hub, reader, tasks: Tasks::new() };
        Self { rng, server, journal, archive, channels, namespace, logs, events, readers, summary }
    }

    pub(super) async fn run(mut self) -> Summary {
        for _ in 0..STEPS {
            match self.rng.random_range(0..20) {
                0..6 => self.publish().await,
                6..10 => self.tail(),
                10 => self.restart_tail(),
                11 => self.persist().await,
                12 => self.trim().await,
                13 if self.readers.len() < 8 => self.join(),
                14 => self.cut(),
                _ => self.drain(),
            }
            match self.rng.random_range(0..8) {
                0 => tokio::time::sleep(Duration::from_millis(1)).await,
                turns => {
                    for _ in 0..turns / 2 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        self.end().await;
        for log in &self.logs {
            self.archive.release(&log.lease).await.unwrap();
        }
        self.server.tasks.shutdown();
        self.summary
    }

    fn which(&mut self) -> usize {
        self.rng.random_range(0..self.logs.len())
    }

    async fn publish(&mut self) {
        let which = self.which();
        let (partition, epoch) = (self.logs[which].lease.partition, self.logs[which].epoch);
        let seq = self.logs[which].last + 1;
        let count = self.server.hub.partitions();
        let here = self.channels.iter().filter(|channel| channel.partition(count) == partition);
        let here: Vec<_> = here.cloned().collect();
        if here.is_empty() {
            return;
        }
        let (bytes, logged) = Logged::frame(&mut self.rng, &here, partition, (epoch, seq));
        self.events.extend(logged);
        let appended = self.journal.append(partition, epoch, seq - 1, bytes).await;
        assert_eq!(appended.unwrap(), seq);
        let stored = self.journal.frame(partition, epoch, seq).await.unwrap().unwrap();
        let log = &mut self.logs[which];
        log.last = seq;
        log.frames.push((seq, stored.ts, stored.bytes));
    }

    /// A tail hands some frames on.
    fn tail(&mut self) {
        let which = self.which();
        let frames = self.rng.random_range(1..5);
        self.deliver(which, frames);
    }

    fn deliver(&mut self, which: usize, frames: u64) {
        let log = &mut self.logs[which];
        let Some(delivered) = &mut log.delivered else { return };
        let feed = &self.server.hub.feeds()[usize::from(log.lease.partition.0)];
        for (seq, ts, bytes) in &log.frames {
            if *seq > *delivered && *seq <= log.last && *seq - *delivered <= frames {
                feed.deliver(*seq, *ts, &Frame::decode(bytes).unwrap(), bytes.len());
            }
        }
        *delivered = (*delivered + frames).min(log.last);
    }

    /// A tail stops, starts at the tip, or finds that it cannot follow.
    fn restart_tail(&mut self) {
        let which = self.which();
        let (again, primes) = (self.rng.random_range(0..3), self.rng.random());
        let log = &mut self.logs[which];
        let feed = &self.server.hub.feeds()[usize::from(log.lease.partition.0)];
        let standing = Standing { epoch: log.epoch, last: log.last };
        self.summary.restarts += 1;
        if log.delivered.is_some() && again == 0 {
            feed.stop();
            log.delivered = None;
            return;
        }
        if log.delivered.is_some() {
            feed.skip_to(standing);
        } else {
            feed.start(standing);
        }
        log.delivered = Some(log.last);
        if primes {
            let frames = log.frames.iter().map(|(seq, ts, bytes)| RecentFrame {
                seq: *seq,
                ts: *ts,
                events: Frame::decode(bytes).unwrap().events().cloned(),
                bytes: bytes.len(),
            });
            feed.prime(frames);
        }
    }

    async fn persist(&mut self) {
        let which = self.which();
        let share = self.rng.random_range(1..=4);
        let log = &mut self.logs[which];
        let through = log.persisted + (log.last - log.persisted) * share / 4;
        if through <= log.persisted.max(log.base) {
            return;
        }
        let frames = log.frames.iter().filter(|(seq, ..)| *seq > log.persisted && *seq <= through);
        let frames = frames.map(|(seq, ts, bytes)| (*seq, *ts, Frame::decode(bytes).unwrap()));
        let batch = Batch {
            epoch: log.epoch,
            expected_last: log.persisted,
            through,
            last_frame: None,
            frames: frames.collect(),
            gaps: Vec::new(),
            undecodable: Vec::new(),
        };
        self.archive.persist(&log.lease, &batch).await.unwrap();
        self.summary.persisted += through - log.persisted;
        log.persisted = through;
    }

    async fn trim(&mut self) {
        let which = self.which();
        let log = &self.logs[which];
        self.journal.trim(log.lease.partition, log.epoch, log.persisted).await.unwrap();
        self.summary.trimmed += 1;
    }

    /// Somebody comes, wherever it stands.
    fn join(&mut self) {
        let mode = if self.rng.random_range(0..3) == 0 { Mode::Latest } else { Mode::All };
        let want = match self.rng.random_range(0..5) {
            0 => Want::Pattern(format!("{}:", self.namespace)),
            1 => Want::Pattern(format!("{}:s.", self.namespace)),
            _ => {
                let at = self.rng.random_range(0..self.channels.len());
                Want::Channel(self.channels[at].clone())
            }
        };
        let mut start = Vec::new();
        for log in &self.logs {
            let seq = self.rng.random_range(log.base..=log.last);
            // Between two events of a frame, as a reader may well stand.
            let index = if seq == log.base { 4095 } else { self.rng.random_range(0..4) };
            start.push(Position { epoch: log.epoch, offset: Offset::new(seq, index) });
        }
        let bound = self.rng.random_range(300..3_000);
        let reader = SimReader::join(&self.server, want, mode, start, bound);
        self.readers.push(reader);
    }

    /// A reader's connection is cut with all that it has not read, and comes back.
    fn cut(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        self.summary.cuts += 1;
        let at = self.rng.random_range(0..self.readers.len());
        let mut reader = self.readers.remove(at);
        reader.cut(&self.server);
        self.readers.push(reader);
    }

    /// A reader reads what waits for it.
    fn drain(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.random_range(0..self.readers.len());
            self.drain_one(at);
        }
    }

    fn drain_one(&mut self, at: usize) {
        let mut reader = self.readers.remove(at);
        self.summary.parked += reader.drain(&self.server);
        self.readers.push(reader);
    }

    /// The tails deliver the rest, everybody reads, and what each has seen is compared with the log.
    async fn end(&mut self) {
        for which in 0..self.logs.len() {
            if self.logs[which].delivered.is_none() {
                let log = &mut self.logs[which];
                let standing = Standing { epoch: log.epoch, last: log.last };
                self.server.hub.feeds()[usize::from(log.lease.partition.0)].start(standing);
                log.delivered = Some(log.last);
            }
            self.deliver(which, u64::MAX / 2);
        }
        let deadline = Instant::now() + PATIENCE;
        // Twice more than needed, so that what would come twice has come.
        let mut complete = 0;
        while complete < 3 {
            assert!(Instant::now() < deadline, "{}", self.missing());
            for _ in 0..self.readers.len() {
                self.drain_one(0);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            let is_complete = self.readers.iter().all(|reader| reader.is_complete(&self.events));
            complete = if is_complete { complete + 1 } else { 0 };
        }
        self.summary.events += self.events.len();
        for reader in &self.readers {
            assert_eq!(reader.gaps(), [], "nothing is missing");
            let (given, left_out) = reader.check(&self.events);
            self.summary.given += given;
            self.summary.left_out += left_out;
        }
    }

    fn missing(&self) -> String {
        let lacking = self.readers.iter().filter(|reader| !reader.is_complete(&self.events));
        let lacking: Vec<_> = lacking.map(|reader| reader.describe(&self.events)).collect();
        format!("readers are left short: {lacking:#?}")
    }
}
