//! Ledger, leases and workers. All times are the database's: workers' clocks do not matter.

use crate::server::Server;
use crate::time::PgTime;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::time::Duration;
use stormwire_archive::{ArchiveError, Lease, LedgerEntry, Roster};
use stormwire_core::{Epoch, Partition, PartitionCount, Timestamp};
use stormwire_wire::frame::FrameId;

/// The ledger in a row that may not have one (`epoch` null or 0).
pub(crate) fn ledger_of(row: &PgRow) -> Result<Option<LedgerEntry>, sqlx::Error> {
    let epoch: Option<i32> = row.try_get("ledger_epoch")?;
    let Some(epoch) = epoch.filter(|epoch| *epoch > 0) else { return Ok(None) };
    let appender: Option<Vec<u8>> = row.try_get("last_appender")?;
    let counter: Option<i64> = row.try_get("last_counter")?;
    let last_frame = appender.and_then(|bytes| bytes.try_into().ok()).zip(counter);
    Ok(Some(LedgerEntry {
        epoch: Epoch(epoch.cast_unsigned()),
        last_seq: row.try_get::<i64, _>("last_seq")?.cast_unsigned(),
        last_frame: last_frame
            .map(|(appender, counter)| FrameId { appender, counter: counter.cast_unsigned() }),
    }))
}

pub(crate) async fn ledger(
    server: &Server,
    partition: Partition,
) -> Result<Option<LedgerEntry>, ArchiveError> {
    server
        .ask("ledger", || async {
            let row = sqlx::query(
                "SELECT epoch AS ledger_epoch, last_seq, last_appender, last_counter
                 FROM ledger WHERE partition = $1",
            )
            .bind(partition.0.cast_signed())
            .fetch_optional(&mut *server.connection().await?)
            .await?;
            row.as_ref().map_or(Ok(None), ledger_of)
        })
        .await
}

/// Many ledgers in one question.
pub(crate) async fn ledgers(
    server: &Server,
    partitions: &[Partition],
) -> Result<Vec<(Partition, LedgerEntry)>, ArchiveError> {
    let partitions: Vec<i16> =
        partitions.iter().map(|partition| partition.0.cast_signed()).collect();
    server
        .ask("ledgers", || async {
            let rows = sqlx::query(
                "SELECT partition, epoch AS ledger_epoch, last_seq, last_appender, last_counter
                 FROM ledger WHERE partition = ANY ($1)",
            )
            .bind(&partitions)
            .fetch_all(&mut *server.connection().await?)
            .await?;
            let entry = |row: &PgRow| {
                let partition = Partition(row.try_get::<i16, _>("partition")?.cast_unsigned());
                Ok(ledger_of(row)?.map(|entry| (partition, entry)))
            };
            rows.iter().filter_map(|row| entry(row).transpose()).collect()
        })
        .await
}

/// Rows of leases and ledger are made once; then whatever has expired is taken. Rows that another
/// worker is just taking are passed over, not waited for.
pub(crate) async fn acquire(
    server: &Server,
    worker: &str,
    count: PartitionCount,
    want: usize,
    ttl: Duration,
) -> Result<Vec<Lease>, ArchiveError> {
    let want = i64::try_from(want).unwrap_or(i64::MAX);
    let count = count.get().cast_signed();
    server
        .once("acquire", async {
            let mut connection = server.connection().await?;
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM leases WHERE partition < $1")
                .bind(count)
                .fetch_one(&mut *connection)
                .await?;
            if rows < i64::from(count) {
                for table in [
                    "INSERT INTO ledger (partition) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING",
                    "INSERT INTO leases (partition) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING",
                ] {
                    sqlx::query(table).bind(i32::from(count)).execute(&mut *connection).await?;
                }
            }
            let taken = sqlx::query(
                "UPDATE leases
                 SET worker = $1, token = token + 1,
                     expires_at = clock_timestamp() + $2 * interval '1 millisecond'
                 WHERE partition IN (
                     SELECT partition FROM leases
                     WHERE partition < $3 AND expires_at <= clock_timestamp()
                     ORDER BY expires_at, partition LIMIT $4
                     FOR UPDATE SKIP LOCKED)
                 RETURNING partition, token",
            )
            .bind(worker)
            .bind(millis(ttl))
            .bind(count)
            .bind(want)
            .fetch_all(&mut *connection)
            .await?;
            let mut leases: Vec<_> = taken.iter().map(|row| lease(row, worker)).collect::<Result<_, _>>()?;
            leases.sort_by_key(|lease| lease.partition);
            Ok(leases)
        })
        .await
}

