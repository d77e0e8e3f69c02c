//! What could not be stored as what it is.

use sqlx::SqliteConnection;
use stormwire_archive::{DeadLetter, DeadLetterFilter};
use stormwire_core::{Epoch, Offset, Partition, Position, Timestamp};

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    partition: u16,
    epoch: u32,
    offset: i64,
    ts: i64,
    channel: Option<String>,
    error: String,
    bytes: Vec<u8>,
    whole_frame: bool,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let offset = Offset(row.offset.cast_unsigned());
        Self {
            id: row.id,
            partition: Partition(row.partition),
            position: Position { epoch: Epoch(row.epoch), offset },
            ts: Timestamp(row.ts),
            channel: row.channel,
            error: row.error,
            bytes: row.bytes.into(),
            whole_frame: row.whole_frame,
        }
    }
}

pub(crate) async fn page(
    connection: &mut SqliteConnection,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT * FROM dead_letters
         WHERE id > ?1 AND (?2 IS NULL OR partition = ?2) ORDER BY id LIMIT ?3",
    )
    .bind(filter.after)
    .bind(filter.partition.map(|partition| i64::from(partition.0)))
    .bind(i64::try_from(filter.limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(DeadLetter::from).collect())
}

pub(crate) async fn one(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM dead_letters WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(DeadLetter::from))
}

pub(crate) async fn remove(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("DELETE FROM dead_letters WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() == 1)
}
