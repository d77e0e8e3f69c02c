//! What a backup says of itself: when, of what, up to where, and a checksum of each file.

use super::at;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;
use stormwire_core::Timestamp;

/// How the names of backups begin.
pub(super) const PREFIX: &str = "stormwire-";
const FILE: &str = "manifest.json";
const FORMAT: u32 = 1;

/// Of which engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// One file with journal and archive.
    Embedded,
    /// A dump of Postgres, and frames of the journal.
    Cluster,
}

/// How far it has a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) partition: u16,
    /// The epoch of the last frame.
    pub(crate) epoch: u32,
    /// The last frame that it has; 0 where there was none.
    pub(crate) through: u64,
    /// How many frames were copied from the journal.
    pub(crate) frames: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// The file `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    program: String,
    pub(crate) kind: Kind,
    made_at_ms: i64,
    made_at: String,
    pub(crate) partitions: u16,
    pub(crate) places: Vec<Place>,
    files: Vec<Entry>,
}

impl Manifest {
    /// Of all that is in `folder`.
    pub(super) fn of(
        folder: &Path,
        kind: Kind,
        made_at: Timestamp,
        partitions: u16,
        places: Vec<Place>,
    ) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(at(folder))?.flatten() {
            files.push(entry_of(folder, entry.file_name().to_string_lossy().into_owned())?);
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            kind,
            made_at_ms: made_at.0,
            made_at: made_at.to_rfc3339(),
            partitions,
            places,
            files,
        })
    }

    /// Reads the one in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!("{}: {error}; this is not a backup's folder", path.display()))
        })?;
        let manifest: Self = serde_json::from_str(&text).map_err(at(&path))?;
        if manifest.format != FORMAT {
            let format = manifest.format;
            return Err(Failure::failed(format!(
                "{}: format {format}; this program reads format {FORMAT}",
                path.display()
            )));
        }
        Ok(manifest)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).map_err(at(&path))?;
        std::fs::write(&path, text + "\n").map_err(at(&path))?;
        for name in self.names().chain([FILE]) {
            let path = folder.join(name);
            std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path))?;
        }
        std::fs::File::open(folder).and_then(|file| file.sync_all()).map_err(at(folder))
    }

    /// Compares every file with its checksum.
    pub(crate) fn check(&self, folder: &Path) -> Result<(), Failure> {
        for due in &self.files {
            let found = entry_of(folder, due.name.clone())?;
            if found != *due {
                return Err(Failure::failed(format!(
                    "{}: {} bytes with SHA-256 {}, and not {} with {}: the backup is damaged",
                    folder.join(&due.name).display(),
                    found.bytes,
                    found.sha256,
                    due.bytes,
                    due.sha256
                )));
            }
        }
        Ok(())
    }

    /// The files' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|entry| entry.name.as_str())
    }

    pub(crate) fn made_at(&self) -> Timestamp {
        Timestamp(self.made_at_ms)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).sum()
    }

    pub(super) fn frames(&self) -> u64 {
        self.places.iter().map(|place| place.frames).sum()
    }
}

fn entry_of(folder: &Path, name: String) -> Result<Entry, Failure> {
    let path = folder.join(&name);
    let mut file = std::fs::File::open(&path).map_err(at(&path))?;
    let (mut hash, mut bytes, mut part) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut part).map_err(at(&path))?;
        if read == 0 {
            break;
        }
        hash.update(&part[..read]);
        bytes += read as u64;
    }
    let sha256 = hash.finalize().iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(Entry { name, bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_seen() {
        let folder = stormwire_testkit::Folder::temporary("manifest").unwrap();
        std::fs::write(folder.path().join("frames.ndjson"), "one\n").unwrap();
        let manifest =
            Manifest::of(folder.path(), Kind::Cluster, Timestamp(7), 16, Vec::new()).unwrap();
        manifest.write(folder.path()).unwrap();
        let read = Manifest::read(folder.path()).unwrap();
        assert_eq!(read, manifest);
        read.check(folder.path()).unwrap();
        std::fs::write(folder.path().join("frames.ndjson"), "two\n").unwrap();
        assert!(read.check(folder.path()).unwrap_err().message.contains("damaged"));
    }
}
