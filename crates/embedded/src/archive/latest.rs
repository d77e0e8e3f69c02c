//! The newest event of one key, or of each: along the index of keys, one look-up a key.

use super::history::{channel_id, event};
use super::persist::ledger;
use sqlx::SqliteConnection;
use stormwire_archive::{KeyQuery, LatestPage, StoredEvent};
use stormwire_core::{Channel, Partition};

/// A page; `snapshot` is one transaction, so events and ledger belong together.
pub(crate) async fn page(
    snapshot: &mut SqliteConnection,
    channel: &Channel,
    partition: Partition,
    query: &KeyQuery,
    limit: usize,
    bytes: usize,
) -> Result<LatestPage, sqlx::Error> {
    let mut page = LatestPage { ledger: ledger(snapshot, partition).await?, ..Default::default() };
    let Some(id) = channel_id(snapshot, channel).await? else { return Ok(page) };
    let mut after = match query {
        KeyQuery::Of(key) => {
            page.events.extend(newest(snapshot, channel, id, key).await?);
            return Ok(page);
        }
        KeyQuery::After(after) => after.clone().unwrap_or_default(),
    };
    let mut size = 0;
    loop {
        // No key is empty.
        let key: Option<String> = sqlx::query_scalar(
            "SELECT key FROM events WHERE channel = ? AND key > ? ORDER BY key LIMIT 1",
        )
        .bind(id)
        .bind(&after)
        .fetch_optional(&mut *snapshot)
        .await?;
        let Some(key) = key else { return Ok(page) };
        if page.events.len() == limit {
            page.more = true;
            return Ok(page);
        }
        let Some(event) = newest(snapshot, channel, id, &key).await? else { return Ok(page) };
        size += event.data.len();
        if size > bytes && !page.events.is_empty() {
            page.more = true;
            return Ok(page);
        }
        page.events.push(event);
        after = key;
    }
}

async fn newest(
    snapshot: &mut SqliteConnection,
    channel: &Channel,
    id: i64,
    key: &str,
) -> Result<Option<StoredEvent>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT epoch, \"offset\", ts, published_by, id, type, key, binary, data FROM events
         WHERE channel = ? AND key = ? ORDER BY epoch DESC, \"offset\" DESC LIMIT 1",
    )
    .bind(id)
    .bind(key)
    .fetch_optional(snapshot)
    .await?;
    row.as_ref().map(|row| event(channel, row)).transpose()
}
