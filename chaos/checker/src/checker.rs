//! The core: the archive as one sorted log, and the events that were sent, joined by their data.

use crate::feed::FeedCheck;
use crate::history::{Position, Row};
use crate::names::{Names, print_of};
use crate::producer::ProducerCheck;
use crate::verdict::{Kind, Verdict, Violation};
use crate::{HistoryError, Totals};
use std::collections::HashMap;
use std::ops::Range;

/// One event in the archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) channel: u32,
    pub(crate) partition: u16,
    pub(crate) at: Position,
    pub(crate) print: u64,
    /// Index of the event that was sent; [`NOBODY`] before the join and where nobody sent it.
    sent: u32,
}

const NOBODY: u32 = u32::MAX;

/// What became of an event, as far as its producer was told; the strongest of its attempts counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Refused,
    Unknown,
    /// Where it is; `None` for an event in the middle of a publish that was cut into several frames.
    Acknowledged(u32, Option<u64>),
}

/// One event that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) producer: u32,
    pub(crate) seq: u64,
    pub(crate) channel: u32,
    pub(crate) print: u64,
    pub(crate) fate: Fate,
}

/// Takes the archive, then producers and subscribers in any order, and decides.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) channels: Names,
    pub(crate) producers: Names,
    /// Sorted by channel and position from [`Self::seal`] on.
    pub(crate) log: Vec<Stored>,
    ranges: HashMap<u32, Range<usize>>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) verdict: Verdict,
}

impl Checker {
    /// A checker that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one row of the archive; rows may come in any order.
    pub fn archived(&mut self, row: &Row) {
        let (channel, print) = (self.channels.number(&row.channel), print_of(&row.data));
        let (partition, at) = (row.partition, row.position);
        self.log.push(Stored { channel, partition, at, print, sent: NOBODY });
    }

    /// The archive is complete: from now on feeds can be walked along it.
    pub fn seal(&mut self) {
        self.log.sort_by_key(|row| (row.channel, row.at));
        let mut from = 0;
        for rows in self.log.chunk_by(|a, b| a.channel == b.channel) {
            self.ranges.insert(rows[0].channel, from..from + rows.len());
            from += rows.len();
        }
        self.verdict.totals.archived = self.log.len() as u64;
    }

