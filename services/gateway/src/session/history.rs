//! `history`: one page, read beside the connection and answered by its id.

use super::Session;
use crate::hub::Selection;
use crate::reader::{self, Latest, Reader, Who};
use crate::render::{self, Direction};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_archive::KeyQuery;
use stormwire_core::{ErrorCode, Position, Refusal};
use stormwire_tokens::{Action, Target};
use stormwire_wire::protocol::{History, Page, RequestId};

/// Pages that one connection may be reading at the same time.
const READS_MAX: usize = 4;
/// Bytes of data in one page.
const PAGE_BYTES: usize = 512 * 1024;

impl Session {
    /// Reads history in this connection's line.
    pub(super) fn reader(&self) -> Arc<Reader> {
        self.context.reader.of(Who::connection(self.registered.id))
    }

    pub(super) fn history(&self, id: Option<RequestId>, query: History) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        let channel = query.channel;
        signed_in.claims.require(Action::History, Target::Channel(channel.as_str()))?;
        if self.reads.fetch_add(1, Ordering::AcqRel) >= READS_MAX {
            self.reads.fetch_sub(1, Ordering::AcqRel);
            let message = format!("{READS_MAX} pages of this connection are being read already");
            let refusal = Refusal::new(ErrorCode::Limited, message);
            return Err(refusal.retry_after(Duration::from_millis(200)));
        }
        let (reader, reads) = (self.reader(), Arc::clone(&self.reads));
        let (outbox, codec) = (Arc::clone(&self.outbox), self.accepted.codec);
        let partitions = self.context.hub.partitions();
        let direction = match query.page {
            Page::After(_) | Page::Key(_) | Page::KeysAfter(_) => Direction::Forward,
            Page::Last | Page::Before(_) => Direction::Backward,
        };
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        self.context.tasks.spawn("history", async move {
            let selection = Selection::Channel(channel.clone());
            let read = match query.page {
                Page::Last => reader.before(&channel, None, limit, PAGE_BYTES).await,
                Page::Before(at) => reader.before(&channel, Some(at), limit, PAGE_BYTES).await,
                Page::After(at) => page_after(&reader, &selection, at, limit).await,
                Page::Key(key) => {
                    let latest = Latest::OfKeys(KeyQuery::Of(key.into()));
                    reader.latest(&channel, &latest, 1, PAGE_BYTES).await
                }
                Page::KeysAfter(key) => {
                    let after = Some(String::from(key)).filter(|key| !key.is_empty());
                    let latest = Latest::OfKeys(KeyQuery::After(after));
                    reader.latest(&channel, &latest, limit, PAGE_BYTES).await
                }
            };
            let message = match read {
                Ok(page) => {
                    let answer = move |page| {
                        render::history(codec, id.as_ref(), &channel, partitions, &page, direction)
                    };
                    page.make(answer).await
                }
                Err(refusal) => render::error(codec, id.as_ref(), &refusal),
            };
            outbox.answer(message);
            reads.fetch_sub(1, Ordering::AcqRel);
        });
        Ok(())
    }
}

/// The page behind `at`. Stretches without an event of the channel are read over: an empty page that
/// has more behind it would leave the client without a place to go on from.
async fn page_after(
    reader: &Reader,
    selection: &Selection,
    mut at: Position,
    limit: usize,
) -> Result<reader::Page, Refusal> {
    loop {
        let page = reader.after(selection, at, limit, PAGE_BYTES).await?;
        match page.next {
            Some(next)
                if page.events.is_empty() && page.gaps.is_empty() && page.more && next > at =>
            {
                at = next;
            }
            _ => return Ok(page),
        }
    }
}
