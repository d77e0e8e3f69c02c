//! A batch in an appender: what of it is written, what waits, and what its items' answers are.

use crate::publish::{Outcome, ProducerKey, Publish, Stored};
use crate::repeats::{Numbers, Repeats, Slot, Verdict};
use std::collections::VecDeque;
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{ErrorCode, Offset, Refusal, Timestamp};
use stormwire_wire::frame::FrameBuilder;

/// What one item put into the frame under way.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) batch: u64,
    pub(super) item: usize,
    pub(super) slot: Slot,
    pub(super) seq: u64,
    /// Place of its first event in the frame.
    pub(super) index: u16,
    pub(super) count: u16,
    /// Where the item begins, if a part of it was stored before.
    first: Option<Offset>,
    /// Whether the item ends with it.
    ends: bool,
}

impl Part {
    /// Whether an earlier part of the same item is stored.
    pub(super) const fn has_head(&self) -> bool {
        self.first.is_some()
    }
}

/// The frame that is being made, and the table that judges what goes in.
pub(super) struct Filling<'a> {
    pub(super) repeats: &'a mut Repeats,
    pub(super) builder: &'a mut FrameBuilder,
    pub(super) parts: &'a mut Vec<Part>,
    pub(super) batch: u64,
    pub(super) wall: Timestamp,
    pub(super) duplicates: usize,
}

/// An item of which the head is in the log.
#[derive(Debug, Clone, Copy)]
struct Cut {
    item: usize,
    done: usize,
    first: Option<Offset>,
}

#[derive(Debug)]
enum Blocked {
    /// C1: refused from this number on.
    From(u64),
    /// Something of the connection waits for the frame that is being made.
    Waits,
}

#[derive(Debug)]
pub(super) struct Batch<O> {
    /// Taken when the batch is answered.
    origin: Option<O>,
    items: Vec<Publish>,
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    next: usize,
    cut: Option<Cut>,
    held: VecDeque<usize>,
    blocked: Vec<(u64, Blocked)>,
    pub(super) bytes: usize,
}

/// What came of offering an item to the frame.
enum Offered {
    /// It is in, or answered.
    Taken,
    Held,
    Full,
}

impl<O> Batch<O> {
    pub(super) fn new(origin: O, items: Vec<Publish>, bytes: usize) -> Self {
        Self {
            origin: Some(origin),
            outcomes: vec![None; items.len()],
            left: items.len(),
            items,
            next: 0,
            cut: None,
            held: VecDeque::new(),
            blocked: Vec::new(),
            bytes,
        }
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.origin.is_none()
    }

