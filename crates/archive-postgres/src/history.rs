//! History pages: events and ledger in one statement, hence one snapshot.
//!
//! The table of events is cut by time and asked by position. `timeline` turns the position into a bound
//! on time first, inside the same statement, so that only the tables that can matter are opened. Pages
//! that go backwards try the last day before their end and look further only if that is not enough.

use crate::leases::ledger_of;
use crate::server::Server;
use crate::time::PgTime;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use stormwire_archive::{
    ArchiveError, Counted, Gap, HistoryPage, HistoryQuery, LedgerEntry, MISSING_MAX, Missing,
    StoredEvent,
};
use stormwire_core::{Channel, Epoch, FrameSeq, Offset, Partition, Position, Timestamp};

/// Most gaps told with a page.
pub(crate) const GAPS_MAX: i64 = MISSING_MAX as i64;

macro_rules! page {
    ($bounds:literal, $where:literal, $order:literal) => {
        concat!(
            "WITH ", $bounds,
            r#" SELECT ledger.epoch AS ledger_epoch, ledger.last_seq, ledger.last_appender, ledger.last_counter,
                       EXISTS (SELECT FROM bound) AS is_bound,
                       removed.epoch AS removed_epoch, removed."offset" AS removed_offset, page.*
                FROM (SELECT) one
                LEFT JOIN ledger ON ledger.partition = $1
                LEFT JOIN removed ON removed.channel = $2
                LEFT JOIN (
                    SELECT * FROM (
                        SELECT found.*, count(*) OVER () AS found,
                               sum(size) OVER (ORDER BY "#, $order, r#") - size AS size_before
                        FROM (
                            SELECT channel, epoch, "offset", ts, id, type, key, published_by, data, data_binary,
                                   coalesce(octet_length(data), octet_length(data_binary), 0) AS size
                            FROM events WHERE channel = $2 AND "#, $where,
            " ORDER BY ", $order, r#" LIMIT $5) found) cut
                    WHERE size_before < $6) page ON true
                ORDER BY "#, $order
        )
    };
}

/// After ($3, $4).
const AFTER: &str = page!(
    "bound AS MATERIALIZED (
         SELECT first_ts FROM timeline
         WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $4::bigint / 4096)
         ORDER BY epoch DESC, first_seq DESC LIMIT 1)",
    r#"(epoch, "offset") > ($3::integer, $4::bigint)
       AND ts >= coalesce((SELECT first_ts FROM bound), '-infinity')"#,
    r#"epoch, "offset""#
);

/// Before ($3, $4); within the last day before it where $7.
const BEFORE: &str = page!(
    "newest AS MATERIALIZED (
         SELECT first_ts FROM timeline
         WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $4::bigint / 4096)
         ORDER BY epoch DESC, first_seq DESC LIMIT 1),
     bound AS MATERIALIZED (
         SELECT epoch, first_seq, first_ts FROM timeline
         WHERE partition = $1 AND $7 AND first_ts <= (SELECT first_ts FROM newest) - interval '1 day'
         ORDER BY first_ts DESC, epoch DESC, first_seq DESC LIMIT 1)",
    r#"(epoch, "offset") < ($3::integer, $4::bigint)
       AND (epoch, "offset") >= (coalesce((SELECT epoch FROM bound), 0),
                                 coalesce((SELECT first_seq * 4096 FROM bound), 0))
       AND ts >= coalesce((SELECT first_ts FROM bound), '-infinity')"#,
    r#"epoch DESC, "offset" DESC"#
);

