//! A cluster: a dump of Postgres, and the journal's frames behind the ledger.

use super::at;
use super::manifest::Place;
use crate::config::Config;
use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, SystemClock, Timestamp};
use stormwire_engine::{EngineConfig, Engines};
use stormwire_journal::{Journal, StoredFrame};
use stormwire_wire::frame::{Body, Frame};
use tokio::process::{Child, Command};

/// The dump's name in a backup.
pub(crate) const DUMP: &str = "archive.dump";
/// The frames' name.
pub(crate) const FRAMES: &str = "frames.ndjson";
/// Bounds of one read of the journal.
const FRAMES_A_READ: usize = 512;
const BYTES_A_READ: usize = 4 << 20;
/// How long frames gather while the dump goes on.
const PAUSE: Duration = Duration::from_millis(200);

/// A frame as one line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrameLine {
    partition: u16,
    epoch: u32,
    seq: FrameSeq,
    ts: i64,
    frame: String,
}

impl FrameLine {
    fn of(frame: &StoredFrame) -> Self {
        Self {
            partition: frame.partition.0,
            epoch: frame.epoch.0,
            seq: frame.seq,
            ts: frame.ts.0,
            frame: STANDARD.encode(&frame.bytes),
        }
    }

    /// The frame that it is of.
    pub(crate) fn decode(self) -> Result<StoredFrame, base64::DecodeError> {
        Ok(StoredFrame {
            partition: Partition(self.partition),
            epoch: Epoch(self.epoch),
            seq: self.seq,
            ts: Timestamp(self.ts),
            bytes: Bytes::from(STANDARD.decode(self.frame)?),
        })
    }
}

/// Copies both into `to`.
pub(super) async fn copy(
    config: &Config,
    url: &str,
    pg_bin: Option<&Path>,
    to: &Path,
) -> Result<Vec<Place>, Failure> {
    // The ledger is the primary's, and a backup changes nothing.
    let engine = EngineConfig {
        archive_replica_url: None,
        migrate_at_start: false,
        ..config.engine.clone()
    };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let mut copies = Vec::new();
    for partition in config.partitions.all() {
        let ledger = archive.ledger(partition).await.map_err(Failure::unavailable)?;
        let due = ledger.map(|ledger| (ledger.epoch, ledger.last_seq + 1));
        copies.push(Copy { partition, due, frames: 0 });
    }
    let path = to.join(FRAMES);
    let mut file = BufWriter::new(File::create(&path).map_err(at(&path))?);
    let mut dump = dump(url, pg_bin, &to.join(DUMP))?;
    loop {
        let ended = dump.try_wait().map_err(Failure::failed)?;
        // Once more after its end: what the dump has is not missing here either.
        for copy in &mut copies {
            copy.catch_up(&*journal, &mut file).await?;
        }
        if ended.is_some() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let said = dump.wait_with_output().await.map_err(Failure::failed)?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(Failure::failed(format!("pg_dump: {}: {why}", said.status)));
    }
    file.into_inner().map_err(at(&path))?.sync_all().map_err(at(&path))?;
    engines.close().await;
    Ok(copies.iter().filter_map(Copy::place).collect())
}

/// The copy of one partition.
struct Copy {
    partition: Partition,
    /// The frame that comes next; unknown while there is no log.
    due: Option<(Epoch, FrameSeq)>,
    frames: u64,
}

