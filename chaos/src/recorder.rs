//! Writes a history as it happens: one file a client, one JSON object a line.

use crate::{Failure, Outcome};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use stormwire_core::{Clock as _, SystemClock};

/// Data longer than this is recorded by its beginning, its length and a hash of all of it.
const DATA_BYTES_MAX: usize = 64;

/// The history of one client.
pub(crate) struct Recorder {
    file: BufWriter<File>,
    failed: bool,
}

impl Recorder {
    pub(crate) fn create(folder: &Path, name: &str) -> Outcome<Self> {
        let path = folder.join(format!("{name}.jsonl"));
        let file = File::create(&path).map_err(Failure::doing(path.display()))?;
        Ok(Self { file: BufWriter::new(file), failed: false })
    }

    /// Appends a record. A disk that takes no more is told by [`Self::finish`].
    pub(crate) fn note<T: Serialize>(&mut self, record: &T) {
        let written = serde_json::to_writer(&mut self.file, record).map_err(std::io::Error::from);
        self.failed |= written.and_then(|()| self.file.write_all(b"\n")).is_err();
    }

    pub(crate) fn finish(mut self) -> Outcome {
        self.failed |= self.file.flush().is_err();
        if self.failed { Err(Failure::of("a history could not be written")) } else { Ok(()) }
    }
}

/// Unix time in milliseconds.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemClock.now().0).unwrap_or_default()
}

/// How an event's data stands in histories.
pub(crate) fn recorded(data: &str) -> String {
    if data.len() <= DATA_BYTES_MAX {
        return data.to_owned();
    }
    let hash = data.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let head: String = data.chars().take(24).collect();
    format!("{head}…{}…{hash:016x}", data.len())
}
