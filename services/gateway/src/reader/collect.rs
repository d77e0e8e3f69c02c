//! A page, gathered from frames or from what the archive gave.

use super::{Page, before};
use crate::hub::{RecentFrame, Selection, Standing, after_frame};
use stormwire_archive::{HistoryPage, StoredEvent};
use stormwire_core::{Channel, Epoch, FrameSeq, Offset, Position, Timestamp};
use stormwire_wire::frame::{Event, Run};

/// Where the journal takes over after an archive page; `Err` when the page itself is the answer.
pub(super) fn continue_from(page: &HistoryPage, after: Position) -> Result<Position, Position> {
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

/// The archive's page, its gaps cut to what lies behind `after`.
pub(super) fn of_archive(page: HistoryPage, after: Position, next: Option<Position>) -> Page {
    let at = |epoch: Epoch, offset: Offset| Position { epoch, offset };
    let gaps = page
        .gaps
        .iter()
        .map(|gap| (before(at(gap.epoch, gap.from)).max(after), at(gap.epoch, gap.to)));
    let next = next.or_else(|| page.events.last().map(|event| event.position));
    Page { gaps: gaps.collect(), events: page.events, next, more: page.more, turn: None }
}

pub(super) fn page_of_recent(
    selection: &Selection,
    after: Position,
    standing: Standing,
    frames: &[RecentFrame],
    limit: usize,
    bytes: usize,
) -> Page {
    let mut collector = Collector::new(selection, after, limit, bytes);
    for frame in frames {
        if !collector.take(standing.epoch, frame) {
            return collector.page(standing.position(), false);
        }
    }
    collector.at = collector.at.max(standing.position());
    collector.page(standing.position(), false)
}

/// Gathers what is selected out of frames, up to a bound.
pub(super) struct Collector<'a> {
    selection: &'a Selection,
    from: Position,
    at: Position,
    limit: usize,
    bytes: usize,
    events: Vec<StoredEvent>,
    gaps: Vec<(Position, Position)>,
    full: bool,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        selection: &'a Selection,
        from: Position,
        limit: usize,
        bytes: usize,
    ) -> Self {
        let (events, gaps) = (Vec::new(), Vec::new());
        Self { selection, from, at: from, limit, bytes, events, gaps, full: false }
    }

    /// Takes a frame's events; `false` when the page is full.
    pub(super) fn take(&mut self, epoch: Epoch, frame: &RecentFrame) -> bool {
        let runs = frame.events.iter().flat_map(|events| events.runs());
        for run in runs.filter(|run| self.selection.wants(run.channel)) {
            let Some(channel) = self.channel(&run) else { continue };
            for event in run.events() {
                let position = Position { epoch, offset: Offset::new(frame.seq, event.index) };
                if position <= self.from {
                    continue;
                }
                if self.events.len() >= self.limit || (self.bytes == 0 && !self.events.is_empty()) {
                    self.full = true;
                    return false;
                }
                self.bytes = self.bytes.saturating_sub(event.data.len());
                self.events.push(stored(channel.clone(), position, frame.ts, &run, &event));
                self.at = position;
            }
        }
        self.at = self.at.max(after_frame(epoch, frame.seq));
        true
    }

    /// Notes a frame that is not there. A page is not begun behind a gap that it does not tell.
    pub(super) fn skip(&mut self, epoch: Epoch, seq: FrameSeq) -> bool {
        let (from, to) = (after_frame(epoch, seq - 1).max(self.from), after_frame(epoch, seq));
        match self.gaps.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => self.gaps.push((from, to)),
        }
        self.at = self.at.max(to);
        true
    }

    /// Goes on in the next epoch; `false`: the page ends here. What was lost at the end of this one is told.
    pub(super) fn end(
        &mut self,
        epoch: Epoch,
        onward: Position,
        lost_from: Option<FrameSeq>,
    ) -> bool {
        if let Some(lost_from) = lost_from {
            let from = after_frame(epoch, lost_from.saturating_sub(1)).max(self.from);
            self.gaps.push((from, onward));
        }
        self.at = self.at.max(onward);
        false
    }

    fn channel(&self, run: &Run<'_>) -> Option<Channel> {
        match self.selection {
            Selection::Channel(channel) => Some(channel.clone()),
            // Every name in a frame was checked before it was written.
            Selection::Prefix(..) => match self.events.last() {
                Some(event) if event.channel.as_str() == run.channel => Some(event.channel.clone()),
                _ => Channel::parse(run.channel).ok(),
            },
        }
    }

    /// The page, of a log that ends at `tip`; `stale` where it may have grown since.
    pub(super) fn page(self, tip: Position, stale: bool) -> Page {
        let more = self.full || stale || self.at < tip;
        Page { events: self.events, next: Some(self.at), more, gaps: self.gaps, turn: None }
    }
}

/// One event of a frame as history gives it. Its bytes share the frame's memory.
pub(super) fn stored(
    channel: Channel,
    position: Position,
    ts: Timestamp,
    run: &Run<'_>,
    event: &Event<'_>,
) -> StoredEvent {
    StoredEvent {
        channel,
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
