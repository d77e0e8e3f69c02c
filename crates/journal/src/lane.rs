//! A gateway's queue towards one partition's appender: in order, bounded, one batch under way, and
//! fail-stop for each connection (rules C1 to C4).
//!
//! `T` is the caller's word for a publish; each comes back exactly once with its answer.

mod connections;

use crate::publish::{Now, Outcome, Publish, Stored};
use crate::repeats::BODY_NUMBERS;
use connections::Connections;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, ErrorCode, MAX_EVENTS_PER_FRAME, Refusal, Timestamp};
use stormwire_wire::frame::{EncodedEvents, FRAME_BYTES_MAX, TraceContext};

/// Largest publish, so that it fits a message between gateways.
pub const PUBLISH_BYTES_MAX: usize = 768 * 1024;
/// Numbers that JavaScript keeps exactly.
const SEQ_MAX: u64 = (1 << 53) - 1;
/// What an entry costs beside its events.
const ENTRY_BYTES: usize = 256;

/// How a lane is set up.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// The lane's own identity, for events without a producer: drawn anew by each process.
    pub producer: Arc<str>,
    /// C3: bytes it may hold.
    pub bytes_max: usize,
    /// C3: bytes of one connection.
    pub connection_bytes_max: usize,
    /// When a publish is answered at the latest.
    pub deadline: Duration,
}

/// A publish as a connection makes it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The connection, unique in this process.
    pub connection: u64,
    /// Where the events go.
    pub channel: Channel,
    /// Who publishes.
    pub user: Arc<str>,
    /// The producer, if it has one.
    pub producer: Option<Arc<str>>,
    /// The producer's number of the first event.
    pub seq: u64,
    /// For a repeat: how long ago it was sent first.
    pub again: Option<Duration>,
    /// The events.
    pub events: EncodedEvents,
    /// The publisher's trace.
    pub trace: Option<TraceContext>,
}

/// The answer to a publish.
pub type Answer<T> = (T, Result<(Epoch, Stored), Refusal>);

#[derive(Debug)]
struct Entry<T> {
    publish: Publish,
    waiting: Waiting<T>,
}

/// The lane's side of a publish, kept while the appender has the other.
#[derive(Debug)]
struct Waiting<T> {
    /// Taken when it is answered.
    ticket: Option<T>,
    connection: u64,
    /// The number that the client knows; `None` without a producer.
    seq: Option<u64>,
    /// Whether the client itself says that it is a repeat.
    again: bool,
    /// Whether an appender may have stored it already.
    uncertain: bool,
    received: Now,
    bytes: usize,
}

/// The lane of one partition in one gateway.
#[derive(Debug)]
pub struct Lane<T> {
    config: LaneConfig,
    queue: VecDeque<Entry<T>>,
    in_flight: Vec<Waiting<T>>,
    busy: bool,
    connections: Connections,
    bytes: usize,
    next_seq: u64,
    unavailable: Option<Refusal>,
    answers: Vec<Answer<T>>,
}

impl<T> Lane<T> {
    /// An empty lane.
    #[must_use]
    pub fn new(config: LaneConfig) -> Self {
        Self {
            config,
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            busy: false,
            connections: Connections::default(),
            bytes: 0,
            next_seq: 1,
            unavailable: None,
            answers: Vec::new(),
        }
    }

