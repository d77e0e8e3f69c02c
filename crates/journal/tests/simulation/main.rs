//! Lanes and appenders of several gateways against a journal that delays, loses and reorders, by seed.
//!
//! Each seed is one run of a whole world: gateways that claim at any time, die and come back, clients
//! that lose connections and repeat, a journal whose answers are lost, late or wrong. At its end the
//! world heals, everything must be acknowledged, and the log must say exactly what was acknowledged.
//! `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` runs as many.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's own values; a panic names the seed"
)]

mod client;
mod log;
mod scenarios;
mod stage;
mod world;

use world::World;

#[test]
fn acknowledged_events_are_in_the_log_once_and_in_order_whatever_fails() {
    if let Some(seed) = number("STORMWIRE_SEED") {
        println!("{}", World::new(seed).run());
        return;
    }
    let mut totals = world::Summary::default();
    for seed in 0..number("STORMWIRE_SEEDS").unwrap_or(400) {
        let result = std::panic::catch_unwind(|| World::new(seed).run());
        match result {
            Ok(summary) => totals.add(&summary),
            Err(_) => panic!("seed {seed} failed; replay it with STORMWIRE_SEED={seed}"),
        }
    }
    println!("{totals}");
    // A world in which nothing happens proves nothing.
    assert!(totals.acknowledged > 0 && totals.duplicates > 0 && totals.fenced > 0);
    assert!(totals.unknown > 0 && totals.late > 0 && totals.out_of_order > 0);
    assert!(totals.saved > 0 && totals.loaded > 0 && totals.trimmed > 0 && totals.forgotten > 0);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
