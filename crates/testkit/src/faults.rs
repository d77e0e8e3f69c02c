//! Faults around real engines, drawn by a seed, in virtual time.
//!
//! The code under test runs in a runtime of one thread whose clock is paused: time passes only when
//! everybody waits. An engine has threads and a time of its own, so each call to it is made at once and
//! waited for with the virtual time standing still. What goes wrong around the call, and when, is the
//! seed's. `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many, `STORMWIRE_SEEDS=a..b`
//! those.

mod archive;
mod journal;
mod seeds;

pub use archive::FaultyArchive;
pub use journal::FaultyJournal;
pub use seeds::{each_seed, seeds};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stormwire_core::{Clock, Timestamp};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// The wall clock of a world begins here.
const BEGINNING: i64 = 1_795_250_000_000;

/// One run's time, chance, and whether anything still goes wrong.
#[derive(Debug)]
pub struct World {
    chance: Mutex<StdRng>,
    clock: Arc<WorldClock>,
    started: Instant,
    /// Milliseconds of virtual time that the wall clock has followed.
    shown: AtomicI64,
    healed: AtomicBool,
    faults: AtomicU64,
}

/// The wall clock that engines are given; it may jump.
#[derive(Debug)]
pub struct WorldClock(AtomicI64);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

impl World {
    /// A world of its own; to be made inside a runtime with a paused clock.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            clock: Arc::new(WorldClock(AtomicI64::new(BEGINNING))),
            started: Instant::now(),
            shown: AtomicI64::new(0),
            healed: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        })
    }

    /// The clock for the engines.
    pub fn clock(&self) -> Arc<WorldClock> {
        Arc::clone(&self.clock)
    }

    /// Whether something of this probability happens.
    pub fn chance(&self, probability: f64) -> bool {
        self.chance.lock().random_bool(probability)
    }

    /// Whether a fault of this probability happens now: never once the world is healed.
    pub fn fault(&self, probability: f64) -> bool {
        let happens = !self.is_healed() && self.chance(probability);
        self.faults.fetch_add(u64::from(happens), Ordering::Relaxed);
        happens
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.chance.lock().random_range(0..end)
    }

    /// Waits for up to so long, by chance.
    pub async fn dawdle(&self, most: Duration) {
        let wait = most.mul_f64(self.chance.lock().random_range(0.0..1.0));
        tokio::time::sleep(wait).await;
    }

    /// From here on nothing goes wrong.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Whether nothing goes wrong any more.
    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    /// How many faults there have been.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The engines' wall clock jumps ahead.
    pub fn jump(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(0);
        self.clock.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Makes a call to an engine: on the engines' own threads, with the virtual time standing still.
    pub fn engine<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> T {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let shown = self.shown.swap(passed, Ordering::Relaxed);
        self.clock.0.fetch_add(passed - shown, Ordering::Relaxed);
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        engines().spawn(async move {
            let _ = reply.send(call.await);
        });
        answer.recv().expect("the engine answers")
    }
}

/// The runtime that engines live in, one for the whole process.
fn engines() -> &'static Runtime {
    static ENGINES: OnceLock<Runtime> = OnceLock::new();
    ENGINES.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}
