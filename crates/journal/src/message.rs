//! What gateways say to each other, version 1: heartbeats, batches for a partition that another gateway
//! owns, and the answers.
//!
//! All numbers are little-endian; a text is a byte for its length and UTF-8. The layout of each message
//! stands beside its reader. A message of another version is not understood, and its sender is told
//! `moved`.

mod codec;
mod notice;

pub use notice::{NOTICE_PRODUCERS_MAX, Notice};

use crate::owner::Claim;
use crate::publish::{Outcome, ProducerKey, Publish, Stored};
use bytes::{BufMut, Bytes, BytesMut};
use codec::{Reader, put_text};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{
    Channel, Epoch, ErrorCode, FrameSeq, MAX_EVENTS_PER_FRAME, Offset, Partition, Refusal,
    Timestamp,
};
use stormwire_wire::frame::{EncodedEvents, TraceContext};

const VERSION: u8 = 1;
const KIND_BEAT: u8 = 1;
const KIND_APPEND: u8 = 2;
const KIND_HAND_OVER: u8 = 3;
const KIND_DONE: u8 = 4;
const KIND_MOVED: u8 = 5;
const NEVER: i64 = i64::MIN;

/// Bytes that are not a message of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message between gateways of version {VERSION}: {0}")]
pub struct MessageError(pub(crate) &'static str);

/// A gateway says that it lives, and what it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub gateway: String,
    /// Drawn anew by each process.
    pub process: [u8; 16],
    /// Whether it is giving its partitions away.
    pub leaving: bool,
    /// The partitions whose appender it has, with epoch and claim.
    pub owned: Vec<(Partition, Epoch, FrameSeq)>,
}

/// A request to the owner of a partition. D4: it names gateway, epoch and claim.
#[derive(Debug, Clone)]
pub struct Ask {
    /// When it was sent, by the sender's clock.
    pub sent: Timestamp,
    /// The gateway that asks.
    pub from: String,
    /// The owner that is meant.
    pub to: Claim,
    /// What is asked.
    pub body: AskBody,
}

/// What is asked of an owner.
#[derive(Debug, Clone)]
pub enum AskBody {
    /// To write these.
    Append(Vec<Publish>),
    /// To write what waits and to let go of the partition.
    HandOver,
}

/// What an owner answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What became of each publish, in order.
    Done {
        /// The incarnation that the offsets belong to.
        epoch: Epoch,
        /// One a publish.
        outcomes: Vec<Outcome>,
    },
    /// The partition is not the one's who was asked, or is not any longer. Nothing was taken.
    Moved(Option<Claim>),
}

impl Heartbeat {
    /// `version kind | gateway | process 16 | leaving u8 | count u16 × (partition u16, epoch u32, claim u64)`
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = begin(KIND_BEAT, 64 + self.owned.len() * 14);
        put_text(&mut out, &self.gateway);
        out.put_slice(&self.process);
        out.put_u8(u8::from(self.leaving));
        out.put_u16_le(u16::try_from(self.owned.len()).unwrap_or(u16::MAX));
        for (partition, epoch, claim) in self.owned.iter().take(usize::from(u16::MAX)) {
            out.put_u16_le(partition.0);
            out.put_u32_le(epoch.0);
            out.put_u64_le(*claim);
        }
        out.freeze()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`MessageError`] if it is not one.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader::begin(bytes, &[(VERSION, KIND_BEAT)])?;
        let gateway = reader.text()?.to_owned();
        let process = reader.array()?;
        let leaving = reader.u8()? != 0;
        let count = reader.u16()?;
        let owned = (0..count)
            .map(|_| Ok((Partition(reader.u16()?), Epoch(reader.u32()?), reader.u64()?)))
            .collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { gateway, process, leaving, owned })
    }
}

impl Ask {
    /// `version kind | sent i64 | from | to | epoch u32 | claim u64 |` and for a batch `items u16 × item`
    #[must_use]
    pub fn encode(sent: Timestamp, from: &str, to: &Claim, batch: Option<&[Publish]>) -> Bytes {
        let items = batch.unwrap_or_default();
        let size: usize = items.iter().map(|item| 128 + item.events.as_bytes().len()).sum();
        let kind = if batch.is_some() { KIND_APPEND } else { KIND_HAND_OVER };
        let mut out = begin(kind, 256 + size);
        out.put_i64_le(sent.0);
        put_text(&mut out, from);
        put_claim(&mut out, to);
        if batch.is_some() {
            out.put_u16_le(u16::try_from(items.len()).unwrap_or(u16::MAX));
            items.iter().for_each(|item| put_item(&mut out, item));
        }
        out.freeze()
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`MessageError`] if it is not one.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let mut reader =
            Reader::begin(bytes, &[(VERSION, KIND_APPEND), (VERSION, KIND_HAND_OVER)])?;
        let sent = Timestamp(reader.i64()?);
        let from = reader.text()?.to_owned();
        let to = claim(&mut reader)?;
        let body = if bytes[1] == KIND_APPEND {
            let count = usize::from(reader.u16()?);
            if count > MAX_EVENTS_PER_FRAME {
                return Err(MessageError("too many publishes"));
            }
            let mut items: Vec<Publish> = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                let item = item(&mut reader, items.last())?;
                items.push(item);
            }
            AskBody::Append(items)
        } else {
            AskBody::HandOver
        };
        reader.end()?;
        Ok(Self { sent, from, to, body })
    }
}