const POSITION_AT: &str = r#"
    WITH reached AS MATERIALIZED (
             SELECT epoch, first_seq FROM timeline WHERE partition = $1 AND first_ts <= $3
             ORDER BY first_ts DESC, epoch DESC, first_seq DESC LIMIT 1),
         below AS MATERIALIZED (
             SELECT t.epoch, t.last_seq FROM timeline t, reached r
             WHERE t.partition = $1 AND (t.epoch, t.first_seq) <= (r.epoch, r.first_seq) AND t.last_ts < $3
             ORDER BY t.epoch DESC, t.first_seq DESC LIMIT 1)
    SELECT epoch, "offset" FROM events
    WHERE channel = $2 AND ts >= $3
      AND (epoch, "offset") > (coalesce((SELECT epoch FROM below), 0),
                               coalesce((SELECT last_seq * 4096 + 4095 FROM below), -1))
    ORDER BY epoch, "offset" LIMIT 1"#;

/// Events after ($3, $4), counted up to $5.
const COUNT: &str = r#"
    WITH bound AS MATERIALIZED (
             SELECT first_ts FROM timeline
             WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $4::bigint / 4096)
             ORDER BY epoch DESC, first_seq DESC LIMIT 1)
    SELECT ledger.epoch AS ledger_epoch, ledger.last_seq, ledger.last_appender, ledger.last_counter,
           (SELECT count(*) FROM (
                SELECT FROM events
                WHERE channel = $2 AND (epoch, "offset") > ($3::integer, $4::bigint)
                  AND ts >= coalesce((SELECT first_ts FROM bound), '-infinity')
                LIMIT $5) found) AS events
    FROM (SELECT) one LEFT JOIN ledger ON ledger.partition = $1"#;

/// The first position at or after a time.
pub(crate) async fn position_at(
    server: &Server,
    channel: &Channel,
    partition: Partition,
    since: Timestamp,
) -> Result<Option<Position>, ArchiveError> {
    server
        .ask("position_at", || async {
            let row = sqlx::query(POSITION_AT)
                .bind(partition.0.cast_signed())
                .bind(channel.as_str())
                .bind(PgTime(since))
                .fetch_optional(&mut *server.connection().await?)
                .await?;
            row.as_ref().map(position).transpose()
        })
        .await
}

/// The number of events after a position, and the ledger of the same moment.
pub(crate) async fn count(
    server: &Server,
    channel: &Channel,
    partition: Partition,
    after: Position,
    bound: u64,
) -> Result<Counted, ArchiveError> {
    server
        .ask("count_after", || async {
            let row = sqlx::query(COUNT)
                .bind(partition.0.cast_signed())
                .bind(channel.as_str())
                .bind(i32::try_from(after.epoch.0).unwrap_or(i32::MAX))
                .bind(i64::try_from(after.offset.0).unwrap_or(i64::MAX))
                .bind(i64::try_from(bound).unwrap_or(i64::MAX))
                .fetch_one(&mut *server.connection().await?)
                .await?;
            let events = row.try_get::<i64, _>("events")?.cast_unsigned();
            Ok(Counted { events, ledger: ledger_of(&row)? })
        })
        .await
}

/// A page as it is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) channel: &'a Channel,
    pub(crate) partition: Partition,
    pub(crate) query: &'a HistoryQuery,
    pub(crate) limit: usize,
    pub(crate) bytes: usize,
}

