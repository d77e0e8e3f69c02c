//! From the journal to Postgres: how fast workers store what waits, beside a bare COPY.
//!
//! It waits for the ledger to move for the first time and to reach the journal's tips, counts the rows
//! between, and then copies the same rows into a table with the same indexes, as many in a transaction
//! as a worker takes at most. Start it before the worker.

use crate::report::{Figure, Report};
use crate::{Failure, Outcome};
use async_nats::jetstream;
use futures::TryStreamExt as _;
use indicatif::ProgressBar;
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(10);
/// `PGCOPY\n\xff\r\n\0`, flags, length of the extension: PostgreSQL documentation, "COPY", binary format.
const HEADER_BYTES: usize = 19;
const TRAILER: [u8; 2] = [0xff, 0xff];
/// From JSON events of the benches' channels; their time partition is that of the rows.
const ROWS: &str = "SELECT * FROM events WHERE channel LIKE 'bench:%'";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The name that the figures carry
    #[arg(long)]
    bench: String,
    /// The archive
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
    /// The journal
    #[arg(long, env = "NATS_URL")]
    nats_url: String,
    /// Rows in one transaction of the bare COPY
    #[arg(long, default_value_t = 20_000)]
    batch: usize,
    /// Seconds until all must be stored
    #[arg(long, default_value_t = 120.0)]
    deadline: f64,
}

pub(crate) async fn run(options: &Options) -> Outcome {
    let tips = tips(&options.nats_url).await?;
    let pool = PgPool::connect(&options.database_url).await.map_err(Failure::doing("Postgres"))?;
    let rows_before = count(&pool).await?;
    let stored = wait_for_ledger(&pool, &tips, Duration::from_secs_f64(options.deadline)).await?;
    let rows = count(&pool).await? - rows_before;
    let persisted = rows / stored.as_secs_f64();
    let (bare_rows, bare) = bare_copy(options, &pool).await?;
    let copied = bare_rows / bare.as_secs_f64();
    let mut report = Report::new(&options.bench);
    report.add(Figure::new("journal to Postgres", "rows/s", &[persisted]));
    report.add(Figure::new("bare COPY of the same rows", "rows/s", &[copied]));
    report.add(Figure::new("share of the bare COPY", "ratio", &[persisted / copied]));
    report.print();
    Ok(())
}

/// For [`caught_up`].
#[derive(Debug, clap::Args)]
pub(crate) struct CaughtUpOptions {
    /// The name that the figures carry
    #[arg(long)]
    bench: String,
    /// The archive
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
    /// The journal
    #[arg(long, env = "NATS_URL")]
    nats_url: String,
    /// Seconds until all must be stored
    #[arg(long, default_value_t = 120.0)]
    deadline: f64,
}

