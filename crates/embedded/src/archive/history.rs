//! Pages of a channel's history, in both directions along the table's own key.

use super::persist::ledger;
use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use stormwire_archive::{
    Counted, Gap, HistoryPage, HistoryQuery, MISSING_MAX, Missing, StoredEvent,
};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Timestamp};

const START: Position = Position { epoch: Epoch(0), offset: Offset(0) };
pub(super) const END: Position = Position { epoch: Epoch(u32::MAX), offset: Offset::MAX };

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT epoch, \"offset\", ts, published_by, id, type, key, binary, data FROM events ",
            "WHERE channel = ? AND ",
            $rest
        )
    };
}
pub(super) const AFTER: &str =
    select!("(epoch, \"offset\") > (?, ?) ORDER BY epoch, \"offset\" LIMIT ?");
const BEFORE: &str =
    select!("(epoch, \"offset\") < (?, ?) ORDER BY epoch DESC, \"offset\" DESC LIMIT ?");

/// A page; `snapshot` is one transaction, so events, gaps and ledger belong together.
pub(crate) async fn page(
    snapshot: &mut SqliteConnection,
    channel: &Channel,
    partition: Partition,
    query: &HistoryQuery,
    limit: usize,
    bytes: usize,
) -> Result<HistoryPage, sqlx::Error> {
    let (sql, bound) = match query {
        HistoryQuery::After(position) => (AFTER, *position),
        HistoryQuery::Before(position) => (BEFORE, *position),
        HistoryQuery::Last => (BEFORE, END),
    };
    let mut page = HistoryPage { ledger: ledger(snapshot, partition).await?, ..Default::default() };
    let id = channel_id(snapshot, channel).await?;
    if let Some(id) = id {
        let limit_and_one = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut rows = sqlx::query(sql)
            .bind(id)
            .bind(i64::from(bound.epoch.0))
            .bind(bound.offset.0.cast_signed())
            .bind(limit_and_one)
            .fetch(&mut *snapshot);
        let mut size = 0;
        while let Some(row) = rows.try_next().await? {
            let event = event(channel, &row)?;
            size += event.data.len();
            if page.events.len() == limit || (size > bytes && !page.events.is_empty()) {
                page.more = true;
                break;
            }
            page.events.push(event);
        }
    }
    let forwards = matches!(query, HistoryQuery::After(_));
    if !forwards {
        page.events.reverse();
    }
    // Where there is more, the page ends at its outermost event; otherwise it covers all that is left.
    let outermost = if forwards { page.events.last() } else { page.events.first() };
    let edge = outermost.filter(|_| page.more).map(|event| event.position);
    let (low, high) =
        if forwards { (bound, edge.unwrap_or(END)) } else { (edge.unwrap_or(START), bound) };
    if let Some(id) = id {
        page.gaps.extend(removed(snapshot, id, low, high).await?);
    }
    page.gaps.extend(gaps(snapshot, partition, low, high).await?);
    Ok(page)
}

/// Events after a position, counted up to a bound, and the ledger of the same moment.
pub(crate) async fn count(
    snapshot: &mut SqliteConnection,
    channel: &Channel,
    partition: Partition,
    after: Position,
    bound: u64,
) -> Result<Counted, sqlx::Error> {
    let ledger = ledger(snapshot, partition).await?;
    let Some(id) = channel_id(snapshot, channel).await? else {
        return Ok(Counted { events: 0, ledger });
    };
    let events: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT 1 FROM events WHERE channel = ? AND (epoch, \"offset\") > (?, ?) LIMIT ?)",
    )
    .bind(id)
    .bind(i64::from(after.epoch.0))
    .bind(after.offset.0.cast_signed())
    .bind(i64::try_from(bound).unwrap_or(i64::MAX))
    .fetch_one(snapshot)
    .await?;
    Ok(Counted { events: events.cast_unsigned(), ledger })
}

/// What is missing between two positions, for every channel of the partition.
pub(crate) async fn missing(
    connection: &mut SqliteConnection,
    partition: Partition,
    from: Position,
    to: Position,
) -> Result<Vec<Missing>, sqlx::Error> {
    // What lies after the position before `from`.
    let low = Position { offset: Offset(from.offset.0.wrapping_sub(1)), ..from };
    let mut gaps = gaps(connection, partition, low, to).await?;
    gaps.truncate(MISSING_MAX);
    Ok(gaps.into_iter().map(|gap| Missing { gap, channel: None }).collect())
}

/// What retention removed of a channel, as far as it lies after `low` and not after `high`.
async fn removed(
    snapshot: &mut SqliteConnection,
    channel: i64,
    low: Position,
    high: Position,
) -> Result<Option<Gap>, sqlx::Error> {
    let edge: Option<(u32, i64)> =
        sqlx::query_as("SELECT epoch, \"offset\" FROM removed WHERE channel = ?")
            .bind(channel)
            .fetch_optional(snapshot)
            .await?;
    Ok(edge.and_then(|edge| removed_gap(edge, low, high)))
}

