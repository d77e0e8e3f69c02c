//! Pages over all channels of a partition that begin with a prefix, in one of two ways.
//!
//! Of few channels, or where their next events are far: each channel is one range of the table's key,
//! and the ranges are merged by position. What is read ahead is bounded by the page. Of many channels:
//! the events that come next, whoever's they are, of which those are taken that are wanted; a look-up of
//! each channel would cost more than the page.

use super::history::{self, AFTER, END, event, gaps, removed_gap};
use super::persist::ledger;
use futures::TryStreamExt as _;
use sqlx::{Row as _, SqliteConnection};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use stormwire_archive::{HistoryPage, StoredEvent};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Timestamp};

/// Above every character of a name.
const ABOVE: char = '\u{7f}';

/// The channels with their first events behind a position, nearest first.
const HEADS: &str = "
    SELECT c.id, c.name, e.epoch, e.\"offset\" FROM channels c
    JOIN events e ON e.channel = c.id AND (e.epoch, e.\"offset\") = (
        SELECT n.epoch, n.\"offset\" FROM events n
        WHERE n.channel = c.id AND (n.epoch, n.\"offset\") > (?4, ?5)
        ORDER BY n.epoch, n.\"offset\" LIMIT 1)
    WHERE c.partition = ?1 AND c.name >= ?2 AND c.name < ?3
      AND (c.last_epoch, c.last_offset) > (?4, ?5)
    ORDER BY e.epoch, e.\"offset\" LIMIT ?6";

/// So many channels are looked up one by one.
const CHANNELS_FEW: i64 = 64;
/// Events looked at for a page of many channels, in the first attempt and in the last one.
const SEEN: [i64; 2] = [2_048, 16_384];
/// This part of a page is enough to be one.
const ENOUGH: usize = 8;

const IS_OF_MANY: &str = "
    SELECT count(*) > ?4 FROM (
        SELECT 1 FROM channels WHERE partition = ?1 AND name >= ?2 AND name < ?3 LIMIT ?4 + 1)";

/// Of the ?6 events that come next, those whose channel is wanted, ?7 at most.
const NEXT: &str = "
    WITH seen AS MATERIALIZED (
        SELECT channel, epoch, \"offset\" FROM events INDEXED BY events_by_place
        WHERE (epoch, \"offset\") > (?4, ?5) ORDER BY epoch, \"offset\" LIMIT ?6)
    SELECT e.epoch, e.\"offset\", e.ts, e.published_by, e.id, e.type, e.key, e.binary, e.data, c.name
    FROM seen CROSS JOIN channels c ON c.id = seen.channel
    CROSS JOIN events e
        ON e.channel = seen.channel AND e.epoch = seen.epoch AND e.\"offset\" = seen.\"offset\"
    WHERE c.partition = ?1 AND c.name >= ?2 AND c.name < ?3
    ORDER BY e.epoch, e.\"offset\" LIMIT ?7";

/// Whether there is an event more than ?3 places behind a position.
const IS_BEYOND: &str = "
    SELECT EXISTS (
        SELECT 1 FROM events INDEXED BY events_by_place WHERE (epoch, \"offset\") > (?1, ?2)
        ORDER BY epoch, \"offset\" LIMIT 1 OFFSET ?3)";

/// One channel's part of a page.
struct Part {
    id: i64,
    channel: Channel,
    ahead: VecDeque<StoredEvent>,
}

/// A page behind `after`; `snapshot` is one transaction, so events, gaps and ledger belong together.
pub(crate) async fn page(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    after: Position,
    limit: usize,
    bytes: usize,
) -> Result<HistoryPage, sqlx::Error> {
    let ledger = ledger(snapshot, partition).await?;
    let next = match is_of_many(snapshot, (partition, prefix)).await? {
        true => next(snapshot, (partition, prefix), after, limit, bytes).await?,
        false => None,
    };
    let page = match next {
        Some(page) => page,
        None => merged(snapshot, (partition, prefix), after, limit, bytes).await?,
    };
    with_gaps(snapshot, (partition, prefix), after, HistoryPage { ledger, ..page }).await
}

async fn is_of_many(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_OF_MANY)
        .bind(i64::from(partition.0))
        .bind(prefix)
        .bind(format!("{prefix}{ABOVE}"))
        .bind(CHANNELS_FEW)
        .fetch_one(snapshot)
        .await
}

/// The page from what comes next, or `None` where the next wanted events are far apart.
async fn next(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    after: Position,
    limit: usize,
    bytes: usize,
) -> Result<Option<HistoryPage>, sqlx::Error> {
    for seen in SEEN {
        let is_beyond: bool = sqlx::query_scalar(IS_BEYOND)
            .bind(i64::from(after.epoch.0))
            .bind(after.offset.0.cast_signed())
            .bind(seen)
            .fetch_one(&mut *snapshot)
            .await?;
        let mut page = HistoryPage { more: is_beyond, ..Default::default() };
        let mut rows = sqlx::query(NEXT)
            .bind(i64::from(partition.0))
            .bind(prefix)
            .bind(format!("{prefix}{ABOVE}"))
            .bind(i64::from(after.epoch.0))
            .bind(after.offset.0.cast_signed())
            .bind(seen)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
            .fetch(&mut *snapshot);
        let mut size = 0;
        while let Some(row) = rows.try_next().await? {
            let name = Channel::parse(row.try_get(9)?);
            let event = event(&name.map_err(|error| sqlx::Error::Decode(error.into()))?, &row)?;
            size += event.data.len();
            if page.events.len() == limit || (size > bytes && !page.events.is_empty()) {
                page.more = true;
                return Ok(Some(page));
            }
            page.events.push(event);
        }
        if !is_beyond || page.events.len() > limit / ENOUGH {
            return Ok(Some(page));
        }
    }
    Ok(None)
}

/// The page by merging the channels.
async fn merged(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    after: Position,
    limit: usize,
    bytes: usize,
) -> Result<HistoryPage, sqlx::Error> {
    let mut page = HistoryPage::default();
    let (mut parts, mut heads) = heads(snapshot, (partition, prefix), after, limit).await?;
    let count = parts.len().max(1);
    let (rows_ahead, bytes_ahead) = ((limit / count).max(1), bytes / count);
    let mut size = 0;
    while let Some(Reverse((position, index))) = heads.pop() {
        let part = &mut parts[index];
        if part.ahead.is_empty() {
            let before = Offset(position.offset.0.saturating_sub(1));
            let from = Position { epoch: position.epoch, offset: before };
            part.fill(snapshot, from, rows_ahead, bytes_ahead).await?;
        }
        let Some(event) = part.ahead.pop_front() else { continue };
        size += event.data.len();
        if page.events.len() == limit || (size > bytes && !page.events.is_empty()) {
            page.more = true;
            break;
        }
        if part.ahead.is_empty() {
            part.fill(snapshot, event.position, rows_ahead, bytes_ahead).await?;
        }
        if let Some(next) = part.ahead.front() {
            heads.push(Reverse((next.position, index)));
        }
        page.events.push(event);
    }
    Ok(page)
}

/// The page with what is missing in it.
async fn with_gaps(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    after: Position,
    mut page: HistoryPage,
) -> Result<HistoryPage, sqlx::Error> {
    let edge = page.events.last().filter(|_| page.more).map_or(END, |event| event.position);
    let removed: Option<(u32, i64)> = sqlx::query_as(
        "SELECT r.epoch, r.\"offset\" FROM removed r JOIN channels c ON c.id = r.channel
         WHERE c.partition = ?1 AND c.name >= ?2 AND c.name < ?3
         ORDER BY r.epoch DESC, r.\"offset\" DESC LIMIT 1",
    )
    .bind(i64::from(partition.0))
    .bind(prefix)
    .bind(format!("{prefix}{ABOVE}"))
    .fetch_optional(&mut *snapshot)
    .await?;
    page.gaps.extend(removed.and_then(|removed| removed_gap(removed, after, edge)));
    page.gaps.extend(gaps(snapshot, partition, after, edge).await?);
    Ok(page)
}

type Heads = BinaryHeap<Reverse<(Position, usize)>>;

async fn heads(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    after: Position,
    limit: usize,
) -> Result<(Vec<Part>, Heads), sqlx::Error> {
    let rows: Vec<(i64, String, u32, i64)> = sqlx::query_as(HEADS)
        .bind(i64::from(partition.0))
        .bind(prefix)
        .bind(format!("{prefix}{ABOVE}"))
        .bind(i64::from(after.epoch.0))
        .bind(after.offset.0.cast_signed())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
        .fetch_all(snapshot)
        .await?;
    let (mut parts, mut heads) = (Vec::with_capacity(rows.len()), Heads::new());
    for (index, (id, name, epoch, offset)) in rows.into_iter().enumerate() {
        let channel = Channel::parse(&name).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let position = Position { epoch: Epoch(epoch), offset: Offset(offset.cast_unsigned()) };
        heads.push(Reverse((position, index)));
        parts.push(Part { id, channel, ahead: VecDeque::new() });
    }
    Ok((parts, heads))
}

impl Part {
    /// Reads on behind `from`: at least one event if there is one.
    async fn fill(
        &mut self,
        snapshot: &mut SqliteConnection,
        from: Position,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<(), sqlx::Error> {
        let mut rows = sqlx::query(AFTER)
            .bind(self.id)
            .bind(i64::from(from.epoch.0))
            .bind(from.offset.0.cast_signed())
            .bind(i64::try_from(rows_max).unwrap_or(i64::MAX))
            .fetch(snapshot);
        let mut size = 0;
        while let Some(row) = rows.try_next().await? {
            let event = event(&self.channel, &row)?;
            size += event.data.len();
            self.ahead.push_back(event);
            if size > bytes_max {
                break;
            }
        }
        Ok(())
    }
}

/// The place before the first event at or after `since` of any of the channels.
pub(crate) async fn position_at(
    snapshot: &mut SqliteConnection,
    (partition, prefix): (Partition, &str),
    since: Timestamp,
) -> Result<Option<Position>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM channels
         WHERE partition = ?1 AND name >= ?2 AND name < ?3 AND last_at >= ?4",
    )
    .bind(i64::from(partition.0))
    .bind(prefix)
    .bind(format!("{prefix}{ABOVE}"))
    .bind(since.0)
    .fetch_all(&mut *snapshot)
    .await?;
    let mut first: Option<Position> = None;
    for name in names {
        let channel = Channel::parse(&name).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let found = history::position_at(snapshot, &channel, since).await?;
        first = first.into_iter().chain(found).min();
    }
    Ok(first.map(|first| Position {
        epoch: first.epoch,
        offset: Offset(first.offset.0.saturating_sub(1)),
    }))
}
