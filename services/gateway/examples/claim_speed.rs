//! How long a claim takes, from its beginning to the first acknowledged event, behind ten minutes of log at
//! a high rate: `cargo run --release -p stormwire-gateway --example claim_speed [events/s] [seconds]`.
//!
//! On a real NATS server: the log is filled, the table of producers is saved as of ten seconds before its
//! end, and a gateway starts. Then the same without a saved table.

#![expect(clippy::print_stdout, reason = "an example prints its figures")]
#![expect(clippy::unwrap_used, reason = "an example may panic")]

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_core::{
    Channel, Clock as _, Epoch, Offset, Partition, PartitionCount, Refusal, SystemClock, Timestamp,
};
use stormwire_embedded::Alone;
use stormwire_gateway::ingest::{Answers, Ingest, IngestConfig, NoWitness, Published, Submission};
use stormwire_journal::publish::ProducerKey;
use stormwire_journal::repeats::Repeats;
use stormwire_journal::{Journal, SavedTable};
use stormwire_journal_nats::{NatsConfig, NatsJournal};
use stormwire_telemetry::Tasks;
use stormwire_testkit::nats::NatsServer;
use stormwire_wire::frame::{EncodedEvents, EventParts, EventsBuilder, FrameBuilder, FrameId};
use tokio::sync::mpsc;

const P: Partition = Partition(0);
const FRAMES_A_SECOND: u64 = 100;
/// Events of one publish.
const PUBLISH: u64 = 10;
const PRODUCERS: u64 = 10_000;
/// How old the saved table is.
const TABLE_AGE_S: u64 = 10;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (rate, seconds) = (number(30_000), number(600));
    let Some(server) = NatsServer::start().await else { return };
    let config = NatsConfig { urls: vec![server.url()], max_bytes: 8 << 30, ..Default::default() };
    let journal: Arc<dyn Journal> = Arc::new(Box::pin(NatsJournal::connect(config)).await.unwrap());
    let table = fill(&*journal, rate, seconds).await;
    println!("a table of {} KiB as of frame {}", table.bytes.len() / 1024, table.through);
    let without = first_answer(&journal, 1).await;
    println!("without a saved table: {without:.2?} to the first acknowledged event");
    // The claim and the event above are two frames behind the table's ten seconds.
    journal.save_table(P, table).await.unwrap();
    let with = first_answer(&journal, 2).await;
    println!("with the table of {TABLE_AGE_S} s ago: {with:.2?} to the first acknowledged event");
}

/// Writes the log, and gives the table as of [`TABLE_AGE_S`] before its end.
async fn fill(journal: &dyn Journal, rate: u64, seconds: u64) -> SavedTable {
    let began = Instant::now();
    let mut last = journal.open(P).await.unwrap().last;
    let mut repeats = Repeats::new(Timestamp(0), 256 << 20);
    let (frames, publishes) = (seconds * FRAMES_A_SECOND, rate / FRAMES_A_SECOND / PUBLISH);
    let saved_at = frames - TABLE_AGE_S * FRAMES_A_SECOND;
    let channel = Channel::parse("bench:claims").unwrap();
    let (events, mut table, mut publish) = (events(PUBLISH), None, 0);
    let mut builder = FrameBuilder::default();
    for counter in 1..=frames {
        let now = SystemClock.now();
        for at in 0..publishes {
            let (producer, seq) = (publish % PRODUCERS, 1 + publish / PRODUCERS * PUBLISH);
            let (user, producer) = (format!("user-{}", producer % 500), format!("p-{producer}"));
            builder.push(&channel, &user, &producer, seq, None, &events);
            if counter <= saved_at {
                let offset = Offset::new(last + 1, u16::try_from(at * PUBLISH).unwrap());
                let key = ProducerKey::of(&user, &producer);
                repeats.replay(key, seq, u32::try_from(PUBLISH).unwrap(), offset, now);
            }
            publish += 1;
        }
        let id = FrameId { appender: [1; 16], counter };
        let frame: Bytes = builder.finish(id);
        last = journal.append(P, Epoch::FIRST, last, frame).await.unwrap();
        if counter == saved_at {
            let bytes = repeats.image(id);
            table = Some(SavedTable { epoch: Epoch::FIRST, through: last, bytes });
        }
    }
    let tip = journal.tip(P).await.unwrap();
    let (events, mib) = (frames * publishes * PUBLISH, tip.bytes >> 20);
    println!("{events} events in {frames} frames, {mib} MiB, in {:.0?}", began.elapsed());
    table.unwrap()
}

fn events(count: u64) -> EncodedEvents {
    let mut events = EventsBuilder::default();
    for n in 0..count {
        let data = format!("{{\"temperature\":{n}}}");
        events.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
    }
    events.take()
}

struct First(mpsc::Sender<Result<Published, Refusal>>);

impl Answers for First {
    fn answer(&self, _ticket: u64, answer: Result<Published, Refusal>) {
        let _ = self.0.try_send(answer);
    }
}

/// Starts a gateway that claims at once, and publishes until an event is acknowledged.
async fn first_answer(journal: &Arc<dyn Journal>, seq: u64) -> Duration {
    let tasks = Tasks::new();
    let began = Instant::now();
    let config = IngestConfig {
        publish_deadline: Duration::from_secs(600),
        ..IngestConfig::new("bench", PartitionCount::new(1).unwrap())
    };
    let (journal, clock) = (Arc::clone(journal), Arc::new(SystemClock));
    let ingest =
        Ingest::start(journal, Arc::new(Alone), Arc::new(NoWitness), clock, config, &tasks);
    let (sender, mut answers) = mpsc::channel(16);
    let answers_to: Arc<dyn Answers> = Arc::new(First(sender));
    for ticket in 0.. {
        ingest.submit(Submission {
            connection: 1,
            ticket,
            channel: Channel::parse("bench:claims").unwrap(),
            user: Arc::from("user-x"),
            producer: Some(Arc::from("p-x")),
            seq,
            again: (ticket > 0).then(|| began.elapsed()),
            events: events(1),
            trace: None,
            answers: Arc::clone(&answers_to),
        });
        match answers.recv().await.unwrap() {
            Ok(_) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let took = began.elapsed();
    drop(ingest);
    let _ = tasks.drain(Duration::from_secs(5)).await;
    took
}
