//! The newest event: of a channel, of one key, or of each key.
//!
//! What a gateway was told a moment ago is in its recent frames; what is persisted, in the archive; what
//! lies behind the ledger and not in the recent frames, in the journal. The journal's own word of its
//! end decides how far has to be read, so an event that was acknowledged before the question is seen.

use super::collect::{page_of_recent, stored};
use super::scan::SCAN_BYTES;
use super::turns::Turn;
use super::{JOINS_MAX, Page, Reader, SEARCH_EVENTS, archive_refusal, before_first, behind, joins};
use crate::hub::{Feed, Selection, after_frame};
use std::collections::BTreeMap;
use std::sync::Arc;
use stormwire_archive::{KeyQuery, LatestPage, StoredEvent};
use stormwire_core::{Channel, Offset, Partition, Position, Refusal};
use stormwire_journal::Tip;
use tokio::time::Instant;

/// Which newest event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Latest {
    /// The channel's.
    OfChannel,
    /// That of one key, or of each.
    OfKeys(KeyQuery),
}

impl Reader {
    /// The newest event of a channel or of a key: one or none; or of each key, ascending by key, at most
    /// `limit` and about `bytes` of data.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub(crate) async fn latest(
        &self,
        channel: &Channel,
        latest: &Latest,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let feed = self.hub.feed(channel);
        let key = match latest {
            Latest::OfChannel => None,
            Latest::OfKeys(KeyQuery::Of(key)) => Some(key.as_str()),
            Latest::OfKeys(query) => {
                return self.latest_of_keys(channel, query, limit, bytes).await;
            }
        };
        let end = end_of(self.log(feed.partition).await?);
        if let Some(event) = newest_of_recent(feed, end, channel, key) {
            return Ok(Page { events: vec![event], ..Page::default() });
        }
        match latest {
            Latest::OfChannel => {
                let page = self.before(channel, None, 1, bytes).await?;
                Ok(Page { events: page.events, turn: page.turn, ..Page::default() })
            }
            Latest::OfKeys(query) => self.latest_of_keys(channel, query, 1, bytes).await,
        }
    }

    async fn latest_of_keys(
        &self,
        channel: &Channel,
        query: &KeyQuery,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let asked = Instant::now();
        let turn = self.turn().await?;
        let feed = self.hub.feed(channel);
        let (archived, tip) =
            self.archived_latest(&turn, channel, feed.partition, query, (limit, bytes)).await?;
        let ledger = archived.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
        let (mut at, end) = (ledger.unwrap_or_else(|| before_first(tip)), end_of(tip));
        let mut newest = Newest::new(query, limit, archived);
        let selection = Selection::Channel(channel.clone());
        while at < end {
            let recent = feed.recent(at).filter(|(standing, _)| standing.position() >= end);
            let page = match recent {
                Some((standing, frames)) => {
                    page_of_recent(&selection, at, standing, &frames, SEARCH_EVENTS, SCAN_BYTES)
                }
                None => {
                    let partition = feed.partition;
                    let bounds = (SEARCH_EVENTS, SCAN_BYTES);
                    self.scan_after(partition, &selection, at, bounds, asked).await?
                }
            };
            page.events.into_iter().for_each(|event| newest.take(event));
            match page.next {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        Ok(Page { turn: Some(turn), ..newest.page(bytes) })
    }

    /// What the archive has, and the tip of a journal that goes on where that ends.
    async fn archived_latest(
        &self,
        turn: &Turn,
        channel: &Channel,
        partition: Partition,
        query: &KeyQuery,
        (limit, bytes): (usize, usize),
    ) -> Result<(LatestPage, Tip), Refusal> {
        for _ in 0..JOINS_MAX {
            let from = self.journal_from(partition).await;
            let (archive, channel, query) =
                (Arc::clone(&self.archive), channel.clone(), query.clone());
            let read = async move {
                archive.latest(&channel, partition, &query, limit, bytes, from).await
            };
            let page = turn.run(read).await.map_err(archive_refusal)?;
            let tip = self.log(partition).await?;
            let ledger = page.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
            if ledger.is_none_or(|at| joins(at, tip)) {
                return Ok((page, tip));
            }
            // Trimmed between the two questions: the archive has it by now.
        }
        Err(behind())
    }
}

fn end_of(tip: Tip) -> Position {
    after_frame(tip.epoch, tip.last)
}

/// The newest event among the recent frames, if these reach up to `end`.
fn newest_of_recent(
    feed: &Feed,
    end: Position,
    channel: &Channel,
    key: Option<&str>,
) -> Option<StoredEvent> {
    let (standing, frames) = feed.all_recent()?;
    if standing.position() < end {
        return None;
    }
    frames.iter().rev().find_map(|frame| {
        let runs = frame.events.iter().flat_map(|events| events.runs());
        let runs = runs.filter(|run| run.channel == channel.as_str());
        let events = runs.flat_map(|run| run.events().map(move |event| (run, event)));
        let (run, event) = events.filter(|(_, event)| key.is_none() || event.key == key).last()?;
        let offset = Offset::new(frame.seq, event.index);
        let position = Position { epoch: standing.epoch, offset };
        Some(stored(channel.clone(), position, frame.ts, &run, &event))
    })
}

/// The newest event of each key so far.
struct Newest<'a> {
    query: &'a KeyQuery,
    limit: usize,
    events: BTreeMap<String, StoredEvent>,
    /// The archive has more keys behind this one: what comes later is on the next page.
    edge: Option<String>,
    more: bool,
}

