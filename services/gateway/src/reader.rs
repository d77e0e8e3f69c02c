//! One reader for all history: a page of a channel behind or before a position, from the recent frames
//! where they reach back far enough, else from the archive up to its ledger, else from the journal
//! between the ledger and the recent frames. Each page chooses anew.

use crate::hub::{Hub, RecentFrame, Standing, after_frame, next_frame};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, ArchiveError, HistoryPage, HistoryQuery, StoredEvent};
use stormwire_core::{
    Channel, Epoch, ErrorCode, FrameSeq, Offset, Partition, Position, Refusal, Timestamp,
};
use stormwire_journal::{Journal, JournalError, Tip};
use stormwire_wire::frame::{Event, Events, Frame, Run};
use tokio::sync::Semaphore;

/// Frames and bytes read from the journal at once.
const SCAN_FRAMES: usize = 256;
const SCAN_BYTES: usize = 4 * 1024 * 1024;
/// Reads of history at the same time in this process; live traffic is never behind them.
const READS_MAX: usize = 16;
/// How long a read may wait for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Events of one channel, ascending.
#[derive(Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where the next page in the same direction begins.
    pub next: Option<Position>,
    /// Whether there is more in the direction asked for.
    pub more: bool,
    /// Stretches that are missing and always will be: from, to.
    pub gaps: Vec<(Position, Position)>,
}

/// Reads history for every transport.
pub struct Reader {
    hub: Arc<Hub>,
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    turns: Semaphore,
}

impl Reader {
    pub(crate) fn new(hub: Arc<Hub>, journal: Arc<dyn Journal>, archive: Arc<dyn Archive>) -> Self {
        Self { hub, journal, archive, turns: Semaphore::new(READS_MAX) }
    }

