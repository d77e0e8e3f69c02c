//! The channels that have events.

use sqlx::SqliteConnection;
use stormwire_archive::{ChannelInfo, ChannelQuery};
use stormwire_core::{Channel, Epoch, Offset, Position, Timestamp};

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    created_at: i64,
    created_by: String,
    title: Option<String>,
    last_epoch: u32,
    last_offset: i64,
    last_at: i64,
    count: i64,
}

impl Row {
    fn info(self) -> Result<ChannelInfo, sqlx::Error> {
        let channel =
            Channel::parse(&self.name).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let offset = Offset(self.last_offset.cast_unsigned());
        Ok(ChannelInfo {
            channel,
            created_at: Timestamp(self.created_at),
            created_by: self.created_by,
            title: self.title,
            last: Position { epoch: Epoch(self.last_epoch), offset },
            last_at: Timestamp(self.last_at),
            count: self.count.cast_unsigned(),
        })
    }
}

pub(crate) async fn one(
    connection: &mut SqliteConnection,
    channel: &Channel,
) -> Result<Option<ChannelInfo>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT name, created_at, created_by, title, last_epoch, last_offset, last_at, count
         FROM channels WHERE name = ?",
    )
    .bind(channel.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Row::info).transpose()
}

/// One range of the index on names where the namespace is given; otherwise a walk along it.
pub(crate) async fn page(
    connection: &mut SqliteConnection,
    query: &ChannelQuery,
) -> Result<Vec<ChannelInfo>, sqlx::Error> {
    let prefix = query.prefix.as_deref().unwrap_or_default();
    let low = query.namespace.as_ref().map_or_else(String::new, |name| format!("{name}:{prefix}"));
    // Above every character of a name.
    let high = format!("{low}\u{7f}");
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, created_at, created_by, title, last_epoch, last_offset, last_at, count
         FROM channels
         WHERE name >= ?1 AND name < ?2 AND name > ?3
           AND substr(name, length(namespace) + 2, length(?4)) = ?4
         ORDER BY name LIMIT ?5",
    )
    .bind(low)
    .bind(high)
    .bind(query.after.as_ref().map_or("", Channel::as_str))
    .bind(prefix)
    .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::info).collect()
}
