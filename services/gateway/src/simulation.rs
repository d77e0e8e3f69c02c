//! The live side of a gateway against a real engine, by seed: whoever joins wherever, is parked, cut off
//! and comes back, sees exactly its channels' log: no hole, nothing twice, in order.
//!
//! Hub, feeder and reader are driven step by step, while frames are published, persisted and trimmed and
//! tails lag, stop and start.
//!
//! `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many, `STORMWIRE_SEEDS=a..b` those.

mod reader;
mod world;

use crate::hub::Hub;
use crate::reader::Reader;
use std::sync::Arc;
use stormwire_core::{Clock, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig, PoolConfig};
use stormwire_telemetry::Tasks;
use stormwire_testkit::Folder;
use stormwire_testkit::faults::each_seed;
use tokio::runtime::Builder;
use world::{Summary, World};

/// Seeds of a usual run.
const SEEDS: u64 = 500;

/// What a client meets.
struct Server {
    hub: Arc<Hub>,
    reader: Arc<Reader>,
    tasks: Tasks,
}

/// A store of its own for one seed.
async fn engine(folder: &Folder, clock: Arc<dyn Clock>) -> Embedded {
    let pool = PoolConfig { connections: 2, ..PoolConfig::default() };
    let config = EmbeddedConfig {
        journal_pool: pool.clone(),
        archive_pool: pool,
        ..EmbeddedConfig::default()
    };
    let file = folder.path().join(stormwire_embedded::FILE_NAME);
    Embedded::open(file, config, clock).await.unwrap()
}

#[test]
fn each_reader_sees_exactly_its_log_whatever_happens_on_the_way() {
    let summaries = each_seed(SEEDS, |seed| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::in_memory("hub").unwrap();
            let engine = engine(&folder, Arc::new(SystemClock)).await;
            let summary = World::new(seed, &engine).await.run().await;
            engine.close().await;
            summary
        })
    });
    let mut totals = Summary::default();
    summaries.iter().for_each(|summary| totals.add(summary));
    println!("{totals:?}");
    // A world in which nothing happens proves nothing.
    if summaries.len() > 1 {
        assert!(totals.events > 0 && totals.given > 0 && totals.parked > 0 && totals.cuts > 0);
        assert!(totals.persisted > 0 && totals.trimmed > 0 && totals.restarts > 0);
        assert!(totals.left_out > 0, "latest leaves something out");
    }
}
