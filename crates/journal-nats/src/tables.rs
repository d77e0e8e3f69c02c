//! The appenders' tables of producers, in one small stream for all partitions that keeps one message a
//! subject.
//!
//! A table is cut into chunks, which all carry the number of their save; a manifest, written last, names
//! that number, how many chunks there are, and in which of two slots. A save goes into the slot that the
//! manifest does not name, and its manifest replaces exactly the one that was read before. So a save that
//! is torn, lost or late leaves the table before it; at worst, two at once spoil each other's chunks, and
//! then the numbers do not fit and there is no table: a claim reads the log instead.

use crate::api::{Api, MESSAGE_NOT_FOUND, NO_ROOM, Refusal, STREAM_DIFFERS, STREAM_NOT_FOUND};
use crate::caller::CallError;
use crate::config::NatsConfig;
use crate::names;
use crate::settings;
use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_guard::GuardError;
use stormwire_journal::{JournalError, SavedTable, TABLE_BYTES_MAX};

/// Bytes of a table in one message: a leader's answer carries it in base64 within a payload of 1 MiB.
const CHUNK_BYTES: usize = 384 * 1024;
/// The number of the save, before them.
const HEAD_BYTES: usize = 8;
/// Chunks on their way at once.
const CHUNKS_AT_ONCE: usize = 4;
/// How often a table is read again that changed meanwhile.
const LOAD_ATTEMPTS: usize = 3;

/// Which save is the partition's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    version: u8,
    epoch: u32,
    through: FrameSeq,
    save: u64,
    slot: u8,
    chunks: usize,
    bytes: usize,
}

impl Manifest {
    /// `None` for one of another version, or one whose numbers do not fit each other.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes).ok()?;
        let fits = manifest.bytes <= TABLE_BYTES_MAX
            && manifest.chunks == manifest.bytes.div_ceil(CHUNK_BYTES)
            && manifest.slot < 2;
        (manifest.version == 1 && fits).then_some(manifest)
    }
}

/// A message of the stream: its sequence and its content.
struct Kept {
    seq: u64,
    bytes: Bytes,
}

#[derive(Deserialize)]
struct Got {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    seq: u64,
    #[serde(default)]
    data: String,
}

/// Keeps `table`, unless a newer one is there.
pub(crate) async fn save(
    api: &Api,
    config: &NatsConfig,
    partition: Partition,
    table: SavedTable,
) -> Result<(), JournalError> {
    if table.bytes.len() > TABLE_BYTES_MAX {
        let len = table.bytes.len();
        let text = format!("a table has at most {TABLE_BYTES_MAX} bytes, not {len}");
        return Err(JournalError::Protocol(text));
    }
    let subject = names::table(partition);
    let before = last(api, &subject).await?;
    let known = before.as_ref().and_then(|kept| Manifest::parse(&kept.bytes));
    let place = (table.epoch.0, table.through);
    if known.as_ref().is_some_and(|known| (known.epoch, known.through) >= place) {
        return Ok(());
    }
    let save: u64 = rand::random();
    let slot = known.map_or(0, |known| 1 - known.slot);
    let chunks = table.bytes.len().div_ceil(CHUNK_BYTES);
    let publishes = (0..chunks).map(|at| {
        let end = table.bytes.len().min((at + 1) * CHUNK_BYTES);
        let part = &table.bytes[at * CHUNK_BYTES..end];
        let mut body = BytesMut::with_capacity(HEAD_BYTES + part.len());
        body.put_u64_le(save);
        body.put_slice(part);
        let subject = names::table_chunk(partition, slot, at);
        async move {
            let stored = publish(api, config, &subject, None, body.freeze()).await?;
            stored.map_err(|refusal| no_room(config, refusal))
        }
    });
    let written = stream::iter(publishes).buffer_unordered(CHUNKS_AT_ONCE);
    written.try_collect::<()>().await?;
    let (epoch, through) = place;
    let bytes = table.bytes.len();
    let manifest = Manifest { version: 1, epoch, through, save, slot, chunks, bytes };
    let body = serde_json::to_vec(&manifest).map_err(|e| JournalError::Protocol(e.to_string()))?;
    let mut headers = HeaderMap::new();
    let expected = before.map_or(0, |kept| kept.seq);
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
    let Err(refusal) = publish(api, config, &subject, Some(headers), Bytes::from(body)).await?
    else {
        return Ok(());
    };
    // Another's manifest is there, or mine by an attempt whose answer was lost.
    let now = last(api, &subject).await?.and_then(|kept| Manifest::parse(&kept.bytes));
    match now {
        Some(now) if now.save == save || (now.epoch, now.through) >= place => Ok(()),
        _ => Err(no_room(config, refusal)),
    }
}

/// The table that was saved last, if it is whole.
pub(crate) async fn load(
    api: &Api,
    partition: Partition,
) -> Result<Option<SavedTable>, JournalError> {
    for _ in 0..LOAD_ATTEMPTS {
        let Some(manifest) = manifest(api, partition).await? else { return Ok(None) };
        if let Some(bytes) = chunks(api, partition, &manifest).await? {
            let (epoch, through) = (Epoch(manifest.epoch), manifest.through);
            return Ok(Some(SavedTable { epoch, through, bytes }));
        }
    }
    Ok(None)
}