impl Ask<'_> {
    /// The page as `server` has it.
    pub(crate) async fn of(&self, server: &Server) -> Result<HistoryPage, ArchiveError> {
        server
            .ask("history", || async {
                let mut connection = server.connection().await?;
                let mut page = match self.query {
                    HistoryQuery::After(_) => self.rows(&mut connection, AFTER, false).await?,
                    HistoryQuery::Before(_) | HistoryQuery::Last => {
                        let page = self.rows(&mut connection, BEFORE, true).await?;
                        if page.is_bound && !page.more {
                            self.rows(&mut connection, BEFORE, false).await?
                        } else {
                            page
                        }
                    }
                };
                if !matches!(self.query, HistoryQuery::After(_)) {
                    page.events.reverse();
                }
                let gaps = self.gaps(&mut connection, &page).await?;
                let Found { events, more, ledger, .. } = page;
                Ok(HistoryPage { events, more, ledger, gaps })
            })
            .await
    }

    /// Where the page begins or ends, as the statements take it.
    fn place(&self) -> (i32, i64) {
        match self.query {
            HistoryQuery::After(position) | HistoryQuery::Before(position) => (
                i32::try_from(position.epoch.0).unwrap_or(i32::MAX),
                i64::try_from(position.offset.0).unwrap_or(i64::MAX),
            ),
            HistoryQuery::Last => (i32::MAX, i64::MAX),
        }
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        window: bool,
    ) -> Result<Found, sqlx::Error> {
        let (epoch, offset) = self.place();
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX - 1);
        let mut query = sqlx::query(sql)
            .bind(self.partition.0.cast_signed())
            .bind(self.channel.as_str())
            .bind(epoch)
            .bind(offset)
            .bind(number(self.limit) + 1)
            .bind(number(self.bytes).max(1));
        if !matches!(self.query, HistoryQuery::After(_)) {
            query = query.bind(window);
        }
        let rows = query.fetch_all(connection).await?;
        Found::of(&rows, self.limit)
    }

    /// Missing stretches between the page's ends, as far as its ledger goes. Those of the log are written
    /// with the ledger and never change, so a later look at them sees the same; what retention removed
    /// was read with the page.
    async fn gaps(
        &self,
        connection: &mut PgConnection,
        page: &Found,
    ) -> Result<Vec<Gap>, sqlx::Error> {
        let Some(ledger) = page.ledger else { return Ok(Vec::new()) };
        let end = (i64::from(ledger.epoch.0), last_offset(ledger.last_seq));
        let place = |event: &StoredEvent| {
            (i64::from(event.position.epoch.0), event.position.offset.0.cast_signed())
        };
        let (epoch, offset) = (i64::from(self.place().0), self.place().1);
        let (from, to) = match self.query {
            HistoryQuery::After(_) => {
                let to = page.events.last().filter(|_| page.more).map_or(end, place);
                ((epoch, offset.saturating_add(1)), to)
            }
            HistoryQuery::Before(_) | HistoryQuery::Last => {
                let from = page.events.first().filter(|_| page.more).map_or((0, 0), place);
                (from, end.min((epoch, offset - 1)))
            }
        };
        let mut gaps: Vec<Gap> = removed(page.removed, from, to).into_iter().collect();
        let lost = sqlx::query(
            "SELECT epoch, from_offset, to_offset, reason FROM gaps
             WHERE partition = $1 AND (channel IS NULL OR channel = $2)
               AND (epoch, to_offset) >= ($3::bigint, $4) AND (epoch, from_offset) <= ($5::bigint, $6)
             ORDER BY epoch, from_offset LIMIT $7",
        )
        .bind(self.partition.0.cast_signed())
        .bind(self.channel.as_str())
        .bind(from.0)
        .bind(from.1)
        .bind(to.0)
        .bind(to.1)
        .bind(GAPS_MAX)
        .fetch_all(connection)
        .await?;
        for row in &lost {
            gaps.push(gap(row)?);
        }
        Ok(gaps)
    }
}

/// What was removed through `edge`, between two places that a page covers.
pub(crate) fn removed(edge: Option<Position>, from: (i64, i64), to: (i64, i64)) -> Option<Gap> {
    let edge = edge?;
    let (epoch, last) = (i64::from(edge.epoch.0), edge.offset.0.cast_signed());
    let first = if from.0 == epoch { from.1.max(0) } else { 0 };
    let last = if to.0 == epoch { last.min(to.1) } else { last };
    let touches = from.0 <= epoch && epoch <= to.0 && first <= last;
    touches.then(|| Gap {
        epoch: edge.epoch,
        from: Offset(first.cast_unsigned()),
        to: Offset(last.cast_unsigned()),
        reason: "removed by retention".to_owned(),
    })
}

