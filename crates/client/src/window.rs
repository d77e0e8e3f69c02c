//! The publish window: which publishes have no answer yet, and what goes on the wire next.
//!
//! A pure state machine; time is handed in and nothing is sent from here. It keeps three promises
//! towards a server that drops repeats by `(producer, seq)` and stops at the first refusal:
//!
//! * **Every publish ends with one answer**: the first copy's position, a final refusal, or "unknown"
//!   once its own deadline has passed.
//! * **Order.** After a temporary refusal nothing new is sent until everything in flight has its
//!   answer; then all that is unanswered goes again in the order of its sequence numbers. A client does
//!   not know which channels share a partition, so it may not let one overtake another: a publish that
//!   is stored first would make the server refuse the older one for good.
//! * **`again` is never too small.** It is counted by server times (a laptop's clock sleeps with its
//!   lid), from a moment before the first send.
//!
//! The oldest publish without an answer and the newest on the wire are never further apart than the
//! server's bound, because the server remembers only so many.

use crate::Resume;
use crate::backoff::Backoff;
use std::collections::VecDeque;
use std::time::Duration;
use stormwire_core::Timestamp;
use tokio::time::Instant;

/// Publishes on the wire before a server has said its own bound.
const UNACKED_DEFAULT: usize = 256;
/// Most bytes in flight; a server gives one connection a share of about 1 MiB in a partition's queue.
const IN_FLIGHT_BYTES_MAX: usize = 768 * 1024;
/// Pause before the first repeat after a refusal that names none; doubles while nothing is accepted.
const REFUSED_BASE: Duration = Duration::from_millis(50);
/// Longest such pause.
const REFUSED_CAP: Duration = Duration::from_secs(5);

/// Publishes from the moment they are accepted until they are answered.
#[derive(Debug)]
pub(crate) struct Window<P> {
    entries: VecDeque<Entry<P>>,
    next_seq: u64,
    /// Index of the first entry that may be waiting to be sent.
    cursor: usize,
    in_flight: usize,
    in_flight_bytes: usize,
    limit: usize,
    connected: bool,
    /// Set by a temporary refusal: what is refused goes again at this time, when nothing is in flight.
    hold: Option<Instant>,
    /// The last server time, and when it was heard.
    server: Option<(Timestamp, Instant)>,
    backoff: Backoff,
    /// Up to which number an earlier process may have sent, and since when.
    resumed: Option<(u64, Timestamp)>,
}

#[derive(Debug)]
struct Entry<P> {
    seq: u64,
    bytes: usize,
    state: State<P>,
    /// The last server time heard before the first send; `None` before it.
    first_sent: Option<Timestamp>,
    give_up: Instant,
}

#[derive(Debug)]
enum State<P> {
    Waiting(P),
    InFlight(P),
    /// Answered before an older one; leaves when it is the oldest.
    Answered,
}

/// One publish for the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outgoing<'a, P> {
    /// The sequence number of its first event.
    pub(crate) seq: u64,
    /// How long ago it may first have been sent, if it was.
    pub(crate) again: Option<Duration>,
    /// What was given to [`Window::push`].
    pub(crate) payload: &'a P,
}

/// A publish that is given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GivenUp<P> {
    /// What was given to [`Window::push`].
    pub(crate) payload: P,
    /// Whether it was ever on the wire, so that its outcome is unknown.
    pub(crate) sent: bool,
}