    /// Bytes that it holds.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.busy
    }

    /// Whether [`Lane::take`] would give something.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.busy && !self.queue.is_empty()
    }

    /// Takes a publish into the queue, or gives it back with its refusal. `Ok(true)`: nothing waited
    /// before, so whoever serves the lane has to be woken.
    ///
    /// # Errors
    /// The ticket with the refusal; the fence is set already.
    pub fn submit(&mut self, now: Now, request: Request, ticket: T) -> Result<bool, (T, Refusal)> {
        let bytes = ENTRY_BYTES + request.events.as_bytes().len();
        let seq = request.producer.is_some().then_some(request.seq);
        if let Err(refusal) = self.admit(request.connection, seq, &request.events, bytes) {
            if refusal.is_temporary() {
                // C2: the fence is set in the same step as the refusal.
                self.fence(request.connection, seq);
                self.sweep();
            }
            return Err((ticket, refusal));
        }
        let wakes = self.is_empty();
        let count = request.events.len() as u64;
        let Request { connection, channel, user, producer, again, events, trace, .. } = request;
        let (producer, number) = match (producer, seq) {
            (Some(producer), Some(seq)) => (producer, seq),
            _ => {
                // C4: events without a producer take their lane as one.
                self.next_seq += count;
                (Arc::clone(&self.config.producer), self.next_seq - count)
            }
        };
        let key = self.connections.key(connection, &user, &producer);
        let age = |again: Duration| {
            Timestamp(
                now.wall.0.saturating_sub(i64::try_from(again.as_millis()).unwrap_or(i64::MAX)),
            )
        };
        let first_sent = again.filter(|_| seq.is_some()).map(age);
        self.connections.enter(connection, seq, bytes);
        self.bytes += bytes;
        self.queue.push_back(Entry {
            publish: Publish {
                connection,
                channel,
                user,
                producer,
                key,
                seq: number,
                first_sent,
                events,
                trace,
            },
            waiting: Waiting {
                ticket: Some(ticket),
                connection,
                seq,
                again: first_sent.is_some(),
                uncertain: false,
                received: now,
                bytes,
            },
        });
        Ok(wakes)
    }

    fn admit(
        &self,
        connection: u64,
        seq: Option<u64>,
        events: &EncodedEvents,
        bytes: usize,
    ) -> Result<(), Refusal> {
        if events.is_empty() {
            return Err(Refusal::invalid_field("events", "at least one event is needed"));
        }
        if bytes > PUBLISH_BYTES_MAX {
            let text = format!("a publish has at most {PUBLISH_BYTES_MAX} bytes, this one {bytes}");
            return Err(Refusal::new(ErrorCode::TooLarge, text));
        }
        if let Some(seq) = seq {
            let end = seq.checked_add(events.len() as u64);
            let is_number = seq > 0 && end.is_some_and(|end| end <= SEQ_MAX);
            let is_body = seq >= BODY_NUMBERS && end.is_some();
            if !is_number && !is_body {
                let text = format!("{seq} is not from 1 to {SEQ_MAX} less the events");
                return Err(Refusal::invalid_field("seq", text));
            }
            // C1: above a refused number nothing is taken until that one comes again.
            if let Some(expected) = self.connections.fence(connection).filter(|due| seq > *due) {
                return Err(Refusal::out_of_order(expected));
            }
        }
        if let Some(refusal) = &self.unavailable {
            return Err(refusal.clone());
        }
        // C3: past the bounds it is overloaded, for this partition only. A connection that has nothing
        // here may always have one publish in the queue.
        let mine = self.connections.bytes(connection);
        if self.bytes + bytes > self.config.bytes_max
            || (mine > 0 && mine + bytes > self.config.connection_bytes_max)
        {
            let text = "too much waits to be written; slow down";
            let refusal = Refusal::new(ErrorCode::Overloaded, text);
            return Err(refusal.retry_after(Duration::from_millis(200)));
        }
        Ok(())
    }

    /// C2: a refusal that was made before the lane saw the publish, such as a limiter's. A temporary one
    /// sets the fence; a permanent one uses its number up.
    pub fn refused(&mut self, connection: u64, seq: u64, temporary: bool) {
        if temporary {
            self.fence(connection, Some(seq));
            self.sweep();
        } else {
            self.connections.use_up(connection, seq);
        }
    }

    /// The connection is gone, and its fence with it. What it has in the queue is still written.
    pub fn closed(&mut self, connection: u64) {
        self.connections.closed(connection);
    }

    /// While set, everything is refused with it: D5, the owner cannot be reached.
    pub fn set_unavailable(&mut self, refusal: Option<Refusal>) {
        if let Some(refusal) = &refusal {
            while let Some(entry) = self.queue.pop_front() {
                self.refuse_queued(entry.waiting, refusal);
            }
        }
        self.unavailable = refusal;
    }

    /// The next batch, unless one is under way or nothing waits: at most a frame's worth.
    pub fn take(&mut self) -> Option<Vec<Publish>> {
        if !self.is_ready() {
            return None;
        }
        let (mut events, mut bytes, mut count) = (0, 0, 0);
        for entry in &self.queue {
            events += entry.publish.events.len();
            bytes += framed_bytes(&entry.publish);
            if count > 0 && (events > MAX_EVENTS_PER_FRAME || bytes > FRAME_BYTES_MAX) {
                break;
            }
            count += 1;
        }
        let mut batch = Vec::with_capacity(count);
        self.in_flight.reserve(count);
        for entry in self.queue.drain(..count) {
            batch.push(entry.publish);
            self.in_flight.push(entry.waiting);
        }
        self.busy = true;
        Some(batch)
    }

    /// Takes what became of the batch under way, in the order in which it was taken.
    pub fn settle(&mut self, epoch: Epoch, batch: Vec<Publish>, outcomes: Vec<Outcome>) {
        self.busy = false;
        let mut again = Vec::new();
        // Connections of which something was answered as unknown while it was under way.
        let mut expired: Vec<u64> = Vec::new();
        let mut in_flight = std::mem::take(&mut self.in_flight);
        for ((mut publish, mut waiting), outcome) in
            batch.into_iter().zip(in_flight.drain(..)).zip(outcomes)
        {
            match outcome {
                Outcome::Stored(stored) => {
                    // B2: only a publish that says `again` is told that it is a duplicate; a lane that
                    // asked twice by itself has not repeated anything.
                    let duplicate = stored.duplicate && waiting.again;
                    self.answer(waiting, Ok((epoch, Stored { duplicate, ..stored })));
                }
                Outcome::Refused(refusal) => self.refuse(waiting, refusal),
                Outcome::NotStored | Outcome::Unknown if waiting.ticket.is_none() => {
                    expired.push(waiting.connection);
                    self.leave(&waiting);
                }
                // C1: what is above a publish that was answered as unknown waits for that one.
                Outcome::NotStored | Outcome::Unknown if expired.contains(&waiting.connection) => {
                    waiting.uncertain |= outcome == Outcome::Unknown;
                    let refusal = not_written(waiting.uncertain);
                    self.refuse(waiting, refusal);
                }
                outcome => {
                    // C4: the lane asks again by itself. Where the first copy may be stored, the second
                    // is a repeat and says since when.
                    if outcome == Outcome::Unknown {
                        publish.first_sent.get_or_insert(waiting.received.wall);
                        waiting.uncertain = true;
                    }
                    again.push(Entry { publish, waiting });
                }
            }
        }
        self.in_flight = in_flight;
        for entry in again.into_iter().rev() {
            self.queue.push_front(entry);
        }
        self.sweep();
    }

    /// Answers what waits for longer than the deadline.
    pub fn expire(&mut self, now: Now) {
        let deadline = self.config.deadline;
        let late =
            |waiting: &Waiting<T>| now.mono.saturating_sub(waiting.received.mono) >= deadline;
        let mut in_flight = std::mem::take(&mut self.in_flight);
        for waiting in in_flight.iter_mut().filter(|waiting| late(waiting)) {
            // A4: the deadline ends the answer, never the frame.
            if let Some(ticket) = waiting.ticket.take() {
                self.fence(waiting.connection, waiting.seq);
                self.answers.push((ticket, Err(unknown_outcome())));
            }
        }
        self.in_flight = in_flight;
        while let Some(entry) = self.queue.pop_front_if(|entry| late(&entry.waiting)) {
            let refusal = not_written(entry.waiting.uncertain);
            self.refuse_queued(entry.waiting, &refusal);
        }
        self.sweep();
    }

    /// When the next publish will be late.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        let in_flight = self.in_flight.iter().filter(|waiting| waiting.ticket.is_some());
        let queued = self.queue.front().map(|entry| &entry.waiting);
        let first = in_flight.chain(queued).next()?;
        Some(first.received.mono + self.config.deadline)
    }

    /// When the oldest publish that waits came.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.expires().map(|at| at.saturating_sub(self.config.deadline))
    }

    /// Answers that are due.
    pub fn answers(&mut self) -> Vec<Answer<T>> {
        std::mem::take(&mut self.answers)
    }

    /// Whether answers are due.
    #[must_use]
    pub const fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn refuse_queued(&mut self, waiting: Waiting<T>, refusal: &Refusal) {
        let refusal = if waiting.uncertain { unknown_outcome() } else { refusal.clone() };
        self.refuse(waiting, refusal);
    }

    fn refuse(&mut self, waiting: Waiting<T>, refusal: Refusal) {
        // C2: set in the same step as the refusal, before the lane takes anything else. One that was
        // answered at its deadline has set it then, and may have come again since.
        if refusal.is_temporary() && waiting.ticket.is_some() {
            self.fence(waiting.connection, waiting.seq);
        }
        self.answer(waiting, Err(refusal));
    }

    fn answer(&mut self, mut waiting: Waiting<T>, answer: Result<(Epoch, Stored), Refusal>) {
        self.leave(&waiting);
        if let Some(ticket) = waiting.ticket.take() {
            self.answers.push((ticket, answer));
        }
    }

    fn leave(&mut self, waiting: &Waiting<T>) {
        self.bytes -= waiting.bytes;
        self.connections.leave(waiting.connection, waiting.bytes);
    }

    fn fence(&mut self, connection: u64, seq: Option<u64>) {
        if let Some(seq) = seq {
            self.connections.set_fence(connection, seq);
        }
    }

    /// C2: what already waits behind a new fence is refused before anything else is taken.
    fn sweep(&mut self) {
        if !self.connections.take_sweep() {
            return;
        }
        for entry in std::mem::take(&mut self.queue) {
            let fence = self.connections.fence(entry.waiting.connection);
            match (fence, entry.waiting.seq) {
                (Some(expected), Some(seq)) if seq > expected => {
                    let refusal = Refusal::out_of_order(expected);
                    self.refuse_queued(entry.waiting, &refusal);
                }
                _ => self.queue.push_back(entry),
            }
        }
        let _ = self.connections.take_sweep();
    }
}

/// What a publish takes in a frame, at most.
fn framed_bytes(publish: &Publish) -> usize {
    let names = publish.channel.as_str().len() + publish.user.len() + publish.producer.len();
    publish.events.as_bytes().len() + names + 24 + publish.trace.map_or(0, |_| 25)
}

fn unknown_outcome() -> Refusal {
    let text = "the journal did not answer in time; send the events again with `again`";
    Refusal::new(ErrorCode::UnknownOutcome, text).retry_after(Duration::from_secs(1))
}

fn not_written(uncertain: bool) -> Refusal {
    if uncertain {
        return unknown_outcome();
    }
    let text = "the events could not be written in time and are not stored";
    Refusal::new(ErrorCode::JournalUnavailable, text).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
