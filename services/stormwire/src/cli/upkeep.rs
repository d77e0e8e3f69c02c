//! What keeps a store safe and looks into it.

use super::ConnectArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use stormwire_core::Position;

/// `stormwire backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The folder in which the backup gets a folder of its own
    pub(crate) to: PathBuf,
    /// Remove complete backups there that are older
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub(crate) keep: Option<Duration>,
    /// Where pg_dump is; of the server's version or a newer one
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

/// `stormwire restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup's own folder
    pub(crate) from: PathBuf,
    /// The journal was not lost: store what the backup has beyond its archive, and begin no new epochs
    #[arg(long)]
    pub(crate) keep_journal: bool,
    /// Where pg_restore is
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
}

/// `stormwire verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Only this partition
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u16>,
    /// The archive behind this position as well, not only what the journal still has
    #[arg(long, value_name = "POSITION", conflicts_with = "all")]
    pub(crate) since: Option<Position>,
    /// All of the archive
    #[arg(long)]
    pub(crate) all: bool,
}

/// `stormwire trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The event's id as subscribers see it; with --channel also a position (epoch:offset) or a publisher's id
    pub(crate) event: String,
    /// Its channel
    #[arg(long)]
    pub(crate) channel: Option<String>,
    /// How many of the channel's newest events are looked through for a publisher's id
    #[arg(long, default_value_t = 100_000, requires = "channel")]
    pub(crate) within: u64,
}

/// `stormwire canary`.
#[derive(Debug, Args)]
pub(crate) struct CanaryArgs {
    /// How often an event goes through each partition
    #[arg(long, default_value = "1s", value_parser = super::duration)]
    pub(crate) every: Duration,
    /// End after so long; the exit code tells whether anything was lost or doubled
    #[arg(long = "for", value_name = "TIME", value_parser = super::duration)]
    pub(crate) lasting: Option<Duration>,
    /// Where to
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire journal`.
#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Prints how each partition stands, after listening to the gateways for a moment
    Status {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Ends the epoch of a partition whose journal has gone back, and begins the next one
    NewEpoch(NewEpochArgs),
}

/// `stormwire journal new-epoch`.
#[derive(Debug, Args)]
pub(crate) struct NewEpochArgs {
    /// The partition
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) partition: Option<u16>,
    /// All partitions
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Remove a log that cannot be closed, with everything in it that is not persisted
    #[arg(long)]
    pub(crate) discard: bool,
}
