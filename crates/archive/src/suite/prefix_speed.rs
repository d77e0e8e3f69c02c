//! How long pages over the channels of a prefix take, where these are many. Measured, not held: what
//! an engine's example prints.

use super::kit::{START, Worker, at, frame, json};
use super::{Subject, prefix::page};
use std::time::{Duration, Instant};

/// Events of a frame, and frames of a batch.
const FRAME: u64 = 100;
const BATCH: u64 = 50;
/// Pages at the beginning that are timed.
const PAGES: usize = 30;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct PrefixSpeed {
    /// Events given in the pages below.
    pub events: usize,
    /// The shortest, the median and the longest page of a thousand events.
    pub pages: [Duration; 3],
    /// The page that finds nothing new.
    pub nothing: Duration,
    /// Persisting one batch of 5,000 events, the median.
    pub batch: Duration,
}

/// Fills a partition with `events` events on `channels` channels in turn, and pages over them from the
/// beginning.
pub async fn prefix_speed(subject: &Subject, channels: u64, events: u64) -> PrefixSpeed {
    let worker = Worker::of(subject, 3).await;
    let names: Vec<String> = (0..channels).map(|number| format!("a:x.{number}")).collect();
    let data = format!("\"{}\"", "x".repeat(126));
    let one = [json(&data)];
    let (mut last, mut batches) = (0, Vec::new());
    for _ in 0..events / FRAME / BATCH {
        let frames = (last..last + BATCH).map(|number| {
            let turn = |index: u64| (number * FRAME + index) * 7 % channels;
            let names =
                (0..FRAME).filter_map(|index| names.get(usize::try_from(turn(index)).ok()?));
            let runs: Vec<_> = names.map(|name| (name.as_str(), "alice", &one[..])).collect();
            frame(number + 1, &runs)
        });
        let batch = worker.batch(last, frames.collect());
        let began = Instant::now();
        worker.persist(&batch).await.expect("the batch is stored");
        batches.push(began.elapsed());
        last += BATCH;
    }
    let (mut pages, mut after, mut found) = (Vec::new(), START, 0);
    for _ in 0..PAGES {
        let began = Instant::now();
        let page = page(&worker, after, 1000, 1 << 24).await;
        pages.push(began.elapsed());
        found += page.events.len();
        let Some(end) = page.events.last().filter(|_| page.more) else { break };
        after = end.position;
    }
    let began = Instant::now();
    assert!(page(&worker, at(last, 4095), 1000, 1 << 24).await.events.is_empty());
    let nothing = began.elapsed();
    let ends = |mut all: Vec<Duration>| {
        all.sort_unstable();
        [all[0], all[all.len() / 2], all[all.len() - 1]]
    };
    PrefixSpeed { events: found, pages: ends(pages), nothing, batch: ends(batches)[1] }
}
