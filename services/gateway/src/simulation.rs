//! Hub, feeder and reader against a real engine, by seed: whoever joins wherever, is parked, cut off and
//! comes back, while frames are published, persisted and trimmed and tails lag, stop and start, sees
//! exactly its channels' log: no hole, nothing twice, in order.
//!
//! `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many.

mod reader;
mod world;

use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_testkit::faults::number;
use world::{Summary, World};

/// Seeds of a usual run.
const SEEDS: u64 = 150;

#[tokio::test]
async fn each_reader_sees_exactly_its_log_whatever_happens_on_the_way() {
    // In memory where there is such a place: no seed is about the disk.
    let memory = std::path::PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let dir = place.join(format!("stormwire-hub-{:x}", rand::random::<u64>()));
    std::fs::create_dir_all(&dir).unwrap();
    let clock = Arc::new(SystemClock);
    let engine = Embedded::open(dir.join("stormwire.db"), EmbeddedConfig::default(), clock);
    let engine = engine.await.unwrap();
    let seeds = match number("STORMWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORMWIRE_SEEDS").unwrap_or(SEEDS),
    };
    let several = seeds.end - seeds.start > 1;
    let mut totals = Summary::default();
    for seed in seeds {
        println!("seed {seed}: replay it with STORMWIRE_SEED={seed}");
        totals.add(&World::new(seed, &engine).await.run().await);
    }
    println!("{totals:?}");
    // A world in which nothing happens proves nothing.
    if several {
        assert!(totals.events > 0 && totals.given > 0 && totals.parked > 0 && totals.cuts > 0);
        assert!(totals.persisted > 0 && totals.trimmed > 0 && totals.restarts > 0);
        assert!(totals.left_out > 0, "latest leaves something out");
    }
    engine.close().await;
    let _ = std::fs::remove_dir_all(&dir);
}
