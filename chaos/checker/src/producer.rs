//! What one producer did and was told.

use crate::HistoryError;
use crate::checker::{Checker, Fate, Sent};
use crate::history::{Position, ProducerRecord};
use crate::names::print_of;
use crate::verdict::{Kind, Violation};
use std::collections::{BTreeMap, HashMap};

/// Takes the records of one producer in their order.
#[derive(Debug)]
pub struct ProducerCheck<'a> {
    checker: &'a mut Checker,
    producer: u32,
    events: BTreeMap<u64, Event>,
    /// Attempts without an answer: their first number and how many events they have.
    open: HashMap<u64, (u64, u64)>,
}

#[derive(Debug)]
struct Event {
    channel: u32,
    print: u64,
    fate: Fate,
}

impl<'a> ProducerCheck<'a> {
    pub(crate) fn new(checker: &'a mut Checker, producer: u32) -> Self {
        Self { checker, producer, events: BTreeMap::new(), open: HashMap::new() }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It contradicts an earlier one.
    pub fn take(&mut self, record: &ProducerRecord) -> Result<(), HistoryError> {
        match record {
            ProducerRecord::Attempt { attempt, seq, channel, data, .. } => {
                self.attempt(*attempt, *seq, channel, data)
            }
            ProducerRecord::Acknowledged { attempt, epoch, first, last, .. } => {
                self.acknowledged(*attempt, *epoch, *first, *last)
            }
            ProducerRecord::Refused { attempt, .. } => self.close(*attempt).map(drop),
            ProducerRecord::Unknown { attempt, .. } => {
                let (seq, events) = self.close(*attempt)?;
                self.unknown(seq, events);
                Ok(())
            }
            ProducerRecord::End { unsettled, .. } => {
                for seq in unsettled {
                    self.unsettled(*seq);
                }
                Ok(())
            }
        }
    }

    /// There are no more records: attempts without an answer are unknown.
    pub fn finish(mut self) {
        for (seq, events) in std::mem::take(&mut self.open).into_values() {
            self.unknown(seq, events);
        }
        let Self { checker, producer, events, .. } = self;
        checker.sent.extend(events.into_iter().map(|(seq, event)| {
            let Event { channel, print, fate } = event;
            Sent { producer, seq, channel, print, fate }
        }));
    }

    fn attempt(
        &mut self,
        attempt: u64,
        seq: u64,
        channel: &str,
        data: &[String],
    ) -> Result<(), HistoryError> {
        let number = self.checker.channels.number(channel);
        for (seq, data) in (seq..).zip(data) {
            let print = print_of(data);
            let new = || Event { channel: number, print, fate: Fate::Refused };
            let event = self.events.entry(seq).or_insert_with(new);
            if event.channel != number || event.print != print {
                return Err(HistoryError(format!(
                    "attempt {attempt} sends another event as {seq}"
                )));
            }
        }
        match self.open.insert(attempt, (seq, data.len() as u64)) {
            None => Ok(()),
            Some(_) => Err(HistoryError(format!("attempt {attempt} was made twice"))),
        }
    }

    fn close(&mut self, attempt: u64) -> Result<(u64, u64), HistoryError> {
        let unasked = || HistoryError(format!("an answer to attempt {attempt}, which is not open"));
        self.open.remove(&attempt).ok_or_else(unasked)
    }

    fn unknown(&mut self, seq: u64, events: u64) {
        for (_, event) in self.events.range_mut(seq..seq + events) {
            if event.fate == Fate::Refused {
                event.fate = Fate::Unknown;
            }
        }
    }

    fn acknowledged(
        &mut self,
        attempt: u64,
        epoch: u32,
        first: u64,
        last: u64,
    ) -> Result<(), HistoryError> {
        let (seq, events) = self.close(attempt)?;
        // A publish that went into more than one frame names its ends only.
        let is_whole = last.checked_sub(first) == Some(events - 1);
        for (index, (seq, event)) in self.events.range_mut(seq..seq + events).enumerate() {
            let index = index as u64;
            let offset = match index {
                _ if is_whole => Some(first + index),
                0 => Some(first),
                _ if index == events - 1 => Some(last),
                _ => None,
            };
            let told = Fate::Acknowledged(epoch, offset);
            if matches!(event.fate, Fate::Acknowledged(..)) && event.fate != told {
                let producer = self.checker.producers.name(self.producer);
                let channel = self.checker.channels.name(event.channel);
                let place = |fate| match fate {
                    Fate::Acknowledged(epoch, Some(offset)) => Position { epoch, offset },
                    _ => Position::default(),
                };
                let (one, two) = (place(event.fate), place(told));
                let sentence = format!("{producer} {seq} was acknowledged at {one} and at {two}");
                self.checker.verdict.add(
                    Violation::new(Kind::AnswersDiffer, sentence)
                        .at(channel, one.min(two), one.max(two))
                        .sent(producer, *seq),
                );
            } else {
                event.fate = told;
            }
        }
        Ok(())
    }

    fn unsettled(&mut self, seq: u64) {
        let producer = self.checker.producers.name(self.producer);
        let sentence = format!("{producer} {seq} got no final answer though all was healed");
        let violation = Violation::new(Kind::NeverSettled, sentence).sent(producer, seq);
        self.checker.verdict.add(violation);
    }
}
