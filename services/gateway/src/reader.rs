//! One reader for all history: a page of a channel behind or before a position, from the recent frames
//! where they reach back far enough, else from the archive up to its ledger, else from the journal
//! between the ledger and the recent frames. Each page chooses anew.

mod aside;
mod collect;
mod count;
mod doubt;
mod latest;
mod refusals;
mod scan;
mod turns;

pub use turns::HistoryBounds;
pub(crate) use turns::Who;

use crate::hub::{Hub, Selection, after_frame, next_frame};
use collect::{Collector, continue_from, of_archive, page_of_recent};
pub(crate) use doubt::Above;
use doubt::Doubts;
pub(crate) use latest::Latest;
use parking_lot::Mutex;
use refusals::behind;
pub(crate) use refusals::{archive_refusal, journal_refusal};
use scan::{SCAN_BYTES, Scanned, Scans};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, ArchiveError, HistoryPage, HistoryQuery, StoredEvent};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Refusal, Timestamp};
use stormwire_journal::{Journal, Tip};
use tokio::time::Instant;
use turns::{Turn, Turns};

/// Events of one page while a time is looked for.
const SEARCH_EVENTS: usize = 1_000;
/// How often a page is asked for anew because the journal was trimmed in between.
const JOINS_MAX: usize = 3;
/// How long it is known where a journal begins.
const START_KNOWN_FOR: Duration = Duration::from_secs(1);

/// Before everything.
const START: Position = Position { epoch: Epoch(0), offset: Offset(0) };

/// Before the first event of the first epoch.
const FIRST: Position = Position { epoch: Epoch::FIRST, offset: Offset(0) };

/// Events of one selection, ascending.
#[derive(Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where the next page in the same direction begins.
    pub next: Option<Position>,
    /// Whether there is more in the direction asked for.
    pub more: bool,
    /// Stretches that are missing and always will be: after the first position, up to the second. Where
    /// the second is the lower one, the reader stood above everything that there is.
    pub gaps: Vec<(Position, Position)>,
    /// Held for as long as the page: what is made of it counts as the read does.
    pub(crate) turn: Option<Turn>,
}

/// One thing that a reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An event.
    Event(StoredEvent),
    /// A stretch that is missing, as in [`Page::gaps`].
    Gap(Position, Position),
}

impl Page {
    /// Makes something of the page, where it was read.
    pub(crate) async fn make<T: Send + 'static>(
        mut self,
        make: impl FnOnce(Self) -> T + Send + 'static,
    ) -> T {
        match self.turn.take() {
            Some(turn) => turn.run(async move { make(self) }).await,
            None => make(self),
        }
    }

    /// Events and gaps in the order in which a reader that goes forward is to be told them: whoever was
    /// told something was told everything before it.
    pub fn into_told(self) -> impl Iterator<Item = Told> {
        let Self { gaps, events, turn, .. } = self;
        let (mut gaps, mut events) = (gaps.into_iter().peekable(), events.into_iter().peekable());
        std::iter::from_fn(move || {
            let _turn = &turn;
            let event_is_due = match (gaps.peek(), events.peek()) {
                (Some((_, to)), Some(event)) => event.position <= *to,
                (None, _) => true,
                (Some(_), None) => false,
            };
            if event_is_due {
                events.next().map(Told::Event)
            } else {
                gaps.next().map(|(from, to)| Told::Gap(from, to))
            }
        })
    }
}

/// When it was asked, and where a journal went on by itself then.
type Start = (Instant, Position);

/// Reads history for every transport.
#[derive(Clone)]
pub struct Reader {
    hub: Arc<Hub>,
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    turns: Arc<Turns>,
    who: Who,
    scans: Arc<Scans>,
    doubts: Arc<Doubts>,
    /// Where each partition's journal went on by itself, and when that was asked.
    starts: Arc<[Mutex<Option<Start>>]>,
}

