//! `stormwire verify`: the archive against the journal, and in itself.
//!
//! What the journal still has of a partition, up to the archive's ledger, is decoded and compared with the
//! rows event by event: each there once, in its place, with its bytes. What the journal has not any more is
//! looked at in itself: positions ascend, and no frame lacks an event in its middle. Stretches that are
//! known to be missing (holes, dead letters, what retention removed) are counted, not complained of.

mod compare;
mod pages;

use crate::cli::VerifyArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use compare::Findings;
use pages::{Journalled, Rows};
use serde_json::json;
use std::sync::Arc;
use stormwire_archive::{Archive, LedgerEntry};
use stormwire_core::{Epoch, FrameSeq, Offset, Partition, Position, SystemClock};
use stormwire_engine::{EngineConfig, Engines};
use stormwire_journal::Journal;

/// Looks at each partition and prints a line of what was found.
pub(crate) async fn run(args: VerifyArgs, config: &Config) -> Result<(), Failure> {
    let partitions: Vec<Partition> = match args.partition {
        Some(number) if number >= config.partitions.get() => {
            return Err(Failure::usage(format!(
                "there is no partition {number}: they are numbered from 0 to {}",
                config.partitions.get() - 1
            )));
        }
        Some(number) => vec![Partition(number)],
        None => config.partitions.all().collect(),
    };
    // A replica may be behind; the ledger that decides is the primary's.
    let engine = EngineConfig {
        archive_replica_url: None,
        migrate_at_start: false,
        ..config.engine.clone()
    };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let mut wrong = 0;
    for partition in partitions {
        let found = look(&*journal, &*archive, partition, &args).await?;
        wrong += found.wrong;
        output::line(json!({
            "partition": partition.0,
            "from": found.from.to_string(),
            "to": found.to.to_string(),
            "events": found.events,
            "compared": found.compared,
            "known_missing": found.known_missing,
            "verdict": if found.wrong == 0 { "ok" } else { "differs" },
            "wrong": found.wrong,
            "examples": found.examples,
        }))?;
    }
    engines.close().await;
    if wrong == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{wrong} events are not as they should be")))
}

async fn look(
    journal: &dyn Journal,
    archive: &dyn Archive,
    partition: Partition,
    args: &VerifyArgs,
) -> Result<Findings, Failure> {
    let logs = journal.epochs(partition).await.map_err(Failure::unavailable)?;
    let ledger = archive.ledger(partition).await.map_err(Failure::unavailable)?;
    let Some(ledger) = ledger else { return Ok(Findings::new(start(0, Epoch::FIRST))) };
    let oldest = logs.iter().find(|log| log.first <= log.last);
    let journal_from = oldest.map_or(end(ledger), |log| start(log.first, log.epoch));
    let from = match args.since {
        Some(since) => since,
        None if args.all => start(0, Epoch::FIRST),
        None => journal_from.min(end(ledger)),
    };
    let mut found = Findings::new(from);
    let mut rows = Rows::new(archive, partition, from, end(ledger));
    // In itself, as far as the journal has it no more …
    while let Some(row) = rows.next_below(journal_from).await? {
        found.alone(&row);
    }
    // … and side by side from there on.
    let mut frames = Journalled::new(journal, partition, journal_from.max(from), ledger);
    while let Some(frame) = frames.next().await? {
        let rows_of_it = rows.of_frame(frame.epoch, frame.seq).await?;
        found.side_by_side(&frame, &rows_of_it, rows.missing());
    }
    while let Some(row) = rows.next_below(after(end(ledger))).await? {
        found.unknown(&row);
    }
    found.to = end(ledger);
    found.known_missing = rows.missing().len() as u64;
    Ok(found)
}

/// Before the first event of a frame.
fn start(seq: FrameSeq, epoch: Epoch) -> Position {
    Position { epoch, offset: Offset::new(seq, 0) }
}

/// The last event that the ledger counts.
fn end(ledger: LedgerEntry) -> Position {
    Position { epoch: ledger.epoch, offset: Offset(Offset::new(ledger.last_seq + 1, 0).0 - 1) }
}

fn after(position: Position) -> Position {
    Position { offset: Offset(position.offset.0 + 1), ..position }
}
