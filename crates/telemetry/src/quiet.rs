//! A rate limit for one log line on a hot path.

use crate::metrics as names;
use ::metrics::counter;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Lets a line be logged once in a while and counts what it held back.
///
/// ```
/// use std::time::Duration;
/// use stormwire_telemetry::Quiet;
///
/// static PARKED: Quiet = Quiet::new(Duration::from_secs(1));
/// if let Some(suppressed) = PARKED.ready() {
///     tracing::warn!(suppressed, "subscriber parked");
/// }
/// ```
#[derive(Debug)]
pub struct Quiet {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    /// At most one line in `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// If the line may be logged now: how many were held back since the last one.
    pub fn ready(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < self.every) {
            state.suppressed += 1;
            counter!(names::LOG_LINES_SUPPRESSED).increment(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_and_the_rest_counted() {
        let quiet = Quiet::new(Duration::from_secs(1));
        assert_eq!(quiet.ready(), Some(0));
        assert_eq!((quiet.ready(), quiet.ready()), (None, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(quiet.ready(), Some(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(quiet.ready(), Some(0));
    }
}
