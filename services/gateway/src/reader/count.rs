//! How many events of a channel lie behind a position.

use super::{Reader, archive_refusal, before_first};
use crate::hub::{Selection, after_frame};
use std::sync::Arc;
use stormwire_core::{Channel, Position, Refusal};

/// Events and bytes of one page.
const PAGE_EVENTS: usize = 1_000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Most pages of what the archive does not have yet: some ten thousand frames of its partition.
const PAGES_MAX: usize = 64;

/// A number of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// So many were counted.
    pub(crate) events: u64,
    /// Whether there may be more.
    pub(crate) is_capped: bool,
}

impl Reader {
    /// Counts a channel's events behind `after`, up to `bound`: those of the archive by its index, and
    /// behind its ledger those of the journal one by one.
    pub(crate) async fn count_after(
        &self,
        channel: &Channel,
        after: Position,
        bound: u64,
    ) -> Result<Count, Refusal> {
        let selection = Selection::Channel(channel.clone());
        let (mut events, mut at) = (0, after);
        if self.hub.feed(channel).recent(after).is_none() {
            (events, at) = self.count_archived(channel, after, bound).await?;
        }
        for _ in 0..PAGES_MAX {
            if events >= bound {
                break;
            }
            let page = self.after(&selection, at, PAGE_EVENTS, PAGE_BYTES).await?;
            events += page.events.len() as u64;
            match page.next {
                Some(next) if page.more && next > at => at = next,
                _ => return Ok(Count { events: events.min(bound), is_capped: events > bound }),
            }
        }
        Ok(Count { events: events.min(bound), is_capped: true })
    }

    /// What the archive has, and where the journal goes on.
    async fn count_archived(
        &self,
        channel: &Channel,
        after: Position,
        bound: u64,
    ) -> Result<(u64, Position), Refusal> {
        let turn = self.turn().await?;
        let partition = self.hub.feed(channel).partition;
        // Without a ledger nothing was persisted yet: the journal has all from its first frame on.
        let from = self.log(partition).await.map(before_first)?;
        let (archive, channel) = (Arc::clone(&self.archive), channel.clone());
        let count =
            async move { archive.count_after(&channel, partition, after, bound, from).await };
        let counted = turn.run(count).await.map_err(archive_refusal)?;
        let ledger = counted.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
        Ok((counted.events, ledger.unwrap_or(from).max(after)))
    }
}