impl Reply {
    /// `version kind | epoch u32 | count u16 × outcome` or `version kind | known u8 | [claim]`
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Done { epoch, outcomes } => {
                let mut out = begin(KIND_DONE, 16 + outcomes.len() * 18);
                out.put_u32_le(epoch.0);
                out.put_u16_le(u16::try_from(outcomes.len()).unwrap_or(u16::MAX));
                outcomes.iter().for_each(|outcome| put_outcome(&mut out, outcome));
                out.freeze()
            }
            Self::Moved(to) => {
                let mut out = begin(KIND_MOVED, 80);
                out.put_u8(u8::from(to.is_some()));
                if let Some(to) = to {
                    put_claim(&mut out, to);
                }
                out.freeze()
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`MessageError`] if it is not one.
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader::begin(bytes, &[(VERSION, KIND_DONE), (VERSION, KIND_MOVED)])?;
        let reply = if bytes[1] == KIND_DONE {
            let epoch = Epoch(reader.u32()?);
            let count = reader.u16()?;
            let outcomes = (0..count).map(|_| outcome(&mut reader)).collect::<Result<_, _>>()?;
            Self::Done { epoch, outcomes }
        } else {
            let known = reader.u8()? != 0;
            Self::Moved(if known { Some(claim(&mut reader)?) } else { None })
        };
        reader.end()?;
        Ok(reply)
    }
}

fn begin(kind: u8, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(capacity);
    out.put_slice(&[VERSION, kind]);
    out
}

fn put_claim(out: &mut BytesMut, claim: &Claim) {
    put_text(out, &claim.gateway);
    out.put_u32_le(claim.epoch.0);
    out.put_u64_le(claim.seq);
}

fn claim(reader: &mut Reader<'_>) -> Result<Claim, MessageError> {
    let gateway = Arc::from(reader.text()?);
    Ok(Claim { gateway, epoch: Epoch(reader.u32()?), seq: reader.u64()? })
}

/// `connection u64 | channel | user | producer | seq u64 | first sent i64 | traced u8 | [trace 25] |
/// events u32 | bytes u32 | the events`
fn put_item(out: &mut BytesMut, item: &Publish) {
    out.put_u64_le(item.connection);
    for text in [item.channel.as_str(), &item.user, &item.producer] {
        put_text(out, text);
    }
    out.put_u64_le(item.seq);
    out.put_i64_le(item.first_sent.map_or(NEVER, |at| at.0));
    out.put_u8(u8::from(item.trace.is_some()));
    if let Some(trace) = &item.trace {
        out.put_slice(&trace.trace);
        out.put_slice(&trace.span);
        out.put_u8(trace.flags);
    }
    let bytes = item.events.as_bytes();
    out.put_u32_le(u32::try_from(item.events.len()).unwrap_or(u32::MAX));
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn item(reader: &mut Reader<'_>, before: Option<&Publish>) -> Result<Publish, MessageError> {
    let connection = reader.u64()?;
    let channel = reader.text()?;
    let (user, producer) = (reader.text()?, reader.text()?);
    // Items of one connection mostly come together and share their names.
    let channel = match before {
        Some(before) if before.channel.as_str() == channel => before.channel.clone(),
        _ => Channel::parse(channel).map_err(|_| MessageError("a bad channel"))?,
    };
    let (user, producer, key) = match before {
        Some(before) if *before.user == *user && *before.producer == *producer => {
            (Arc::clone(&before.user), Arc::clone(&before.producer), before.key)
        }
        _ => (Arc::from(user), Arc::from(producer), ProducerKey::of(user, producer)),
    };
    let seq = reader.u64()?;
    let first_sent = Some(reader.i64()?).filter(|at| *at != NEVER).map(Timestamp);
    let trace = match reader.u8()? {
        0 => None,
        _ => Some(TraceContext {
            trace: reader.array()?,
            span: reader.array()?,
            flags: reader.u8()?,
        }),
    };
    let count = reader.u32()?;
    if count == 0 || seq == 0 || seq.checked_add(u64::from(count)).is_none() {
        return Err(MessageError("a publish without events or number"));
    }
    let events = EncodedEvents::from_wire(reader.bytes()?, count)
        .map_err(|_| MessageError("events that cannot be read"))?;
    Ok(Publish { connection, channel, user, producer, key, seq, first_sent, events, trace })
}

fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Stored(stored) => {
            out.put_u8(if stored.duplicate { 1 } else { 0 });
            out.put_u64_le(stored.first.0);
            out.put_u64_le(stored.last.0);
        }
        Outcome::NotStored => out.put_u8(2),
        Outcome::Unknown => out.put_u8(3),
        Outcome::Refused(refusal) => {
            out.put_u8(4);
            put_text(out, refusal.code.as_str());
            put_text(out, &refusal.message);
            let after = refusal
                .retry_after
                .map_or(u64::MAX, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            out.put_u64_le(after);
            out.put_u64_le(refusal.expected.unwrap_or(0));
        }
    }
}

fn outcome(reader: &mut Reader<'_>) -> Result<Outcome, MessageError> {
    Ok(match reader.u8()? {
        tag @ (0 | 1) => {
            let (first, last) = (Offset(reader.u64()?), Offset(reader.u64()?));
            Outcome::Stored(Stored { first, last, duplicate: tag == 1 })
        }
        2 => Outcome::NotStored,
        3 => Outcome::Unknown,
        4 => {
            let code = reader.text()?;
            let known = ErrorCode::ALL.iter().find(|known| known.as_str() == code);
            let mut refusal = Refusal::new(
                known.copied().unwrap_or(ErrorCode::Internal),
                reader.text()?.to_owned(),
            );
            let (after, expected) = (reader.u64()?, reader.u64()?);
            refusal.retry_after = (after != u64::MAX).then(|| Duration::from_millis(after));
            refusal.expected = (expected != 0).then_some(expected);
            Outcome::Refused(refusal)
        }
        _ => return Err(MessageError("an unknown outcome")),
    })
}

#[cfg(test)]
mod tests;
