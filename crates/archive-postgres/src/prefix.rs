//! Pages over all channels of a partition that begin with a prefix, in one of two ways.
//!
//! Of few channels, or where their next events are far: first which channels come next, then some
//! events of each of them, cut where a channel that was not read to its end could still have something
//! to say. Of many channels: the frames that come next, whoever is in them, of which those events are
//! taken that are wanted ([`mod@window`]); a look-up of each channel would cost more than the page.

mod window;

use crate::history::{GAPS_MAX, edge, event, gap, last_offset, position, removed};
use crate::leases::ledger_of;
use crate::server::Server;
use crate::time::PgTime;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use stormwire_archive::{ArchiveError, Gap, HistoryPage};
use stormwire_core::{Partition, Position, Timestamp};

/// Events read of each channel for one page, at least.
const EACH_MIN: usize = 32;
/// So many channels are looked up one by one.
const CHANNELS_FEW: i64 = 64;

/// After ($3, $4): of the $5 channels that come next, $8 events each.
const PAGE: &str = r#"
    WITH bound AS MATERIALIZED (
             SELECT first_ts FROM timeline
             WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $4::bigint / 4096)
             ORDER BY epoch DESC, first_seq DESC LIMIT 1),
         heads AS MATERIALIZED (
             SELECT c.name, head.epoch, head."offset"
             FROM channels c
             CROSS JOIN LATERAL (
                 SELECT e.epoch, e."offset" FROM events e
                 WHERE e.channel = c.name AND (e.epoch, e."offset") > ($3::integer, $4::bigint)
                   AND e.ts >= coalesce((SELECT first_ts FROM bound), '-infinity')
                 ORDER BY e.epoch, e."offset" LIMIT 1) head
             WHERE c.partition = $1 AND c.name >= $2 AND c.name < $7
             ORDER BY head.epoch, head."offset" LIMIT $5),
         found AS MATERIALIZED (
             SELECT part.*, coalesce(octet_length(data), octet_length(data_binary), 0) AS size
             FROM heads
             CROSS JOIN LATERAL (
                 SELECT e.channel, e.epoch, e."offset", e.ts, e.id, e.type, e.key, e.published_by,
                        e.data, e.data_binary,
                        row_number() OVER (ORDER BY e.epoch, e."offset") AS nth
                 FROM events e
                 WHERE e.channel = heads.name
                   AND (e.epoch, e."offset") >= (heads.epoch, heads."offset")
                   AND e.ts >= coalesce((SELECT first_ts FROM bound), '-infinity')
                 ORDER BY e.epoch, e."offset" LIMIT $8) part),
         edge AS MATERIALIZED (
             SELECT epoch, "offset" FROM found WHERE nth = $8 ORDER BY epoch, "offset" LIMIT 1),
         cut AS (
             SELECT sized.*, (SELECT count(*) FROM heads) AS heads FROM (
                 SELECT found.*, row_number() OVER (ORDER BY found.epoch, found."offset") AS place,
                        sum(size) OVER (ORDER BY found.epoch, found."offset") - size AS size_before,
                        EXISTS (SELECT FROM edge) AS is_cut, count(*) OVER () AS all_found
                 FROM found
                 WHERE NOT EXISTS (SELECT FROM edge)
                    OR (found.epoch, found."offset") <= (SELECT epoch, "offset" FROM edge)) sized
             WHERE place <= $5 AND size_before < $6)
    SELECT ledger.epoch AS ledger_epoch, ledger.last_seq, ledger.last_appender, ledger.last_counter,
           cut.*
    FROM (SELECT) one
    LEFT JOIN ledger ON ledger.partition = $1
    LEFT JOIN cut ON true
    ORDER BY cut.epoch, cut."offset""#;

/// Every frame of this row of the timeline and of all earlier ones was taken before `last_ts`.
const PLACE_AT: &str = r#"
    SELECT epoch, first_seq * 4096 - 1 AS "offset" FROM timeline
    WHERE partition = $1 AND last_ts >= $2
    ORDER BY epoch, first_seq LIMIT 1"#;

/// A position of the partition behind which everything stands that was taken at or after a time.
pub(crate) async fn place_at(
    server: &Server,
    partition: Partition,
    since: Timestamp,
) -> Result<Option<Position>, ArchiveError> {
    server
        .ask("position_of_prefix_at", || async {
            let row = sqlx::query(PLACE_AT)
                .bind(partition.0.cast_signed())
                .bind(PgTime(since))
                .fetch_optional(&mut *server.connection().await?)
                .await?;
            row.as_ref().map(position).transpose()
        })
        .await
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX - 1)
}

