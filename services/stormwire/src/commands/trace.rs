//! `stormwire trace`: where an event is: in the journal, counted by the ledger, in the archive.

use crate::cli::TraceArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use serde_json::{Value, json};
use std::sync::Arc;
use stormwire_archive::{Archive, HistoryQuery, LedgerEntry, StoredEvent};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, SystemClock};
use stormwire_engine::{EngineConfig, Engines};
use stormwire_journal::{Journal, StoredFrame, Tip};
use stormwire_wire::frame::Frame;

/// Bounds of one page of history.
const PAGE: usize = 1000;
const BYTES: usize = 8 << 20;

/// Prints one object. The exit code is 1 where the event is nowhere.
pub(crate) async fn run(args: TraceArgs, config: &Config) -> Result<(), Failure> {
    let engine = EngineConfig {
        archive_replica_url: None,
        migrate_at_start: false,
        ..config.engine.clone()
    };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let (partition, position) = place(&args, config, &*archive).await?;
    let seen = Seen::look(&*journal, &*archive, partition, position).await?;
    engines.close().await;
    output::line(seen.told())?;
    if seen.event.is_some() || seen.row.is_some() {
        return Ok(());
    }
    Err(Failure::failed(format!("{}: {}", args.event, seen.verdict())))
}

/// Which event is meant.
async fn place(
    args: &TraceArgs,
    config: &Config,
    archive: &dyn Archive,
) -> Result<(Partition, Position), Failure> {
    let channel =
        args.channel.as_deref().map(Channel::parse).transpose().map_err(Failure::usage)?;
    if let Some(place) = derived(&args.event) {
        return if place.0.0 < config.partitions.get() {
            Ok(place)
        } else {
            Err(Failure::usage(format!("{}: there is no such partition", args.event)))
        };
    }
    let Some(channel) = channel else {
        return Err(Failure::usage(format!(
            "{:?} is not an id that the server makes (partition-epoch-offset): name the channel with --channel",
            args.event
        )));
    };
    let partition = channel.partition(config.partitions);
    if let Ok(position) = args.event.parse() {
        return Ok((partition, position));
    }
    let found = by_id(archive, &channel, partition, args).await?;
    found.map(|position| (partition, position)).ok_or_else(|| {
        Failure::failed(format!(
            "{}: none of the newest {} archived events of {channel} has this id",
            args.event, args.within
        ))
    })
}

/// `partition-epoch-offset`.
fn derived(id: &str) -> Option<(Partition, Position)> {
    let mut parts = id.split('-');
    let (partition, epoch, offset) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let position =
        Position { epoch: Epoch(epoch.parse().ok()?), offset: Offset(offset.parse().ok()?) };
    Some((Partition(partition.parse().ok()?), position))
}

/// The newest event with this id, going back through the archive.
async fn by_id(
    archive: &dyn Archive,
    channel: &Channel,
    partition: Partition,
    args: &TraceArgs,
) -> Result<Option<Position>, Failure> {
    let (mut query, mut left) = (HistoryQuery::Last, args.within);
    while left > 0 {
        let page = page(archive, channel, partition, query).await?;
        let mut newest_first = page.iter().rev();
        if let Some(event) = newest_first.find(|event| event.id.as_deref() == Some(&args.event)) {
            return Ok(Some(event.position));
        }
        let Some(oldest) = page.first() else { return Ok(None) };
        left = left.saturating_sub(page.len() as u64);
        query = HistoryQuery::Before(oldest.position);
    }
    Ok(None)
}

async fn page(
    archive: &dyn Archive,
    channel: &Channel,
    partition: Partition,
    query: HistoryQuery,
) -> Result<Vec<StoredEvent>, Failure> {
    let from = Position { epoch: Epoch::FIRST, offset: Offset(0) };
    let page = archive.history(channel, partition, query, PAGE, BYTES, from).await;
    page.map(|page| page.events).map_err(Failure::unavailable)
}

/// What each store says.
struct Seen {
    partition: Partition,
    position: Position,
    log: Option<Tip>,
    frame: Option<StoredFrame>,
    /// Channel, user, type, key and id as the journal has them.
    event: Option<Value>,
    ledger: Option<LedgerEntry>,
    row: Option<Value>,
    missing: Option<String>,
}

