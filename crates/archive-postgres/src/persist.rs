//! One batch, one transaction.

use crate::copy::{Rows, copy};
use crate::error::{answered, is_answer, raised, refuses_data, unavailable};
use crate::memory::{Fresh, Memory, nameless};
use crate::server::Server;
use crate::{literal, refused};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::BTreeMap;
use std::time::Duration;
use stormwire_archive::{ArchiveError, Batch, Lease, PersistError};
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, Offset, Timestamp};

/// Events that are not stored, and why. Mostly empty.
pub(crate) type Refused = BTreeMap<Offset, String>;

/// Why a batch was not stored, before the guard has judged whose fault it is.
pub(crate) enum Failure {
    Persist(PersistError),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Stores `batch` on one connection within `deadline`.
pub(crate) async fn persist(
    server: &Server,
    deadline: Duration,
    lease: &Lease,
    batch: &Batch,
    memory: &mut Memory,
) -> Result<(), PersistError> {
    let work = async {
        match transaction(server, lease, batch, memory).await {
            Ok(()) => Ok(Ok(())),
            Err(Failure::Persist(error)) => Ok(Err(error)),
            Err(Failure::Sql(error)) if is_answer(&error) => Ok(Err(answered(&error).into())),
            Err(Failure::Sql(error)) => Err(error),
        }
    };
    match server.guard.call_within("persist", deadline, work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(unavailable(error).into()),
    }
}

async fn transaction(
    server: &Server,
    lease: &Lease,
    batch: &Batch,
    memory: &mut Memory,
) -> Result<(), Failure> {
    let epoch = epoch(batch.epoch).map_err(Failure::Persist)?;
    let mut held = Held(Some(server.connection().await?));
    let connection = held.connection()?;
    let partition = lease.partition;
    if memory.counted_from.is_none() {
        let from = sqlx::query_scalar::<_, i64>("SELECT stormwire_recount($1)")
            .bind(partition.0.cast_signed())
            .fetch_one(&mut *connection)
            .await?;
        memory.counted(from.cast_unsigned());
    }
    let mut refused = nameless(batch);
    connection.execute("BEGIN").await?;
    let ends = ends(batch);
    if let Some((within, _)) = ends.clone() {
        let rows = Rows { partition, epoch, batch, within, refused: &refused };
        match copy(connection, &rows, &mut memory.buffer).await {
            Ok(_) => {}
            Err(error) if refuses_data(&error) => {
                connection.execute("ROLLBACK; BEGIN").await?;
                refused::copy_the_rest(connection, partition, epoch, batch, memory, &mut refused)
                    .await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    refused::note(connection, partition, epoch, batch, &refused).await?;
    let fresh = memory.count(batch, &refused);
    let counts = memory.is_due(batch.frames.iter().map(|(_, _, frame)| events_of(frame)).sum())
        && !injected(Fault::LedgerCheckSkipped);
    let sql = advance(lease, epoch, batch, ends.map(|(_, times)| times), &fresh, memory, counts);
    if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await {
        let raised = raised(&error, partition, batch.expected_last);
        return Err(raised.map_or(Failure::Sql(error), Failure::Persist));
    }
    if counts {
        memory.counted(batch.through);
    }
    held.keep();
    Ok(())
}

/// The first and last offset that the batch's events can have, and the ends of their times.
type Ends = (std::ops::RangeInclusive<Offset>, (Timestamp, Timestamp));

pub(crate) fn ends(batch: &Batch) -> Option<Ends> {
    let with_events = || batch.frames.iter().filter(|(_, _, frame)| events_of(frame) > 0);
    let (first, last) = (with_events().next()?.0, with_events().next_back()?.0);
    let times = with_events().map(|(_, ts, _)| *ts);
    let times = (times.clone().min()?, times.max()?);
    Some((Offset::new(first, 0)..=Offset::new(last, 4095), times))
}

fn events_of(frame: &stormwire_wire::frame::Frame) -> u64 {
    frame.events().map_or(0, |events| u64::from(events.len()))
}

fn epoch(epoch: Epoch) -> Result<i32, PersistError> {
    i32::try_from(epoch.0).map_err(|_| {
        ArchiveError::Protocol(format!("epoch {epoch} is beyond what the archive can number"))
            .into()
    })
}

/// The ledger function with its `COMMIT`: two statements, one round trip. The second is not reached when
/// the first raises.
fn advance(
    lease: &Lease,
    epoch: i32,
    batch: &Batch,
    times: Option<(Timestamp, Timestamp)>,
    fresh: &[Fresh],
    memory: &Memory,
    counts: bool,
) -> String {
    let mut sql = String::with_capacity(512 + 64 * fresh.len());
    let number = |value: u64| Some(value.cast_signed());
    let partition = lease.partition;
    sql.push_str(&format!("SELECT stormwire_advance({partition}::smallint, "));
    if injected(Fault::LedgerCheckSkipped) {
        let of =
            |column, table| format!("(SELECT {column} FROM {table} WHERE partition = {partition})");
        let (worker, token) = (of("worker", "leases"), of("token", "leases"));
        let last_seq = of("last_seq", "ledger");
        sql.push_str(&format!("{worker}, {token}, {epoch}, {last_seq}, {}, ", batch.through));
    } else {
        literal::text(&mut sql, &lease.worker);
        sql.push_str(", ");
        literal::number(&mut sql, number(lease.token));
        sql.push_str(&format!(", {epoch}, {}, {}, ", batch.expected_last, batch.through));
    }
    match &batch.last_frame {
        Some(id) => {
            literal::bytes(&mut sql, &id.appender);
            sql.push_str(", ");
            literal::number(&mut sql, number(id.counter));
        }
        None => sql.push_str("NULL, NULL"),
    }
    for at in [times.map(|(first, _)| first), times.map(|(_, last)| last)] {
        sql.push_str(", ");
        literal::number(&mut sql, at.map(|at| crate::time::clamp(at).0));
    }
    sql.push_str(", ");
    literal::texts(&mut sql, fresh.iter().map(|fresh| &*fresh.name));
    sql.push_str(", ");
    literal::numbers(&mut sql, fresh.iter().map(|fresh| crate::time::clamp(fresh.at).0));
    sql.push_str(", ");
    literal::texts(&mut sql, fresh.iter().map(|fresh| &*fresh.by));
    sql.push_str(", ");
    literal::numbers(&mut sql, fresh.iter().map(|fresh| fresh.first.0.cast_signed()));
    sql.push_str(", ");
    literal::number(&mut sql, memory.counted_from.filter(|_| counts).map(u64::cast_signed));
    put_counts(&mut sql, memory, counts);
    sql.push_str("); COMMIT");
    sql
}

fn put_counts(sql: &mut String, memory: &Memory, counts: bool) {
    let counts = || memory.counts().iter().filter(move |_| counts);
    sql.push_str(", ");
    literal::texts(sql, counts().map(|(name, _)| &**name));
    sql.push_str(", ");
    literal::numbers(sql, counts().map(|(_, count)| count.events.cast_signed()));
    sql.push_str(", ");
    literal::numbers(sql, counts().map(|(_, count)| count.last.0.cast_signed()));
    sql.push_str(", ");
    literal::numbers(sql, counts().map(|(_, count)| crate::time::clamp(count.last_at).0));
    sql.push_str(", ");
    literal::numbers(sql, counts().map(|(_, count)| count.bytes.cast_signed()));
}

/// A connection in the middle of something. Unless the transaction ended well it is closed, never given
/// back: a COPY or a transaction that was cut off belongs to nobody else.
struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    fn keep(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}
