//! Measures persisting beside a bare COPY of the same rows into the same table on the same connection
//! count, in turns, so that both see the same machine and the same growing index:
//!
//! `cargo run --release -p stormwire-archive-postgres --example persist_speed [EVENTS_A_BATCH] [CHANNELS]`
//!
//! One JSON line at the end. The bare side sends rows that Postgres itself wrote out in the binary form;
//! the persisting side begins with decoded frames of 100 events and ends with the ledger.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use std::error::Error;
use std::io::Write as _;
use std::time::{Duration, Instant};
use stormwire_archive::{Archive as _, Batch, Lease};
use stormwire_archive_postgres::{PostgresArchive, PostgresConfig};
use stormwire_core::{Channel, Clock as _, Epoch, FrameSeq, PartitionCount, SystemClock};
use stormwire_testkit::postgres::Postgres;
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};

const EVENTS_A_FRAME: usize = 100;
const DATA_BYTES: usize = 128;
const ROUNDS: usize = 8;
const EVENTS_A_ROUND: usize = 200_000;
const COLUMNS: &str =
    r#"ts, "offset", epoch, partition, channel, published_by, type, key, id, data, data_binary"#;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let events = arguments.next().transpose()?.unwrap_or(5_000);
    let channels = arguments.next().transpose()?.unwrap_or(1_000);
    let postgres = Postgres::start().await.ok_or("no Postgres on this machine")?;
    let archive = PostgresArchive::connect(PostgresConfig::new(postgres.url())).await?;
    archive.migrate().await?;
    let one = PartitionCount::new(1).ok_or("one partition")?;
    let leases = archive.acquire("bench", one, 1, Duration::from_secs(600)).await?;
    let lease = leases.first().ok_or("no lease")?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    let mut last = 0;
    // One round each to warm up, not counted.
    let warm = batches(last, events, channels)?;
    last += frames_of(&warm);
    persist(&archive, lease, &warm).await?;
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        let round = batches(last, events, channels)?;
        let first = last + 1;
        last += frames_of(&round);
        ours += persist(&archive, lease, &round).await?;
        let rows = read_back(&mut connection, first, &round).await?;
        bare += copy(&mut connection, &rows).await?;
    }
    let stored = ROUNDS * (EVENTS_A_ROUND / events) * events;
    let rate = |took: Duration| (stored as f64 / took.as_secs_f64()).round();
    let line = format!(
        r#"{{"bench":"persist_speed","events_a_batch":{events},"channels":{channels},"rows":{stored},"persist_rows_per_s":{},"bare_copy_rows_per_s":{},"ratio":{:.3}}}"#,
        rate(ours),
        rate(bare),
        bare.as_secs_f64() / ours.as_secs_f64()
    );
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn frames_of(batches: &[Batch]) -> FrameSeq {
    batches.iter().map(|batch| batch.through - batch.expected_last).sum()
}

async fn persist(archive: &PostgresArchive, lease: &Lease, batches: &[Batch]) -> Outcome<Duration> {
    let started = Instant::now();
    for batch in batches {
        archive.persist(lease, batch).await?;
    }
    Ok(started.elapsed())
}

async fn copy(connection: &mut PgConnection, batches: &[Bytes]) -> Outcome<Duration> {
    let sql = format!("COPY events ({COLUMNS}) FROM STDIN WITH (FORMAT binary)");
    let started = Instant::now();
    for rows in batches {
        let mut copy = connection.copy_in_raw(&sql).await?;
        copy.send(&rows[..]).await?;
        copy.finish().await?;
    }
    Ok(started.elapsed())
}

/// The rows of a round as Postgres writes them, a buffer for each batch.
async fn read_back(
    connection: &mut PgConnection,
    first: FrameSeq,
    batches: &[Batch],
) -> Outcome<Vec<Bytes>> {
    let mut all = Vec::new();
    let mut from = first;
    for batch in batches {
        let (low, high) = (from * 4096, batch.through * 4096 + 4095);
        let sql = format!(
            r#"COPY (SELECT {COLUMNS} FROM events WHERE "offset" BETWEEN {low} AND {high}
               AND ts >= '{}' ORDER BY "offset") TO STDOUT WITH (FORMAT binary)"#,
            batch.frames[0].1.to_rfc3339()
        );
        let mut out = BytesMut::new();
        let mut rows = connection.copy_out_raw(&sql).await?;
        while let Some(part) = rows.try_next().await? {
            out.extend_from_slice(&part);
        }
        drop(rows);
        all.push(out.freeze());
        from = batch.through + 1;
    }
    Ok(all)
}

/// One round: events of 128 bytes, spread over the channels, a frame each millisecond.
fn batches(last: FrameSeq, events: usize, channels: usize) -> Outcome<Vec<Batch>> {
    let names = (0..channels).map(|i| Channel::parse(&format!("bench:channel-{i}")));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let data = format!("\"{}\"", "x".repeat(DATA_BYTES - 2));
    let (mut seq, mut turn) = (last, usize::try_from(last)? * EVENTS_A_FRAME);
    let now = SystemClock.now();
    let mut batches = Vec::new();
    for _ in 0..EVENTS_A_ROUND / events {
        let expected_last = seq;
        let mut frames = Vec::new();
        for _ in 0..events / EVENTS_A_FRAME {
            seq += 1;
            let mut builder = FrameBuilder::default();
            for _ in 0..EVENTS_A_FRAME {
                turn += 1;
                let mut one = EventsBuilder::default();
                let parts =
                    EventParts { kind: Some("t"), data: data.as_bytes(), ..Default::default() };
                one.push(&parts)?;
                let name = &names[turn * 7 % channels];
                builder.push(name, "bench", "producer", turn as u64, None, &one.take());
            }
            let bytes = builder.finish(FrameId { appender: [1; 16], counter: seq });
            let ts = now.plus(Duration::from_millis(seq - expected_last));
            frames.push((seq, ts, Frame::decode(&bytes)?));
        }
        let last_frame = frames.last().map(|(_, _, frame)| frame.id);
        batches.push(Batch {
            epoch: Epoch::FIRST,
            expected_last,
            through: seq,
            last_frame,
            frames,
            gaps: Vec::new(),
            undecodable: Vec::new(),
        });
    }
    Ok(batches)
}