pub(crate) async fn renew(
    server: &Server,
    leases: &[Lease],
    ttl: Duration,
) -> Result<Vec<Lease>, ArchiveError> {
    let partitions: Vec<i16> = leases.iter().map(|lease| lease.partition.0.cast_signed()).collect();
    let tokens: Vec<i64> = leases.iter().map(|lease| lease.token.cast_signed()).collect();
    let workers: Vec<&str> = leases.iter().map(|lease| lease.worker.as_str()).collect();
    let kept = server
        .ask("renew", || async {
            // Locked in one order, so that two workers' renewals cannot wait for each other. A lease
            // that expired and was not taken is still its holder's.
            sqlx::query(
                "UPDATE leases l SET expires_at = clock_timestamp() + $4 * interval '1 millisecond'
                 FROM (SELECT leases.partition FROM leases
                       JOIN unnest($1::smallint[], $2::bigint[], $3::text[]) AS mine (partition, token, worker)
                         ON leases.partition = mine.partition AND leases.token = mine.token
                        AND leases.worker = mine.worker
                       ORDER BY leases.partition FOR UPDATE OF leases) held
                 WHERE l.partition = held.partition
                 RETURNING l.partition, l.token",
            )
            .bind(&partitions)
            .bind(&tokens)
            .bind(&workers)
            .bind(millis(ttl))
            .fetch_all(&mut *server.connection().await?)
            .await?
            .iter()
            .map(|row| Ok((row.try_get("partition")?, row.try_get("token")?)))
            .collect::<Result<Vec<(i16, i64)>, sqlx::Error>>()
        })
        .await?;
    let is_kept = |lease: &&Lease| {
        kept.contains(&(lease.partition.0.cast_signed(), lease.token.cast_signed()))
    };
    Ok(leases.iter().filter(is_kept).cloned().collect())
}

pub(crate) async fn release(server: &Server, lease: &Lease) -> Result<(), ArchiveError> {
    server
        .ask("release", || async {
            sqlx::query(
                "UPDATE leases SET expires_at = '-infinity', worker = '', token = token + 1
                 WHERE partition = $1 AND worker = $2 AND token = $3",
            )
            .bind(lease.partition.0.cast_signed())
            .bind(&lease.worker)
            .bind(lease.token.cast_signed())
            .execute(&mut *server.connection().await?)
            .await
        })
        .await?;
    Ok(())
}

/// A partition without a row was never taken.
pub(crate) async fn free(server: &Server, count: PartitionCount) -> Result<usize, ArchiveError> {
    let held: i64 = server
        .ask("free", || async {
            sqlx::query_scalar(
                "SELECT count(*) FROM leases WHERE partition < $1 AND expires_at > clock_timestamp()",
            )
            .bind(count.get().cast_signed())
            .fetch_one(&mut *server.connection().await?)
            .await
        })
        .await?;
    Ok(usize::from(count.get()).saturating_sub(usize::try_from(held).unwrap_or(usize::MAX)))
}

/// Who lives, and the database's time.
pub(crate) async fn workers(
    server: &Server,
    worker: &str,
    ttl: Duration,
) -> Result<(Roster, Timestamp), ArchiveError> {
    server
        .ask("workers", || async {
            let mut connection = server.connection().await?;
            sqlx::query(
                "INSERT INTO workers (worker, expires_at)
                 VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
                 ON CONFLICT (worker) DO UPDATE SET expires_at = excluded.expires_at",
            )
            .bind(worker)
            .bind(millis(ttl))
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "DELETE FROM workers WHERE expires_at < clock_timestamp() - interval '1 hour'",
            )
            .execute(&mut *connection)
            .await?;
            let row = sqlx::query(
                r#"SELECT count(*) AS living,
                          count(*) FILTER (WHERE worker COLLATE "C" < $1) AS before,
                          clock_timestamp() AS now
                   FROM workers WHERE expires_at > clock_timestamp()"#,
            )
            .bind(worker)
            .fetch_one(&mut *connection)
            .await?;
            let (living, before): (i64, i64) = (row.try_get("living")?, row.try_get("before")?);
            let number = |count| usize::try_from(count).unwrap_or(0);
            let roster = Roster { living: number(living).max(1), before: number(before) };
            Ok((roster, row.try_get::<PgTime, _>("now")?.0))
        })
        .await
}

fn lease(row: &PgRow, worker: &str) -> Result<Lease, sqlx::Error> {
    Ok(Lease {
        partition: Partition(row.try_get::<i16, _>("partition")?.cast_unsigned()),
        worker: worker.to_owned(),
        token: row.try_get::<i64, _>("token")?.cast_unsigned(),
    })
}

fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2)
}
