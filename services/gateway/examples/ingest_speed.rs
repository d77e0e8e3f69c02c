//! How many publishes a second go through lanes and appenders on the embedded journal, without sockets.
//!
//! `cargo run --release -p stormwire-gateway --example ingest_speed -- [events a publish] [seconds]`.
//! Connections keep a window of publishes unacknowledged, as clients do, over all 16 partitions.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_core::{Channel, PartitionCount, Refusal, SystemClock};
use stormwire_embedded::{Embedded, EmbeddedConfig};
use stormwire_gateway::ingest::{Answers, Ingest, IngestConfig, NoWitness, Published, Submission};
use stormwire_telemetry::Tasks;
use stormwire_wire::frame::{EncodedEvents, EventParts, EventsBuilder};

const CONNECTIONS: u64 = 64;
const WINDOW: u64 = 256;

#[derive(Default)]
struct Connection {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    answered: tokio::sync::Notify,
}

impl Answers for Connection {
    fn answer(&self, _: u64, answer: Result<Published, Refusal>) {
        let counter = if answer.is_ok() { &self.acknowledged } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        self.answered.notify_one();
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let batch: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = stormwire_testkit::Folder::temporary("ingest-speed")?;
    let config = EmbeddedConfig { log_bytes_max: 16 << 30, ..EmbeddedConfig::default() };
    let engine = Embedded::open(folder.path().join("a.db"), config, Arc::new(SystemClock)).await?;
    let tasks = Tasks::new();
    let config = IngestConfig::new("one", PartitionCount::DEFAULT);
    let clock = Arc::new(SystemClock);
    let ingest =
        Ingest::start(engine.journal(), engine.peers(), Arc::new(NoWitness), clock, config, &tasks);

    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let connections = (0..CONNECTIONS).map(|number| {
        let (ingest, connection) = (ingest.clone(), Arc::new(Connection::default()));
        tokio::spawn(publish(ingest, connection, number, events(batch), until))
    });
    let (mut acknowledged, mut refused) = (0, 0);
    for connection in connections.collect::<Vec<_>>() {
        let connection = connection.await?;
        acknowledged += connection.acknowledged.load(Ordering::Relaxed);
        refused += connection.refused.load(Ordering::Relaxed);
    }
    let took = began.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{{\"publishes_per_s\":{:.0},\"events_per_s\":{:.0},\"refused\":{refused}}}",
        acknowledged as f64 / took,
        (acknowledged * batch) as f64 / took
    )?;
    Ok(())
}

/// `count` events of 128 bytes.
fn events(count: u64) -> EncodedEvents {
    let mut builder = EventsBuilder::default();
    let data = format!("\"{}\"", "x".repeat(126));
    for _ in 0..count {
        let _ = builder.push(&EventParts { data: data.as_bytes(), ..Default::default() });
    }
    builder.take()
}

async fn publish(
    ingest: Ingest,
    connection: Arc<Connection>,
    number: u64,
    events: EncodedEvents,
    until: Instant,
) -> Arc<Connection> {
    let Ok(channel) = Channel::parse(&format!("speed:c{number}")) else { return connection };
    let user: Arc<str> = Arc::from(format!("user{number}"));
    let producer: Arc<str> = Arc::from(format!("producer{number}"));
    let answers = Arc::clone(&connection) as Arc<dyn Answers>;
    let answered = || {
        connection.acknowledged.load(Ordering::Relaxed) + connection.refused.load(Ordering::Relaxed)
    };
    let mut sent = 0;
    while Instant::now() < until {
        while sent - answered() >= WINDOW {
            connection.answered.notified().await;
        }
        ingest.submit(Submission {
            connection: number,
            ticket: sent,
            channel: channel.clone(),
            user: Arc::clone(&user),
            producer: Some(Arc::clone(&producer)),
            seq: 1 + sent * events.len() as u64,
            again: None,
            events: events.clone(),
            trace: None,
            answers: Arc::clone(&answers),
        });
        sent += 1;
    }
    while answered() < sent {
        connection.answered.notified().await;
    }
    connection
}
