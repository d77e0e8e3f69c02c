//! The events that come next in a partition, of which those are taken whose channel begins with the
//! prefix. How many frames that takes is found by trying: a frame holds one event or thousands.

use super::{Ask, number};
use crate::history::event;
use crate::leases::ledger_of;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use stormwire_archive::HistoryPage;

/// Frames of the first attempt.
const FRAMES_FIRST: i64 = 64;
/// Frames of the last one: where these hold next to nothing, channels are looked up one by one.
const FRAMES_MAX: i64 = FRAMES_FIRST * STEP * STEP * STEP;
/// From one attempt to the next.
const STEP: i64 = 8;
/// Rows looked at in one attempt; more than two frames can hold.
const ROWS_MAX: i64 = 16_384;
/// This part of a page is enough to be one.
const ENOUGH: i64 = 8;

/// After ($3, $4) and not after $8 in that epoch. The window itself has no limit in its own statement,
/// which would make the whole table look like a cheaper way to so few rows.
const WINDOW: &str = r#"
    WITH bound AS MATERIALIZED (
             SELECT (SELECT first_ts FROM timeline
                     WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $4::bigint / 4096)
                     ORDER BY epoch DESC, first_seq DESC LIMIT 1) AS first_ts,
                    (SELECT last_ts FROM timeline
                     WHERE partition = $1 AND (epoch, first_seq) <= ($3::integer, $8::bigint / 4096)
                     ORDER BY epoch DESC, first_seq DESC LIMIT 1) AS last_ts),
         window_rows AS MATERIALIZED (
             SELECT channel, epoch, "offset", ts, id, type, key, published_by, is_wanted,
                    CASE WHEN is_wanted THEN data END AS data,
                    CASE WHEN is_wanted THEN data_binary END AS data_binary
             FROM (
                 SELECT *, channel >= $2 AND channel < $7 AS is_wanted FROM events
                 WHERE partition = $1 AND epoch = $3 AND "offset" > $4 AND "offset" <= $8
                   AND ts >= coalesce((SELECT first_ts FROM bound), '-infinity')
                   AND ts <= coalesce((SELECT last_ts FROM bound), 'infinity')) marked),
         seen AS MATERIALIZED (SELECT * FROM window_rows LIMIT $9),
         sized AS (
             SELECT found.*, count(*) OVER () AS all_found,
                    row_number() OVER (ORDER BY "offset") AS place,
                    sum(size) OVER (ORDER BY "offset") - size AS size_before
             FROM (
                 SELECT seen.*, coalesce(octet_length(data), octet_length(data_binary), 0) AS size
                 FROM seen WHERE is_wanted) found),
         cut AS (SELECT * FROM sized WHERE place <= $5 AND size_before < $6)
    SELECT ledger.epoch AS ledger_epoch, ledger.last_seq, ledger.last_appender, ledger.last_counter,
           (SELECT count(*) FROM seen) AS seen, cut.*
    FROM (SELECT) one
    LEFT JOIN ledger ON ledger.partition = $1
    LEFT JOIN cut ON true
    ORDER BY cut."offset""#;

/// The page, or `None` where the next of these events are far apart.
pub(super) async fn page(
    ask: &Ask<'_>,
    connection: &mut PgConnection,
) -> Result<Option<HistoryPage>, sqlx::Error> {
    let (mut frames, mut was_too_many) = (FRAMES_FIRST, false);
    let (epoch, offset) = ask.place();
    loop {
        let last_seq = (offset / 4096).saturating_add(frames);
        let end = last_seq.saturating_mul(4096).saturating_add(4095);
        let rows = rows(ask, end, connection).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        if first.try_get::<i64, _>("seen")? > ROWS_MAX {
            (frames, was_too_many) = ((frames / STEP).max(1), true);
            continue;
        }
        let ledger = ledger_of(first)?;
        let is_end = ledger.is_none_or(|ledger| {
            let stands = (i64::from(ledger.epoch.0), ledger.last_seq.cast_signed());
            stands <= (i64::from(epoch), last_seq)
        });
        let found = first.try_get::<Option<i64>, _>("all_found")?.unwrap_or(0);
        if is_end || found > number(ask.limit) / ENOUGH {
            let events = rows.iter().filter(|_| found > 0).map(event);
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let more = !is_end || found > number(events.len());
            return Ok(Some(HistoryPage { events, more, ledger, gaps: Vec::new() }));
        }
        if was_too_many || frames >= FRAMES_MAX {
            return Ok(None);
        }
        frames *= STEP;
    }
}

async fn rows(
    ask: &Ask<'_>,
    end: i64,
    connection: &mut PgConnection,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let (epoch, offset) = ask.place();
    sqlx::query(WINDOW)
        .bind(ask.partition.0.cast_signed())
        .bind(ask.prefix)
        .bind(epoch)
        .bind(offset)
        .bind(number(ask.limit))
        .bind(number(ask.bytes).max(1))
        .bind(ask.below())
        .bind(end)
        .bind(ROWS_MAX + 1)
        .fetch_all(connection)
        .await
}
