//! `stormwire journal status`.

use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use stormwire_archive::{Archive, LedgerEntry};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_engine::Engines;
use stormwire_journal::message::Heartbeat;
use stormwire_journal::{Journal, JournalError, Peers, Tip, rewind};
use stormwire_wire::frame::Frame;

/// How long gateways are listened to: each says every 300 ms what it owns.
const LISTEN: Duration = Duration::from_millis(1500);
/// With less room than the largest frame a log counts as full.
const ROOM_BYTES: u64 = stormwire_wire::frame::FRAME_BYTES_MAX as u64;

/// How one partition stands.
struct Row {
    partition: Partition,
    tip: Option<Tip>,
    /// Logs of epochs that are over and still there.
    ended: usize,
    ledger: Option<LedgerEntry>,
    table: Option<(Epoch, FrameSeq)>,
    owner: Option<String>,
    verdict: &'static str,
    detail: String,
}

/// Prints a row a partition.
pub(super) async fn run(engines: &mut Engines, config: &Config, json: bool) -> Result<(), Failure> {
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let peers = engines.peers().await.map_err(Failure::unavailable)?;
    let owners = owners(&*peers).await;
    if !json {
        output::line(HEADER)?;
    }
    for partition in config.partitions.all() {
        let owner = owners.get(&partition).cloned();
        let row = look(&*journal, &*archive, partition, owner).await;
        output::line(if json { as_json(&row).to_string() } else { as_text(&row) })?;
    }
    Ok(())
}

/// Who says that it owns what.
async fn owners(peers: &dyn Peers) -> BTreeMap<Partition, String> {
    let mut owners = BTreeMap::new();
    if peers.is_alone() {
        return owners;
    }
    let Ok(mut beats) = peers.beats().await else { return owners };
    let listen = async {
        while let Some(beat) = beats.next().await {
            let Ok(beat) = Heartbeat::decode(&beat) else { continue };
            for (partition, ..) in beat.owned {
                owners.insert(partition, beat.gateway.clone());
            }
        }
    };
    let _ = tokio::time::timeout(LISTEN, listen).await;
    owners
}

async fn look(
    journal: &dyn Journal,
    archive: &dyn Archive,
    partition: Partition,
    owner: Option<String>,
) -> Row {
    let (ledger, mut detail) = match archive.ledger(partition).await {
        Ok(ledger) => (ledger, String::new()),
        Err(error) => (None, error.to_string()),
    };
    let table = journal.saved_through(partition).await.unwrap_or(None);
    let row = |tip, ended, verdict, detail| Row {
        partition,
        tip,
        ended,
        ledger,
        table,
        owner,
        verdict,
        detail,
    };
    let logs = match journal.epochs(partition).await {
        Ok(logs) => logs,
        Err(error) => return row(None, 0, "no leader", error.to_string()),
    };
    let Some(tip) = logs.last().copied() else {
        return row(None, 0, "absent", "nothing was published to it yet".to_owned());
    };
    let verdict = match has_gone_back(journal, partition, tip, ledger).await {
        Err(error) => {
            detail = error.to_string();
            "no leader"
        }
        Ok(Some(why)) => {
            detail = why;
            "rewound"
        }
        Ok(None) if tip.bytes.saturating_add(ROOM_BYTES) > tip.bytes_max => "full",
        Ok(None) => "ok",
    };
    row(Some(tip), logs.len() - 1, verdict, detail)
}

/// Why the log counts as one that has gone back, if it does.
async fn has_gone_back(
    journal: &dyn Journal,
    partition: Partition,
    tip: Tip,
    ledger: Option<LedgerEntry>,
) -> Result<Option<String>, JournalError> {
    if let Some(told) = rewind::told(journal, partition, tip).await? {
        return Ok(Some(format!("it once reached frame {}", told.seen)));
    }
    let Some(ledger) = ledger.filter(|ledger| ledger.epoch >= tip.epoch) else { return Ok(None) };
    if ledger.epoch > tip.epoch || ledger.last_seq > tip.last {
        let LedgerEntry { epoch, last_seq, .. } = ledger;
        return Ok(Some(format!("the archive has frame {last_seq} of epoch {epoch}")));
    }
    let found = journal.frame(partition, tip.epoch, ledger.last_seq).await?;
    let found = found.and_then(|frame| Frame::peek_id(&frame.bytes).ok());
    let is_another = found.zip(ledger.last_frame).is_some_and(|(found, known)| found != known);
    Ok(is_another.then(|| format!("frame {} is not the one that was archived", ledger.last_seq)))
}

/// Frames that are still to be persisted, where both ends are of one epoch.
fn backlog(row: &Row) -> Option<u64> {
    let tip = row.tip?;
    match row.ledger {
        None => Some(tip.last),
        Some(ledger) if ledger.epoch == tip.epoch => Some(tip.last.saturating_sub(ledger.last_seq)),
        Some(_) => None,
    }
}

const HEADER: &str = "partition  epoch       first        last       bytes    of  ledger             backlog  table              owner             verdict";

fn as_text(row: &Row) -> String {
    let dash = || "-".to_owned();
    let place = |place: Option<(Epoch, FrameSeq)>| {
        place.map_or_else(dash, |(epoch, seq)| format!("{epoch}:{seq}"))
    };
    let number = |of: fn(Tip) -> u64| row.tip.map_or_else(dash, |tip| of(tip).to_string());
    let share = row.tip.map_or_else(dash, |tip| {
        format!("{} %", u128::from(tip.bytes) * 100 / u128::from(tip.bytes_max.max(1)))
    });
    let mut text = format!(
        "{:<9}  {:<5}  {:>10}  {:>10}  {:>10}  {:>4}  {:<17}  {:>7}  {:<17}  {:<16}  {}",
        row.partition.to_string(),
        number(|tip| tip.epoch.0.into()),
        number(|tip| tip.first),
        number(|tip| tip.last),
        number(|tip| tip.bytes),
        share,
        place(row.ledger.map(|ledger| (ledger.epoch, ledger.last_seq))),
        backlog(row).map_or_else(dash, |frames| frames.to_string()),
        place(row.table),
        row.owner.clone().unwrap_or_else(dash),
        row.verdict,
    );
    if !row.detail.is_empty() {
        text = format!("{text}: {}", row.detail);
    }
    text
}

fn as_json(row: &Row) -> Value {
    let place = |place: Option<(Epoch, FrameSeq)>| {
        place.map(|(epoch, seq)| json!({ "epoch": epoch.0, "frame": seq }))
    };
    json!({
        "partition": row.partition.0,
        "epoch": row.tip.map(|tip| tip.epoch.0),
        "first": row.tip.map(|tip| tip.first),
        "last": row.tip.map(|tip| tip.last),
        "bytes": row.tip.map(|tip| tip.bytes),
        "bytes_max": row.tip.map(|tip| tip.bytes_max),
        "ended_epochs": row.ended,
        "ledger": place(row.ledger.map(|ledger| (ledger.epoch, ledger.last_seq))),
        "backlog_frames": backlog(row),
        "table": place(row.table),
        "owner": row.owner,
        "verdict": row.verdict,
        "detail": row.detail,
    })
}
