//! The live side of a gateway against a real engine, by seed: whoever joins wherever, is parked, cut off
//! and comes back, sees exactly its channels' log: no hole, nothing twice, in order.
//!
//! Two kinds of worlds. In one, hub, feeder and reader are driven step by step, with tails that lag, stop
//! and start. In the other, a tail runs as it does in a gateway, against a journal that drops, doubles and
//! exchanges live frames, answers late, with holes, and by the mouth of an old leader.
//!
//! `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many, `STORMWIRE_SEEDS=a..b` those.

mod reader;
mod tail;
mod world;

use crate::hub::Hub;
use crate::reader::Reader;
use std::sync::Arc;
use stormwire_core::{Clock, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig, PoolConfig};
use stormwire_telemetry::Tasks;
use stormwire_testkit::Folder;
use stormwire_testkit::faults::{each_seed, seeds};
use tokio::runtime::Builder;
use world::{Summary, World};

/// Seeds of a usual run of each kind.
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

#[test]
fn a_tail_repairs_whatever_the_journal_does_to_it() {
    let summaries = seeds(SEEDS, tail::run);
    let mut totals = tail::Summary::default();
    summaries.iter().for_each(|summary| totals.add(summary));
    println!("{totals:?}");
    if summaries.len() > 1 {
        assert!(totals.faults > 0 && totals.events > 0 && totals.given > 0 && totals.cuts > 0);
        assert!(totals.persisted > 0 && totals.trimmed > 0 && totals.epochs > 0);
        assert!(totals.gaps > 0, "what is lost is told");
    }
}

/// `lying-old-leader`. Proves: while one that is cut off answers from its shorter log beside the one that
/// leads, no reader is told of a gap, wherever it stands, and each is given all.
#[test]
fn lying_old_leader() {
    let summaries = seeds(20, tail::lying_old_leader);
    assert!(summaries.iter().all(|summary| summary.gaps == 0 && summary.given > 0));
}
