//! The state file of a replay: written before lines are sent, so that a successor knows which lines may
//! be stored already and sends them under their old numbers.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use stormwire_core::Timestamp;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The replayed file, to notice another one.
    file: PathBuf,
    /// Its size.
    size: u64,
    /// The template of the channels.
    channel: String,
    /// Who publishes, for all runs of this replay.
    pub(super) producer: String,
    /// Every line up to this one has its answer.
    pub(super) line: u64,
    /// The producer's number of the line after that.
    pub(super) next_seq: u64,
    /// Lines up to the first number may have been sent, those above the number before not earlier than
    /// the second: the server's time in Unix milliseconds. Ascending; what is answered goes.
    sent: Vec<(u64, i64)>,
}

impl Saved {
    /// Lines up to this one may have been sent.
    pub(super) fn sent_line(&self) -> u64 {
        self.sent.last().map_or(self.line, |(through, _)| *through)
    }

    /// The server's time before the first line without an answer was sent.
    pub(super) fn first_sent(&self) -> Option<Timestamp> {
        self.sent.first().map(|(_, at)| Timestamp(*at))
    }
}

/// The state of a replay. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct State {
    path: PathBuf,
    saved: Arc<Mutex<Saved>>,
}

impl State {
    /// Reads the file, or begins a new state where there is none.
    pub(super) fn open(
        path: &Path,
        file: &Path,
        size: u64,
        channel: &str,
    ) -> Result<Self, Failure> {
        let fresh = Saved {
            file: file.to_owned(),
            size,
            channel: channel.to_owned(),
            producer: uuid::Uuid::new_v4().simple().to_string(),
            line: 0,
            next_seq: 1,
            sent: Vec::new(),
        };
        let wrong = |why: String| Failure::usage(format!("--state {}: {why}", path.display()));
        let saved = match std::fs::read_to_string(path) {
            Ok(text) => {
                let saved: Saved =
                    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
                if (&saved.file, saved.size, &saved.channel) != (&fresh.file, size, &fresh.channel)
                {
                    return Err(wrong(format!(
                        "it belongs to a replay of {} ({} bytes) to {}; name another state file, or remove this one to begin anew",
                        saved.file.display(),
                        saved.size,
                        saved.channel
                    )));
                }
                saved
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => fresh,
            Err(error) => return Err(wrong(error.to_string())),
        };
        Ok(Self { path: path.to_owned(), saved: Arc::new(Mutex::new(saved)) })
    }

    /// Lines up to this one may have been sent.
    pub(super) fn sent_line(&self) -> u64 {
        self.lock().sent_line()
    }

    /// As it is now.
    pub(super) fn saved(&self) -> Saved {
        self.lock().clone()
    }

    /// Lines up to `through` may be sent from `now` (the server's time) on; on disk when this returns.
    pub(super) fn sending(&self, through: u64, now: Timestamp) -> Result<(), Failure> {
        self.lock().sent.push((through, now.0));
        self.save()
    }

    /// Every line up to `line` has its answer; the next one is number `next_seq`.
    pub(super) fn answered(&self, line: u64, next_seq: u64) {
        let mut saved = self.lock();
        (saved.line, saved.next_seq) = (line, next_seq);
        saved.sent.retain(|(through, _)| *through > line);
    }

    /// Writes the file: all of it or nothing.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let text = serde_json::to_string(&*self.lock()).map_err(Failure::failed)?;
        let beside = self.path.with_extension("tmp");
        let write = || {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)
        };
        write()
            .map_err(|error| Failure::failed(format!("--state {}: {error}", self.path.display())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_goes_on_as_the_same_producer_and_another_file_is_refused() {
        let folder = std::env::temp_dir().join(format!("stormwire-state-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("replay.state");
        let file = Path::new("events.ndjson");
        let first = State::open(&path, file, 10, "a:{b}").unwrap();
        first.sending(256, Timestamp(1_000)).unwrap();
        first.answered(100, 99);
        first.sending(512, Timestamp(2_000)).unwrap();
        let saved = State::open(&path, file, 10, "a:{b}").unwrap().saved();
        assert_eq!(saved.producer, first.saved().producer);
        assert_eq!((saved.line, saved.next_seq, saved.sent_line()), (100, 99, 512));
        assert_eq!(saved.first_sent(), Some(Timestamp(1_000)), "line 101 was sent at 1,000");
        first.answered(400, 399);
        first.sending(768, Timestamp(3_000)).unwrap();
        assert_eq!(
            first.saved().first_sent(),
            Some(Timestamp(2_000)),
            "line 401 was sent at 2,000"
        );
        assert!(
            State::open(&path, file, 11, "a:{b}")
                .unwrap_err()
                .message
                .contains("another state file")
        );
        std::fs::write(&path, "{").unwrap();
        assert_eq!(State::open(&path, file, 10, "a:{b}").unwrap_err().code, crate::failure::USAGE);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