impl Copy {
    /// Copies what the journal has by now.
    async fn catch_up(
        &mut self,
        journal: &dyn Journal,
        file: &mut BufWriter<File>,
    ) -> Result<(), Failure> {
        let logs = journal.epochs(self.partition).await.map_err(Failure::unavailable)?;
        let Some(newest) = logs.last() else { return Ok(()) };
        let (mut epoch, mut seq) = *self.due.get_or_insert((logs[0].epoch, logs[0].first));
        while (epoch, seq) <= (newest.epoch, newest.last) {
            let read = journal.read(self.partition, epoch, seq, FRAMES_A_READ, BYTES_A_READ);
            let frames = read.await.map_err(Failure::unavailable)?;
            if frames.first().is_none_or(|frame| frame.seq != seq) {
                return Err(self.missing(epoch, seq));
            }
            for frame in frames {
                if (frame.epoch, frame.seq) != (epoch, seq) {
                    return Err(self.missing(epoch, seq));
                }
                let line =
                    serde_json::to_string(&FrameLine::of(&frame)).map_err(Failure::failed)?;
                writeln!(file, "{line}").map_err(Failure::failed)?;
                self.frames += 1;
                seq += 1;
                if let Ok(Frame { body: Body::Close { next, first_seq, .. }, .. }) =
                    Frame::decode(&frame.bytes)
                {
                    (epoch, seq) = (next, first_seq.max(seq));
                    break;
                }
            }
            self.due = Some((epoch, seq));
        }
        Ok(())
    }

    fn missing(&self, epoch: Epoch, seq: FrameSeq) -> Failure {
        Failure::failed(format!(
            "partition {}: the journal does not have frame {seq} of epoch {epoch} any more, or not yet proved that it is missing; try again, and see `stormwire journal status` if that does not help",
            self.partition
        ))
    }

    fn place(&self) -> Option<Place> {
        let (epoch, seq) = self.due?;
        Some(Place {
            partition: self.partition.0,
            epoch: epoch.0,
            through: seq - 1,
            frames: self.frames,
        })
    }
}

fn dump(url: &str, pg_bin: Option<&Path>, to: &Path) -> Result<Child, Failure> {
    let mut pg_dump = postgres_program("pg_dump", pg_bin, url);
    pg_dump.args(["--format=custom", "--no-owner", "--no-privileges", "--file"]).arg(to);
    pg_dump.stdout(Stdio::null()).spawn().map_err(|error| {
        Failure::unavailable(format!(
            "pg_dump: {error}; install PostgreSQL's client programs, or name their folder with --pg-bin"
        ))
    })
}

/// A program of PostgreSQL that is told the database; its password stands in no list of processes.
pub(crate) fn postgres_program(name: &str, pg_bin: Option<&Path>, url: &str) -> Command {
    let path = pg_bin.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    let (url, password) = without_password(url);
    let mut program = Command::new(path);
    program.arg("--no-password").arg(format!("--dbname={url}"));
    if let Some(password) = password {
        program.env("PGPASSWORD", password);
    }
    program.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    program
}

/// The URL without its password, and that.
fn without_password(url: &str) -> (String, Option<String>) {
    let whole = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else { return whole() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((who, hosts)) = authority.rsplit_once('@') else { return whole() };
    let Some((user, password)) = who.split_once(':') else { return whole() };
    (format!("{scheme}://{user}@{hosts}{path}"), Some(percent_decoded(password)))
}

fn percent_decoded(text: &str) -> String {
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_stands_in_no_argument() {
        let split = |url| without_password(url);
        let due = ("postgres://u@h:1,i:2/d?x=y".to_owned(), Some("p@s%".to_owned()));
        assert_eq!(split("postgres://u:p%40s%25@h:1,i:2/d?x=y"), due);
        assert_eq!(split("postgres://u@h/d"), ("postgres://u@h/d".to_owned(), None));
        assert_eq!(split("postgres:///d"), ("postgres:///d".to_owned(), None));
    }

    #[test]
    fn a_frame_comes_back_from_its_line() {
        let frame = StoredFrame {
            partition: Partition(3),
            epoch: Epoch(2),
            seq: 9,
            ts: Timestamp(7),
            bytes: Bytes::from_static(b"\x00S\xff"),
        };
        let line = serde_json::to_string(&FrameLine::of(&frame)).unwrap();
        let read: FrameLine = serde_json::from_str(&line).unwrap();
        assert_eq!(read.decode().unwrap(), frame);
    }
}