/// Stretches between two positions, those of one channel with its name.
pub(crate) async fn missing(
    server: &Server,
    partition: Partition,
    from: Position,
    to: Position,
) -> Result<Vec<Missing>, ArchiveError> {
    let place =
        |at: Position| (i64::from(at.epoch.0), i64::try_from(at.offset.0).unwrap_or(i64::MAX));
    let (from, to) = (place(from), place(to));
    server
        .ask("missing", || async {
            let rows = sqlx::query(
                "SELECT epoch, from_offset, to_offset, reason, channel FROM gaps
                 WHERE partition = $1 AND (epoch, to_offset) >= ($2::bigint, $3)
                   AND (epoch, from_offset) <= ($4::bigint, $5)
                 ORDER BY epoch, from_offset LIMIT $6",
            )
            .bind(partition.0.cast_signed())
            .bind(from.0)
            .bind(from.1)
            .bind(to.0)
            .bind(to.1)
            .bind(GAPS_MAX)
            .fetch_all(&mut *server.connection().await?)
            .await?;
            rows.iter()
                .map(|row| Ok(Missing { gap: gap(row)?, channel: row.try_get("channel")? }))
                .collect()
        })
        .await
}

pub(crate) fn last_offset(seq: FrameSeq) -> i64 {
    Offset::new(seq, 4095).0.cast_signed()
}

/// What one statement found, in its own order.
struct Found {
    events: Vec<StoredEvent>,
    more: bool,
    is_bound: bool,
    ledger: Option<LedgerEntry>,
    removed: Option<Position>,
}

impl Found {
    fn of(rows: &[PgRow], limit: usize) -> Result<Self, sqlx::Error> {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let found = first.try_get::<Option<i64>, _>("found")?.unwrap_or(0);
        let events = rows
            .iter()
            .filter(|_| found > 0)
            .take(limit)
            .map(event)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            more: usize::try_from(found).unwrap_or(usize::MAX) > events.len(),
            events,
            is_bound: first.try_get("is_bound")?,
            ledger: ledger_of(first)?,
            removed: edge(first)?,
        })
    }
}

/// The columns `removed_epoch` and `removed_offset`, which may be null.
pub(crate) fn edge(row: &PgRow) -> Result<Option<Position>, sqlx::Error> {
    let epoch: Option<i32> = row.try_get("removed_epoch")?;
    let offset: Option<i64> = row.try_get("removed_offset")?;
    Ok(epoch.zip(offset).map(|(epoch, offset)| Position {
        epoch: Epoch(epoch.cast_unsigned()),
        offset: Offset(offset.cast_unsigned()),
    }))
}

/// An event of a row with all columns of an event.
pub(crate) fn event(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    let text: Option<String> = row.try_get("data")?;
    let bytes: Option<Vec<u8>> = row.try_get("data_binary")?;
    let binary = bytes.is_some();
    let data = bytes.or(text.map(String::into_bytes)).unwrap_or_default();
    let channel = Channel::parse(row.try_get("channel")?);
    Ok(StoredEvent {
        channel: channel.map_err(|error| sqlx::Error::Decode(error.into()))?,
        position: position(row)?,
        ts: row.try_get::<PgTime, _>("ts")?.0,
        id: row.try_get("id")?,
        kind: row.try_get("type")?,
        key: row.try_get("key")?,
        user: row.try_get("published_by")?,
        data: data.into(),
        binary,
    })
}

pub(crate) fn position(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: Epoch(row.try_get::<i32, _>("epoch")?.cast_unsigned()),
        offset: Offset(row.try_get::<i64, _>("offset")?.cast_unsigned()),
    })
}

pub(crate) fn gap(row: &PgRow) -> Result<Gap, sqlx::Error> {
    Ok(Gap {
        epoch: Epoch(row.try_get::<i32, _>("epoch")?.cast_unsigned()),
        from: Offset(row.try_get::<i64, _>("from_offset")?.cast_unsigned()),
        to: Offset(row.try_get::<i64, _>("to_offset")?.cast_unsigned()),
        reason: row.try_get("reason")?,
    })
}