/// Waits until the archive has everything, and says how long that took and how many rows there are.
pub(crate) async fn caught_up(options: &CaughtUpOptions) -> Outcome {
    let started = Instant::now();
    let tips = tips(&options.nats_url).await?;
    let pool = PgPool::connect(&options.database_url).await.map_err(Failure::doing("Postgres"))?;
    let until = started + Duration::from_secs_f64(options.deadline);
    let is_behind = |ledger: &HashMap<i16, i64>| {
        tips.iter().any(|(p, tip)| *tip > 0 && ledger.get(p).is_none_or(|at| at < tip))
    };
    while is_behind(&ledger(&pool).await.unwrap_or_default()) {
        if Instant::now() > until {
            return Err(Failure::of("the archive is still behind the journal"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut report = Report::new(&options.bench);
    report.add(Figure::new("archive behind the journal at the end", "s", &[seconds]));
    report.add(Figure::new("rows in Postgres", "rows", &[count(&pool).await?]));
    report.print();
    Ok(())
}

/// The last sequence number of each partition's stream, `STORM_<partition>_<epoch>`.
async fn tips(url: &str) -> Outcome<HashMap<i16, i64>> {
    let client = async_nats::connect(url).await.map_err(Failure::doing("NATS"))?;
    let context = jetstream::new(client);
    let streams: Vec<_> =
        context.streams().try_collect().await.map_err(Failure::doing("asking for streams"))?;
    let mut tips = HashMap::new();
    for stream in streams {
        let mut words = stream.config.name.split('_');
        if words.next() == Some("STORM")
            && let Some(Ok(partition)) = words.next().map(str::parse)
        {
            let tip = i64::try_from(stream.state.last_sequence).unwrap_or(i64::MAX);
            tips.insert(partition, tip);
        }
    }
    if tips.values().all(|tip| *tip == 0) {
        return Err(Failure::of("the journal is empty: publish something first"));
    }
    Ok(tips)
}

async fn count(pool: &PgPool) -> Outcome<f64> {
    // Before the first worker there are no tables.
    let there: Option<String> = sqlx::query_scalar("SELECT to_regclass('events')::text")
        .fetch_one(pool)
        .await
        .map_err(Failure::doing("looking for the table of events"))?;
    if there.is_none() {
        return Ok(0.0);
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE channel LIKE 'bench:%'")
        .fetch_one(pool)
        .await
        .map_err(Failure::doing("counting rows"))?;
    #[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
    Ok(rows as f64)
}

/// From the ledger's first move to its last.
async fn wait_for_ledger(
    pool: &PgPool,
    tips: &HashMap<i16, i64>,
    deadline: Duration,
) -> Outcome<Duration> {
    let until = Instant::now() + deadline;
    let total: i64 = tips.values().sum();
    let bar = ProgressBar::new(total.unsigned_abs());
    let first = ledger(pool).await.unwrap_or_default();
    let mut looked = Instant::now();
    let mut moved = None;
    loop {
        let now = ledger(pool).await.unwrap_or_default();
        let last_look = std::mem::replace(&mut looked, Instant::now());
        if now != first {
            // It moved since the last look: the work began before that at the earliest.
            let began = *moved.get_or_insert(last_look);
            if tips.iter().all(|(partition, tip)| now.get(partition).is_some_and(|at| at >= tip)) {
                bar.finish_and_clear();
                return Ok(looked - began);
            }
        }
        bar.set_position(now.values().sum::<i64>().unsigned_abs());
        if Instant::now() > until {
            return Err(Failure::of(format!("not everything was stored within {deadline:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ledger(pool: &PgPool) -> Result<HashMap<i16, i64>, sqlx::Error> {
    let rows = sqlx::query("SELECT partition, last_seq FROM ledger WHERE last_seq > 0");
    rows.fetch_all(pool).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Reads the rows into memory, then times writing them into a table like theirs.
async fn bare_copy(options: &Options, pool: &PgPool) -> Outcome<(f64, Duration)> {
    let batches = read_batches(pool, options.batch).await?;
    let mut connection =
        PgConnection::connect(&options.database_url).await.map_err(Failure::doing("Postgres"))?;
    for statement in [
        "DROP TABLE IF EXISTS bench_copy",
        "CREATE TABLE bench_copy (LIKE events INCLUDING ALL) PARTITION BY RANGE (ts)",
        "CREATE TABLE bench_copy_rows PARTITION OF bench_copy DEFAULT",
        "CHECKPOINT",
    ] {
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.map_err(Failure::doing(statement))?;
    }
    let started = Instant::now();
    let mut rows = 0;
    for batch in &batches {
        let copy = connection.copy_in_raw("COPY bench_copy FROM STDIN (FORMAT binary)").await;
        let mut copy = copy.map_err(Failure::doing("COPY"))?;
        copy.send(batch.as_slice()).await.map_err(Failure::doing("COPY"))?;
        rows += copy.finish().await.map_err(Failure::doing("COPY"))?;
    }
    let took = started.elapsed();
    let done = sqlx::query("DROP TABLE bench_copy").execute(&mut connection).await;
    done.map_err(Failure::doing("DROP TABLE"))?;
    #[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
    Ok((rows as f64, took))
}

/// The rows in PostgreSQL's binary form, each batch with a header and a trailer of its own.
async fn read_batches(pool: &PgPool, batch: usize) -> Outcome<Vec<Vec<u8>>> {
    let statement = format!("COPY ({ROWS}) TO STDOUT (FORMAT binary)");
    let mut out = pool.copy_out_raw(&statement).await.map_err(Failure::doing("COPY TO"))?;
    let mut bytes = Vec::new();
    while let Some(part) = out.try_next().await.map_err(Failure::doing("COPY TO"))? {
        bytes.extend_from_slice(&part);
    }
    divide(&bytes, batch)
}

fn divide(bytes: &[u8], batch: usize) -> Outcome<Vec<Vec<u8>>> {
    let short = || Failure::of("the binary copy ends too early");
    let header = bytes.get(..HEADER_BYTES).ok_or_else(short)?;
    let mut batches = Vec::new();
    let (mut at, mut from, mut rows) = (HEADER_BYTES, HEADER_BYTES, 0);
    loop {
        let row = row_length(bytes.get(at..).ok_or_else(short)?).ok_or_else(short)?;
        let ended = row.is_none();
        if (ended || rows == batch) && rows > 0 {
            batches.push([header, &bytes[from..at], &TRAILER].concat());
            (from, rows) = (at, 0);
        }
        let Some(row) = row else { return Ok(batches) };
        at += row;
        rows += 1;
    }
}

/// `None`: too short. `Some(None)`: the trailer.
fn row_length(bytes: &[u8]) -> Option<Option<usize>> {
    let fields = i16::from_be_bytes(bytes.first_chunk().copied()?);
    let Ok(fields) = u16::try_from(fields) else { return Some(None) };
    let mut at = 2;
    for _ in 0..fields {
        let length = i32::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?);
        // A null has the length -1 and no bytes.
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= bytes.len()).then_some(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_divided_into_batches_with_header_and_trailer() {
        let row: &[u8] = &[0, 2, 0, 0, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff];
        let header = [7; HEADER_BYTES];
        let bytes = [&header[..], row, row, row, &TRAILER].concat();
        let batches = divide(&bytes, 2).unwrap();
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0], [&header[..], row, row, &TRAILER].concat());
        assert_eq!(batches[1], [&header[..], row, &TRAILER].concat());
        assert!(divide(&bytes[..bytes.len() - 1], 2).is_err());
        assert!(divide(&[&header[..], &TRAILER].concat(), 2).unwrap().is_empty());
    }
}