    /// Items that no frame has taken yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Publish> {
        self.items.iter().skip(self.next)
    }

    pub(super) fn finish(&mut self, item: usize, outcome: Outcome) {
        if let Some(slot @ None) = self.outcomes.get_mut(item) {
            *slot = Some(outcome);
            self.left -= 1;
        }
    }

    pub(super) fn finish_all(&mut self, outcome: &Outcome) {
        for item in 0..self.items.len() {
            self.finish(item, outcome.clone());
        }
    }

    /// The finished batch, once.
    pub(super) fn take_finished(&mut self) -> Option<(O, Vec<Publish>, Vec<Outcome>)> {
        if self.left > 0 {
            return None;
        }
        let outcomes = std::mem::take(&mut self.outcomes).into_iter().flatten().collect();
        Some((self.origin.take()?, std::mem::take(&mut self.items), outcomes))
    }

    /// Notes that `part` is in the log at `offset`.
    pub(super) fn stored(&mut self, part: &Part, offset: Offset) {
        let first = part.first.unwrap_or(offset);
        if part.ends {
            let last = Offset(offset.0 + u64::from(part.count) - 1);
            self.finish(part.item, Outcome::Stored(Stored { first, last, duplicate: false }));
        } else if let Some(cut) = &mut self.cut {
            cut.first = Some(first);
        }
    }

    /// Puts what waits into the frame, in order; `true` when the frame is full.
    pub(super) fn fill(&mut self, frame: &mut Filling<'_>) -> bool {
        if self.is_answered() {
            return false;
        }
        self.blocked.retain(|(_, blocked)| matches!(blocked, Blocked::From(_)));
        if let Some(cut) = self.cut.take() {
            // The rest of a cut publish goes before all others, or nothing goes.
            if !matches!(self.offer(frame, cut), Offered::Taken) {
                self.cut = self.cut.or(Some(cut));
                return true;
            }
        }
        for _ in 0..self.held.len() {
            let Some(item) = self.held.pop_front() else { break };
            if let Offered::Full = self.offer_or_hold(frame, item) {
                if self.cut.is_none() {
                    self.held.push_front(item);
                }
                self.held.make_contiguous().sort_unstable();
                return true;
            }
        }
        while self.next < self.items.len() {
            if let Offered::Full = self.offer_or_hold(frame, self.next) {
                return true;
            }
            self.next += 1;
        }
        false
    }

    fn offer_or_hold(&mut self, frame: &mut Filling<'_>, item: usize) -> Offered {
        let Publish { connection, seq, .. } = self.items[item];
        for (of, blocked) in &self.blocked {
            match blocked {
                _ if *of != connection => {}
                Blocked::Waits => {
                    self.held.push_back(item);
                    return Offered::Held;
                }
                // C1: above what was refused, nothing is taken.
                Blocked::From(from) if seq > *from => {
                    let refusal = Refusal::out_of_order(*from);
                    self.finish(item, Outcome::Refused(refusal));
                    return Offered::Taken;
                }
                Blocked::From(_) => {}
            }
        }
        let offered = self.offer(frame, Cut { item, done: 0, first: None });
        if let Offered::Held = offered {
            self.hold(item);
        }
        if let (Offered::Full, Some(_)) = (&offered, self.cut) {
            // A part of it is in: the rest goes on with the next frame, before all others.
            self.next = self.next.max(item + 1);
        }
        offered
    }

    fn hold(&mut self, item: usize) {
        self.blocked.push((self.items[item].connection, Blocked::Waits));
        self.held.push_back(item);
    }

    /// Judges an item, from event `done` on, and puts it into the frame if it is new.
    fn offer(&mut self, frame: &mut Filling<'_>, cut: Cut) -> Offered {
        let Cut { item, done, first } = cut;
        let publish = &self.items[item];
        let numbers = Numbers {
            seq: publish.seq + done as u64,
            count: u32::try_from(publish.events.len() - done).unwrap_or(u32::MAX),
            // A5: judged event by event: what is left of a publish is a repeat of it.
            first_sent: if done > 0 { Some(frame.wall) } else { publish.first_sent },
        };
        let slot = frame.repeats.find(publish.key);
        let refusal = match frame.repeats.judge(publish.key, slot, numbers) {
            Verdict::Wait => return Offered::Held,
            Verdict::Append { skip, first: skipped } => {
                let cut = Cut { item, done: done + skip as usize, first: first.or(skipped) };
                return self.append(frame, slot, cut);
            }
            Verdict::Duplicate { .. } if injected(Fault::RepeatsLetThrough) => {
                return self.append(frame, slot, cut);
            }
            Verdict::Duplicate { first: repeated, last } => {
                frame.duplicates += 1;
                let first = first.unwrap_or(repeated);
                self.finish(item, Outcome::Stored(Stored { first, last, duplicate: done == 0 }));
                return Offered::Taken;
            }
            Verdict::Conflict => Refusal::new(
                ErrorCode::Conflict,
                format!(
                    "seq {} was used before by this producer; a repeat says `again`",
                    publish.seq
                ),
            ),
            Verdict::UnknownOutcome => Refusal::new(
                ErrorCode::UnknownOutcome,
                "whether these events are stored is further back than the server remembers",
            ),
            Verdict::Forgotten => Refusal::new(
                ErrorCode::Forgotten,
                "these events were sent first longer ago than the server remembers",
            ),
        };
        if refusal.is_temporary() && !injected(Fault::FailStopOff) {
            // C1: and nothing above it of this connection.
            self.blocked.push((publish.connection, Blocked::From(publish.seq)));
        }
        self.finish(item, Outcome::Refused(refusal));
        Offered::Taken
    }

    fn append(&mut self, frame: &mut Filling<'_>, slot: Option<Slot>, cut: Cut) -> Offered {
        let Cut { item, done, first } = cut;
        let publish = &self.items[item];
        let (channel, user, producer) = (&publish.channel, &publish.user, &publish.producer);
        let seq = publish.seq + done as u64;
        let before = frame.builder.len();
        let rest;
        let events = if done == 0 {
            &publish.events
        } else {
            rest = publish.events.split(done, usize::MAX).1;
            &rest
        };
        let taken = frame.builder.push(channel, user, producer, seq, publish.trace, events);
        if taken == 0 {
            return Offered::Full;
        }
        let ends = taken == events.len();
        let key: ProducerKey = publish.key;
        let slot = frame.repeats.reserve(slot, key, seq + taken as u64 - 1);
        let (index, count) =
            (u16::try_from(before).unwrap_or(u16::MAX), u16::try_from(taken).unwrap_or(u16::MAX));
        frame.parts.push(Part { batch: frame.batch, item, slot, seq, index, count, first, ends });
        if ends {
            return Offered::Taken;
        }
        self.cut = Some(Cut { item, done: done + taken, first });
        Offered::Full
    }
}
