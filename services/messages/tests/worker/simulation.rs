//! Several workers in virtual time, with faults drawn by a seed: answers that are lost after a commit,
//! commits that come when the lease is over, killed workers, clock jumps, live frames and pages with
//! holes, old leaders. Whatever happens, each event is stored once and in order, and in the end all.

use crate::kit::{config, frame_of};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive as _, HistoryQuery};
use stormwire_core::{Channel, Clock, Epoch, FrameSeq, Offset, Partition, Position};
use stormwire_embedded::{Embedded, EmbeddedConfig, PoolConfig};
use stormwire_messages::{MessagesConfig, Worker};
use stormwire_testkit::faults::{FaultyArchive, FaultyJournal, World, seeds};
use stormwire_testkit::{Decorated, Folder};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u16 = 2;
const FRAMES: FrameSeq = 24;
const EVENTS: usize = 2;
/// Seeds of a usual run.
const SEEDS: u64 = 300;
/// Virtual time within which a healed world has stored everything.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

struct Simulation {
    world: Arc<World>,
    journal: Arc<Decorated<FaultyJournal>>,
    archive: Arc<FaultyArchive>,
    lost: Vec<(Partition, FrameSeq)>,
}

fn channel(partition: Partition) -> Channel {
    Channel::parse(&format!("p:{partition}")).unwrap()
}

impl Simulation {
    /// A worker that may be killed, or asked to end.
    fn worker(&self, name: &str) -> (CancellationToken, JoinHandle<()>) {
        let config = MessagesConfig {
            name: name.to_owned(),
            batch_events: 20,
            lease: Duration::from_secs(3),
            hole_proof: Duration::from_secs(2),
            ..config(PARTITIONS)
        };
        let (journal, archive) = (Arc::clone(&self.journal), Arc::clone(&self.archive));
        let worker = Worker::new(journal, archive, config, self.world.clock());
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(worker.run(stop)))
    }

    async fn persisted(&self, partition: Partition) -> FrameSeq {
        self.archive.ledger(partition).await.unwrap().map_or(0, |entry| entry.last_seq)
    }

    /// Frames come while workers come, are killed and leave, and the clock jumps.
    async fn trouble(&mut self) {
        let mut workers = Vec::new();
        let mut names = 0;
        let mut next = [1; PARTITIONS as usize];
        while next.iter().any(|next| *next <= FRAMES) {
            let p = Partition(u16::try_from(self.world.below(PARTITIONS.into())).unwrap());
            let seq = &mut next[usize::from(p.0)];
            if *seq <= FRAMES {
                let is_lost = self.world.fault(0.03);
                let frame = frame_of(&[&channel(p)], *seq, EVENTS);
                self.journal.write(p, Epoch::FIRST, *seq, frame, is_lost);
                self.lost.extend(is_lost.then_some((p, *seq)));
                *seq += 1;
            }
            if workers.len() < 3 && self.world.chance(0.2) {
                names += 1;
                workers.push(self.worker(&format!("worker-{names}")));
            }
            if !workers.is_empty() && self.world.fault(0.06) {
                let at = usize::try_from(self.world.below(workers.len() as u64)).unwrap();
                let (stop, task) = workers.swap_remove(at);
                if self.world.chance(0.5) { stop.cancel() } else { task.abort() }
            }
            if self.world.fault(0.02) {
                self.world.jump(Duration::from_secs(self.world.below(10)));
            }
            self.world.dawdle(Duration::from_millis(500)).await;
        }
        for (_, task) in workers {
            task.abort();
        }
    }

    /// What is stored of a partition, as the events say.
    async fn stored(&self, partition: Partition) -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), Position { epoch: Epoch(0), offset: Offset(0) });
        loop {
            let query = HistoryQuery::After(after);
            let channel = channel(partition);
            let page = self
                .archive
                .history(&channel, partition, query, 1000, 1 << 20, crate::kit::NOWHERE)
                .await
                .unwrap();
            let Some(last) = page.events.last() else { return found };
            after = last.position;
            found.extend(page.events.iter().map(|e| String::from_utf8(e.data.to_vec()).unwrap()));
        }
    }

    async fn check(&self) {
        assert!(self.archive.violations().is_empty(), "{:?}", self.archive.violations());
        let _last = self.worker("last");
        let until = Instant::now() + HEALED_WITHIN;
        for p in (0..PARTITIONS).map(Partition) {
            // A frame that is lost at the very end is no hole: nothing follows it.
            while self.persisted(p).await < FRAMES {
                assert!(Instant::now() < until, "partition {p} is stored to its end");
                sleep(Duration::from_millis(200)).await;
            }
            let due = (1..=FRAMES).filter(|seq| !self.lost.contains(&(p, *seq)));
            let due = due.flat_map(|seq| (0..EVENTS).map(move |i| format!("[{seq},{i}]")));
            assert_eq!(self.stored(p).await, due.collect::<Vec<_>>(), "partition {p}");
        }
    }
}

/// One run; how many batches were refused for their lease or their place.
async fn run(seed: u64) -> u64 {
    let world = World::new(seed);
    let clock: Arc<dyn Clock> = world.clock();
    let folder = Folder::in_memory("simulation").unwrap();
    let path = folder.path().join(stormwire_embedded::FILE_NAME);
    let pool = PoolConfig { connections: 3, ..PoolConfig::default() };
    let config = EmbeddedConfig {
        journal_pool: pool.clone(),
        archive_pool: pool,
        ..EmbeddedConfig::default()
    };
    let engine = world.engine(async move { Embedded::open(path, config, clock).await }).unwrap();
    let (journal, archive) = (engine.journal(), engine.archive());
    let opened = Arc::clone(&journal);
    world.engine(async move {
        for p in (0..PARTITIONS).map(Partition) {
            opened.open(p).await.unwrap();
        }
    });
    let mut simulation = Simulation {
        journal: FaultyJournal::new(&world, journal),
        archive: FaultyArchive::new(&world, archive),
        world: Arc::clone(&world),
        lost: Vec::new(),
    };
    simulation.trouble().await;
    world.heal();
    simulation.check().await;
    assert!(simulation.archive.commits() > 0);
    let violations = simulation.archive.violations();
    assert!(violations.is_empty(), "{violations:?}");
    let stale = simulation.archive.stale();
    drop(simulation);
    world.engine(engine.close());
    stale
}

#[test]
fn every_event_is_stored_once_and_in_order_whatever_fails() {
    let stale: u64 = seeds(SEEDS, run).into_iter().sum();
    assert!(stale > 0, "no worker was ever too late: nothing is proved");
}