impl<'a> Newest<'a> {
    fn new(query: &'a KeyQuery, limit: usize, archived: LatestPage) -> Self {
        let LatestPage { events, more, .. } = archived;
        let edge = events.last().filter(|_| more).and_then(|event| event.key.clone());
        let keyed = events.into_iter().filter_map(|event| Some((event.key.clone()?, event)));
        Self { query, limit, events: keyed.collect(), edge, more }
    }

    /// Takes an event that is newer than all before it.
    fn take(&mut self, event: StoredEvent) {
        let Some(key) = event.key.clone().filter(|key| self.query.wants(key)) else { return };
        if self.edge.as_ref().is_some_and(|edge| key > *edge) {
            return;
        }
        self.events.insert(key, event);
        if self.events.len() > self.limit {
            self.events.pop_last();
            self.more = true;
        }
    }

    fn page(self, bytes: usize) -> Page {
        let mut page = Page { more: self.more, ..Page::default() };
        let mut size = 0;
        for event in self.events.into_values() {
            size += event.data.len();
            if size > bytes && !page.events.is_empty() {
                page.more = true;
                break;
            }
            page.events.push(event);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::{Epoch, Timestamp};

    fn event(seq: u64, key: Option<&str>) -> StoredEvent {
        StoredEvent {
            channel: Channel::parse("a:x").unwrap(),
            position: Position { epoch: Epoch::FIRST, offset: Offset::new(seq, 0) },
            ts: Timestamp(0),
            id: None,
            kind: None,
            key: key.map(str::to_owned),
            user: String::new(),
            data: vec![b'1'; 10].into(),
            binary: false,
        }
    }

    fn found(page: &Page) -> Vec<(&str, u64)> {
        let of = |event: &'_ StoredEvent| event.position.offset.seq();
        page.events.iter().map(|event| (event.key.as_deref().unwrap(), of(event))).collect()
    }

    #[test]
    fn what_the_journal_has_takes_the_place_of_what_the_archive_had() {
        let query = KeyQuery::After(Some("a".to_owned()));
        let events = vec![event(1, Some("b")), event(2, Some("d"))];
        let archived = LatestPage { events, more: false, ledger: None };
        let mut newest = Newest::new(&query, 3, archived.clone());
        for late in [(3, Some("a")), (4, None), (5, Some("d")), (6, Some("c")), (7, Some("e"))] {
            newest.take(event(late.0, late.1));
        }
        let page = newest.page(1000);
        assert_eq!((found(&page), page.more), (vec![("b", 1), ("c", 6), ("d", 5)], true));
        let small = Newest::new(&query, 3, archived.clone()).page(15);
        assert_eq!((found(&small), small.more), (vec![("b", 1)], true));
        // The archive has keys behind "d" that this page does not know: "e" is for the next one.
        let mut newest = Newest::new(&query, 3, LatestPage { more: true, ..archived });
        newest.take(event(3, Some("e")));
        newest.take(event(4, Some("c")));
        let page = newest.page(1000);
        assert_eq!((found(&page), page.more), (vec![("b", 1), ("c", 4), ("d", 2)], true));
    }
}
