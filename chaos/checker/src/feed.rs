//! What one subscriber saw, walked along the archive.

use crate::checker::Checker;
use crate::history::{Position, SubscriberRecord};
use crate::names::print_of;
use crate::verdict::{Kind, Violation};
use std::collections::HashMap;
use std::ops::Range;

/// Takes the records of one subscriber in their order.
#[derive(Debug)]
pub struct FeedCheck<'a> {
    checker: &'a mut Checker,
    subscriber: String,
    feeds: HashMap<u32, Feed>,
}

/// Where a subscriber stands in one channel.
#[derive(Debug, Default)]
struct Feed {
    /// The row that is due.
    next: usize,
    /// Rows that were left out.
    skipped: Vec<Range<usize>>,
}

impl<'a> FeedCheck<'a> {
    pub(crate) fn new(checker: &'a mut Checker, name: &str) -> Self {
        Self { checker, subscriber: name.to_owned(), feeds: HashMap::new() }
    }

    /// Takes the next record.
    pub fn take(&mut self, record: &SubscriberRecord) {
        match record {
            SubscriberRecord::Subscribed { channel, position, since, .. } => {
                let channel = self.checker.channels.number(channel);
                self.subscribed(channel, *position, *since);
            }
            SubscriberRecord::Event { channel, position, data, .. } => {
                self.checker.verdict.totals.seen += 1;
                let number = self.checker.channels.number(channel);
                self.event(number, *position, print_of(data));
            }
            SubscriberRecord::Gap { channel, from, to, .. } => {
                let number = self.checker.channels.number(channel);
                self.gap(number, *from, *to);
            }
            SubscriberRecord::End { live: true, .. } => self.end(),
            SubscriberRecord::End { .. } | SubscriberRecord::Lost { .. } => {}
        }
    }

    /// The first row of a channel behind a position.
    fn after(&self, channel: u32, position: Position) -> usize {
        let rows = self.checker.rows_of(channel);
        rows.start + self.checker.log[rows].partition_point(|row| row.at <= position)
    }

    fn subscribed(&mut self, channel: u32, position: Position, since: Option<Position>) {
        let next = self.after(channel, since.unwrap_or(position));
        let known = self.feeds.get(&channel).map(|feed| feed.next);
        let feed = self.feeds.entry(channel).or_default();
        feed.next = next;
        // Whoever goes on must go on from where it stood; whoever begins anew may begin anywhere.
        if let (Some(stood), Some(_)) = (known, since) {
            self.miss(channel, stood..next.max(stood));
        }
    }

    fn event(&mut self, channel: u32, at: Position, print: u64) {
        let rows = self.checker.rows_of(channel);
        let log = &self.checker.log[rows.clone()];
        let found = rows.start + log.partition_point(|row| row.at < at);
        let row = self.checker.log.get(found).filter(|row| rows.contains(&found) && row.at == at);
        let Some(row) = row else {
            return self.tell(Kind::SeenNotStored, channel, at, at);
        };
        if row.print != print {
            self.tell(Kind::FeedsDiffer, channel, at, at);
        }
        // Rows that stand twice at this offset are one event to a subscriber.
        let behind = self.after(channel, at);
        let feed = self.feeds.entry(channel).or_insert(Feed { next: found, skipped: Vec::new() });
        if found >= feed.next {
            let missed = feed.next..found;
            feed.next = behind;
            self.miss(channel, missed);
            return;
        }
        let late = feed.skipped.iter().any(|skipped| skipped.contains(&found));
        self.tell(if late { Kind::OutOfOrder } else { Kind::SeenTwice }, channel, at, at);
    }

    fn gap(&mut self, channel: u32, from: Position, to: Position) {
        let (told, next) = (self.after(channel, from), self.after(channel, to));
        let feed = self.feeds.entry(channel).or_default();
        let missed = feed.next..told.max(feed.next);
        let covered = next.saturating_sub(told.max(feed.next)) as u64;
        feed.next = next;
        self.checker.verdict.totals.told_as_gap += covered;
        if from <= to {
            self.miss(channel, missed);
        }
    }

    fn end(&mut self) {
        let feeds: Vec<(u32, usize)> = self.feeds.iter().map(|(c, feed)| (*c, feed.next)).collect();
        for (channel, next) in feeds {
            let rows = self.checker.rows_of(channel);
            if next < rows.end {
                let (from, through) =
                    (self.checker.log[next.max(rows.start)].at, self.checker.log[rows.end - 1].at);
                self.tell(Kind::CutShort, channel, from, through);
            }
        }
    }

    fn miss(&mut self, channel: u32, missed: Range<usize>) {
        if missed.is_empty() {
            return;
        }
        let (from, through) =
            (self.checker.log[missed.start].at, self.checker.log[missed.end - 1].at);
        if let Some(feed) = self.feeds.get_mut(&channel) {
            feed.skipped.push(missed);
        }
        self.tell(Kind::SilentGap, channel, from, through);
    }

    fn tell(&mut self, kind: Kind, channel: u32, from: Position, through: Position) {
        let (who, channel) = (&self.subscriber, self.checker.channels.name(channel));
        let sentence = match kind {
            Kind::SilentGap => format!("{who} did not get {from} to {through} of {channel}"),
            Kind::CutShort => {
                format!(
                    "{who} was connected to the end and did not get {from} to {through} of {channel}"
                )
            }
            Kind::SeenTwice => format!("{who} got {from} of {channel} again"),
            Kind::OutOfOrder => format!("{who} got {from} of {channel} after a later one"),
            Kind::FeedsDiffer => {
                format!("{who} saw another event at {from} of {channel} than the archive holds")
            }
            _ => format!("{who} saw an event at {from} of {channel}, where the archive has none"),
        };
        let violation = Violation::new(kind, sentence).at(channel, from, through).seen_by(who);
        self.checker.verdict.add(violation);
    }
}
