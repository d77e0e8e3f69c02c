//! How far users have read.

use sqlx::SqliteConnection;
use stormwire_core::{Channel, Epoch, Offset, Position};

pub(crate) async fn get(
    connection: &mut SqliteConnection,
    user: &str,
    channel: &Channel,
) -> Result<Option<Position>, sqlx::Error> {
    let row: Option<(u32, i64)> = sqlx::query_as(
        "SELECT epoch, \"offset\" FROM read_positions WHERE user = ? AND channel = ?",
    )
    .bind(user)
    .bind(channel.as_str())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(position))
}

pub(crate) async fn set(
    connection: &mut SqliteConnection,
    user: String,
    channel: Channel,
    to: Position,
    force: bool,
) -> Result<Position, sqlx::Error> {
    let now = get(connection, &user, &channel).await?;
    if let Some(now) = now.filter(|now| !force && to <= *now) {
        return Ok(now);
    }
    sqlx::query(
        "INSERT INTO read_positions (user, channel, epoch, \"offset\") VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, \"offset\" = excluded.\"offset\"",
    )
    .bind(user)
    .bind(channel.as_str())
    .bind(i64::from(to.epoch.0))
    .bind(to.offset.0.cast_signed())
    .execute(connection)
    .await?;
    Ok(to)
}

fn position((epoch, offset): (u32, i64)) -> Position {
    Position { epoch: Epoch(epoch), offset: Offset(offset.cast_unsigned()) }
}
