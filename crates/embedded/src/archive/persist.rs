//! A batch on its way in: one job of the one writer. Lease and ledger are checked first here, because
//! nobody else can write between the check and the commit.

use super::leases;
use crate::values::{insert_rows, insert_sql, row_chunks};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe, SqliteConnection};
use std::collections::HashMap;
use stormwire_archive::{Batch, Gap, Lease, LedgerEntry, Undecodable};
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, FrameSeq, MAX_EVENTS_PER_FRAME, Offset, Partition, Timestamp};
use stormwire_wire::frame::{Event, FrameId};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    LeaseLost,
    LedgerMoved(FrameSeq),
}

/// About how many rows a batch writes.
pub(crate) fn weight(batch: &Batch) -> usize {
    let events = batch.frames.iter().filter_map(|(_, _, frame)| frame.events());
    1 + events.map(|events| usize::from(events.len())).sum::<usize>()
}

pub(crate) async fn ledger(
    connection: &mut SqliteConnection,
    partition: Partition,
) -> Result<Option<LedgerEntry>, sqlx::Error> {
    type Row = (u32, i64, Option<Vec<u8>>, Option<i64>);
    let row: Option<Row> =
        sqlx::query_as("SELECT epoch, last_seq, appender, counter FROM ledger WHERE partition = ?")
            .bind(i64::from(partition.0))
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|(epoch, last_seq, appender, counter)| {
        let appender = appender.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let last_frame = appender
            .zip(counter)
            .map(|(appender, counter)| FrameId { appender, counter: counter.cast_unsigned() });
        LedgerEntry { epoch: Epoch(epoch), last_seq: last_seq.cast_unsigned(), last_frame }
    }))
}

/// Many ledgers at one moment.
pub(crate) async fn ledgers(
    snapshot: &mut SqliteConnection,
    partitions: &[Partition],
) -> Result<Vec<(Partition, LedgerEntry)>, sqlx::Error> {
    let mut found = Vec::with_capacity(partitions.len());
    for partition in partitions {
        found.extend(ledger(snapshot, *partition).await?.map(|entry| (*partition, entry)));
    }
    Ok(found)
}

pub(crate) async fn persist(
    connection: &mut SqliteConnection,
    lease: &Lease,
    batch: &Batch,
    now: Timestamp,
) -> Result<Verdict, sqlx::Error> {
    let checked = !injected(Fault::LedgerCheckSkipped);
    if checked && !leases::is_held(connection, lease, now).await? {
        return Ok(Verdict::LeaseLost);
    }
    let found = ledger(connection, lease.partition).await?;
    let last = found.map_or(0, |entry| entry.last_seq);
    let moved = last != batch.expected_last || found.is_some_and(|entry| entry.epoch > batch.epoch);
    if checked && moved {
        return Ok(Verdict::LedgerMoved(last));
    }
    store_events(connection, lease.partition, batch).await?;
    store_losses(connection, lease.partition, batch).await?;
    sqlx::query(
        "INSERT INTO ledger (partition, epoch, last_seq, appender, counter) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, last_seq = excluded.last_seq,
                                   appender = excluded.appender, counter = excluded.counter",
    )
    .bind(i64::from(lease.partition.0))
    .bind(i64::from(batch.epoch.0))
    .bind(batch.through.cast_signed())
    .bind(batch.last_frame.map(|frame| frame.appender.to_vec()))
    .bind(batch.last_frame.map(|frame| frame.counter.cast_signed()))
    .execute(connection)
    .await?;
    Ok(Verdict::Stored)
}

/// What a batch adds to one channel.
struct Tally<'a> {
    name: &'a str,
    first_at: Timestamp,
    first_by: &'a str,
    last: Offset,
    last_at: Timestamp,
    count: i64,
    bytes: i64,
}

/// One event on its way into the table; `channel` is an index into the tallies.
struct Row<'a> {
    channel: usize,
    offset: Offset,
    ts: Timestamp,
    user: &'a str,
    event: Event<'a>,
}