impl Reader {
    pub(crate) fn new(
        hub: Arc<Hub>,
        journal: Arc<dyn Journal>,
        archive: Arc<dyn Archive>,
        bounds: HistoryBounds,
    ) -> Self {
        let scans = Arc::new(Scans::new(hub.partitions()));
        let doubts = Arc::new(Doubts::new(hub.partitions(), journal.stale_max()));
        let starts = hub.partitions().all().map(|_| Mutex::default()).collect();
        let turns = Turns::new(bounds);
        Self { hub, journal, archive, turns, who: Who::OURSELVES, scans, doubts, starts }
    }

    /// The same reader, in the line of `who`.
    #[must_use]
    pub(crate) fn of(&self, who: Who) -> Arc<Self> {
        Arc::new(Self { who, ..self.clone() })
    }

    /// The oldest events behind `after`: at most `limit` and about `bytes` of data. An empty page
    /// without `more` means that `next` is the tip. A position above everything that there is is told as
    /// a gap, and the page goes on at the tip.
    ///
    /// # Errors
    /// `archive_unavailable`, `journal_unavailable`, `overloaded`; all temporary.
    pub async fn after(
        &self,
        selection: &Selection,
        after: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let feed = self.hub.feed_of(selection);
        let partition = feed.partition;
        // Epoch 0 is before the first one: from the beginning.
        let after = if after.epoch == Epoch(0) { FIRST } else { after };
        if let Some((standing, frames)) = feed.recent(after) {
            if after > standing.position() {
                return self.above(partition, after).await;
            }
            return Ok(page_of_recent(selection, after, standing, &frames, limit, bytes));
        }
        // Whoever read the journal while this one waited for its turn has read it for both.
        let asked = Instant::now();
        let turn = self.turn().await?;
        let from = match self.archived(&turn, selection, partition, after, limit, bytes).await {
            Ok(page) => match continue_from(&page, after) {
                Ok(position) => position,
                Err(next) => {
                    let mut page = of_archive(page, after, Some(next));
                    page.turn = Some(turn);
                    // What the archive does not have yet, the journal has. With the journal away, the
                    // archive is all there is.
                    let tip = self.tip_of(partition).await;
                    page.more = page.more || tip.is_ok_and(|tip| next < tip);
                    return Ok(page);
                }
            },
            // The archive is away: the journal may still reach back far enough.
            Err(error) => {
                let tip = self.log(partition).await?;
                if tip.epoch != after.epoch || next_frame(after) < tip.first {
                    return Err(archive_refusal(error));
                }
                after
            }
        };
        let page = self.scan_after(partition, selection, from, (limit, bytes), asked).await?;
        Ok(Page { turn: Some(turn), ..page })
    }

