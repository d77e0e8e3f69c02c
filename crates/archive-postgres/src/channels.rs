//! Channels by name: what their rows count, and what was stored since.

use crate::server::Server;
use crate::time::PgTime;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use stormwire_archive::{ArchiveError, ChannelInfo, ChannelQuery};
use stormwire_core::{Channel, Epoch, Offset, Position};

/// Rows of `channels` with what lies beyond the ledger's counts. The laterals touch nothing when all is
/// counted (`uncounted_since` is null), else a few seconds of one channel.
macro_rules! select {
    ($where:literal) => {
        concat!(
            r#"SELECT c.name, c.created_at, c.created_by, c.title,
                      c.count + n.count AS count,
                      coalesce(newest.epoch, c.last_epoch) AS last_epoch,
                      coalesce(newest."offset", c.last_offset) AS last_offset,
                      coalesce(newest.ts, c.last_at) AS last_at
               FROM channels c
               JOIN ledger l ON l.partition = c.partition
               CROSS JOIN LATERAL (
                   SELECT count(*) AS count FROM events e
                   WHERE e.channel = c.name AND e.ts >= l.uncounted_since
                     AND (e.epoch, e."offset") > (l.counted_epoch, l.counted_seq * 4096 + 4095)) n
               LEFT JOIN LATERAL (
                   SELECT e.epoch, e."offset", e.ts FROM events e
                   WHERE e.channel = c.name AND e.ts >= l.uncounted_since
                     AND (e.epoch, e."offset") > (l.counted_epoch, l.counted_seq * 4096 + 4095)
                   ORDER BY e.epoch DESC, e."offset" DESC LIMIT 1) newest ON true
               WHERE "#,
            $where
        )
    };
}

pub(crate) async fn one(
    server: &Server,
    channel: &Channel,
) -> Result<Option<ChannelInfo>, ArchiveError> {
    server
        .ask("channel", || async {
            let row = sqlx::query(select!("c.name = $1"))
                .bind(channel.as_str())
                .fetch_optional(&mut *server.connection().await?)
                .await?;
            row.as_ref().map(info).transpose()
        })
        .await
}

pub(crate) async fn page(
    server: &Server,
    query: &ChannelQuery,
) -> Result<Vec<ChannelInfo>, ArchiveError> {
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let range = Range::of(query);
    server
        .ask("channels", || async {
            sqlx::query(select!(
                r#"c.name >= $1 AND ($2::text IS NULL OR c.name < $2) AND ($3::text IS NULL OR c.name > $3)
                   AND ($4::text IS NULL OR starts_with(substr(c.name, strpos(c.name, ':') + 1), $4))
                   ORDER BY c.name LIMIT $5"#
            ))
            .bind(&range.from)
            .bind(&range.below)
            .bind(query.after.as_ref().map(Channel::as_str))
            .bind(&range.name_begins)
            .bind(limit)
            .fetch_all(&mut *server.connection().await?)
            .await?
            .iter()
            .map(info)
            .collect()
        })
        .await
}

/// A query as a range of the names' order, which the key answers; only a prefix without a namespace has
/// to look at every name.
struct Range {
    from: String,
    below: Option<String>,
    name_begins: Option<String>,
}

impl Range {
    fn of(query: &ChannelQuery) -> Self {
        let prefix = query.prefix.as_deref().unwrap_or_default();
        let Some(namespace) = &query.namespace else {
            let name_begins = query.prefix.clone().filter(|prefix| !prefix.is_empty());
            return Self { from: String::new(), below: None, name_begins };
        };
        let from = format!("{namespace}:{prefix}");
        // No channel holds a byte above `~`, so this is above every name that begins with `from`.
        let below = Some(format!("{from}\u{7f}"));
        Self { from, below, name_begins: None }
    }
}

fn info(row: &PgRow) -> Result<ChannelInfo, sqlx::Error> {
    let name: String = row.try_get("name")?;
    let channel = Channel::parse(&name).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(ChannelInfo {
        channel,
        created_at: row.try_get::<PgTime, _>("created_at")?.0,
        created_by: row.try_get("created_by")?,
        title: row.try_get("title")?,
        last: Position {
            epoch: Epoch(row.try_get::<i32, _>("last_epoch")?.cast_unsigned()),
            offset: Offset(row.try_get::<i64, _>("last_offset")?.cast_unsigned()),
        },
        last_at: row.try_get::<PgTime, _>("last_at")?.0,
        count: row.try_get::<i64, _>("count")?.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_and_a_prefix_are_one_range_of_names() {
        let query = ChannelQuery {
            namespace: Some("a".to_owned()),
            prefix: Some("b.".to_owned()),
            ..Default::default()
        };
        let range = Range::of(&query);
        assert_eq!((range.from.as_str(), range.below.as_deref()), ("a:b.", Some("a:b.\u{7f}")));
        let anywhere = Range::of(&ChannelQuery { namespace: None, ..query });
        assert_eq!((anywhere.from.as_str(), anywhere.name_begins.as_deref()), ("", Some("b.")));
    }
}
