//! `stormwire restore`: a backup into an empty database or data directory.
//!
//! The archive first, then the frames that the backup has beyond it, stored by the rules of a worker. The
//! journal that was lost had handed out numbers that nobody knows any more: each partition goes on in a new
//! epoch, so that no reader's position means another event than before.

use crate::cli::RestoreArgs;
use crate::commands::backup::{DUMP, FRAMES, FrameLine, Kind, Manifest, at, postgres_program};
use crate::commands::journal::begin_new_epoch;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_archive::{Archive, Lease};
use stormwire_core::SystemClock;
use stormwire_engine::{ArchiveUrl, EngineConfig, Engines, JournalUrl, redact};
use stormwire_messages::{Restore, Restored};

/// How long partitions are held while frames are stored.
const LEASE: Duration = Duration::from_secs(3600);
/// Leases that stand in the dump run out within this.
const LEASES_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Puts one back.
pub(crate) async fn run(args: RestoreArgs, config: &Config) -> Result<(), Failure> {
    let began = Instant::now();
    let manifest = Manifest::read(&args.from)?;
    if manifest.partitions != config.partitions.get() {
        return Err(Failure::usage(format!(
            "the backup has {} partitions and partitions = {}: set it to the backup's",
            manifest.partitions,
            config.partitions.get()
        )));
    }
    manifest.check(&args.from)?;
    let is_cluster = match (manifest.kind, &config.engine.journal, &config.engine.archive) {
        (Kind::Embedded, JournalUrl::Sqlite, ArchiveUrl::Sqlite) => {
            files(&args.from, &manifest, config)?;
            false
        }
        (Kind::Cluster, JournalUrl::Nats(_), ArchiveUrl::Postgres(url)) => {
            dump(&args, url).await?;
            true
        }
        (kind, ..) => {
            return Err(Failure::usage(format!(
                "this is a backup of {}, and journal.url and archive.url name another engine",
                if kind == Kind::Embedded { "the embedded engine" } else { "a cluster" }
            )));
        }
    };
    // The dump may be of an older program: its schema is brought up to date.
    let engine = EngineConfig {
        archive_replica_url: None,
        migrate_at_start: false,
        ..config.engine.clone()
    };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    archive.migrate().await.map_err(Failure::unavailable)?;
    let stored =
        if is_cluster { frames(&*archive, &args.from, config).await? } else { Restored::default() };
    let mut epochs = Vec::new();
    if !args.keep_journal {
        let journal = engines.journal().await.map_err(Failure::unavailable)?;
        for partition in config.partitions.all() {
            let begun = begin_new_epoch(&*journal, &*archive, partition, false).await?;
            epochs.push(begun.epoch.0);
        }
    }
    engines.close().await;
    output::line(json!({
        "restored": args.from.display().to_string(),
        "made_at": manifest.made_at().to_rfc3339(),
        "frames": stored.frames,
        "events": stored.events,
        "known_frames": stored.known,
        "epochs": epochs,
        "seconds": began.elapsed().as_secs_f64(),
    }))
}

/// Copies the files into a data directory that has none.
fn files(from: &Path, manifest: &Manifest, config: &Config) -> Result<(), Failure> {
    let to = &config.data_dir;
    crate::commands::backup::private_folder(to)?;
    let present = manifest.names().find(|name| to.join(name).exists());
    if let Some(name) = present {
        return Err(Failure::usage(format!(
            "{} is there already: restore into an empty folder, named with --data-dir",
            to.join(name).display()
        )));
    }
    for name in manifest.names() {
        let target = to.join(name);
        std::fs::copy(from.join(name), &target).map_err(at(&target))?;
        std::fs::File::open(&target).and_then(|file| file.sync_all()).map_err(at(&target))?;
    }
    Ok(())
}

/// Restores the dump, all of it or nothing.
async fn dump(args: &RestoreArgs, url: &str) -> Result<(), Failure> {
    let mut pg_restore = postgres_program("pg_restore", args.pg_bin.as_deref(), url);
    pg_restore.args(["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]);
    let said = pg_restore.arg(args.from.join(DUMP)).output().await.map_err(|error| {
        Failure::unavailable(format!(
            "pg_restore: {error}; install PostgreSQL's client programs, or name their folder with --pg-bin"
        ))
    })?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    Err(Failure::failed(format!(
        "{}: {why}; nothing was changed: restore into a database that exists and is empty",
        redact(url)
    )))
}

/// Stores the frames behind the restored ledger.
async fn frames(archive: &dyn Archive, from: &Path, config: &Config) -> Result<Restored, Failure> {
    let leases = leases(archive, config).await?;
    let mut under_way = BTreeMap::new();
    for lease in &leases {
        let restore = Restore::begin(archive, lease).await.map_err(Failure::unavailable)?;
        under_way.insert(lease.partition, restore);
    }
    let path = from.join(FRAMES);
    let file = std::fs::File::open(&path).map_err(at(&path))?;
    for line in BufReader::new(file).lines() {
        let line: FrameLine = serde_json::from_str(&line.map_err(at(&path))?).map_err(at(&path))?;
        let frame = line.decode().map_err(at(&path))?;
        let restore = under_way.get_mut(&frame.partition).ok_or_else(|| {
            Failure::failed(format!("{}: partition {}", path.display(), frame.partition))
        })?;
        restore.push(frame).await.map_err(Failure::failed)?;
    }
    let mut all = Restored::default();
    for restore in under_way.into_values() {
        let one = restore.finish().await.map_err(Failure::failed)?;
        all.frames += one.frames;
        all.events += one.events;
        all.known += one.known;
    }
    for lease in &leases {
        archive.release(lease).await.map_err(Failure::unavailable)?;
    }
    Ok(all)
}

/// The right to all partitions: workers of before are gone, their leases run out.
async fn leases(archive: &dyn Archive, config: &Config) -> Result<Vec<Lease>, Failure> {
    let (count, until) = (config.partitions, Instant::now() + LEASES_WITHIN);
    let mut leases: Vec<Lease> = Vec::new();
    loop {
        let want = usize::from(count.get()) - leases.len();
        let more = archive.acquire("restore", count, want, LEASE).await;
        leases.extend(more.map_err(Failure::unavailable)?);
        if leases.len() == usize::from(count.get()) {
            return Ok(leases);
        }
        if Instant::now() > until {
            return Err(Failure::failed(
                "somebody persists into this database: stop every worker (`stormwire messages`) first",
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
