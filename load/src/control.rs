//! What all publishers do just now, and what they have achieved together.

use crate::dialect::nanos_now;
use crate::{Failure, Outcome};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Latencies above are counted as this: a minute in microseconds.
const LONGEST_MICROS: u64 = 60_000_000;

/// An empty histogram of latencies in microseconds, to three digits.
pub(crate) fn histogram() -> Outcome<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).map_err(Failure::doing("a histogram"))
}

/// Adds one latency.
pub(crate) fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    latencies.saturating_record(micros.clamp(1, LONGEST_MICROS));
}

/// How publishers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As much as the window lets them.
    Saturate,
    /// One message each interval, whether the last was acknowledged or not.
    Paced(Schedule),
    /// Nothing more; answers are awaited.
    Finish,
}

/// When each message is due: the publishers one after the other, evenly spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When it began.
    pub(crate) since: Instant,
    /// Between two messages of one publisher.
    pub(crate) interval: Duration,
    /// How many share it.
    pub(crate) publishers: u32,
}

impl Schedule {
    /// When a publisher's message is due, both counted from 0.
    pub(crate) fn due(&self, publisher: u32, message: u32) -> Instant {
        self.since + self.interval * publisher / self.publishers + self.interval * message
    }

    /// The same by the turn among all publishers' messages.
    pub(crate) fn due_in_turn(&self, turn: u64) -> Instant {
        let publishers = u64::from(self.publishers);
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        self.due(narrow(turn % publishers), narrow(turn / publishers))
    }
}

/// Shared by the tasks of one thread.
#[derive(Debug)]
pub(crate) struct Control {
    mode: watch::Sender<Mode>,
    acknowledged: Cell<u64>,
    sent: Cell<u64>,
    /// No more events than this are sent.
    pub(crate) budget: Cell<u64>,
    latencies: RefCell<Option<Histogram<u64>>>,
    failure: RefCell<Option<String>>,
    /// One moment by both clocks.
    began: (Instant, u64),
}

impl Control {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            mode: watch::Sender::new(Mode::Saturate),
            acknowledged: Cell::new(0),
            sent: Cell::new(0),
            budget: Cell::new(budget),
            latencies: RefCell::new(None),
            failure: RefCell::new(None),
            began: (Instant::now(), nanos_now()),
        }
    }

    /// The moment as the events carry it.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        let (began, nanos) = self.began;
        nanos + u64::try_from(at.saturating_duration_since(began).as_nanos()).unwrap_or(0)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// Takes these events out of the budget; false when it has not as many.
    pub(crate) fn may_send(&self, events: u64) -> bool {
        let left = self.budget.get();
        if left < events {
            return false;
        }
        self.budget.set(left - events);
        self.sent.set(self.sent.get() + events);
        true
    }

    pub(crate) fn acknowledge(&self, events: u64, latency: Duration) {
        self.acknowledged.set(self.acknowledged.get() + events);
        if let Some(latencies) = &mut *self.latencies.borrow_mut() {
            record(latencies, latency);
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// Events that were handed to the sockets.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether everything that was sent is acknowledged and nothing more will be.
    pub(crate) fn is_done(&self, batch: u64) -> bool {
        self.budget.get() < batch && self.acknowledged.get() == self.sent.get()
    }

    /// Begins to keep latencies, from none.
    pub(crate) fn keep_latencies(&self) -> Outcome {
        *self.latencies.borrow_mut() = Some(histogram()?);
        Ok(())
    }

    /// The latencies since [`Self::keep_latencies`].
    pub(crate) fn take_latencies(&self) -> Option<Histogram<u64>> {
        self.latencies.borrow_mut().take()
    }

    /// Notes the first failure; the measurement ends with it.
    pub(crate) fn fail(&self, why: &str) {
        self.failure.borrow_mut().get_or_insert_with(|| why.to_owned());
    }

    /// The first failure, if there was one.
    pub(crate) fn check(&self) -> Outcome {
        self.failure.borrow().as_ref().map_or(Ok(()), |why| Err(Failure::of(why.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let control = Control::new(150);
        assert!(control.may_send(100));
        assert!(!control.may_send(100));
        assert!(!control.is_done(100));
        control.acknowledge(100, Duration::ZERO);
        assert!(control.is_done(100));
    }

    #[test]
    fn latencies_are_kept_only_when_asked_for() {
        let control = Control::new(0);
        control.acknowledge(1, Duration::from_millis(1));
        control.keep_latencies().unwrap();
        control.acknowledge(1, Duration::from_secs(3600));
        let latencies = control.take_latencies().unwrap();
        assert_eq!(latencies.len(), 1);
        assert!(latencies.max() >= LONGEST_MICROS);
        assert!(control.take_latencies().is_none());
    }

    #[test]
    fn the_first_failure_stands() {
        let control = Control::new(0);
        assert!(control.check().is_ok());
        control.fail("one");
        control.fail("two");
        assert_eq!(control.check().unwrap_err().to_string(), "one");
    }
}