fn take_apart(batch: &Batch) -> (Vec<Tally<'_>>, Vec<Row<'_>>) {
    let (mut tallies, mut rows) = (Vec::<Tally<'_>>::new(), Vec::with_capacity(weight(batch)));
    let mut index = HashMap::new();
    for (seq, ts, frame) in &batch.frames {
        for run in frame.events().into_iter().flat_map(|events| events.runs()) {
            if run.count == 0 {
                continue;
            }
            let channel = *index.entry(run.channel).or_insert_with(|| {
                tallies.push(Tally {
                    name: run.channel,
                    first_at: *ts,
                    first_by: run.user,
                    last: Offset(0),
                    last_at: *ts,
                    count: 0,
                    bytes: 0,
                });
                tallies.len() - 1
            });
            let tally = &mut tallies[channel];
            tally.last = Offset::new(*seq, run.first + run.count - 1);
            tally.last_at = *ts;
            tally.count += i64::from(run.count);
            rows.extend(run.events().map(|event| {
                tally.bytes += event.data.len() as i64;
                let offset = Offset::new(*seq, event.index);
                Row { channel, offset, ts: *ts, user: run.user, event }
            }));
        }
    }
    // Along the table's key: the rows of one statement then share their pages. Stable, so a channel's
    // events stay in order.
    rows.sort_by_key(|row| row.channel);
    (tallies, rows)
}

async fn store_events(
    connection: &mut SqliteConnection,
    partition: Partition,
    batch: &Batch,
) -> Result<(), sqlx::Error> {
    let (tallies, rows) = take_apart(batch);
    let ids = count_channels(connection, partition, batch.epoch, &tallies).await?;
    let encode = |rows: &[Row<'_>]| {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * EVENT_COLUMNS, 0);
        let encoded = rows.iter().try_for_each(|row| {
            let id = ids.get(tallies[row.channel].name).copied().unwrap_or_default();
            bind_event(&mut arguments, id, batch.epoch, row)
        });
        encoded.map(|()| (rows.len(), arguments)).map_err(sqlx::Error::Encode)
    };
    let mut chunks = row_chunks(&rows);
    let mut ready = chunks.next().map(encode).transpose()?;
    while let Some((len, arguments)) = ready {
        let insert = insert_rows(connection, EVENTS, EVENT_COLUMNS, len, arguments);
        // SQLite's thread inserts a chunk while this one makes the next.
        let next = async { chunks.next().map(encode).transpose() };
        let (inserted, next) = futures::future::join(insert, next).await;
        inserted?;
        ready = next?;
    }
    Ok(())
}

const EVENTS: &str =
    "events (channel, epoch, \"offset\", ts, published_by, id, type, key, binary, data)";
const EVENT_COLUMNS: usize = 10;

fn bind_event(
    arguments: &mut SqliteArguments,
    channel: i64,
    epoch: Epoch,
    row: &Row<'_>,
) -> Result<(), sqlx::error::BoxDynError> {
    let Row { offset, ts, user, event, .. } = row;
    arguments.add(channel)?;
    arguments.add(i64::from(epoch.0))?;
    arguments.add(offset.0.cast_signed())?;
    arguments.add(ts.0)?;
    arguments.add(*user)?;
    arguments.add(event.id)?;
    arguments.add(event.kind)?;
    arguments.add(event.key)?;
    arguments.add(event.binary)?;
    arguments.add(event.data)
}

/// Adds to the channels' rows, making those that are new, and says their numbers by name.
async fn count_channels<'a>(
    connection: &mut SqliteConnection,
    partition: Partition,
    epoch: Epoch,
    tallies: &'a [Tally<'a>],
) -> Result<HashMap<String, i64>, sqlx::Error> {
    let mut ids = HashMap::with_capacity(tallies.len());
    for chunk in row_chunks(tallies) {
        let mut arguments = SqliteArguments::default();
        let bound = chunk.iter().try_for_each(|tally| {
            let namespace =
                tally.name.split_once(':').map_or(tally.name, |(namespace, _)| namespace);
            arguments.add(tally.name)?;
            arguments.add(namespace)?;
            arguments.add(i64::from(partition.0))?;
            arguments.add(tally.first_at.0)?;
            arguments.add(tally.first_by)?;
            arguments.add(i64::from(epoch.0))?;
            arguments.add(tally.last.0.cast_signed())?;
            arguments.add(tally.last_at.0)?;
            arguments.add(tally.count)?;
            arguments.add(tally.bytes)
        });
        bound.map_err(sqlx::Error::Encode)?;
        // Made of literals and question marks alone.
        let sql = AssertSqlSafe(insert_sql(
            "channels (name, namespace, partition, created_at, created_by,
                       last_epoch, last_offset, last_at, count, bytes)",
            10,
            chunk.len(),
            " ON CONFLICT (name) DO UPDATE SET last_epoch = excluded.last_epoch,
                 last_offset = excluded.last_offset, last_at = excluded.last_at,
                 count = count + excluded.count, bytes = bytes + excluded.bytes
              RETURNING name, id",
        ));
        let rows: Vec<(String, i64)> =
            sqlx::query_as_with(sql, arguments).fetch_all(&mut *connection).await?;
        ids.extend(rows);
    }
    Ok(ids)
}

/// Holes, and frames that cannot be decoded: each of these is a dead letter and a gap.
async fn store_losses(
    connection: &mut SqliteConnection,
    partition: Partition,
    batch: &Batch,
) -> Result<(), sqlx::Error> {
    for gap in &batch.gaps {
        store_gap(connection, partition, gap).await?;
    }
    for Undecodable { seq, ts, error, bytes } in &batch.undecodable {
        let (from, to) = (Offset::new(*seq, 0), Offset::new(*seq, LAST_INDEX));
        sqlx::query(
            "INSERT INTO dead_letters (partition, epoch, \"offset\", ts, error, bytes, whole_frame)
             VALUES (?, ?, ?, ?, ?, ?, TRUE)",
        )
        .bind(i64::from(partition.0))
        .bind(i64::from(batch.epoch.0))
        .bind(from.0.cast_signed())
        .bind(ts.0)
        .bind(error)
        .bind(bytes.to_vec())
        .execute(&mut *connection)
        .await?;
        let gap = Gap { epoch: batch.epoch, from, to, reason: "undecodable".to_owned() };
        store_gap(connection, partition, &gap).await?;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "4,095")]
const LAST_INDEX: u16 = (MAX_EVENTS_PER_FRAME - 1) as u16;

async fn store_gap(
    connection: &mut SqliteConnection,
    partition: Partition,
    gap: &Gap,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO gaps (partition, epoch, from_offset, to_offset, reason) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET to_offset = max(to_offset, excluded.to_offset)",
    )
    .bind(i64::from(partition.0))
    .bind(i64::from(gap.epoch.0))
    .bind(gap.from.0.cast_signed())
    .bind(gap.to.0.cast_signed())
    .bind(&gap.reason)
    .execute(connection)
    .await
    .map(drop)
}