/// The gap of what was removed through `edge`.
pub(super) fn removed_gap(
    (epoch, offset): (u32, i64),
    low: Position,
    high: Position,
) -> Option<Gap> {
    let (epoch, last) = (Epoch(epoch), Offset(offset.cast_unsigned()));
    let from = if low.epoch == epoch { Offset(low.offset.0 + 1) } else { Offset(0) };
    let to = if high.epoch == epoch { last.min(high.offset) } else { last };
    let touches = low.epoch <= epoch && epoch <= high.epoch && from <= to;
    touches.then(|| Gap { epoch, from, to, reason: "removed by retention".to_owned() })
}

pub(super) fn event(channel: &Channel, row: &SqliteRow) -> Result<StoredEvent, sqlx::Error> {
    let offset: i64 = row.try_get(1)?;
    Ok(StoredEvent {
        channel: channel.clone(),
        position: Position {
            epoch: Epoch(row.try_get(0)?),
            offset: Offset(offset.cast_unsigned()),
        },
        ts: Timestamp(row.try_get(2)?),
        user: row.try_get(3)?,
        id: row.try_get(4)?,
        kind: row.try_get(5)?,
        key: row.try_get(6)?,
        binary: row.try_get(7)?,
        data: row.try_get::<Vec<u8>, _>(8)?.into(),
    })
}

pub(crate) async fn channel_id(
    connection: &mut SqliteConnection,
    channel: &Channel,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM channels WHERE name = ?")
        .bind(channel.as_str())
        .fetch_optional(connection)
        .await
}

/// Gaps of which some part lies after `low` and not after `high`. There are as many as there were
/// incidents, not as there are events.
pub(super) async fn gaps(
    connection: &mut SqliteConnection,
    partition: Partition,
    low: Position,
    high: Position,
) -> Result<Vec<Gap>, sqlx::Error> {
    let rows: Vec<(u32, i64, i64, String)> = sqlx::query_as(
        "SELECT epoch, from_offset, to_offset, reason FROM gaps
         WHERE partition = ? AND (epoch, to_offset) > (?, ?) AND (epoch, from_offset) <= (?, ?)
         ORDER BY epoch, from_offset",
    )
    .bind(i64::from(partition.0))
    .bind(i64::from(low.epoch.0))
    .bind(low.offset.0.cast_signed())
    .bind(i64::from(high.epoch.0))
    .bind(high.offset.0.cast_signed())
    .fetch_all(connection)
    .await?;
    let gap = |(epoch, from, to, reason): (u32, i64, i64, String)| Gap {
        epoch: Epoch(epoch),
        from: Offset(from.cast_unsigned()),
        to: Offset(to.cast_unsigned()),
        reason,
    };
    Ok(rows.into_iter().map(gap).collect())
}

/// The first event at or after `since`. The journal's time never goes back along a channel, so the
/// place is found by halving, without an index on time: some fifty look-ups by key.
pub(crate) async fn position_at(
    snapshot: &mut SqliteConnection,
    channel: &Channel,
    since: Timestamp,
) -> Result<Option<Position>, sqlx::Error> {
    let Some(id) = channel_id(snapshot, channel).await? else { return Ok(None) };
    let mut before: i64 = -1;
    loop {
        let epoch: Option<i64> =
            sqlx::query_scalar("SELECT min(epoch) FROM events WHERE channel = ? AND epoch > ?")
                .bind(id)
                .bind(before)
                .fetch_one(&mut *snapshot)
                .await?;
        let Some(epoch) = epoch else { return Ok(None) };
        let newest: (i64, i64) = sqlx::query_as(
            "SELECT \"offset\", ts FROM events WHERE channel = ? AND epoch = ?
             ORDER BY \"offset\" DESC LIMIT 1",
        )
        .bind(id)
        .bind(epoch)
        .fetch_one(&mut *snapshot)
        .await?;
        if newest.1 >= since.0 {
            let offset = first_at(snapshot, id, epoch, newest.0, since).await?;
            let epoch = Epoch(u32::try_from(epoch).unwrap_or(u32::MAX));
            return Ok(Some(Position { epoch, offset: Offset(offset.cast_unsigned()) }));
        }
        before = epoch;
    }
}

/// The first offset in an epoch whose event is not before `since`, where that of `last` is not.
async fn first_at(
    snapshot: &mut SqliteConnection,
    channel: i64,
    epoch: i64,
    last: i64,
    since: Timestamp,
) -> Result<i64, sqlx::Error> {
    // Everything below `low` is before `since`; the answer is at or below `found`, which is at or
    // above `high`.
    let (mut low, mut high, mut found) = (0, last, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let (offset, ts): (i64, i64) = sqlx::query_as(
            "SELECT \"offset\", ts FROM events WHERE channel = ? AND epoch = ? AND \"offset\" >= ?
             ORDER BY \"offset\" LIMIT 1",
        )
        .bind(channel)
        .bind(epoch)
        .bind(middle)
        .fetch_one(&mut *snapshot)
        .await?;
        if ts >= since.0 {
            (high, found) = (middle, offset);
        } else {
            low = offset + 1;
        }
    }
    Ok(found)
}
