//! Worlds in which tails run: frames are written to a journal whose live side and answers go wrong, epochs
//! end, workers persist and trim, frames are lost for good; readers come, are cut off and come back.

use super::reader::{SimReader, Want};
use super::world::Logged;
use super::{Server, engine};
use crate::hub::Hub;
use crate::reader::{HistoryBounds, Reader};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, Batch, Gap, Lease};
use stormwire_core::{Channel, Clock, Epoch, FrameSeq, Offset, PartitionCount, Position};
use stormwire_embedded::Embedded;
use stormwire_journal::{Journal, StoredFrame};
use stormwire_telemetry::Tasks;
use stormwire_testkit::faults::{FaultyArchive, FaultyJournal, World};
use stormwire_testkit::{Decorated, Folder};
use stormwire_wire::frame::{self, Frame, FrameId};
use stormwire_wire::protocol::Mode;
use tokio::time::{Instant, sleep};

const PARTITIONS: u16 = 2;
const STEPS: usize = 70;
/// Virtual time within which a healed world has given everything.
const HEALED_WITHIN: Duration = Duration::from_secs(120);
/// How far an epoch begins above the end of the one before.
const MARGIN: FrameSeq = 1_000;

/// What happened in all worlds.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) faults: u64,
    pub(super) events: usize,
    pub(super) given: usize,
    pub(super) cuts: usize,
    pub(super) persisted: usize,
    pub(super) trimmed: usize,
    pub(super) epochs: usize,
    pub(super) gaps: usize,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Self) {
        self.faults += other.faults;
        self.events += other.events;
        self.given += other.given;
        self.cuts += other.cuts;
        self.persisted += other.persisted;
        self.trimmed += other.trimmed;
        self.epochs += other.epochs;
        self.gaps += other.gaps;
    }
}

/// What was written to a partition.
struct Log {
    lease: Lease,
    epoch: Epoch,
    last: FrameSeq,
    frames: Vec<(StoredFrame, bool)>,
    /// How many of `frames` are persisted, and where the ledger stands.
    persisted: usize,
    ledger: (Epoch, FrameSeq),
}

struct TailWorld {
    world: Arc<World>,
    rng: StdRng,
    server: Server,
    faulty: Arc<Decorated<FaultyJournal>>,
    /// The stores without their faults.
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    channels: Vec<Channel>,
    logs: Vec<Log>,
    events: Vec<Logged>,
    /// Events that nobody will find again.
    lost: Vec<Logged>,
    readers: Vec<SimReader>,
    summary: Summary,
}

/// One run.
pub(super) async fn run(seed: u64) -> Summary {
    let world = World::new(seed);
    let folder = Arc::new(Folder::in_memory("tail").unwrap());
    let (place, clock) = (Arc::clone(&folder), world.clock());
    let engine = world.engine(async move { engine(&place, clock as Arc<dyn Clock>).await });
    let mut tails = TailWorld::new(seed, &world, &engine);
    tails.trouble().await;
    world.heal();
    let summary = tails.end().await;
    drop(tails);
    world.engine(engine.close());
    summary
}

impl TailWorld {
    fn new(seed: u64, world: &Arc<World>, engine: &Embedded) -> Self {
        let mut rng = StdRng::seed_from_u64(!seed);
        let count = PartitionCount::new(PARTITIONS).unwrap();
        let (journal, archive) = (engine.journal(), engine.archive());
        let logs = Self::logs(world, &journal, &archive, count);
        let faulty = FaultyJournal::new(world, Arc::clone(&journal));
        let hub = Arc::new(Hub::new(count, rng.random_range(300..6_000)));
        let port = Arc::clone(&faulty) as Arc<dyn Journal>;
        let wrong = FaultyArchive::new(world, Arc::clone(&archive));
        let bounds = HistoryBounds::default();
        let reader = Reader::new(Arc::clone(&hub), Arc::clone(&port), wrong, bounds);
        let reader = Arc::new(reader);
        let tasks = Tasks::new();
        for feed in hub.feeds() {
            let tail = crate::tail::run(Arc::clone(feed), Arc::clone(&port), tasks.token());
            tasks.spawn("tail", tail);
        }
        let names = ["n:a", "n:b", "n:c", "n:s.a", "n:s.b", "n:s.c"];
        Self {
            world: Arc::clone(world),
            rng,
            server: Server { hub, reader, tasks },
            faulty,
            journal,
            archive,
            channels: names.map(|name| Channel::parse(name).unwrap()).to_vec(),
            logs,
            events: Vec::new(),
            lost: Vec::new(),
            readers: Vec::new(),
            summary: Summary::default(),
        }
    }

