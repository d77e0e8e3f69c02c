//! `stormwire journal new-epoch`.

use crate::cli::NewEpochArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::{output, warn};
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;
use stormwire_archive::Archive;
use stormwire_core::Partition;
use stormwire_engine::Engines;
use stormwire_journal::Journal;
use stormwire_journal::epoch::{Begun, EpochError, NewEpoch, begin_next};
use stormwire_wire::frame::FrameId;

/// Those who have seen more of the log than is left of it write that into it within a second or so: the
/// next epoch begins above what they say.
const LISTEN: Duration = Duration::from_secs(2);

/// Begins a new epoch of each partition that was named.
pub(super) async fn run(
    engines: &mut Engines,
    config: &Config,
    args: &NewEpochArgs,
) -> Result<(), Failure> {
    let partitions = partitions(config, args)?;
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    confirm(&partitions, args)?;
    tokio::time::sleep(LISTEN).await;
    for partition in partitions {
        let begun = begin_new_epoch(&*journal, &*archive, partition, args.discard).await?;
        output::line(told(partition, &begun))?;
    }
    Ok(())
}

fn partitions(config: &Config, args: &NewEpochArgs) -> Result<Vec<Partition>, Failure> {
    let count = config.partitions;
    match args.partition {
        _ if args.all => Ok(count.all().collect()),
        Some(number) if number < count.get() => Ok(vec![Partition(number)]),
        Some(number) => Err(Failure::usage(format!(
            "there is no partition {number}: they are numbered from 0 to {}",
            count.get() - 1
        ))),
        None => Err(Failure::usage("name a partition, or say --all")),
    }
}

fn confirm(partitions: &[Partition], args: &NewEpochArgs) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    warn(format!(
        "a new epoch begins for partition {}. What the journal has lost stays lost, and subscribers are told \
         so by a gap; what it still has is persisted first.{}\nGo on? [y/N]",
        numbers.join(", "),
        if args.discard {
            " A log that cannot be closed is removed WITH ALL THAT IS NOT PERSISTED."
        } else {
            ""
        }
    ));
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here: say --yes"));
    }
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let agreed = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    if agreed { Ok(()) } else { Err(Failure::failed("nothing was changed")) }
}

/// Begins one behind what the archive knows of the partition.
pub(crate) async fn begin_new_epoch(
    journal: &dyn Journal,
    archive: &dyn Archive,
    partition: Partition,
    discard: bool,
) -> Result<Begun, Failure> {
    let ledger = archive.ledger(partition).await.map_err(|error| {
        Failure::unavailable(format!(
            "partition {partition}: {error}; without the archive nobody knows which numbers were handed out"
        ))
    })?;
    let archived = ledger.map(|entry| (entry.epoch, entry.last_seq));
    let id = FrameId { appender: uuid::Uuid::now_v7().into_bytes(), counter: 1 };
    begin_next(journal, partition, NewEpoch { archived, id, discard }).await.map_err(|error| {
        let remedy = match &error {
            EpochError::Journal(_) => "see `stormwire journal status`, then try again",
            EpochError::NotClosed { .. } => {
                "try again; if it can never be closed, --discard removes it with all that is not persisted"
            }
        };
        Failure::unavailable(format!("partition {partition}: {error}; {remedy}"))
    })
}

fn told(partition: Partition, begun: &Begun) -> String {
    let Begun { ended, last, lost_from, epoch, first, discarded } = begun;
    let how = if *discarded { "was removed" } else { "is closed" };
    let lost = lost_from.map_or(String::new(), |from| {
        format!("; frames from {from} on may be lost, which is told as a gap")
    });
    format!(
        "partition {partition}: epoch {ended} {how} behind frame {last}, epoch {epoch} begins with frame {first}{lost}"
    )
}