/// Epoch and last frame of the table that was saved last.
pub(crate) async fn through(
    api: &Api,
    partition: Partition,
) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
    let manifest = manifest(api, partition).await?;
    Ok(manifest.map(|manifest| (Epoch(manifest.epoch), manifest.through)))
}

async fn manifest(api: &Api, partition: Partition) -> Result<Option<Manifest>, JournalError> {
    let kept = last(api, &names::table(partition)).await?;
    Ok(kept.and_then(|kept| Manifest::parse(&kept.bytes)))
}

/// The chunks of a save, joined; `None` if one is not there or is another save's.
async fn chunks(
    api: &Api,
    partition: Partition,
    manifest: &Manifest,
) -> Result<Option<Bytes>, JournalError> {
    let reads = (0..manifest.chunks).map(|at| {
        let subject = names::table_chunk(partition, manifest.slot, at);
        async move { last(api, &subject).await }
    });
    let mut parts = stream::iter(reads).buffered(CHUNKS_AT_ONCE);
    let mut joined = BytesMut::with_capacity(manifest.bytes);
    while let Some(part) = parts.try_next().await? {
        let Some(kept) = part else { return Ok(None) };
        match kept.bytes.split_at_checked(HEAD_BYTES) {
            Some((head, part)) if head == manifest.save.to_le_bytes() => joined.put_slice(part),
            _ => return Ok(None),
        }
    }
    Ok((joined.len() == manifest.bytes).then(|| joined.freeze()))
}

/// The message of `subject`, by the leader's own state.
async fn last(api: &Api, subject: &str) -> Result<Option<Kept>, JournalError> {
    let request = json!({ "last_by_subj": subject });
    let ask = format!("STREAM.MSG.GET.{}", names::TABLES);
    let message = match api.ask::<Got>("table", &ask, &request).await? {
        Ok(got) => got.message,
        Err(refusal) if [MESSAGE_NOT_FOUND, STREAM_NOT_FOUND].contains(&refusal.err_code) => {
            return Ok(None);
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(message.data)
        .map_err(|error| JournalError::Protocol(format!("{subject}: {error}")))?;
    Ok(Some(Kept { seq: message.seq, bytes: Bytes::from(bytes) }))
}

/// Stores a message; makes the stream if there is none.
async fn publish(
    api: &Api,
    config: &NatsConfig,
    subject: &str,
    headers: Option<HeaderMap>,
    body: Bytes,
) -> Result<Result<(), Refusal>, JournalError> {
    let attempt = || api.publish("table_save", subject, headers.clone(), body.clone());
    match attempt().await {
        // Nobody takes messages of this subject: there is no stream yet, or it has no leader now.
        Err(GuardError::Failed(CallError::NoResponders(_))) => {
            create(api, config).await?;
            attempt().await
        }
        outcome => outcome,
    }
    .map_err(|error| crate::api::unavailable("table_save", &error))
    .and_then(|answer| crate::api::parse::<Value>(&answer))
    .map(|answer| answer.map(drop))
}

async fn create(api: &Api, config: &NatsConfig) -> Result<(), JournalError> {
    let subject = format!("STREAM.CREATE.{}", names::TABLES);
    let wanted = settings::tables(config);
    match api.ask::<Value>("table_stream", &subject, &wanted).await? {
        Err(refusal) if refusal.err_code != STREAM_DIFFERS => Err(no_room(config, refusal)),
        _ => Ok(()),
    }
}

/// What the stream of tables that is there has not as this program would make it. Nothing while there is
/// none: the first save makes it.
pub(crate) async fn differences(
    api: &Api,
    config: &NatsConfig,
) -> Result<Option<String>, JournalError> {
    #[derive(Deserialize)]
    struct Info {
        config: Value,
    }
    let subject = format!("STREAM.INFO.{}", names::TABLES);
    match api.ask::<Info>("table_stream", &subject, &Value::Null).await? {
        Ok(info) => {
            let differences = settings::differences(&settings::tables(config), &info.config);
            Ok(differences.map(|difference| format!("{}: {difference}", names::TABLES)))
        }
        Err(refusal) if refusal.err_code == STREAM_NOT_FOUND => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

fn no_room(config: &NatsConfig, refusal: Refusal) -> JournalError {
    if refusal.err_code == NO_ROOM {
        let bytes = config.tables_max_bytes;
        return JournalError::Unavailable(format!(
            "{refusal}: the stream of producers' tables reserves {bytes} bytes on each of its \
             servers; lower journal.tables_bytes_max, or raise the servers' max_file_store"
        ));
    }
    refusal.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_whose_numbers_do_not_fit_names_no_table() {
        let good = json!({
            "version": 1, "epoch": 1, "through": 9, "save": 7, "slot": 1, "chunks": 3,
            "bytes": 1_000_000
        });
        assert!(Manifest::parse(good.to_string().as_bytes()).is_some());
        for (field, bad) in [
            ("version", json!(2)),
            ("slot", json!(2)),
            ("chunks", json!(2)),
            ("bytes", json!(TABLE_BYTES_MAX + 1)),
            ("through", json!(-1)),
        ] {
            let mut manifest = good.clone();
            manifest[field] = bad;
            assert_eq!(Manifest::parse(manifest.to_string().as_bytes()), None, "{field}");
        }
        assert_eq!(Manifest::parse(b""), None);
    }
}
