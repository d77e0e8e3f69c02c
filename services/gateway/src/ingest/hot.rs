//! Which channels are published to most, estimated: every 16th publish is counted for sixteen, in a table
//! of bounded size that forgets what is old.

use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;
use stormwire_core::Channel;
use tokio::time::Instant;

/// One publish in so many is counted.
const SAMPLED: u32 = 16;
/// Channels counted at a time; at the bound those that weigh least are forgotten.
const CHANNELS_MAX: usize = 2048;
/// After so long a count weighs half.
const HALF_LIFE: Duration = Duration::from_secs(5);

thread_local! {
    /// Publishes until the next one is counted: no cache line is shared for those that are not.
    static SKIPPED: Cell<u32> = const { Cell::new(0) };
}

/// The counts of one gateway.
#[derive(Debug)]
pub(super) struct Hot {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    weights: HashMap<Channel, f64>,
    at: Instant,
}

impl Hot {
    pub(super) fn new() -> Self {
        Self { table: Mutex::new(Table { weights: HashMap::new(), at: Instant::now() }) }
    }

    /// Somebody publishes `events` events to `channel`.
    pub(super) fn count(&self, channel: &Channel, events: usize) {
        let skipped = SKIPPED.get() + 1;
        SKIPPED.set(skipped % SAMPLED);
        if skipped == SAMPLED {
            let events = u32::try_from(events).unwrap_or(u32::MAX);
            self.table.lock().add(channel, f64::from(SAMPLED) * f64::from(events));
        }
    }

    /// The `count` channels that most is published to, each with its events in a second.
    pub(super) fn top(&self, count: usize) -> Vec<(Channel, f64)> {
        let mut table = self.table.lock();
        table.age(Instant::now());
        // What flows in at rate r and halves every h settles at r·h / ln 2.
        let scale = std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64();
        let mut all: Vec<_> = table
            .weights
            .iter()
            .map(|(channel, weight)| (channel.clone(), weight * scale))
            .collect();
        drop(table);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }
}

impl Table {
    fn add(&mut self, channel: &Channel, weight: f64) {
        match self.weights.get_mut(channel) {
            Some(known) => *known += weight,
            None => {
                if self.weights.len() >= CHANNELS_MAX {
                    self.forget();
                }
                self.weights.insert(channel.clone(), weight);
            }
        }
    }

    /// Keeps the heavier half.
    fn forget(&mut self) {
        let mut weights: Vec<f64> = self.weights.values().copied().collect();
        weights.sort_by(f64::total_cmp);
        let median = weights.get(weights.len() / 2).copied().unwrap_or(0.0);
        self.weights.retain(|_, weight| *weight > median);
    }

    fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let left = 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64());
        self.at = now;
        self.weights.retain(|_, weight| {
            *weight *= left;
            *weight >= 1.0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_busiest_channels_come_first_at_about_their_rate() {
        let hot = Hot::new();
        for _ in 0..60 {
            for n in 0..4096_u32 {
                let name = if n % 4 == 0 { "a:few" } else { "a:many" };
                hot.count(&channel(name), 1);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            hot.top(0);
        }
        let top = hot.top(10);
        assert_eq!(top[0].0, channel("a:many"));
        // Every 16th publish is a:few's or not by its place in the round: the sum is what is estimated.
        let rate: f64 = top.iter().map(|(_, rate)| rate).sum();
        assert!((3000.0..5500.0).contains(&rate), "{top:?}");
        tokio::time::advance(HALF_LIFE * 40).await;
        assert!(hot.top(10).is_empty(), "what is over is forgotten");
    }

    #[test]
    fn it_is_bounded_and_keeps_the_heavy() {
        let mut table = Table { weights: HashMap::new(), at: Instant::now() };
        table.add(&channel("a:heavy"), 1e6);
        for n in 0..20_000 {
            table.add(&channel(&format!("a:{n}")), 1.0);
            assert!(table.weights.len() <= CHANNELS_MAX);
        }
        assert!(table.weights.contains_key(&channel("a:heavy")));
    }
}
