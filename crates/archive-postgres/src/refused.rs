//! Rows that Postgres will not store: found by halving, kept as dead letters, told as gaps.

use crate::copy::{Rows, copy};
use crate::error::refuses_data;
use crate::memory::Memory;
use crate::persist::{Failure, Refused};
use crate::time::PgTime;
use metrics::counter;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use stormwire_archive::Batch;
use stormwire_core::{Channel, Offset, Partition, Timestamp};
use stormwire_telemetry::metrics as names;
use stormwire_wire::frame::{Event, EventParts, EventsBuilder};

/// Copies what can be copied of a batch that was refused as a whole, and adds to `refused` what cannot.
/// Each half is tried under a savepoint, so that one transaction still holds all of the batch.
pub(crate) async fn copy_the_rest(
    connection: &mut PgConnection,
    partition: Partition,
    epoch: i32,
    batch: &Batch,
    memory: &mut Memory,
    refused: &mut Refused,
) -> Result<(), Failure> {
    let offsets: Vec<Offset> =
        offsets(batch).filter(|offset| !refused.contains_key(offset)).collect();
    let mut halves = vec![&offsets[..]];
    while let Some(part) = halves.pop() {
        let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
        connection.execute("SAVEPOINT part").await?;
        let rows = Rows { partition, epoch, batch, within: *first..=*last, refused };
        match copy(connection, &rows, &mut memory.buffer).await {
            Ok(_) => {
                connection.execute("RELEASE SAVEPOINT part").await?;
            }
            Err(error) if refuses_data(&error) => {
                connection.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await?;
                if part.len() == 1 {
                    refused.insert(*first, reason(&error));
                } else {
                    let (left, right) = part.split_at(part.len() / 2);
                    halves.extend([right, left]);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn reason(error: &sqlx::Error) -> String {
    let text = error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().into());
    format!("refused by the database: {text}")
}

fn offsets(batch: &Batch) -> impl Iterator<Item = Offset> {
    batch.frames.iter().flat_map(|(seq, _, frame)| {
        let events = frame.events().map_or(0, stormwire_wire::frame::Events::len);
        (0..events).map(|index| Offset::new(*seq, index))
    })
}

/// Writes the batch's dead letters and gaps: refused rows, frames that cannot be decoded, proved holes.
pub(crate) async fn note(
    connection: &mut PgConnection,
    partition: Partition,
    epoch: i32,
    batch: &Batch,
    refused: &Refused,
) -> Result<(), sqlx::Error> {
    if refused.is_empty() && batch.undecodable.is_empty() && batch.gaps.is_empty() {
        return Ok(());
    }
    let letters = letters(batch, refused);
    counter!(names::DEAD_LETTERS).increment(letters.len() as u64);
    for letter in &letters {
        tracing::warn!(
            partition = partition.0,
            offset = letter.from.0,
            error = letter.error,
            "an event could not be stored as what it is; it is a dead letter now"
        );
        sqlx::query(
            r#"INSERT INTO dead_letters (partition, epoch, "offset", ts, channel, error, bytes, whole_frame)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"#,
        )
        .bind(partition.0.cast_signed())
        .bind(epoch)
        .bind(letter.from.0.cast_signed())
        .bind(PgTime(letter.ts))
        .bind(&letter.channel)
        .bind(letter.error.replace('\0', "\u{fffd}"))
        .bind(&letter.bytes)
        .bind(letter.whole_frame)
        .execute(&mut *connection)
        .await?;
        gap(connection, partition, epoch, letter).await?;
    }
    for hole in &batch.gaps {
        sqlx::query(GAP)
            .bind(partition.0.cast_signed())
            .bind(i64::from(hole.epoch.0))
            .bind(hole.from.0.cast_signed())
            .bind(hole.to.0.cast_signed())
            .bind(None::<String>)
            .bind(&hole.reason)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

const GAP: &str = "INSERT INTO gaps (partition, epoch, from_offset, to_offset, channel, reason)
    VALUES ($1, $2::bigint::integer, $3, $4, $5, $6) ON CONFLICT DO NOTHING";

async fn gap(
    connection: &mut PgConnection,
    partition: Partition,
    epoch: i32,
    letter: &Letter,
) -> Result<(), sqlx::Error> {
    let reason = if letter.whole_frame { "undecodable" } else { "refused by the database" };
    sqlx::query(GAP)
        .bind(partition.0.cast_signed())
        .bind(i64::from(epoch))
        .bind(letter.from.0.cast_signed())
        .bind(letter.to.0.cast_signed())
        .bind(&letter.channel)
        .bind(reason)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

struct Letter {
    from: Offset,
    to: Offset,
    ts: Timestamp,
    channel: Option<String>,
    error: String,
    bytes: Vec<u8>,
    whole_frame: bool,
}

fn letters(batch: &Batch, refused: &Refused) -> Vec<Letter> {
    let whole = batch.undecodable.iter().map(|frame| Letter {
        from: Offset::new(frame.seq, 0),
        to: Offset::new(frame.seq, 4095),
        ts: frame.ts,
        channel: None,
        error: frame.error.clone(),
        bytes: frame.bytes.to_vec(),
        whole_frame: true,
    });
    let mut letters: Vec<_> = whole.collect();
    for (seq, ts, frame) in &batch.frames {
        let mine = refused.range(Offset::new(*seq, 0)..=Offset::new(*seq, 4095));
        let Some(events) = frame.events().filter(|_| mine.clone().next().is_some()) else {
            continue;
        };
        for run in events.runs() {
            for event in run.events() {
                let at = Offset::new(*seq, event.index);
                let Some(error) = refused.get(&at) else { continue };
                letters.push(Letter {
                    from: at,
                    to: at,
                    ts: *ts,
                    channel: Channel::parse(run.channel).ok().map(|name| name.to_string()),
                    error: error.clone(),
                    bytes: encoded(&event),
                    whole_frame: false,
                });
            }
        }
    }
    letters
}

/// The event alone, in the frame's encoding. It came out of a frame, so it fits.
fn encoded(event: &Event<'_>) -> Vec<u8> {
    let mut builder = EventsBuilder::default();
    let parts = EventParts {
        kind: event.kind,
        key: event.key,
        id: event.id,
        data: event.data,
        binary: event.binary,
    };
    let _ = builder.push(&parts);
    builder.take().as_bytes().to_vec()
}
