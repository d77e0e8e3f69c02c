//! How fast one process appends to, tails and reads back a journal on NATS: a lane for each partition,
//! one frame in flight each, as appenders do. Prints one JSON line.
//!
//! `append_speed [URL] [SECONDS] [PARTITIONS] [FRAME_BYTES] [REPLICAS]`; a frame of 15,000 bytes stands for
//! 100 events.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_core::{Epoch, Partition};
use stormwire_journal::{Journal, TailEvent};
use stormwire_journal_nats::{NatsConfig, NatsJournal};

const EVENTS_PER_FRAME: f64 = 100.0;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize, default: usize| match arguments.get(index) {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let url = arguments.get(1).cloned().unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let seconds = number(2, 10)? as u64;
    let (partitions, frame_bytes) = (u16::try_from(number(3, 16)?)?, number(4, 15_000)?);
    let config = NatsConfig {
        urls: url.split(',').map(str::to_owned).collect(),
        replicas: u8::try_from(number(5, 1)?)?,
        max_bytes: 2 << 30,
        ..NatsConfig::default()
    };
    let journal = Arc::new(NatsJournal::connect(config).await?);
    let all: Vec<Partition> = (0..partitions).map(Partition).collect();
    let tailed = Arc::new(AtomicU64::new(0));
    let mut tail = journal.tail(&all).await?;
    let count = Arc::clone(&tailed);
    tokio::spawn(async move {
        while let Some(event) = tail.next().await {
            if matches!(event, TailEvent::Frame(_)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let started = Instant::now();
    let lane = |partition| lane(Arc::clone(&journal), partition, frame_bytes, seconds);
    let lanes = join_all(all.iter().map(|partition| tokio::spawn(lane(*partition)))).await;
    let elapsed = started.elapsed().as_secs_f64();
    let mut latencies: Vec<Duration> = Vec::new();
    let mut ends = Vec::new();
    for lane in lanes {
        let (first, last, waits) = lane??;
        ends.push((first, last));
        latencies.extend(waits);
    }
    latencies.sort_unstable();
    let (read, read_seconds) = read_back(&journal, &all, &ends).await?;
    let rate = latencies.len() as f64 / elapsed;
    writeln!(
        std::io::stdout(),
        "{{\"frames_per_second\":{rate:.0},\"events_per_second\":{:.0},\"p50_ms\":{:.2},\"p99_ms\":{:.2},\
         \"tailed\":{},\"appended\":{},\"frames_read_per_second\":{:.0}}}",
        rate * EVENTS_PER_FRAME,
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.99),
        tailed.load(Ordering::Relaxed),
        latencies.len(),
        read as f64 / read_seconds,
    )?;
    Ok(())
}

/// Appends one frame after the other; returns the last sequence before and after, and every wait.
async fn lane(
    journal: Arc<NatsJournal>,
    partition: Partition,
    frame_bytes: usize,
    seconds: u64,
) -> Result<(u64, u64, Vec<Duration>), Failure> {
    let tip = journal.open(partition).await?;
    let frame = Bytes::from(vec![b'.'; frame_bytes]);
    let (mut last, mut waits) = (tip.last, Vec::new());
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let sent = Instant::now();
        last = journal.append(partition, tip.epoch, last, frame.clone()).await?;
        waits.push(sent.elapsed());
    }
    Ok((tip.last, last, waits))
}

/// Reads what was appended, page by page, all partitions at once; returns frames and seconds.
async fn read_back(
    journal: &Arc<NatsJournal>,
    partitions: &[Partition],
    ends: &[(u64, u64)],
) -> Result<(u64, f64), Failure> {
    let started = Instant::now();
    let readers = partitions.iter().zip(ends).map(|(partition, (first, last))| {
        let (journal, partition, mut at, last) = (Arc::clone(journal), *partition, *first, *last);
        tokio::spawn(async move {
            while at < last {
                let page = journal.read(partition, Epoch::FIRST, at + 1, 1024, 4 << 20).await?;
                at = page.last().map_or(last, |frame| frame.seq);
            }
            Ok::<_, Failure>(())
        })
    });
    for reader in join_all(readers).await {
        reader??;
    }
    Ok((ends.iter().map(|(first, last)| last - first).sum(), started.elapsed().as_secs_f64()))
}

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "an index below the length")]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).or(sorted.last()).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}
