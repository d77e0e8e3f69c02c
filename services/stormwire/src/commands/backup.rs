//! `stormwire backup`: archive and journal, consistent by the ledger.
//!
//! Of a cluster: frames behind the archive's ledger are copied while `pg_dump` runs, and once more to the
//! journal's end when it has ended. So whatever was acknowledged before that is in the dump or in the
//! frames, and the dump's own ledger says which of the frames it has already. Of the embedded engine: one
//! file has both, and is copied as of one moment. A backup is made in a draft folder and renamed when it is
//! whole; what is there under its name is complete.

mod cluster;
mod embedded;
mod manifest;

pub(crate) use cluster::{DUMP, FRAMES, FrameLine, postgres_program};
pub(crate) use manifest::{Kind, Manifest};

use crate::cli::BackupArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use manifest::PREFIX;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use stormwire_core::{Clock as _, SystemClock, Timestamp};
use stormwire_engine::{ArchiveUrl, JournalUrl};

/// Makes one.
pub(crate) async fn run(args: BackupArgs, config: &Config) -> Result<(), Failure> {
    let (began, made_at) = (Instant::now(), SystemClock.now());
    let name = format!("{PREFIX}{}", made_at.to_rfc3339().replace([':', '.'], "-"));
    let draft = args.to.join(format!("{name}.draft"));
    private_folder(&draft)?;
    let (kind, places) = match (&config.engine.journal, &config.engine.archive) {
        (JournalUrl::Sqlite, ArchiveUrl::Sqlite) => {
            (Kind::Embedded, embedded::copy(config, &draft).await?)
        }
        (JournalUrl::Nats(_), ArchiveUrl::Postgres(url)) => {
            (Kind::Cluster, cluster::copy(config, url, args.pg_bin.as_deref(), &draft).await?)
        }
        _ => {
            return Err(Failure::usage(
                "journal.url and archive.url must both name servers, or both be sqlite:, to be backed up together",
            ));
        }
    };
    let manifest = Manifest::of(&draft, kind, made_at, config.partitions.get(), places)?;
    manifest.write(&draft)?;
    let whole = args.to.join(&name);
    std::fs::rename(&draft, &whole).map_err(at(&whole))?;
    let removed = args.keep.map_or(Ok(0), |keep| prune(&args.to, made_at, keep))?;
    output::line(json!({
        "backup": whole.display().to_string(),
        "bytes": manifest.bytes(),
        "frames": manifest.frames(),
        "removed": removed,
        "seconds": began.elapsed().as_secs_f64(),
    }))
}

/// Removes whole backups that are older than `keep`; never the one made at `now`.
fn prune(folder: &Path, now: Timestamp, keep: Duration) -> Result<usize, Failure> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) || name.ends_with(".draft") {
            continue;
        }
        let Ok(manifest) = Manifest::read(&entry.path()) else { continue };
        if now.since(manifest.made_at()) > keep {
            std::fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes a folder that nobody else may read.
pub(crate) fn private_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// For `map_err`: which file it was about.
pub(crate) fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::failed(format!("{path}: {error}"))
}
