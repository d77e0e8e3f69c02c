//! The suite on the in-process engine, and the window beside a naive one that remembers everything.

use super::*;
use crate::Scope;
use crate::suite::{self, Harness};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

struct Paused(Arc<SlidingWindow>);

#[async_trait]
impl Harness for Paused {
    fn limiter(&self) -> Arc<dyn Limiter> {
        Arc::clone(&self.0) as Arc<dyn Limiter>
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_engine_for_one_process_keeps_the_ports_promises() {
    let engine = Arc::new(SlidingWindow::new(10_000));
    assert!(!engine.is_shared());
    suite::run(&Paused(engine)).await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_however_many_keys_come() {
    let engine = SlidingWindow::new(1000);
    let rule = Rule { limit: 1, window: Duration::from_secs(1) };
    for n in 0..20_000 {
        let key = LimitKey { scope: Scope::User, subject: n.to_string(), unit: "events" };
        assert_eq!(engine.grant_now(&key, rule, 1, 1).granted, 1);
    }
    assert!(engine.keys.len() <= 1000);
}

/// Remembers every unit: the definition of a sliding window.
#[derive(Default)]
struct Naive(VecDeque<(Duration, u64)>);

impl Naive {
    fn spent(&mut self, now: Duration, window: Duration) -> u64 {
        while self.0.front().is_some_and(|(at, _)| *at + window <= now) {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, units)| units).sum()
    }
}

const LIMIT: u64 = 100;
const RULE: Rule = Rule { limit: LIMIT, window: Duration::from_secs(1) };

/// Plays requests (wait in ms, units) to the two buckets; returns what a naive window would have admitted,
/// what was, and the most that any window saw.
fn play(requests: &[(u64, u64)]) -> (u64, u64, u64) {
    let (mut buckets, mut naive, mut seen) =
        (TwoBuckets::default(), Naive::default(), Naive::default());
    let (mut now, mut by_naive, mut by_buckets, mut peak) = (Duration::from_secs(1000), 0, 0, 0);
    for (wait, units) in requests {
        now += Duration::from_millis(*wait);
        if naive.spent(now, RULE.window) + units <= LIMIT {
            naive.0.push_back((now, *units));
            by_naive += units;
        }
        let granted = buckets.grant(now, RULE, *units, *units).granted;
        seen.0.push_back((now, granted));
        by_buckets += granted;
        peak = peak.max(seen.spent(now, RULE.window));
    }
    (by_naive, by_buckets, peak)
}

#[test]
fn steady_traffic_is_counted_as_a_naive_window_counts_it() {
    // Below the limit, at it, and at three times the limit.
    for (wait, error) in [(20, 0.0), (10, 0.02), (3, 0.02)] {
        let requests = vec![(wait, 1); 10_000];
        let (naive, buckets, peak) = play(&requests);
        let off = (naive as f64 - buckets as f64).abs() / naive as f64;
        assert!(off <= error, "every {wait} ms: naive {naive}, two buckets {buckets}");
        assert!(peak <= LIMIT + LIMIT / 50, "every {wait} ms: {peak} in one window");
    }
}

proptest! {
    /// The stated error: twice the limit in a window at worst, never more than a limit a window in the
    /// long run; and never nothing for somebody who keeps asking.
    #[test]
    fn the_error_is_as_stated(requests in prop::collection::vec((0_u64..400, 1_u64..40), 50..400)) {
        let (naive, buckets, peak) = play(&requests);
        prop_assert!(peak <= 2 * LIMIT, "{} in one window", peak);
        let time: u64 = requests.iter().map(|(wait, _)| wait).sum();
        prop_assert!(buckets <= LIMIT * (time / 1000 + 2), "{} in {} ms", buckets, time);
        prop_assert!(buckets * 2 >= naive, "naive {}, two buckets {}", naive, buckets);
    }

    /// Whoever waits as long as told gets what was asked for.
    #[test]
    fn the_time_to_come_back_is_right(spent in prop::collection::vec((0_u64..1500, 1_u64..=LIMIT), 1..8), least in 1..=LIMIT) {
        let (mut buckets, mut now) = (TwoBuckets::default(), Duration::from_secs(1000));
        for (wait, units) in spent {
            now += Duration::from_millis(wait);
            buckets.grant(now, RULE, 1, units);
        }
        let first = buckets.grant(now, RULE, least, least);
        if first.granted == 0 {
            let then = buckets.grant(now + first.retry_after, RULE, least, least);
            prop_assert_eq!(then.granted, least, "{:?} then {:?}", first, then);
        }
    }
}
