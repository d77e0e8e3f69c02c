//! The answers that one connection's publishes are still owed.

use crate::ingest::{Answers, Published};
use crate::outbox::Outbox;
use crate::render;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stormwire_core::{Clock, Refusal};
use stormwire_telemetry::metrics as names;
use stormwire_wire::protocol::{self, Codec, RequestId};
use tokio::time::Instant;

#[derive(Debug)]
enum Slot {
    /// The next free slot, or the length of the table.
    Free(usize),
    Waiting(Option<RequestId>),
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: usize,
    /// The publish whose time is taken, one of a connection: nothing is paid for all the others.
    timed: Option<(usize, Instant)>,
}

/// Request ids by ticket. A ticket is a place in a small table, so an answer costs no search.
pub(crate) struct Replies {
    codec: Codec,
    outbox: Arc<Outbox>,
    clock: Arc<dyn Clock>,
    slots: Mutex<Slots>,
    unacked: AtomicUsize,
}

impl Replies {
    pub(crate) fn new(codec: Codec, outbox: Arc<Outbox>, clock: Arc<dyn Clock>) -> Self {
        let unacked = AtomicUsize::new(0);
        Self { codec, outbox, clock, slots: Mutex::default(), unacked }
    }

    /// How many publishes wait for their answer.
    pub(crate) fn unacked(&self) -> usize {
        self.unacked.load(Ordering::Acquire)
    }

    /// A ticket for a publish whose answer shall carry `id`.
    pub(crate) fn expect(&self, id: Option<RequestId>) -> u64 {
        self.unacked.fetch_add(1, Ordering::AcqRel);
        let mut slots = self.slots.lock();
        let at = slots.take(id);
        if slots.timed.is_none() {
            slots.timed = Some((at, Instant::now()));
        }
        at as u64
    }
}

impl Slots {
    fn take(&mut self, id: Option<RequestId>) -> usize {
        let at = self.free;
        match self.slots.get_mut(at) {
            Some(slot) => {
                if let Slot::Free(next) = *slot {
                    self.free = next;
                }
                *slot = Slot::Waiting(id);
            }
            None => {
                self.slots.push(Slot::Waiting(id));
                self.free = self.slots.len();
            }
        }
        at
    }

    fn release(&mut self, at: usize) -> Option<RequestId> {
        let slot = self.slots.get_mut(at)?;
        match std::mem::replace(slot, Slot::Free(self.free)) {
            Slot::Waiting(id) => {
                self.free = at;
                id
            }
            free @ Slot::Free(_) => {
                *slot = free;
                None
            }
        }
    }
}

impl Answers for Replies {
    fn answer(&self, ticket: u64, answer: Result<Published, Refusal>) {
        let at = usize::try_from(ticket).unwrap_or(usize::MAX);
        let mut slots = self.slots.lock();
        let id = slots.release(at);
        let timed = slots.timed.take_if(|(timed, _)| *timed == at);
        drop(slots);
        if let Some((_, since)) = timed.filter(|_| answer.is_ok()) {
            metrics::histogram!(names::PUBLISH_SECONDS).record(since.elapsed().as_secs_f64());
        }
        let message = match answer {
            Ok(Published { epoch, first, last, duplicate, dead_letters }) => {
                let server_time = self.clock.now();
                let published = protocol::Published {
                    id,
                    epoch,
                    first,
                    last,
                    server_time,
                    duplicate,
                    dead_letters,
                };
                render::published(self.codec, &published)
            }
            Err(refusal) => {
                metrics::counter!(names::REFUSALS, "code" => refusal.code.as_str()).increment(1);
                render::error(self.codec, id.as_ref(), &refusal)
            }
        };
        // Room first: the wake-up by the answer then finds it.
        self.unacked.fetch_sub(1, Ordering::AcqRel);
        self.outbox.answer(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_used_again_and_ids_come_back() {
        let mut slots = Slots::default();
        let id = |n| Some(RequestId::Number(n));
        let (a, b) = (slots.take(id(1)), slots.take(id(2)));
        assert_eq!(slots.release(a), id(1));
        assert_eq!(slots.release(a), None);
        let c = slots.take(id(3));
        assert_eq!(c, a);
        let d = slots.take(None);
        assert_eq!((slots.release(b), slots.release(c), slots.release(d)), (id(2), id(3), None));
        assert_eq!(slots.slots.len(), 3);
    }
}