impl<P> Window<P> {
    /// An empty window; `seed` spreads its pauses.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            next_seq: 1,
            cursor: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            limit: UNACKED_DEFAULT,
            connected: false,
            hold: None,
            server: None,
            backoff: Backoff::new(REFUSED_BASE, REFUSED_CAP, seed),
            resumed: None,
        }
    }

    /// Goes on for a process that ended: the next publish gets `next_seq`, and what is numbered up to
    /// `sent_through` may have been sent from `first_sent` on.
    pub(crate) fn resume(&mut self, resume: &Resume) {
        self.next_seq = resume.next_seq.max(1);
        self.resumed = Some((resume.sent_through, resume.first_sent));
    }

    /// Takes a publish of `events` events (at least one) and `bytes` bytes, and numbers it.
    pub(crate) fn push(&mut self, payload: P, events: u64, bytes: usize, give_up: Instant) -> u64 {
        let seq = self.next_seq;
        self.next_seq += events.max(1);
        let state = State::Waiting(payload);
        let resumed = self.resumed.filter(|(through, _)| seq <= *through);
        let first_sent = resumed.map(|(_, first_sent)| first_sent);
        self.entries.push_back(Entry { seq, bytes, state, first_sent, give_up });
        seq
    }

    /// A server has accepted the connection: everything without an answer goes (again).
    pub(crate) fn connected(&mut self, unacked: Option<usize>, server: Timestamp, now: Instant) {
        self.limit = unacked.unwrap_or(UNACKED_DEFAULT).max(1);
        self.connected = true;
        self.heard(server, now);
    }

    /// The connection is gone, and with it the server's memory of what it refused on it.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.hold = None;
        self.cursor = 0;
        self.in_flight = 0;
        self.in_flight_bytes = 0;
        for entry in &mut self.entries {
            entry.state = match std::mem::replace(&mut entry.state, State::Answered) {
                State::InFlight(payload) => State::Waiting(payload),
                other => other,
            };
        }
    }

    /// A server time came in.
    pub(crate) fn heard(&mut self, server: Timestamp, now: Instant) {
        self.server = Some((server, now));
    }

    /// The next publish that may go on the wire, which is then in flight.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Outgoing<'_, P>> {
        if !self.connected {
            return None;
        }
        if let Some(hold) = self.hold {
            if self.in_flight > 0 || now < hold {
                return None;
            }
            self.hold = None;
            self.cursor = 0;
        }
        while !matches!(self.entries.get(self.cursor)?.state, State::Waiting(_)) {
            self.cursor += 1;
        }
        if self.cursor >= self.limit {
            return None;
        }
        let (heard, at) = self.server?;
        let entry = &mut self.entries[self.cursor];
        if self.in_flight > 0 && self.in_flight_bytes + entry.bytes > IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let again = entry.first_sent.map(|first| {
            let server_now = heard.plus(now.saturating_duration_since(at));
            server_now.since(first)
        });
        entry.first_sent.get_or_insert(heard);
        entry.state = match std::mem::replace(&mut entry.state, State::Answered) {
            State::Waiting(payload) => State::InFlight(payload),
            other => other,
        };
        self.in_flight += 1;
        self.in_flight_bytes += entry.bytes;
        self.cursor += 1;
        match &entry.state {
            State::InFlight(payload) => Some(Outgoing { seq: entry.seq, again, payload }),
            State::Waiting(_) | State::Answered => None,
        }
    }

    /// The publish at `seq` is stored, or refused for good: it leaves the window. `None` if it is not
    /// in flight.
    pub(crate) fn settled(&mut self, seq: u64) -> Option<P> {
        let at = self.in_flight_at(seq)?;
        let State::InFlight(payload) =
            std::mem::replace(&mut self.entries[at].state, State::Answered)
        else {
            return None;
        };
        self.in_flight -= 1;
        self.in_flight_bytes -= self.entries[at].bytes;
        self.backoff.reset();
        self.drop_answered();
        Some(payload)
    }

    /// The publish at `seq` was refused for now: it goes again after `retry_after` at the earliest, with
    /// all that is unanswered then. A refusal that only follows from an earlier one (`out_of_order`)
    /// is no reason to wait longer.
    pub(crate) fn refused(
        &mut self,
        seq: u64,
        follows: bool,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        let Some(at) = self.in_flight_at(seq) else { return };
        let entry = &mut self.entries[at];
        entry.state = match std::mem::replace(&mut entry.state, State::Answered) {
            State::InFlight(payload) => State::Waiting(payload),
            other => other,
        };
        self.in_flight -= 1;
        self.in_flight_bytes -= entry.bytes;
        let pause = match (follows, retry_after) {
            (true, None) => Duration::ZERO,
            (_, Some(named)) => named,
            (false, None) => self.backoff.next_pause(),
        };
        let until = now + pause;
        self.hold = Some(self.hold.map_or(until, |hold| hold.max(until)));
    }

    /// Takes out what has waited past its own deadline. If any of it was on the wire, the caller must
    /// end the connection: the server may be waiting there for exactly this sequence number.
    pub(crate) fn give_up(&mut self, now: Instant) -> Vec<GivenUp<P>> {
        let mut given_up = Vec::new();
        while self.entries.front().is_some_and(|entry| entry.give_up <= now) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.cursor = self.cursor.saturating_sub(1);
            let sent = entry.first_sent.is_some();
            match entry.state {
                State::Waiting(payload) => given_up.push(GivenUp { payload, sent }),
                State::InFlight(payload) => {
                    self.in_flight -= 1;
                    self.in_flight_bytes -= entry.bytes;
                    given_up.push(GivenUp { payload, sent });
                }
                State::Answered => {}
            }
        }
        self.drop_answered();
        given_up
    }

    /// Takes everything out, because there will be no further connection.
    pub(crate) fn drain(&mut self) -> Vec<GivenUp<P>> {
        self.disconnected();
        self.cursor = 0;
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries
            .filter_map(|entry| match entry.state {
                State::Waiting(payload) | State::InFlight(payload) => {
                    Some(GivenUp { payload, sent: entry.first_sent.is_some() })
                }
                State::Answered => None,
            })
            .collect()
    }

    /// When [`Window::take`] or [`Window::give_up`] should be called though nothing has happened.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let hold = self.hold.filter(|_| self.connected && self.in_flight == 0);
        let give_up = self.entries.front().map(|entry| entry.give_up);
        [hold, give_up].into_iter().flatten().min()
    }

    /// Whether nothing is without an answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn in_flight_at(&self, seq: u64) -> Option<usize> {
        let at = self.entries.partition_point(|entry| entry.seq < seq);
        let entry = self.entries.get(at).filter(|entry| entry.seq == seq)?;
        matches!(entry.state, State::InFlight(_)).then_some(at)
    }

    fn drop_answered(&mut self) {
        while matches!(self.entries.front(), Some(Entry { state: State::Answered, .. })) {
            self.entries.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