    fn logs(
        world: &World,
        journal: &Arc<dyn Journal>,
        archive: &Arc<dyn Archive>,
        count: PartitionCount,
    ) -> Vec<Log> {
        let (journal, archive) = (Arc::clone(journal), Arc::clone(archive));
        let mut leases = world.engine(async move {
            for partition in count.all() {
                journal.open(partition).await.unwrap();
            }
            let ttl = Duration::from_secs(3_600);
            archive.acquire("worker", count, PARTITIONS.into(), ttl).await.unwrap()
        });
        leases.sort_by_key(|lease| lease.partition);
        let log = |lease| Log {
            lease,
            epoch: Epoch::FIRST,
            last: 0,
            frames: Vec::new(),
            persisted: 0,
            ledger: (Epoch::FIRST, 0),
        };
        leases.into_iter().map(log).collect()
    }

    async fn trouble(&mut self) {
        for _ in 0..STEPS {
            match self.rng.random_range(0..32) {
                0..13 => self.publish(),
                13 => self.begin_epoch(),
                14..16 => self.persist(),
                16 => self.trim(),
                17..20 if self.readers.len() < 6 => self.join(),
                20..22 => self.cut(),
                _ => self.drain(),
            }
            let most = if self.rng.random_bool(0.1) { 3_000 } else { 200 };
            self.world.dawdle(Duration::from_millis(most)).await;
        }
    }

    fn which(&mut self) -> usize {
        self.rng.random_range(0..self.logs.len())
    }

    fn publish(&mut self) {
        let which = self.which();
        let count = self.server.hub.partitions();
        let partition = self.logs[which].lease.partition;
        let here = self.channels.iter().filter(|channel| channel.partition(count) == partition);
        let here: Vec<_> = here.cloned().collect();
        self.write(which, &here);
    }

    fn write(&mut self, which: usize, here: &[Channel]) {
        let is_lost = self.world.fault(0.03);
        let partition = self.logs[which].lease.partition;
        let at = (self.logs[which].epoch, self.logs[which].last + 1);
        let (bytes, logged) = Logged::frame(&mut self.rng, here, partition, at);
        let log = &mut self.logs[which];
        let stored = self.faulty.write(partition, at.0, at.1, bytes, is_lost);
        log.last = at.1;
        log.frames.push((stored, is_lost));
        if is_lost { self.lost.extend(logged) } else { self.events.extend(logged) }
    }