impl Seen {
    async fn look(
        journal: &dyn Journal,
        archive: &dyn Archive,
        partition: Partition,
        position: Position,
    ) -> Result<Self, Failure> {
        let logs = journal.epochs(partition).await.map_err(Failure::unavailable)?;
        let log = logs.into_iter().find(|log| log.epoch == position.epoch);
        let seq = position.offset.seq();
        let frame = journal.frame(partition, position.epoch, seq).await;
        let frame = frame.map_err(Failure::unavailable)?;
        let event = frame.as_ref().and_then(|frame| in_frame(frame, position.offset.index()));
        let ledger = archive.ledger(partition).await.map_err(Failure::unavailable)?;
        let before = Position { offset: Offset(position.offset.0.saturating_sub(1)), ..position };
        let from = Position { epoch: Epoch::FIRST, offset: Offset(0) };
        let rows = archive.history_of_prefix(partition, "", before, 1, BYTES, from).await;
        let rows = rows.map_err(Failure::unavailable)?.events;
        let row = rows.into_iter().find(|row| row.position == position);
        let missing = archive.missing(partition, position, position).await;
        let missing = missing.map_err(Failure::unavailable)?;
        Ok(Self {
            partition,
            position,
            log,
            frame,
            event,
            ledger,
            row: row.as_ref().map(as_json),
            missing: missing.into_iter().next().map(|missing| missing.gap.reason),
        })
    }

    fn is_counted(&self) -> bool {
        let due = (self.position.epoch, self.position.offset.seq());
        self.ledger.is_some_and(|ledger| (ledger.epoch, ledger.last_seq) >= due)
    }

    /// In one sentence.
    fn verdict(&self) -> String {
        match (&self.event, &self.row, &self.missing) {
            (Some(_), Some(_), _) => "in the journal and in the archive".to_owned(),
            (None, Some(_), _) => "in the archive; the journal has forgotten it".to_owned(),
            (_, None, Some(reason)) => format!("not in the archive, which knows why: {reason}"),
            (Some(_), None, None) if self.is_counted() => {
                "in the journal and NOT in the archive, whose ledger has passed it: run `stormwire verify`".to_owned()
            }
            (Some(_), None, None) => "in the journal, not persisted yet".to_owned(),
            (None, None, None) if self.is_counted() => {
                "nowhere: no such event was stored, or retention has removed it".to_owned()
            }
            (None, None, None) => "nowhere yet: neither journal nor archive has this position".to_owned(),
        }
    }

    fn told(&self) -> Value {
        let journal = match (&self.frame, self.log) {
            (Some(frame), _) => json!({
                "state": if self.event.is_some() { "there" } else { "the frame has no such event" },
                "ts": frame.ts.to_rfc3339(),
                "event": self.event,
            }),
            (None, Some(log)) if self.position.offset.seq() < log.first => {
                json!({ "state": "trimmed", "first_frame": log.first })
            }
            (None, Some(log)) => json!({ "state": "not there", "last_frame": log.last }),
            (None, None) => json!({ "state": "no log of this epoch" }),
        };
        json!({
            "id": format!("{}-{}-{}", self.partition, self.position.epoch, self.position.offset),
            "partition": self.partition.0,
            "epoch": self.position.epoch.0,
            "offset": self.position.offset.0,
            "frame": self.position.offset.seq(),
            "index": self.position.offset.index(),
            "journal": journal,
            "ledger": self.ledger.map(|ledger| json!({
                "epoch": ledger.epoch.0,
                "frame": ledger.last_seq,
                "has_passed_it": self.is_counted(),
            })),
            "archive": self.row,
            "missing": self.missing,
            "verdict": self.verdict(),
        })
    }
}

fn in_frame(stored: &StoredFrame, index: u16) -> Option<Value> {
    let frame = Frame::decode(&stored.bytes).ok()?;
    let events = frame.events()?;
    let run = events.runs().find(|run| (run.first..run.first + run.count).contains(&index))?;
    let event = run.events().find(|event| event.index == index)?;
    Some(json!({
        "channel": run.channel,
        "from": run.user,
        "producer": run.producer,
        "seq": run.producer.map(|_| run.seq + u64::from(index - run.first)),
        "traceparent": run.trace.map(|trace| trace.to_traceparent()),
        "type": event.kind,
        "key": event.key,
        "id": event.id,
        "bytes": event.data.len(),
    }))
}

fn as_json(row: &StoredEvent) -> Value {
    json!({
        "channel": row.channel.as_str(),
        "ts": row.ts.to_rfc3339(),
        "from": row.user,
        "type": row.kind,
        "key": row.key,
        "id": row.id,
        "bytes": row.data.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_the_server_makes_names_its_place() {
        let (partition, position) = derived("5-1-4104192").unwrap();
        assert_eq!((partition, position.to_string()), (Partition(5), "1:4104192".to_owned()));
        for other in ["5-1", "a-1-2", "5-1-2-3", "018f2a3b-7c11", ""] {
            assert_eq!(derived(other), None, "{other}");
        }
    }
}