    async fn archived(
        &self,
        turn: &Turn,
        selection: &Selection,
        partition: Partition,
        after: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<HistoryPage, ArchiveError> {
        let from = self.journal_from_lately(partition).await;
        let (archive, selection) = (Arc::clone(&self.archive), selection.clone());
        let read = async move {
            match &selection {
                Selection::Channel(channel) => {
                    let query = HistoryQuery::After(after);
                    archive.history(channel, partition, query, limit, bytes, from).await
                }
                Selection::Prefix(_, prefix) => {
                    archive.history_of_prefix(partition, prefix, after, limit, bytes, from).await
                }
            }
        };
        turn.run(read).await
    }

    /// The newest events before `before` (or of all, without it), ascending.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub async fn before(
        &self,
        channel: &Channel,
        before: Option<Position>,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let turn = self.turn().await?;
        let selection = Selection::Channel(channel.clone());
        let partition = self.hub.feed(channel).partition;
        let (archived, tip) =
            self.archived_before(&turn, channel, partition, before, (limit, bytes)).await?;
        let Some(tip) = tip else {
            let next = archived.events.first().map(|event| event.position);
            return Ok(Page { turn: Some(turn), ..of_archive(archived, START, next) });
        };
        // What the archive does not have yet is newer than all that it has.
        let from = archived.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
        let mut at = from.unwrap_or_else(|| before_first(tip));
        let mut page = of_archive(archived, START, None);
        while at < after_frame(tip.epoch, tip.last) {
            let bounds = (limit, bytes);
            let newer = self.scan_after(partition, &selection, at, bounds, Instant::now()).await?;
            page.gaps.extend(newer.gaps);
            page.events.extend(
                newer.events.into_iter().filter(|event| before.is_none_or(|b| event.position < b)),
            );
            let surplus = page.events.len().saturating_sub(limit);
            page.more |= surplus > 0;
            page.events.drain(..surplus);
            match newer.next {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        page.next = page.events.first().map(|event| event.position);
        page.turn = Some(turn);
        Ok(page)
    }

    /// The archive's part of a page, and the tip of a journal that goes on where the archive ends;
    /// without it the page needs no more.
    async fn archived_before(
        &self,
        turn: &Turn,
        channel: &Channel,
        partition: Partition,
        before: Option<Position>,
        (limit, bytes): (usize, usize),
    ) -> Result<(HistoryPage, Option<Tip>), Refusal> {
        for _ in 0..JOINS_MAX {
            let query = before.map_or(HistoryQuery::Last, HistoryQuery::Before);
            let from = self.journal_from(partition).await;
            let (archive, channel) = (Arc::clone(&self.archive), channel.clone());
            let read = async move {
                archive.history(&channel, partition, query, limit, bytes, from).await
            };
            let page = turn.run(read).await.map_err(archive_refusal)?;
            let ledger = page.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
            if before.zip(ledger).is_some_and(|(before, ledger)| before <= ledger) {
                return Ok((page, None));
            }
            let tip = self.log(partition).await?;
            if ledger.is_none_or(|at| joins(at, tip)) {
                return Ok((page, Some(tip)));
            }
            // Trimmed between the two questions: the archive has it by now.
        }
        Err(behind())
    }

    /// The position from which a feed of the last `count` events begins.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub async fn position_of_last(
        &self,
        channel: &Channel,
        count: usize,
        tip: Position,
    ) -> Result<Position, Refusal> {
        if count == 0 {
            return Ok(tip);
        }
        let page = self.before(channel, None, count, SCAN_BYTES).await?;
        let first = page.events.first().map(|event| event.position);
        Ok(first.map_or(tip, before))
    }

    /// The position before the first event at or after `since`, by the journal's clock.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub async fn position_at(
        &self,
        selection: &Selection,
        since: Timestamp,
        tip: Position,
    ) -> Result<Position, Refusal> {
        let mut at = self.place_at(selection, since).await?;
        while at < tip {
            let page = self.after(selection, at, SEARCH_EVENTS, SCAN_BYTES).await?;
            if let Some(event) = page.events.iter().find(|event| event.ts >= since) {
                return Ok(before(event.position));
            }
            match page.next {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        Ok(tip)
    }

    /// A place with everything behind it that was taken at or after `since`: found by the archive, else
    /// where the archive ends.
    async fn place_at(&self, selection: &Selection, since: Timestamp) -> Result<Position, Refusal> {
        let turn = self.turn().await?;
        let partition = self.hub.feed_of(selection).partition;
        let (archive, selection) = (Arc::clone(&self.archive), selection.clone());
        let find = async move {
            match &selection {
                Selection::Channel(channel) => {
                    archive.position_at(channel, partition, since).await.map(|at| at.map(before))
                }
                Selection::Prefix(_, prefix) => {
                    archive.position_of_prefix_at(partition, prefix, since).await
                }
            }
        };
        if let Some(place) = turn.run(find).await.map_err(archive_refusal)? {
            return Ok(place);
        }
        match self.archive.ledger(partition).await.map_err(archive_refusal)? {
            Some(entry) => Ok(after_frame(entry.epoch, entry.last_seq)),
            None => {
                let tip = self.log(partition).await?;
                Ok(before_first(tip))
            }
        }
    }

    /// Reads on in the journal, frame by frame without passing one over: what is missing is a gap, what
    /// was trimmed meanwhile is left to the archive.
    async fn scan_after(
        &self,
        partition: Partition,
        selection: &Selection,
        from: Position,
        (limit, bytes): (usize, usize),
        asked: Instant,
    ) -> Result<Page, Refusal> {
        let ports = (&*self.journal, &*self.doubts);
        let mut scan = self.scans.read(ports, partition, from, asked).await?;
        if scan.is_stale && scan.from(next_frame(from)).next().is_none() {
            scan = self.scans.read(ports, partition, from, Instant::now()).await?;
        }
        if from > scan.tip {
            return self.above(partition, from).await;
        }
        if scan.has_gone() && self.is_archived_by_now(partition, from).await? {
            return Ok(Page { next: Some(from), more: true, ..Page::default() });
        }
        let mut collector = Collector::new(selection, from, limit, bytes);
        for scanned in scan.from(next_frame(from)) {
            let goes_on = match scanned {
                Scanned::Frame(frame) => collector.take(scan.epoch, frame),
                Scanned::Missing { seq, .. } => collector.skip(scan.epoch, *seq),
                Scanned::End { onward, lost_from, .. } => {
                    collector.end(scan.epoch, *onward, *lost_from)
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(collector.page(scan.tip, scan.is_stale))
    }

    /// Whether the archive has come further than `from` since it was asked: what has left the journal
    /// meanwhile is there.
    async fn is_archived_by_now(
        &self,
        partition: Partition,
        from: Position,
    ) -> Result<bool, Refusal> {
        let ledger = self.archive.ledger(partition).await.map_err(archive_refusal)?;
        Ok(ledger.is_some_and(|entry| after_frame(entry.epoch, entry.last_seq) > from))
    }

    /// Where the partition of `channel` stands.
    ///
    /// # Errors
    /// `journal_unavailable`.
    pub async fn tip(&self, channel: &Channel) -> Result<Position, Refusal> {
        self.tip_of(self.hub.feed(channel).partition).await
    }

    /// Where a partition stands.
    ///
    /// # Errors
    /// `journal_unavailable`.
    pub async fn tip_of(&self, partition: Partition) -> Result<Position, Refusal> {
        let feed = &self.hub.feeds()[usize::from(partition.0)];
        if let Some(standing) = feed.standing() {
            return Ok(standing.position());
        }
        let tip: Tip = self.journal.open(feed.partition).await.map_err(journal_refusal)?;
        Ok(after_frame(tip.epoch, tip.last))
    }

    /// As [`Reader::journal_from`], asked once a second for all. An older answer is a lower one: a page
    /// that joins there and no longer joins the journal is asked for anew.
    async fn journal_from_lately(&self, partition: Partition) -> Position {
        let start = &self.starts[usize::from(partition.0)];
        if let Some((at, from)) = *start.lock()
            && at.elapsed() < START_KNOWN_FOR
        {
            return from;
        }
        let from = self.journal_from(partition).await;
        *start.lock() = Some((Instant::now(), from));
        from
    }

    /// Where the journal goes on by itself; beyond everything while that is not known, so that only the
    /// archive's own word counts.
    async fn journal_from(&self, partition: Partition) -> Position {
        match self.journal.tip(partition).await {
            Ok(tip) => before_first(tip),
            Err(_) => Position { epoch: Epoch(u32::MAX), offset: Offset::MAX },
        }
    }

    async fn log(&self, partition: Partition) -> Result<Tip, Refusal> {
        log(&*self.journal, partition).await
    }

    async fn turn(&self) -> Result<Turn, Refusal> {
        self.turns.take(self.who).await
    }
}

/// Whether the journal goes on where the archive ends.
fn joins(ledger: Position, tip: Tip) -> bool {
    ledger.epoch != tip.epoch || next_frame(ledger) >= tip.first
}

/// Behind what the journal no longer has.
fn before_first(tip: Tip) -> Position {
    after_frame(tip.epoch, tip.first.saturating_sub(1))
}

/// Where the log stands. One that nobody has opened yet is opened.
async fn log(journal: &dyn Journal, partition: Partition) -> Result<Tip, Refusal> {
    match journal.tip(partition).await {
        Ok(tip) => Ok(tip),
        Err(_) => journal.open(partition).await.map_err(journal_refusal),
    }
}

/// The position right before another.
fn before(position: Position) -> Position {
    Position { offset: Offset(position.offset.0.saturating_sub(1)), ..position }
}

#[cfg(test)]
mod tests;
