//! Wakes each publisher when its next message is due.
//!
//! The runtime's own timer is a millisecond coarse and rounds up: every latency would carry that. This
//! one is the kernel's, and one wake-up serves all publishers that are due by then.

use crate::control::{Mode, Schedule};
use crate::{Failure, Outcome};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

/// Wake-ups are no closer than this: the generator's own cost is a load on the cores, too. What is due
/// meanwhile is half as late in the middle, and its latency says so.
const GRAIN: Duration = Duration::from_micros(200);

/// Wakes publishers, each by its place in `wakes`, until the measurement is over.
pub(crate) async fn run(mut mode: watch::Receiver<Mode>, wakes: Vec<Rc<Notify>>) -> Outcome {
    let timer = Timer::new()?;
    let mut last = None;
    let mut next = 0;
    loop {
        let now = *mode.borrow_and_update();
        if last.replace(now) != Some(now) {
            next = 0;
        }
        let due = match now {
            Mode::Paced(schedule) => Some(schedule.due_in_turn(next)),
            Mode::Saturate | Mode::Finish => None,
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return Ok(()) },
            waited = timer.until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                waited?;
                if let Mode::Paced(schedule) = now {
                    next = wake_due(&schedule, next, &wakes);
                }
            }
        }
    }
}

/// Wakes whoever is due from turn `next` on, each once; gives back the first turn that is not due.
fn wake_due(schedule: &Schedule, next: u64, wakes: &[Rc<Notify>]) -> u64 {
    let now = Instant::now();
    let mut turn = next;
    while schedule.due_in_turn(turn) <= now {
        turn += 1;
    }
    let publishers = wakes.len() as u64;
    for number in (next..turn).take(wakes.len()).map(|turn| turn % publishers) {
        if let Some(wake) = usize::try_from(number).ok().and_then(|number| wakes.get(number)) {
            wake.notify_one();
        }
    }
    turn
}

/// A timer of the kernel.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(
        deprecated,
        reason = "sound for a descriptor that is owned; what replaces it is unsafe"
    )]
    fn new() -> Outcome<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(Failure::doing("making a timer"))?;
        Ok(Self(AsyncFd::new(timer).map_err(Failure::doing("watching a timer"))?))
    }

    /// Waits until `at`, and at least for [`GRAIN`].
    async fn until(&self, at: Instant) -> Outcome {
        let wait = at.saturating_duration_since(Instant::now()).max(GRAIN);
        let wait = Timespec::try_from(wait).map_err(Failure::doing("a time so far away"))?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: wait };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)
            .map_err(Failure::doing("setting a timer"))?;
        loop {
            let mut ready = self.0.readable().await.map_err(Failure::doing("awaiting a timer"))?;
            let mut expirations = [0; 8];
            // Otherwise it was set anew since it became readable.
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)) {
                return read.map(|_| ()).map_err(Failure::doing("reading a timer"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(publishers: u32) -> Schedule {
        Schedule { since: Instant::now(), interval: Duration::from_nanos(1_000_003), publishers }
    }

    #[test]
    fn turns_are_the_publishers_own_times_in_order() {
        let schedule = schedule(7);
        let mut before = schedule.since;
        for turn in 0..7_000 {
            let due = schedule.due_in_turn(turn);
            let (number, message) = (u32::try_from(turn % 7), u32::try_from(turn / 7));
            assert_eq!(due, schedule.due(number.unwrap(), message.unwrap()));
            assert!(due >= before, "turn {turn}");
            before = due;
        }
        let last = schedule.since + schedule.interval * 1_000;
        assert!(before < last, "a thousand intervals hold a thousand messages of each");
    }

    #[tokio::test]
    async fn all_that_are_due_are_woken_once_and_nobody_else() {
        let wakes: Vec<Rc<Notify>> = (0..4).map(|_| Rc::default()).collect();
        let mut schedule = schedule(4);
        schedule.interval = Duration::from_secs(3600);
        assert_eq!(wake_due(&schedule, 0, &wakes), 1, "the first is due when the schedule begins");
        schedule.since -= schedule.interval / 2;
        assert_eq!(wake_due(&schedule, 1, &wakes), 3);
        for (number, wake) in wakes.iter().enumerate() {
            let woken = tokio::time::timeout(Duration::ZERO, wake.notified()).await.is_ok();
            assert_eq!(woken, number < 3, "publisher {number}");
        }
    }

    #[tokio::test]
    async fn a_timer_waits_its_time() {
        let timer = Timer::new().unwrap();
        for _ in 0..3 {
            let at = Instant::now() + Duration::from_millis(2);
            timer.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
    }
}