/// A page as it is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) partition: Partition,
    pub(crate) prefix: &'a str,
    pub(crate) after: Position,
    pub(crate) limit: usize,
    pub(crate) bytes: usize,
}

impl Ask<'_> {
    /// The page as `server` has it.
    pub(crate) async fn of(&self, server: &Server) -> Result<HistoryPage, ArchiveError> {
        server
            .ask("history_of_prefix", || async {
                let mut connection = server.connection().await?;
                let next = match self.is_of_many(&mut connection).await? {
                    true => window::page(self, &mut connection).await?,
                    false => None,
                };
                let mut page = match next {
                    Some(page) => page,
                    None => self.events(&mut connection).await?,
                };
                page.gaps = self.gaps(&mut connection, &page).await?;
                Ok(page)
            })
            .await
    }

    /// Whether the partition has more channels that begin so than are looked up one by one.
    async fn is_of_many(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT FROM channels WHERE partition = $1 AND name >= $2 AND name < $3 LIMIT $4) found",
        )
        .bind(self.partition.0.cast_signed())
        .bind(self.prefix)
        .bind(self.below())
        .bind(CHANNELS_FEW + 1)
        .fetch_one(connection)
        .await?;
        Ok(count > CHANNELS_FEW)
    }

    fn below(&self) -> String {
        format!("{}\u{7f}", self.prefix)
    }

    fn place(&self) -> (i32, i64) {
        let Position { epoch, offset } = self.after;
        (i32::try_from(epoch.0).unwrap_or(i32::MAX), i64::try_from(offset.0).unwrap_or(i64::MAX))
    }

    async fn events(&self, connection: &mut PgConnection) -> Result<HistoryPage, sqlx::Error> {
        let (epoch, offset) = self.place();
        let each = (self.limit / 8).clamp(EACH_MIN, 256);
        let rows = sqlx::query(PAGE)
            .bind(self.partition.0.cast_signed())
            .bind(self.prefix)
            .bind(epoch)
            .bind(offset)
            .bind(number(self.limit))
            .bind(number(self.bytes).max(1))
            .bind(self.below())
            .bind(number(each))
            .fetch_all(connection)
            .await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let ledger = ledger_of(first)?;
        let Some(found) = first.try_get::<Option<i64>, _>("all_found")? else {
            return Ok(HistoryPage { ledger, ..HistoryPage::default() });
        };
        let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let more = usize::try_from(found).unwrap_or(usize::MAX) > events.len()
            || first.try_get("is_cut")?
            || first.try_get::<i64, _>("heads")? >= number(self.limit);
        Ok(HistoryPage { events, more, ledger, gaps: Vec::new() })
    }

    /// Missing stretches in the page, as far as its ledger goes, of the partition or of one of these
    /// channels.
    async fn gaps(
        &self,
        connection: &mut PgConnection,
        page: &HistoryPage,
    ) -> Result<Vec<Gap>, sqlx::Error> {
        let Some(ledger) = page.ledger else { return Ok(Vec::new()) };
        let (epoch, offset) = self.place();
        let end = match page.events.last().filter(|_| page.more) {
            Some(last) => (i64::from(last.position.epoch.0), last.position.offset.0.cast_signed()),
            None => (i64::from(ledger.epoch.0), last_offset(ledger.last_seq)),
        };
        let last = sqlx::query(
            r#"SELECT epoch AS removed_epoch, "offset" AS removed_offset FROM removed
               WHERE channel >= $1 AND channel < $2 ORDER BY epoch DESC, "offset" DESC LIMIT 1"#,
        )
        .bind(self.prefix)
        .bind(self.below())
        .fetch_optional(&mut *connection)
        .await?;
        let last = last.as_ref().map_or(Ok(None), edge)?;
        let from = (i64::from(epoch), offset.saturating_add(1));
        let mut gaps: Vec<Gap> = removed(last, from, end).into_iter().collect();
        let lost = sqlx::query(
            "SELECT epoch, from_offset, to_offset, reason FROM gaps
             WHERE partition = $1 AND (channel IS NULL OR channel >= $2 AND channel < $3)
               AND (epoch, to_offset) > ($4::integer, $5::bigint)
               AND (epoch, from_offset) <= ($6::bigint, $7)
             ORDER BY epoch, from_offset LIMIT $8",
        )
        .bind(self.partition.0.cast_signed())
        .bind(self.prefix)
        .bind(self.below())
        .bind(epoch)
        .bind(offset)
        .bind(end.0)
        .bind(end.1)
        .bind(GAPS_MAX)
        .fetch_all(connection)
        .await?;
        for row in &lost {
            gaps.push(gap(row)?);
        }
        Ok(gaps)
    }
}