    /// Takes what a producer did, record by record.
    pub fn producer(&mut self, name: &str) -> ProducerCheck<'_> {
        let number = self.producers.number(name);
        ProducerCheck::new(self, number)
    }

    /// Takes what a subscriber saw, record by record; the archive must be complete.
    pub fn subscriber(&mut self, name: &str) -> FeedCheck<'_> {
        FeedCheck::new(self, name)
    }

    /// The rows of a channel.
    pub(crate) fn rows_of(&self, channel: u32) -> Range<usize> {
        self.ranges.get(&channel).cloned().unwrap_or(0..0)
    }

    /// Decides.
    ///
    /// # Errors
    /// Two events of the history have the same data.
    pub fn finish(mut self) -> Result<Verdict, HistoryError> {
        self.join()?;
        self.twice_at_one_offset();
        self.judge();
        self.producer_order();
        Ok(self.verdict)
    }

    /// Finds for each row who sent it, and what is there more than once or came from nobody.
    fn join(&mut self) -> Result<(), HistoryError> {
        self.sent.sort_by_key(|sent| sent.print);
        if let Some(pair) = self.sent.windows(2).find(|pair| pair[0].print == pair[1].print) {
            let name = |sent: &Sent| format!("{} {}", self.producers.name(sent.producer), sent.seq);
            let (one, two) = (name(&pair[0]), name(&pair[1]));
            return Err(HistoryError(format!("{one} and {two} have the same data")));
        }
        let mut by_print: Vec<u32> = (0..u32::try_from(self.log.len()).unwrap_or(NOBODY)).collect();
        by_print.sort_by_key(|index| self.log[*index as usize].print);
        for same in by_print
            .chunk_by(|a, b| self.log[*a as usize].print == self.log[*b as usize].print)
            .map(<[u32]>::to_vec)
            .collect::<Vec<_>>()
        {
            let first = self.log[same[0] as usize];
            let found = self.sent.binary_search_by_key(&first.print, |sent| sent.print);
            for index in &same {
                let row = &mut self.log[*index as usize];
                row.sent = found.map_or(NOBODY, |at| u32::try_from(at).unwrap_or(NOBODY));
            }
            if found.is_err() {
                let channel = self.channels.name(first.channel);
                let sentence = format!("{channel} holds at {} an event that nobody sent", first.at);
                self.verdict
                    .add(Violation::new(Kind::NeverSent, sentence).at(channel, first.at, first.at));
            }
            // Copies at one offset are found beside it.
            if same.len() > 1 && same.iter().any(|at| self.log[*at as usize].at != first.at) {
                self.stored_twice(&same);
            }
        }
        Ok(())
    }

    fn stored_twice(&mut self, same: &[u32]) {
        let row = |at: &u32| self.log[*at as usize];
        let (first, second) = (row(&same[0]), row(&same[1]));
        let channel = self.channels.name(first.channel);
        let sender = self.sent.get(first.sent as usize);
        let who = sender.map(|sent| (self.producers.name(sent.producer).to_owned(), sent.seq));
        let (from, through) = (first.at.min(second.at), first.at.max(second.at));
        let event = who.as_ref().map_or("an event".to_owned(), |(who, seq)| format!("{who} {seq}"));
        let sentence = format!(
            "{event} is in the archive {} times: at {from} and at {through} of {channel}",
            same.len()
        );
        let mut violation = Violation::new(Kind::StoredTwice, sentence).at(channel, from, through);
        violation.sent = who;
        self.verdict.add(violation);
    }

    fn twice_at_one_offset(&mut self) {
        for at in 1..self.log.len() {
            let (one, two) = (self.log[at - 1], self.log[at]);
            if one.channel == two.channel && one.at == two.at {
                let channel = self.channels.name(one.channel);
                let sentence = format!("{channel} has two rows at {}", one.at);
                let violation =
                    Violation::new(Kind::StoredTwice, sentence).at(channel, one.at, one.at);
                self.verdict.add(violation);
            }
        }
    }

    /// Compares what each producer was told with what is there.
    fn judge(&mut self) {
        let mut stored = vec![NOBODY; self.sent.len()];
        for (index, row) in self.log.iter().enumerate() {
            if let Some(slot) = stored.get_mut(row.sent as usize) {
                *slot = u32::try_from(index).unwrap_or(NOBODY);
            }
        }
        let mut totals = Totals { sent: self.sent.len() as u64, ..self.verdict.totals };
        for (index, sent) in self.sent.iter().enumerate() {
            let row = self.log.get(stored[index] as usize);
            let violation = match sent.fate {
                Fate::Refused => {
                    totals.refused += 1;
                    row.map(|row| self.refused_stored(sent, row))
                }
                Fate::Unknown => {
                    totals.unknown += 1;
                    totals.unknown_stored += u64::from(row.is_some());
                    None
                }
                Fate::Acknowledged(epoch, offset) => {
                    totals.acknowledged += 1;
                    self.acknowledged(sent, epoch, offset, row)
                }
            };
            if let Some(violation) = violation {
                let producer = self.producers.name(sent.producer);
                self.verdict.add(violation.sent(producer, sent.seq));
            }
        }
        self.verdict.totals = totals;
    }

    fn event(&self, sent: &Sent) -> String {
        format!("{} {}", self.producers.name(sent.producer), sent.seq)
    }

    fn refused_stored(&self, sent: &Sent, row: &Stored) -> Violation {
        let channel = self.channels.name(row.channel);
        let event = self.event(sent);
        let sentence =
            format!("every attempt of {event} was refused, and {channel} holds it at {}", row.at);
        Violation::new(Kind::RefusedStored, sentence).at(channel, row.at, row.at)
    }

    fn acknowledged(
        &self,
        sent: &Sent,
        epoch: u32,
        offset: Option<u64>,
        row: Option<&Stored>,
    ) -> Option<Violation> {
        let (channel, event) = (self.channels.name(sent.channel), self.event(sent));
        let told = offset.map(|offset| Position { epoch, offset });
        let place = told.map_or("somewhere".to_owned(), |told| told.to_string());
        let violation = |kind, sentence, at: Position| {
            Some(Violation::new(kind, sentence).at(channel, told.unwrap_or(at), told.unwrap_or(at)))
        };
        let Some(row) = row else {
            if let Some(told) = told
                && self.has_row_at(sent.channel, told)
            {
                let sentence = format!(
                    "{event} was acknowledged at {place} of {channel}, where the archive holds another \
                     event"
                );
                return violation(Kind::Altered, sentence, told);
            }
            let sentence = format!(
                "{event} was acknowledged at {place} of {channel} and is not in the archive"
            );
            return violation(Kind::Lost, sentence, Position::default());
        };
        // Of several copies any one may be this row; that there are several is told by itself.
        let right = row.channel == sent.channel
            && row.at.epoch == epoch
            && told.is_none_or(|told| told == row.at || self.is_copied_to(sent, told));
        if right {
            return None;
        }
        let sentence = format!(
            "{event} was acknowledged at {place} of {channel} and stands at {} of {}",
            row.at,
            self.channels.name(row.channel)
        );
        violation(Kind::Misplaced, sentence, row.at)
    }

    fn rows_at(&self, channel: u32, at: Position) -> &[Stored] {
        let rows = &self.log[self.rows_of(channel)];
        let from = rows.partition_point(|row| row.at < at);
        let through = rows.partition_point(|row| row.at <= at);
        &rows[from..through]
    }

    fn has_row_at(&self, channel: u32, at: Position) -> bool {
        !self.rows_at(channel, at).is_empty()
    }

    fn is_copied_to(&self, sent: &Sent, at: Position) -> bool {
        self.rows_at(sent.channel, at).iter().any(|row| row.print == sent.print)
    }

    /// Walks each partition in its order: the numbers of each producer grow.
    fn producer_order(&mut self) {
        self.log.sort_by_key(|row| (row.partition, row.at));
        let mut newest: HashMap<u32, &Stored> = HashMap::new();
        let mut partition = None;
        for row in &self.log {
            if partition.replace(row.partition) != Some(row.partition) {
                newest.clear();
            }
            let Some(sent) = self.sent.get(row.sent as usize) else { continue };
            let Some(before) = newest.insert(sent.producer, row) else { continue };
            let earlier = self.sent[before.sent as usize];
            if earlier.seq > sent.seq {
                let (channel, producer) =
                    (self.channels.name(row.channel), self.producers.name(sent.producer));
                let sentence = format!(
                    "{producer} sent {} before {}, and they stand at {} and {} of partition {}",
                    sent.seq, earlier.seq, row.at, before.at, row.partition
                );
                self.verdict.add(
                    Violation::new(Kind::ProducerReordered, sentence)
                        .at(channel, before.at, row.at)
                        .sent(producer, sent.seq),
                );
                // The highest stays, so that one straggler is told once.
                newest.insert(sent.producer, before);
            }
        }
    }
}
