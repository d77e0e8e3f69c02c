//! How far users have read.

use crate::server::Server;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use stormwire_archive::ArchiveError;
use stormwire_core::{Channel, Epoch, Offset, Position};

pub(crate) async fn get(
    server: &Server,
    user: &str,
    channel: &Channel,
) -> Result<Option<Position>, ArchiveError> {
    server
        .ask("read_position", || async {
            let row = sqlx::query(
                r#"SELECT epoch, "offset" FROM read_positions WHERE user_name = $1 AND channel = $2"#,
            )
            .bind(user)
            .bind(channel.as_str())
            .fetch_optional(&mut *server.connection().await?)
            .await?;
            row.as_ref().map(position).transpose()
        })
        .await
}

/// Repeating it changes nothing more, so it is retried.
pub(crate) async fn set(
    server: &Server,
    user: &str,
    channel: &Channel,
    to: Position,
    force: bool,
) -> Result<Position, ArchiveError> {
    server
        .ask("set_read_position", || async {
            let row = sqlx::query(
                r#"INSERT INTO read_positions AS r (user_name, channel, epoch, "offset")
                   VALUES ($1, $2, $3, $4)
                   ON CONFLICT (user_name, channel) DO UPDATE
                   SET (epoch, "offset", updated_at) = (
                       SELECT n.epoch, n."offset", clock_timestamp()
                       FROM (VALUES (r.epoch, r."offset", false),
                                    (excluded.epoch, excluded."offset", $5)) n (epoch, "offset", first)
                       ORDER BY n.first DESC, n.epoch DESC, n."offset" DESC LIMIT 1)
                   RETURNING r.epoch, r."offset""#,
            )
            .bind(user)
            .bind(channel.as_str())
            .bind(i32::try_from(to.epoch.0).unwrap_or(i32::MAX))
            .bind(i64::try_from(to.offset.0).unwrap_or(i64::MAX))
            .bind(force)
            .fetch_one(&mut *server.connection().await?)
            .await?;
            position(&row)
        })
        .await
}

fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: Epoch(row.try_get::<i32, _>("epoch")?.cast_unsigned()),
        offset: Offset(row.try_get::<i64, _>("offset")?.cast_unsigned()),
    })
}
