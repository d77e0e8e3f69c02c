//! The smallest example of a violation: the records that touch it, in the order of time.

use crate::history::{Position, ProducerRecord, Row, SubscriberRecord};
use crate::verdict::Violation;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

/// More records of one witness than this are counted instead of shown.
const RECORDS_MAX: usize = 8;
/// Data is cut after so many characters.
const DATA_CHARS: usize = 40;

/// Collects what touches one violation.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    violation: &'a Violation,
    /// Attempts that touch it, by producer and number.
    attempts: HashSet<(String, u64)>,
    lines: BTreeMap<(u64, usize), String>,
    /// How many lines each witness has.
    witnesses: HashMap<String, usize>,
    /// What the subscriber in question got last before the stretch.
    before: Option<(u64, String)>,
    left_out: usize,
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(violation: &'a Violation) -> Self {
        let (attempts, witnesses) = (HashSet::new(), HashMap::new());
        let (lines, before, left_out) = (BTreeMap::new(), None, 0);
        Self { violation, attempts, lines, witnesses, before, left_out }
    }

    /// Whether a position lies in the stretch in question, or at its edge.
    fn touches(&self, channel: &str, at: Position) -> bool {
        let violation = self.violation;
        violation.channel.as_deref() == Some(channel)
            && violation
                .from
                .zip(violation.through)
                .is_some_and(|(from, to)| from <= at && at <= to)
    }

    fn line(&mut self, t: u64, witness: String, text: String) {
        let told = self.witnesses.entry(witness.clone()).or_default();
        *told += 1;
        if *told <= RECORDS_MAX {
            let number = self.lines.len();
            self.lines.insert((t, number), format!("{witness:<20} {text}"));
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn archived(&mut self, row: &Row) {
        if self.touches(&row.channel, row.position) {
            let (channel, at, data) = (&row.channel, row.position, shown(&row.data));
            self.line(u64::MAX, "archive".to_owned(), format!("holds {data} at {at} of {channel}"));
        }
    }

    pub(crate) fn producer(&mut self, name: &str, record: &ProducerRecord) {
        let key = |attempt: &u64| (name.to_owned(), *attempt);
        let text = match record {
            ProducerRecord::Attempt { attempt, seq, channel, data, again, .. } => {
                let sent = self.violation.sent.as_ref();
                let is_it = sent.is_some_and(|(producer, number)| {
                    producer == name && (*seq..*seq + data.len() as u64).contains(number)
                });
                if !is_it {
                    return;
                }
                self.attempts.insert(key(attempt));
                let first = data.first().map(|data| shown(data)).unwrap_or_default();
                let again = again.map(|ms| format!(" again {ms} ms")).unwrap_or_default();
                let events = data.len();
                format!(
                    "attempt {attempt}: seq {seq}, {events} events on {channel}{again}: {first}"
                )
            }
            ProducerRecord::Acknowledged { attempt, epoch, first, last, duplicate, .. } => {
                // What stands at the place in question belongs to the example, whoever sent it.
                let channel = self.violation.channel.clone().unwrap_or_default();
                let at = |offset: &u64| Position { epoch: *epoch, offset: *offset };
                let is_near = self.touches(&channel, at(first)) || self.touches(&channel, at(last));
                let is_ours = self.attempts.contains(&key(attempt));
                if !(is_ours || is_near && self.violation.sent.is_none()) {
                    return;
                }
                let repeat = if *duplicate { ", a repeat" } else { "" };
                format!("attempt {attempt}: acknowledged {epoch}:{first} to {last}{repeat}")
            }
            ProducerRecord::Refused { attempt, code, .. } => {
                if !self.attempts.contains(&key(attempt)) {
                    return;
                }
                format!("attempt {attempt}: refused, {code}")
            }
            ProducerRecord::Unknown { attempt, why, .. } => {
                if !self.attempts.contains(&key(attempt)) {
                    return;
                }
                format!("attempt {attempt}: unknown, {why}")
            }
            ProducerRecord::End { .. } => return,
        };
        self.line(record.time(), format!("producer {name}"), text);
    }

    pub(crate) fn subscriber(&mut self, name: &str, record: &SubscriberRecord) {
        let it = self.violation.subscriber.as_deref();
        let in_question = it == Some(name);
        if in_question {
            self.edges(name, record);
        }
        let text = match record {
            SubscriberRecord::Event { channel, position, data, .. }
                if self.touches(channel, *position) =>
            {
                format!("got {} at {position} of {channel}", shown(data))
            }
            SubscriberRecord::Subscribed { channel, position, since, .. }
                if in_question && self.violation.channel.as_ref() == Some(channel) =>
            {
                let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
                format!("subscribed to {channel}{since}, told {position}")
            }
            SubscriberRecord::Gap { channel, from, to, .. }
                if self.violation.channel.as_ref() == Some(channel) =>
            {
                format!("was told of a gap from {from} to {to} of {channel}")
            }
            SubscriberRecord::Lost { why, .. } if in_question => format!("lost: {why}"),
            _ => return,
        };
        self.line(record.time(), format!("subscriber {name}"), text);
    }

    /// What the subscriber in question got just before and just after the stretch.
    fn edges(&mut self, name: &str, record: &SubscriberRecord) {
        let Some((first, last)) = self.violation.from.zip(self.violation.through) else { return };
        let SubscriberRecord::Event { t, channel, position, .. } = record else { return };
        if self.violation.channel.as_ref() != Some(channel) {
            return;
        }
        let text = format!("got {position} of {channel}");
        if *position < first {
            self.before = Some((*t, text));
        } else if *position > last
            && let Some((before, told)) = self.before.take()
        {
            self.line(before, format!("subscriber {name}"), told);
            self.line(*t, format!("subscriber {name}"), text);
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.violation.kind, self.violation.sentence);
        for ((t, _), line) in &self.lines {
            let time = if *t == u64::MAX { "at the end".to_owned() } else { t.to_string() };
            let _ = writeln!(text, "  {time:>14}  {line}");
        }
        if self.left_out > 0 {
            let _ = writeln!(text, "  and {} more records", self.left_out);
        }
        text
    }
}

fn shown(data: &str) -> String {
    let mut text: String = data.chars().take(DATA_CHARS).collect();
    if text.len() < data.len() {
        text.push('…');
    }
    text
}
