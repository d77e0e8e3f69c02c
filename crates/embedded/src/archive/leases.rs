//! Who persists which partition, and who lives. All of it runs on the one writer, so nothing happens
//! between reading a lease and changing it.

use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use stormwire_archive::{Lease, Roster};
use stormwire_core::{Partition, PartitionCount, Timestamp};

pub(crate) async fn acquire(
    connection: &mut SqliteConnection,
    worker: String,
    count: PartitionCount,
    want: usize,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Lease>, sqlx::Error> {
    let rows: Vec<(u16, i64, bool)> = sqlx::query_as(
        "SELECT partition, token, worker IS NOT NULL AND expires_at > ? FROM leases",
    )
    .bind(now.0)
    .fetch_all(&mut *connection)
    .await?;
    let known: BTreeMap<_, _> =
        rows.into_iter().map(|(partition, token, held)| (partition, (token, held))).collect();
    let mut taken = Vec::new();
    for partition in count.all() {
        let (token, held) = known.get(&partition.0).copied().unwrap_or((0, false));
        if held || taken.len() == want {
            continue;
        }
        sqlx::query(
            "INSERT INTO leases (partition, worker, token, expires_at) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET worker = excluded.worker, token = excluded.token,
                                       expires_at = excluded.expires_at",
        )
        .bind(i64::from(partition.0))
        .bind(&worker)
        .bind(token + 1)
        .bind(until.0)
        .execute(&mut *connection)
        .await?;
        let token = (token + 1).cast_unsigned();
        taken.push(Lease { partition, worker: worker.clone(), token });
    }
    Ok(taken)
}

pub(crate) async fn renew(
    connection: &mut SqliteConnection,
    leases: Vec<Lease>,
    until: Timestamp,
) -> Result<Vec<Lease>, sqlx::Error> {
    let mut renewed = Vec::with_capacity(leases.len());
    for lease in leases {
        if set(connection, &lease, Some(&lease.worker), until).await? {
            renewed.push(lease);
        }
    }
    Ok(renewed)
}

pub(crate) async fn release(
    connection: &mut SqliteConnection,
    lease: Lease,
) -> Result<(), sqlx::Error> {
    set(connection, &lease, None, Timestamp(0)).await.map(drop)
}

/// Changes a lease that is still the one handed in; says whether it was.
async fn set(
    connection: &mut SqliteConnection,
    lease: &Lease,
    worker: Option<&str>,
    until: Timestamp,
) -> Result<bool, sqlx::Error> {
    let update = sqlx::query(
        "UPDATE leases SET worker = ?, expires_at = ?
         WHERE partition = ? AND worker = ? AND token = ?",
    );
    let done = update
        .bind(worker)
        .bind(until.0)
        .bind(i64::from(lease.partition.0))
        .bind(&lease.worker)
        .bind(lease.token.cast_signed())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the lease is still held and has not expired.
pub(crate) async fn is_held(
    connection: &mut SqliteConnection,
    lease: &Lease,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let Partition(partition) = lease.partition;
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM leases
                        WHERE partition = ? AND worker = ? AND token = ? AND expires_at > ?)",
    )
    .bind(i64::from(partition))
    .bind(&lease.worker)
    .bind(lease.token.cast_signed())
    .bind(now.0)
    .fetch_one(connection)
    .await
}

/// How many partitions nobody holds.
pub(crate) async fn free(
    connection: &mut SqliteConnection,
    count: PartitionCount,
    now: Timestamp,
) -> Result<usize, sqlx::Error> {
    let held: u32 = sqlx::query_scalar(
        "SELECT count(*) FROM leases WHERE partition < ? AND worker IS NOT NULL AND expires_at > ?",
    )
    .bind(i64::from(count.get()))
    .bind(now.0)
    .fetch_one(connection)
    .await?;
    Ok(usize::from(count.get()).saturating_sub(held as usize))
}

pub(crate) async fn workers(
    connection: &mut SqliteConnection,
    worker: String,
    now: Timestamp,
    until: Timestamp,
) -> Result<Roster, sqlx::Error> {
    sqlx::query(
        "INSERT INTO workers (worker, expires_at) VALUES (?, ?)
         ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at",
    )
    .bind(&worker)
    .bind(until.0)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM workers WHERE expires_at <= ?")
        .bind(now.0)
        .execute(&mut *connection)
        .await?;
    let (living, before): (u32, u32) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE worker < ?) FROM workers")
            .bind(&worker)
            .fetch_one(connection)
            .await?;
    Ok(Roster { living: living.max(1) as usize, before: before as usize })
}