    /// The epoch ends in its own log, and the next one begins a moment later.
    fn begin_epoch(&mut self) {
        let which = self.which();
        let loses = self.rng.random_bool(0.3);
        let log = &mut self.logs[which];
        let partition = log.lease.partition;
        let (next, seq) = (Epoch(log.epoch.0 + 1), log.last + 1);
        let first = seq + MARGIN;
        // What was lost was behind all that anybody has seen.
        let lost_from = loses.then_some(seq);
        let id = FrameId { appender: [2; 16], counter: seq };
        let close = frame::close(id, next, first, lost_from);
        let stored = self.faulty.write(partition, log.epoch, seq, close, false);
        log.frames.push((stored, false));
        (log.epoch, log.last) = (next, first - 1);
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move { journal.begin(partition, next, first).await }).unwrap();
        self.summary.epochs += 1;
    }

    /// As a worker does it.
    fn persist(&mut self) {
        let which = self.which();
        let log = &mut self.logs[which];
        let share = self.rng.random_range(0..=log.frames.len() - log.persisted);
        let due: Vec<_> = log.frames[log.persisted..][..share].to_vec();
        for (stored, is_lost) in due {
            let (epoch, last) = log.ledger;
            let mut batch = Batch {
                epoch: stored.epoch,
                expected_last: last,
                through: stored.seq,
                last_frame: None,
                frames: Vec::new(),
                gaps: Vec::new(),
                undecodable: Vec::new(),
            };
            if stored.epoch > epoch {
                let over = Batch { through: stored.seq - 1, ..batch.clone() };
                batch.expected_last = over.through;
                Self::commit(&self.world, &self.archive, &log.lease, over);
            }
            if is_lost {
                let (from, to) = (Offset::new(stored.seq, 0), Offset::new(stored.seq, 4095));
                let reason = "hole".to_owned();
                batch.gaps.push(Gap { epoch: stored.epoch, from, to, reason });
            } else {
                let decoded = Frame::decode(&stored.bytes).unwrap();
                batch.frames.push((stored.seq, stored.ts, decoded));
            }
            Self::commit(&self.world, &self.archive, &log.lease, batch);
            log.ledger = (stored.epoch, stored.seq);
        }
        log.persisted += share;
        self.summary.persisted += share;
    }

    fn commit(world: &World, archive: &Arc<dyn Archive>, lease: &Lease, batch: Batch) {
        let (archive, lease) = (Arc::clone(archive), lease.clone());
        world.engine(async move { archive.persist(&lease, &batch).await }).unwrap();
    }

    /// What is persisted may leave the journal, with the logs of epochs that are over.
    fn trim(&mut self) {
        let which = self.which();
        let log = &self.logs[which];
        let (partition, (epoch, last), current) = (log.lease.partition, log.ledger, log.epoch);
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move {
            if epoch == current {
                journal.trim(partition, epoch, last).await.unwrap();
            }
            for over in (1..epoch.0).map(Epoch) {
                journal.remove(partition, over).await.unwrap();
            }
        });
        self.summary.trimmed += 1;
    }

    /// Somebody comes, wherever it stands.
    fn join(&mut self) {
        let mode = if self.rng.random_range(0..4) == 0 { Mode::Latest } else { Mode::All };
        let want = match self.rng.random_range(0..5) {
            0 => Want::Pattern("n:".to_owned()),
            1 => Want::Pattern("n:s.".to_owned()),
            _ => {
                let at = self.rng.random_range(0..self.channels.len());
                Want::Channel(self.channels[at].clone())
            }
        };
        let mut start = Vec::new();
        for log in &self.logs {
            let at = self.rng.random_range(0..=log.frames.len());
            start.push(match at.checked_sub(1).map(|at| &log.frames[at].0) {
                None => Position { epoch: Epoch::FIRST, offset: Offset(0) },
                Some(StoredFrame { epoch, seq, .. }) => {
                    Position { epoch: *epoch, offset: Offset::new(*seq, 4095) }
                }
            });
        }
        let bound = self.rng.random_range(300..3_000);
        let reader = SimReader::join(&self.server, want, mode, start, bound);
        self.readers.push(reader);
    }

    /// A reader's connection is cut with all that it has not read, and comes back.
    fn cut(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.random_range(0..self.readers.len());
            self.readers[at].cut(&self.server);
            self.summary.cuts += 1;
        }
    }

    fn drain(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.random_range(0..self.readers.len());
            self.readers[at].drain(&self.server);
        }
    }

    /// Everybody reads to the end, and what each has seen is compared with the log.
    async fn end(&mut self) -> Summary {
        // What is lost at the very end is no hole: something has to follow it, for everybody.
        let count = self.server.hub.partitions();
        for channel in self.channels.clone() {
            let which = usize::from(channel.partition(count).0);
            self.write(which, std::slice::from_ref(&channel));
        }
        // The last live frames may have been lost: nothing but the tip tells of them.
        let until = Instant::now() + HEALED_WITHIN;
        let mut complete = 0;
        while complete < 3 {
            assert!(Instant::now() < until, "{}", self.missing());
            self.readers.iter_mut().for_each(|reader| _ = reader.drain(&self.server));
            sleep(Duration::from_millis(200)).await;
            let is_complete = self.readers.iter().all(|reader| reader.is_complete(&self.events));
            complete = if is_complete { complete + 1 } else { 0 };
        }
        let mut summary = std::mem::take(&mut self.summary);
        (summary.faults, summary.events) = (self.world.faults(), self.events.len());
        for reader in &self.readers {
            let (given, _) = reader.check(&self.events);
            summary.given += given;
            summary.gaps += reader.gaps().len();
            reader.check_gaps(&self.events, &self.lost);
        }
        self.server.tasks.shutdown();
        summary
    }

    fn missing(&self) -> String {
        let lacking = self.readers.iter().filter(|reader| !reader.is_complete(&self.events));
        let lacking: Vec<_> = lacking.map(|reader| reader.describe(&self.events)).collect();
        let standings = self.server.hub.feeds().iter().map(|feed| feed.standing());
        format!(
            "readers are left short: {lacking:#?}, tails at {:?}",
            standings.collect::<Vec<_>>()
        )
    }
}

/// `lying-old-leader`: see the test of that name.
pub(super) async fn lying_old_leader(seed: u64) -> Summary {
    let world = World::new(seed);
    world.heal();
    let folder = Arc::new(Folder::in_memory("leader").unwrap());
    let (place, clock) = (Arc::clone(&folder), world.clock());
    let engine = world.engine(async move { engine(&place, clock as Arc<dyn Clock>).await });
    let mut tails = TailWorld::new(seed, &world, &engine);
    for _ in 0..60 {
        tails.publish();
    }
    for which in 0..tails.logs.len() {
        let Log { lease, epoch, last, .. } = &tails.logs[which];
        tails.faulty.cut_off(lease.partition, *epoch, last - 10);
    }
    // Some stand below the end that it names, some above.
    for _ in 0..6 {
        tails.join();
    }
    let summary = tails.end().await;
    drop(tails);
    world.engine(engine.close());
    summary
}
