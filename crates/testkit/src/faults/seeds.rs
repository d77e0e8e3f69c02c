//! Many seeds, on all cores.

use std::future::Future;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use tokio::runtime::Builder;

/// Runs `run` once a seed, several at a time, and gives what each has returned. A panic names its seed.
/// `STORMWIRE_SEED=n` runs one seed; `STORMWIRE_SEEDS=n` as many instead of `seeds`, `STORMWIRE_SEEDS=a..b`
/// those.
pub fn each_seed<T: Send>(seeds: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    if let Some(seed) = variable("STORMWIRE_SEED").and_then(|text| text.parse().ok()) {
        return vec![run(seed)];
    }
    let due = variable("STORMWIRE_SEEDS").and_then(|text| range(&text)).unwrap_or(0..seeds);
    let (next, failed) = (AtomicU64::new(due.start), AtomicBool::new(false));
    let work = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= due.end {
                break;
            }
            match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                Ok(outcome) => done.push(outcome),
                Err(_) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(seed);
                }
            }
        }
        Ok(done)
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it catches panics")).collect()
    });
    let mut all = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(done) => all.extend(done),
            Err(seed) => panic!("seed {seed} failed; replay it with STORMWIRE_SEED={seed}"),
        }
    }
    all
}

/// [`each_seed`], each in a runtime of its own with a paused clock.
pub fn seeds<T: Send, F: Future<Output = T>>(seeds: u64, run: impl Fn(u64) -> F + Sync) -> Vec<T> {
    each_seed(seeds, |seed| {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(seed))
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn range(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!(range("300"), Some(0..300));
        assert_eq!(range("20000..40000"), Some(20_000..40_000));
        assert_eq!(range("many"), None);
    }
}
