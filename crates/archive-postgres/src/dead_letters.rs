//! Events and frames that could not be stored as what they are.

use crate::server::Server;
use crate::time::PgTime;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use stormwire_archive::{ArchiveError, DeadLetter, DeadLetterFilter};
use stormwire_core::{Epoch, Offset, Partition, Position};

pub(crate) async fn page(
    server: &Server,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetter>, ArchiveError> {
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    server
        .ask("dead_letters", || async {
            sqlx::query(
                r#"SELECT id, partition, epoch, "offset", ts, channel, error, bytes, whole_frame
                   FROM dead_letters
                   WHERE id > $1 AND ($2::smallint IS NULL OR partition = $2)
                   ORDER BY id LIMIT $3"#,
            )
            .bind(filter.after)
            .bind(filter.partition.map(|partition| partition.0.cast_signed()))
            .bind(limit)
            .fetch_all(&mut *server.connection().await?)
            .await?
            .iter()
            .map(letter)
            .collect()
        })
        .await
}

pub(crate) async fn one(server: &Server, id: i64) -> Result<Option<DeadLetter>, ArchiveError> {
    server
        .ask("dead_letter", || async {
            let row = sqlx::query(
                r#"SELECT id, partition, epoch, "offset", ts, channel, error, bytes, whole_frame
                   FROM dead_letters WHERE id = $1"#,
            )
            .bind(id)
            .fetch_optional(&mut *server.connection().await?)
            .await?;
            row.as_ref().map(letter).transpose()
        })
        .await
}

pub(crate) async fn drop(server: &Server, id: i64) -> Result<bool, ArchiveError> {
    server
        .once("drop_dead_letter", async {
            let done = sqlx::query("DELETE FROM dead_letters WHERE id = $1")
                .bind(id)
                .execute(&mut *server.connection().await?)
                .await?;
            Ok(done.rows_affected() > 0)
        })
        .await
}

fn letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.try_get("id")?,
        partition: Partition(row.try_get::<i16, _>("partition")?.cast_unsigned()),
        position: Position {
            epoch: Epoch(row.try_get::<i32, _>("epoch")?.cast_unsigned()),
            offset: Offset(row.try_get::<i64, _>("offset")?.cast_unsigned()),
        },
        ts: row.try_get::<PgTime, _>("ts")?.0,
        channel: row.try_get("channel")?,
        error: row.try_get("error")?,
        bytes: row.try_get::<Vec<u8>, _>("bytes")?.into(),
        whole_frame: row.try_get("whole_frame")?,
    })
}
