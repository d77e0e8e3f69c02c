//! How many events a second one process takes with the embedded engine, journal and archive together:
//! one lane a partition with one frame in flight, and a worker that persists and trims what they
//! wrote. Run it with `--release`; the file lies in the system's folder for temporary files.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_archive::{Archive, Batch, Lease};
use stormwire_core::{Channel, Epoch, FrameSeq, Partition, PartitionCount, SystemClock, Timestamp};
use stormwire_embedded::{Embedded, EmbeddedConfig, FILE_NAME};
use stormwire_journal::{AppendError, Journal};
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};
use tokio::time::{Instant, sleep};

const SECONDS: u64 = 5;
const DATA_BYTES: usize = 128;
/// Events that a worker gathers for one transaction.
const BATCH_EVENTS: usize = 8192;
const E: Epoch = Epoch::FIRST;

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    persisted: AtomicU64,
    waited_micros: AtomicU64,
    frames: AtomicU64,
}

struct Load {
    name: &'static str,
    events: usize,
    channels: usize,
    archive: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let load = |name, events, channels, archive| Load { name, events, channels, archive };
    for load in [
        load("journal alone, 1 event a frame", 1, 1, false),
        load("journal alone, 1,000 events a frame", 1000, 8, false),
        load("journal and archive, 100 events a frame, 100 channels", 100, 100, true),
        load("journal and archive, 1,000 events a frame, 100 channels", 1000, 100, true),
        load("journal and archive, 1,000 events a frame, 16,000 channels", 1000, 16_000, true),
    ] {
        measure(&load).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example speaks to the terminal")]
async fn measure(load: &Load) -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("stormwire-speed-{}", std::process::id()));
    let config = EmbeddedConfig::default();
    let embedded = Embedded::open(folder.join(FILE_NAME), config, Arc::new(SystemClock)).await?;
    let (journal, archive) = (embedded.journal(), embedded.archive());
    let counts = Arc::new(Counts::default());
    let leases =
        archive.acquire("speed", PartitionCount::DEFAULT, 16, Duration::from_secs(600)).await?;
    let began = Instant::now();
    let until = began + Duration::from_secs(SECONDS);
    let mut tasks = tokio::task::JoinSet::new();
    for lease in leases {
        journal.open(lease.partition).await?;
        let frame = frame(lease.partition, load);
        let (journal, counts) = (Arc::clone(&journal), Arc::clone(&counts));
        let events = load.events as u64;
        if load.archive {
            let (journal, counts) = (Arc::clone(&journal), Arc::clone(&counts));
            tasks.spawn(work(journal, Arc::clone(&archive), lease.clone(), counts, until));
        }
        tasks.spawn(write(journal, lease.partition, frame, events, counts, until));
    }
    while tasks.join_next().await.transpose()?.is_some() {}
    let seconds = began.elapsed().as_secs_f64();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    println!(
        "{}: {:.0} events/s acknowledged, {:.0} events/s persisted, {:.0} frames/s, {:.1} ms a frame",
        load.name,
        of(&counts.acknowledged) / seconds,
        of(&counts.persisted) / seconds,
        of(&counts.frames) / seconds,
        of(&counts.waited_micros) / of(&counts.frames) / 1000.0,
    );
    drop((journal, archive));
    embedded.close().await;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn frame(partition: Partition, load: &Load) -> Bytes {
    let data = format!("{{\"n\":\"{}\"}}", "x".repeat(DATA_BYTES - 8));
    let mut builder = FrameBuilder::default();
    for run in 0..load.events.min(load.channels) {
        let mut events = EventsBuilder::default();
        for _ in 0..load.events / load.events.min(load.channels) {
            let event = EventParts { kind: Some("speed"), data: data.as_bytes(), ..<_>::default() };
            events.push(&event).expect("it fits");
        }
        let channel = Channel::parse(&format!("speed:{partition}-{run}")).expect("a name");
        builder.push(&channel, "alice", "producer", 1, None, &events.take());
    }
    builder.finish(FrameId { appender: [1; 16], counter: 1 })
}

async fn write(
    journal: Arc<dyn Journal>,
    partition: Partition,
    frame: Bytes,
    events: u64,
    counts: Arc<Counts>,
    until: Instant,
) {
    let mut last = journal.tip(partition).await.expect("the tip").last;
    while Instant::now() < until {
        let sent = Instant::now();
        match journal.append(partition, E, last, frame.clone()).await {
            Ok(seq) => last = seq,
            Err(AppendError::Full) => {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let waited = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.waited_micros.fetch_add(waited, Ordering::Relaxed);
        counts.frames.fetch_add(1, Ordering::Relaxed);
        counts.acknowledged.fetch_add(events, Ordering::Relaxed);
    }
}

async fn work(
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    lease: Lease,
    counts: Arc<Counts>,
    until: Instant,
) {
    let mut last: FrameSeq = 0;
    while Instant::now() < until {
        let page = journal.read(lease.partition, E, last + 1, 64, 1 << 20).await.expect("a page");
        let (mut frames, mut events): (Vec<(FrameSeq, Timestamp, Frame)>, _) = (Vec::new(), 0);
        for stored in page {
            let frame = Frame::decode(&stored.bytes).expect("a frame");
            events += frame.events().map_or(0, |events| usize::from(events.len()));
            frames.push((stored.seq, stored.ts, frame));
            if events >= BATCH_EVENTS {
                break;
            }
        }
        let Some(&(through, ..)) = frames.last() else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let batch = Batch {
            epoch: E,
            expected_last: last,
            through,
            last_frame: None,
            frames,
            gaps: Vec::new(),
            undecodable: Vec::new(),
        };
        archive.persist(&lease, &batch).await.expect("the batch is stored");
        let half = journal.tip(lease.partition).await.expect("the tip");
        if half.bytes > half.bytes_max / 2 {
            journal.trim(lease.partition, E, through).await.expect("the log is trimmed");
        }
        last = through;
        counts.persisted.fetch_add(events as u64, Ordering::Relaxed);
    }
}
