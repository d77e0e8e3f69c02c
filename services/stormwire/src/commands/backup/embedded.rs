//! The embedded engine: its files as of one moment each, while a server works on them or not.

use super::at;
use super::manifest::Place;
use crate::config::Config;
use crate::failure::Failure;
use std::path::Path;
use std::sync::Arc;
use stormwire_core::SystemClock;
use stormwire_engine::{EngineConfig, Engines, copy_database};

/// What belongs to a running process alone.
const PASSING: [&str; 4] = [".lock", "-wal", "-shm", "-journal"];

/// Copies the data directory: databases by SQLite itself, keys as they are.
pub(super) async fn copy(config: &Config, to: &Path) -> Result<Vec<Place>, Failure> {
    let from = &config.data_dir;
    for entry in std::fs::read_dir(from).map_err(at(from))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || PASSING.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let target = to.join(&name);
        if name.ends_with(".db") {
            copy_database(&entry.path(), &target).await.map_err(at(&entry.path()))?;
        } else {
            std::fs::copy(entry.path(), &target).map_err(at(&entry.path()))?;
        }
    }
    places(config, to).await
}

/// Opens the copy, which shows that it can be opened, and says how far it reaches.
async fn places(config: &Config, copy: &Path) -> Result<Vec<Place>, Failure> {
    let engine = EngineConfig { data_dir: copy.to_owned(), ..config.engine.clone() };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let journal = engines.journal().await.map_err(Failure::failed)?;
    let archive = engines.archive().await.map_err(Failure::failed)?;
    let mut places = Vec::new();
    for partition in config.partitions.all() {
        let logs = journal.epochs(partition).await.map_err(Failure::failed)?;
        let ledger = archive.ledger(partition).await.map_err(Failure::failed)?;
        let Some(tip) = logs.last() else { continue };
        let stored = ledger.filter(|ledger| ledger.epoch == tip.epoch);
        places.push(Place {
            partition: partition.0,
            epoch: tip.epoch.0,
            through: tip.last,
            frames: tip.last - stored.map_or(tip.first - 1, |ledger| ledger.last_seq.min(tip.last)),
        });
    }
    drop((journal, archive));
    engines.close().await;
    for entry in std::fs::read_dir(copy).map_err(at(copy))?.flatten() {
        if PASSING.iter().any(|ending| entry.file_name().to_string_lossy().ends_with(ending)) {
            std::fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
        }
    }
    Ok(places)
}
