//! What a canary expects of each channel, and what it has seen. No IO, no clock.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Numbers of a channel without an end that are remembered; a cluster that is away for long has more
/// under way than this, and the oldest then count as lost.
const WAITING_MAX: usize = 10_000;
/// The last times of delivery that the median and the worst are taken from.
const TIMES: usize = 4096;

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// As it should.
    Once,
    /// It had come before, or a later one had.
    Doubled,
}

#[derive(Debug, Default)]
struct Log {
    next: u64,
    /// The highest that has come.
    highest: Option<u64>,
    /// Acknowledged and not come: since when.
    waiting: BTreeMap<u64, Duration>,
    /// Came before its acknowledgement.
    early: BTreeSet<u64>,
    /// May have been stored or not; either is right.
    unknown: BTreeSet<u64>,
}

/// All channels.
#[derive(Debug)]
pub(super) struct Watch {
    logs: Vec<Log>,
    acknowledged: u64,
    unknown: u64,
    delivered: u64,
    lost: u64,
    doubled: u64,
    times: Vec<Duration>,
}

impl Watch {
    pub(super) fn new(channels: usize) -> Self {
        Self {
            logs: (0..channels).map(|_| Log::default()).collect(),
            acknowledged: 0,
            unknown: 0,
            delivered: 0,
            lost: 0,
            doubled: 0,
            times: Vec::new(),
        }
    }

    /// The number of the next event.
    pub(super) fn next_number(&mut self, channel: usize) -> u64 {
        let log = &mut self.logs[channel];
        log.next += 1;
        log.next
    }

    /// Its publish was acknowledged at `now`: it must come.
    pub(super) fn acknowledged(&mut self, channel: usize, number: u64, now: Duration) {
        self.acknowledged += 1;
        let log = &mut self.logs[channel];
        if log.early.remove(&number) {
            return;
        }
        log.waiting.insert(number, now);
        if log.waiting.len() > WAITING_MAX {
            log.waiting.pop_first();
            self.lost += 1;
        }
    }

    /// Nobody knows whether it is stored.
    pub(super) fn unknown(&mut self, channel: usize, number: u64) {
        self.unknown += 1;
        let log = &mut self.logs[channel];
        if !log.early.remove(&number) {
            log.unknown.insert(number);
            if log.unknown.len() > WAITING_MAX {
                log.unknown.pop_first();
            }
        }
    }

    /// It has come, `late` after it was sent.
    pub(super) fn delivered(&mut self, channel: usize, number: u64, late: Duration) -> Told {
        let log = &mut self.logs[channel];
        if log.highest.is_some_and(|highest| number <= highest) {
            self.doubled += 1;
            return Told::Doubled;
        }
        log.highest = Some(number);
        if log.waiting.remove(&number).is_none() && !log.unknown.remove(&number) {
            log.early.insert(number);
        }
        self.delivered += 1;
        if self.times.len() == TIMES {
            self.times.remove(0);
        }
        self.times.push(late);
        Told::Once
    }

    /// Gives up what has waited for longer than `after`; how many that were.
    pub(super) fn overdue(&mut self, now: Duration, after: Duration) -> u64 {
        let mut lost = 0;
        for log in &mut self.logs {
            let before = log.waiting.len();
            log.waiting.retain(|_, since| now.saturating_sub(*since) <= after && !after.is_zero());
            lost += (before - log.waiting.len()) as u64;
        }
        self.lost += lost;
        lost
    }

    /// Whether something acknowledged has not come.
    pub(super) fn is_waiting(&self) -> bool {
        self.logs.iter().any(|log| !log.waiting.is_empty())
    }

    /// One object.
    pub(super) fn figures(&self) -> Value {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).map(Duration::as_secs_f64);
        json!({
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "delivered": self.delivered,
            "waiting": self.logs.iter().map(|log| log.waiting.len()).sum::<usize>(),
            "lost": self.lost,
            "doubled": self.doubled,
            "p50_seconds": at(50),
            "p99_seconds": at(99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(published: u64) -> Watch {
        let mut watch = Watch::new(1);
        for due in 1..=published {
            assert_eq!(watch.next_number(0), due);
        }
        watch
    }

    #[test]
    fn what_comes_once_and_in_order_is_right_whenever_it_is_acknowledged() {
        let mut watch = watch(2);
        assert_eq!(watch.delivered(0, 1, SECOND), Told::Once);
        watch.acknowledged(0, 1, SECOND);
        watch.acknowledged(0, 2, SECOND);
        assert_eq!(watch.delivered(0, 2, SECOND), Told::Once);
        assert_eq!(watch.overdue(100 * SECOND, SECOND), 0);
        assert!(!watch.is_waiting());
    }

    #[test]
    fn an_acknowledged_event_that_does_not_come_is_lost_once() {
        let mut watch = watch(2);
        watch.acknowledged(0, 1, SECOND);
        watch.acknowledged(0, 2, SECOND);
        watch.delivered(0, 2, SECOND);
        assert_eq!(watch.overdue(2 * SECOND, SECOND), 0, "there is still time");
        assert_eq!(watch.overdue(3 * SECOND, SECOND), 1);
        assert_eq!(watch.overdue(4 * SECOND, SECOND), 0);
        assert_eq!(watch.figures()["lost"], 1);
    }

    #[test]
    fn a_second_or_late_delivery_is_doubled() {
        let mut watch = watch(3);
        assert_eq!(watch.delivered(0, 2, SECOND), Told::Once);
        assert_eq!(watch.delivered(0, 2, SECOND), Told::Doubled);
        assert_eq!(watch.delivered(0, 1, SECOND), Told::Doubled, "behind a later one");
        assert_eq!(watch.figures()["doubled"], 2);
    }

    #[test]
    fn an_event_of_unknown_outcome_may_come_or_not() {
        let mut watch = watch(2);
        watch.unknown(0, 1);
        watch.unknown(0, 2);
        assert_eq!(watch.delivered(0, 2, SECOND), Told::Once);
        assert_eq!(watch.overdue(100 * SECOND, SECOND), 0);
        assert_eq!(watch.figures()["delivered"], 1);
    }
}
