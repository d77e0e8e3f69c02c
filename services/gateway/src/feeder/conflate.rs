//! What a slow reader of mode `latest` is given for the time that it was away: of each key the newest
//! event, of a channel's events without a key the newest. Older ones may be left out, never the newest.

use super::{PAGE_BYTES, PAGE_EVENTS, RETRY};
use crate::hub::Subscription;
use crate::reader::{Page, Reader};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;
use stormwire_archive::StoredEvent;
use stormwire_core::{Channel, Position};

/// Pages that are read, at most, to be told in one.
const READS_MAX: usize = 64;

/// Reads on from `position` and keeps the newest of each key, up to a page of them.
pub(super) async fn newest(
    reader: &Reader,
    subscription: &Subscription,
    position: Position,
) -> Result<Page, Duration> {
    let mut newest = Newest::default();
    let mut whole = Page { next: Some(position), ..Page::default() };
    for _ in 0..READS_MAX {
        let from = whole.next.unwrap_or(position);
        let page = reader.after(&subscription.selection, from, PAGE_EVENTS, PAGE_BYTES).await;
        let page = match page {
            Ok(page) => page,
            // What was read already is told first.
            Err(_) if whole.next != Some(position) => break,
            Err(refusal) => return Err(refusal.retry_after.unwrap_or(RETRY)),
        };
        let moved = page.next.is_some_and(|next| next != from);
        page.events.into_iter().for_each(|event| newest.take(event));
        whole.gaps.extend(page.gaps);
        whole.next = page.next.or(whole.next);
        if !moved || !page.more || newest.bytes >= PAGE_BYTES {
            break;
        }
    }
    if whole.next == Some(position) {
        return Err(RETRY);
    }
    whole.events = newest.events();
    Ok(whole)
}

/// The newest event of each key of each channel.
#[derive(Default)]
struct Newest {
    events: HashMap<(Channel, Option<String>), StoredEvent>,
    bytes: usize,
}

impl Newest {
    fn take(&mut self, mut event: StoredEvent) {
        // A copy, so that one event does not keep its whole frame.
        event.data = Bytes::copy_from_slice(&event.data);
        self.bytes += event.data.len();
        let slot = (event.channel.clone(), event.key.clone());
        if let Some(older) = self.events.insert(slot, event) {
            self.bytes -= older.data.len();
        }
    }

    /// In the log's order.
    fn events(self) -> Vec<StoredEvent> {
        let mut events: Vec<_> = self.events.into_values().collect();
        events.sort_unstable_by_key(|event| event.position);
        events
    }
}
