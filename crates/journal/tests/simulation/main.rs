//! Lanes and appenders of several gateways against a journal that delays, loses and reorders, by seed.
//!
//! Each seed is one run of a whole world: gateways that claim at any time, die and come back, clients
//! that lose connections and repeat, a journal whose answers are lost, late or wrong. At its end the
//! world heals, everything must be acknowledged, and the log must say exactly what was acknowledged.
//! `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many, `STORMWIRE_SEEDS=a..b` those.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's own values; a panic names the seed"
)]

mod client;
mod log;
mod port;
mod scenarios;
mod stage;
mod world;

use stormwire_testkit::faults::each_seed;
use world::{Summary, World};

/// Seeds of a usual run.
const SEEDS: u64 = 2_000;

#[test]
fn acknowledged_events_are_in_the_log_once_and_in_order_whatever_fails() {
    let summaries = each_seed(SEEDS, |seed| World::new(seed).run());
    let mut totals = Summary::default();
    summaries.iter().for_each(|summary| totals.add(summary));
    println!("{totals}");
    // A world in which nothing happens proves nothing.
    if summaries.len() > 1 {
        assert!(totals.acknowledged > 0 && totals.duplicates > 0 && totals.fenced > 0);
        assert!(totals.unknown > 0 && totals.late > 0 && totals.out_of_order > 0);
        assert!(totals.saved > 0 && totals.loaded > 0 && totals.trimmed > 0);
        assert!(
            totals.forgotten > 0 && totals.rewinds > 0 && totals.found > 0 && totals.epochs > 0
        );
    }
}
