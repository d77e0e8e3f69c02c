//! What load and conductor tell each other.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stormwire_checker::Position;
use tokio::sync::watch;

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Publish and read.
    Run,
    /// Publish nothing new, get answers for the rest; subscribers stay connected.
    Finish,
    /// Time is up.
    End,
}

/// Where each channel ends, by name.
pub(crate) type Ends = HashMap<String, Position>;

/// Shared by all tasks of a run.
#[derive(Debug)]
pub(crate) struct Control {
    phase: watch::Sender<Phase>,
    /// Raised when sockets are to be cut.
    cuts: watch::Sender<u64>,
    /// Set when the archive is complete: subscribers end when they have reached it.
    ends: watch::Sender<Option<Ends>>,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) journal_refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) seen: AtomicU64,
    pub(crate) sockets_cut: AtomicU64,
    /// One a partition.
    stops: Mutex<Vec<Stops>>,
}

#[derive(Debug, Clone, Copy)]
struct Stops {
    last: Instant,
    longest: Duration,
    counting: bool,
}

impl Stops {
    fn end(&mut self) {
        if self.counting {
            self.longest = self.longest.max(self.last.elapsed());
        }
        self.last = Instant::now();
    }
}

impl Control {
    pub(crate) fn new() -> Self {
        let none = Stops { last: Instant::now(), longest: Duration::ZERO, counting: false };
        Self {
            phase: watch::Sender::new(Phase::Run),
            cuts: watch::Sender::new(0),
            ends: watch::Sender::new(None),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            journal_refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            sockets_cut: AtomicU64::new(0),
            stops: Mutex::new(vec![none; usize::from(crate::PARTITIONS)]),
        }
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    pub(crate) fn cut_sockets(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn ends(&self) -> watch::Receiver<Option<Ends>> {
        self.ends.subscribe()
    }

    pub(crate) fn tell_ends(&self, ends: Ends) {
        self.ends.send_replace(Some(ends));
    }

    /// From now on stops of acknowledgements count, or no more.
    pub(crate) fn count_stops(&self, counting: bool) {
        for stops in self.stops.lock().iter_mut() {
            stops.end();
            stops.counting = counting;
        }
    }

    pub(crate) fn acknowledge(&self, partition: u16, events: u64) {
        self.acknowledged.fetch_add(events, Ordering::Relaxed);
        if let Some(stops) = self.stops.lock().get_mut(usize::from(partition)) {
            stops.end();
        }
    }

    /// The longest time between two acknowledgements in one partition.
    pub(crate) fn longest_stop(&self) -> Duration {
        self.stops.lock().iter().map(|stops| stops.longest).max().unwrap_or_default()
    }

    /// Whether every partition had an acknowledgement since then.
    pub(crate) fn all_went_on_since(&self, then: Instant) -> bool {
        self.stops.lock().iter().all(|stops| stops.last > then)
    }

    pub(crate) fn acknowledged_now(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}