    /// The oldest events behind `after`: at most `limit` and about `bytes` of data. An empty page
    /// without `more` means that `next` is the tip.
    ///
    /// # Errors
    /// `archive_unavailable`, `journal_unavailable`, `overloaded`; all temporary.
    pub async fn after(
        &self,
        channel: &Channel,
        after: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let feed = self.hub.feed(channel);
        if let Some((standing, frames)) = feed.recent(after) {
            return Ok(page_of_recent(channel, after, standing, &frames, limit, bytes));
        }
        let _turn = self.turn().await?;
        let partition = feed.partition;
        let archived = self
            .archive
            .history(channel, partition, HistoryQuery::After(after), limit, bytes)
            .await;
        let from = match archived {
            Ok(page) => match continue_from(&page, after) {
                Ok(position) => position,
                Err(next) => {
                    let mut page = of_archive(page, Some(next));
                    // What the archive does not have yet, the journal has. With the journal away, the
                    // archive is all there is.
                    page.more = page.more || self.tip(channel).await.is_ok_and(|tip| next < tip);
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
        self.scan_after(partition, channel, from, limit, bytes).await
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
        let _turn = self.turn().await?;
        let partition = self.hub.feed(channel).partition;
        let query = before.map_or(HistoryQuery::Last, HistoryQuery::Before);
        let archived = self
            .archive
            .history(channel, partition, query, limit, bytes)
            .await
            .map_err(archive_refusal)?;
        let ledger = archived.ledger;
        let from = ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
        if let (Some(before), Some(from)) = (before, from)
            && before <= from
        {
            let next = archived.events.first().map(|event| event.position);
            return Ok(of_archive(archived, next));
        }
        // What the archive does not have yet is newer than all that it has.
        let tip = self.log(partition).await?;
        let mut at = from.unwrap_or_else(|| after_frame(tip.epoch, tip.first.saturating_sub(1)));
        let mut page = of_archive(archived, None);
        while at < after_frame(tip.epoch, tip.last) {
            let newer = self.scan_after(partition, channel, at, limit, bytes).await?;
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
        Ok(page)
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
        Ok(first.map_or(tip, |first| Position {
            epoch: first.epoch,
            offset: Offset(first.offset.0.saturating_sub(1)),
        }))
    }

    /// The position before the first event at or after `since`, by the journal's clock.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub async fn position_at(
        &self,
        channel: &Channel,
        since: Timestamp,
        tip: Position,
    ) -> Result<Position, Refusal> {
        let _turn = self.turn().await?;
        let partition = self.hub.feed(channel).partition;
        let found = self.archive.position_at(channel, partition, since).await;
        if let Some(first) = found.map_err(archive_refusal)? {
            let offset = Offset(first.offset.0.saturating_sub(1));
            return Ok(Position { epoch: first.epoch, offset });
        }
        let ledger = self.archive.ledger(partition).await.map_err(archive_refusal)?;
        let mut at = match ledger {
            Some(entry) => after_frame(entry.epoch, entry.last_seq),
            None => {
                let tip = self.log(partition).await?;
                after_frame(tip.epoch, tip.first.saturating_sub(1))
            }
        };
        while at < tip {
            let frames = self.frames(partition, at).await?;
            let Some(last) = frames.last() else { break };
            if let Some(frame) = frames.iter().find(|frame| frame.ts >= since) {
                return Ok(after_frame(at.epoch, frame.seq - 1));
            }
            at = after_frame(at.epoch, last.seq);
        }
        Ok(tip)
    }

    async fn scan_after(
        &self,
        partition: Partition,
        channel: &Channel,
        from: Position,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, Refusal> {
        let frames = self.frames(partition, from).await?;
        let mut collector = Collector::new(channel, from, limit, bytes);
        for frame in &frames {
            let Ok(decoded) = Frame::decode(&frame.bytes) else { continue };
            let Some(events) = decoded.events() else {
                collector.at = after_frame(frame.epoch, frame.seq);
                continue;
            };
            if !collector.take(frame.epoch, frame.seq, frame.ts, events) {
                break;
            }
        }
        let tip = self.log(partition).await?;
        if frames.is_empty() && from.epoch == tip.epoch && next_frame(from) < tip.first {
            // Trimmed between the archive's answer and ours: the archive has it by now.
            return Ok(Page { next: Some(from), more: true, ..Page::default() });
        }
        Ok(collector.page(after_frame(tip.epoch, tip.last)))
    }

    async fn frames(
        &self,
        partition: Partition,
        from: Position,
    ) -> Result<Vec<stormwire_journal::StoredFrame>, Refusal> {
        self.journal
            .read(partition, from.epoch, next_frame(from).max(1), SCAN_FRAMES, SCAN_BYTES)
            .await
            .map_err(journal_refusal)
    }

    /// Where the partition of `channel` stands.
    ///
    /// # Errors
    /// `journal_unavailable`.
    pub async fn tip(&self, channel: &Channel) -> Result<Position, Refusal> {
        let feed = self.hub.feed(channel);
        if let Some(standing) = feed.standing() {
            return Ok(standing.position());
        }
        let tip: Tip = self.journal.open(feed.partition).await.map_err(journal_refusal)?;
        Ok(after_frame(tip.epoch, tip.last))
    }

    /// Where the partition of `channel` stands by the word of the one who may write its log.
    ///
    /// # Errors
    /// `journal_unavailable`.
    pub async fn leader_tip(&self, channel: &Channel) -> Result<Position, Refusal> {
        let partition = self.hub.feed(channel).partition;
        let tip = self.log(partition).await?;
        Ok(after_frame(tip.epoch, tip.last))
    }

    /// Where the log stands. One that nobody has opened yet is opened.
    async fn log(&self, partition: Partition) -> Result<Tip, Refusal> {
        match self.journal.tip(partition).await {
            Ok(tip) => Ok(tip),
            Err(_) => self.journal.open(partition).await.map_err(journal_refusal),
        }
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(TURN_MAX, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::new(
                ErrorCode::Overloaded,
                "too many reads of history at once on this server",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }
}

/// Where the journal takes over after an archive page; `Err` when the page itself is the answer.
fn continue_from(page: &HistoryPage, after: Position) -> Result<Position, Position> {
    let ledger = page.ledger.map(|entry| after_frame(entry.epoch, entry.last_seq));
    let last = page.events.last().map(|event| event.position);
    match (last, ledger) {
        (Some(last), _) if page.more => Err(last),
        (Some(last), ledger) => Err(ledger.unwrap_or(last).max(last)),
        (None, Some(ledger)) if ledger > after && !page.gaps.is_empty() => Err(ledger),
        (None, Some(ledger)) => Ok(ledger.max(after)),
        (None, None) => Ok(after),
    }
}

fn of_archive(page: HistoryPage, next: Option<Position>) -> Page {
    let at = |epoch: Epoch, offset: Offset| Position { epoch, offset };
    let gaps = page.gaps.iter().map(|gap| (at(gap.epoch, gap.from), at(gap.epoch, gap.to)));
    let next = next.or_else(|| page.events.last().map(|event| event.position));
    Page { gaps: gaps.collect(), events: page.events, next, more: page.more }
}

fn page_of_recent(
    channel: &Channel,
    after: Position,
    standing: Standing,
    frames: &[RecentFrame],
    limit: usize,
    bytes: usize,
) -> Page {
    let mut collector = Collector::new(channel, after, limit, bytes);
    for frame in frames {
        let Some(events) = &frame.events else { continue };
        if !collector.take(standing.epoch, frame.seq, frame.ts, events) {
            return collector.page(standing.position());
        }
    }
    collector.at = collector.at.max(standing.position());
    collector.page(standing.position())
}

/// Gathers one channel's events out of frames, up to a bound.
struct Collector<'a> {
    channel: &'a Channel,
    from: Position,
    at: Position,
    limit: usize,
    bytes: usize,
    events: Vec<StoredEvent>,
    full: bool,
}

impl<'a> Collector<'a> {
    fn new(channel: &'a Channel, from: Position, limit: usize, bytes: usize) -> Self {
        Self { channel, from, at: from, limit, bytes, events: Vec::new(), full: false }
    }

    /// Takes a frame's events; `false` when the page is full.
    fn take(&mut self, epoch: Epoch, seq: FrameSeq, ts: Timestamp, events: &Events) -> bool {
        for run in events.runs().filter(|run| run.channel == self.channel.as_str()) {
            for event in run.events() {
                let position = Position { epoch, offset: Offset::new(seq, event.index) };
                if position <= self.from {
                    continue;
                }
                if self.events.len() >= self.limit || (self.bytes == 0 && !self.events.is_empty()) {
                    self.full = true;
                    return false;
                }
                self.bytes = self.bytes.saturating_sub(event.data.len());
                self.events.push(stored(self.channel, position, ts, &run, &event));
                self.at = position;
            }
        }
        self.at = after_frame(epoch, seq);
        true
    }

    fn page(self, tip: Position) -> Page {
        let more = self.full || self.at < tip;
        Page { events: self.events, next: Some(self.at), more, gaps: Vec::new() }
    }
}

/// One event of a frame as history gives it. Its bytes share the frame's memory.
fn stored(
    channel: &Channel,
    position: Position,
    ts: Timestamp,
    run: &Run<'_>,
    event: &Event<'_>,
) -> StoredEvent {
    StoredEvent {
        channel: channel.clone(),
        position,
        ts,
        id: event.id.map(str::to_owned),
        kind: event.kind.map(str::to_owned),
        key: event.key.map(str::to_owned),
        user: run.user.to_owned(),
        data: run.share(event.data),
        binary: event.binary,
    }
}

pub(crate) fn archive_refusal(error: ArchiveError) -> Refusal {
    tracing::warn!(%error, "archive read failed");
    Refusal::new(
        ErrorCode::ArchiveUnavailable,
        "history cannot be read from the archive now; live events go on",
    )
    .retry_after(Duration::from_secs(2))
}

pub(crate) fn journal_refusal(error: JournalError) -> Refusal {
    tracing::warn!(%error, "journal read failed");
    Refusal::new(ErrorCode::JournalUnavailable, "the journal does not answer now")
        .retry_after(Duration::from_secs(1))
}
