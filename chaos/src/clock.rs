//! Clocks that can be moved: a process of Stormwire, the very executable that is released, reads the time
//! through libfaketime, which adds to it what a file of that process says.
//!
//! Only the wall clock is moved; what counts intervals goes on as it was, as it does when an operator or a
//! time server sets a machine's clock. That a jump has happened is told by the process itself: the line
//! that it logs for a probe carries the time as it sees it.

use crate::{Failure, Outcome};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stormwire_core::{Clock as _, SystemClock};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often the library reads the file.
const READ_EVERY_SECONDS: &str = "1";
/// By how much a line's time may differ from the one that is due.
const ALLOWED: Duration = Duration::from_secs(2);
/// What is logged so that every probe leaves a line.
const LOG_LEVEL: &str = "info,stormwire_web::request=debug";

/// The clock of one process.
pub(crate) struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A right one, to be kept in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Outcome<Self> {
        let library = stormwire_testkit::faketime().ok_or_else(|| {
            Failure::Skipped("no clock can be moved here: libfaketime is not there".to_owned())
        })?;
        let clock = Self { file: folder.join(format!("{name}.clock")), library };
        clock.set(0)?;
        Ok(clock)
    }

    /// What the process is started with.
    pub(crate) fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", READ_EVERY_SECONDS.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("STORMWIRE_LOG_LEVEL", LOG_LEVEL.to_owned()),
            ("STORMWIRE_LOG_FORMAT", "json".to_owned()),
        ]
    }

    /// From the next time that the library looks, the process's clock is so many seconds off.
    pub(crate) fn set(&self, seconds: i64) -> Outcome {
        std::fs::write(&self.file, format!("{seconds:+}\n"))
            .map_err(Failure::doing(self.file.display()))
    }
}

/// Whether the last probe's line in this log was written by a clock that is so many seconds off.
pub(crate) fn is_off(log: &Path, seconds: i64) -> bool {
    let text = std::fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(64 * 1024)..]).into_owned();
    let line = tail.lines().rev().find(|line| line.contains("/healthz"));
    let Some(seen) = line.and_then(time_of) else { return false };
    let due = SystemClock.now().0 + seconds * 1000;
    u128::from(seen.abs_diff(due)) <= ALLOWED.as_millis()
}

/// The time of a line, Unix milliseconds.
fn time_of(line: &str) -> Option<i64> {
    let line: Value = serde_json::from_str(line).ok()?;
    let time = OffsetDateTime::parse(line["timestamp"].as_str()?, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lines_time_is_read() {
        let line = r#"{"timestamp":"1970-01-01T00:00:01.500000Z","level":"DEBUG"}"#;
        assert_eq!(time_of(line), Some(1_500));
        assert_eq!(time_of("no line"), None);
    }
}
