//! The newest event of one key, or of each: events and ledger in one statement, hence one snapshot.
//!
//! Each table of events has an index of keys; the newest event of a key is its last entry there, and the
//! next key is one hop away. What a page costs grows with its keys, not with their events.

use crate::history::event;
use crate::leases::ledger_of;
use crate::server::Server;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use stormwire_archive::{ArchiveError, KeyQuery, LatestPage};
use stormwire_core::{Channel, Partition};

macro_rules! page {
    ($with:literal, $from:literal) => {
        concat!(
            $with,
            r#" SELECT ledger.epoch AS ledger_epoch, ledger.last_seq, ledger.last_appender, ledger.last_counter,
                       page.*
                FROM (SELECT) one
                LEFT JOIN ledger ON ledger.partition = $1
                LEFT JOIN (
                    SELECT * FROM (
                        SELECT found.*, count(*) OVER () AS found,
                               sum(size) OVER (ORDER BY key) - size AS size_before
                        FROM ("#, $from, r#") found) cut
                    WHERE size_before < $5) page ON true
                ORDER BY page.key"#
        )
    };
}

/// The newest of key $3, at most $4.
const OF: &str = page!(
    "",
    r#"SELECT channel, epoch, "offset", ts, id, type, key, published_by, data, data_binary,
              coalesce(octet_length(data), octet_length(data_binary), 0) AS size
       FROM events WHERE channel = $2 AND key = $3
       ORDER BY epoch DESC, "offset" DESC LIMIT $4"#
);

/// The newest of each key above $3, of at most $4 keys.
const AFTER: &str = page!(
    "WITH RECURSIVE walk AS (
         (SELECT key FROM events WHERE channel = $2 AND key > $3 ORDER BY key LIMIT 1)
         UNION ALL
         SELECT (SELECT e.key FROM events e WHERE e.channel = $2 AND e.key > walk.key
                 ORDER BY e.key LIMIT 1)
         FROM walk WHERE walk.key IS NOT NULL)",
    r#"SELECT newest.*
       FROM (SELECT key FROM walk WHERE key IS NOT NULL LIMIT $4) keys
       CROSS JOIN LATERAL (
           SELECT channel, epoch, "offset", ts, id, type, key, published_by, data, data_binary,
                  coalesce(octet_length(data), octet_length(data_binary), 0) AS size
           FROM events WHERE channel = $2 AND key = keys.key
           ORDER BY epoch DESC, "offset" DESC LIMIT 1) newest"#
);

/// A page as it is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) channel: &'a Channel,
    pub(crate) partition: Partition,
    pub(crate) query: &'a KeyQuery,
    pub(crate) limit: usize,
    pub(crate) bytes: usize,
}

impl Ask<'_> {
    /// The page as `server` has it.
    pub(crate) async fn of(&self, server: &Server) -> Result<LatestPage, ArchiveError> {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX - 1);
        let (sql, key, most) = match self.query {
            KeyQuery::Of(key) => (OF, key.as_str(), 1),
            // One more says whether there are more. No key is empty.
            KeyQuery::After(after) => {
                (AFTER, after.as_deref().unwrap_or_default(), number(self.limit) + 1)
            }
        };
        server
            .ask("latest", || async {
                let rows = sqlx::query(sql)
                    .bind(self.partition.0.cast_signed())
                    .bind(self.channel.as_str())
                    .bind(key)
                    .bind(most)
                    .bind(number(self.bytes).max(1))
                    .fetch_all(&mut *server.connection().await?)
                    .await?;
                self.read(&rows)
            })
            .await
    }

    fn read(&self, rows: &[PgRow]) -> Result<LatestPage, sqlx::Error> {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let found = first.try_get::<Option<i64>, _>("found")?.unwrap_or(0);
        let events = rows.iter().filter(|_| found > 0).take(self.limit.max(1)).map(event);
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let more = usize::try_from(found).unwrap_or(usize::MAX) > events.len();
        Ok(LatestPage { more, ledger: ledger_of(first)?, events })
    }
}
