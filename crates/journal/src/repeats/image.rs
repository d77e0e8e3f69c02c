//! A table as bytes, version 1: saved beside the log, and read back by the next owner (B7).
//!
//! ```text
//! table     'T' version | appender 16 | counter u64 | horizon i64
//!           users u32 × (word u64, horizon u32)     users with a horizon of their own
//!           producers u32 × producer
//! producer  key 16 | written u32 | first | count | offset | ranges [| base first | base offset |
//!           bytes | those ranges' bytes]
//! ```
//! Numbers without a size have seven bits a byte, lowest first; the others are little-endian.
//! Appender and counter are those of the last frame that the table counts: whoever reads the table sees
//! by them that it belongs to the log.

use super::ranges::Ranges;
use super::{Repeats, VACANT};
use crate::port::TABLE_BYTES_MAX;
use crate::publish::ProducerKey;
use bytes::{BufMut as _, Bytes};
use stormwire_core::Timestamp;
use stormwire_wire::frame::FrameId;

const MAGIC: u8 = b'T';
const VERSION: u8 = 1;
/// What a producer takes at least.
const PRODUCER_BYTES_MIN: usize = 16 + 4 + 4;
/// What a producer takes at most, beside the bytes of its ranges.
const PRODUCER_HEAD_BYTES: usize = 16 + 4 + 7 * 10;
const USER_BYTES: usize = 8 + 4;
const HEAD_BYTES: usize = 2 + 16 + 8 + 8 + 4 + 4;

/// Bytes that are no table of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a table of producers of version {VERSION}: {0}")]
pub struct ImageError(pub(super) &'static str);

impl Repeats {
    /// The table as bytes, at most [`TABLE_BYTES_MAX`]: of a larger one the oldest entries are left out,
    /// and it reaches less far back. `last` is the last frame that it counts.
    #[must_use]
    pub fn image(&self, last: FrameId) -> Bytes {
        self.image_within(last, TABLE_BYTES_MAX)
    }

    pub(super) fn image_within(&self, last: FrameId, bytes_max: usize) -> Bytes {
        let users: Vec<_> = self.users.raised().collect();
        let head = HEAD_BYTES + users.len() * USER_BYTES;
        let (written, size) = self.fits(bytes_max.saturating_sub(head));
        let mut out = Vec::with_capacity(head + size);
        out.put_slice(&[MAGIC, VERSION]);
        out.put_slice(&last.appender);
        out.put_u64_le(last.counter);
        out.put_i64_le(self.horizon.0.max(i64::from(written) * 1000));
        out.put_u32_le(u32::try_from(users.len()).unwrap_or(u32::MAX));
        for (word, horizon) in users {
            out.put_u64_le(word);
            out.put_u32_le(horizon);
        }
        let count_at = out.len();
        out.put_u32_le(0);
        let mut count = 0u32;
        for producer in &self.producers {
            let known = producer.user != VACANT && producer.ranges.highest() > 0;
            if known && producer.written >= written {
                let ProducerKey(words) = producer.key;
                words.iter().for_each(|word| out.put_u64_le(*word));
                out.put_u32_le(producer.written);
                producer.ranges.encode(&mut out);
                count += 1;
            }
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        Bytes::from(out)
    }

    /// Which producers fit into `room`: those that wrote since this second. And about how many bytes.
    fn fits(&self, room: usize) -> (u32, usize) {
        let known = self.producers.iter().filter(|producer| producer.user != VACANT);
        let size = |producer: &super::Producer| PRODUCER_HEAD_BYTES + producer.ranges.heap_bytes();
        let all: usize = known.clone().map(size).sum();
        if all <= room {
            return (0, all);
        }
        let mut newest: Vec<_> = known.map(|of| (of.written, size(of))).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let mut taken = 0;
        for (written, size) in newest {
            if taken + size > room {
                return (written + 1, taken);
            }
            taken += size;
        }
        (0, taken)
    }

    /// Reads a table that was made by [`Repeats::image`]; it takes at most about `bytes_max`.
    ///
    /// # Errors
    /// [`ImageError`] if it is not one.
    pub fn from_image(bytes: &[u8], bytes_max: usize) -> Result<(Self, FrameId), ImageError> {
        let mut reader = Reader { bytes };
        if reader.array()? != [MAGIC, VERSION] {
            return Err(ImageError("another version"));
        }
        let id = FrameId { appender: reader.array()?, counter: reader.u64()? };
        let mut repeats = Self::new(Timestamp(reader.u64()?.cast_signed()), bytes_max);
        for _ in 0..reader.count(USER_BYTES)? {
            let (word, horizon) = (reader.u64()?, reader.u32()?);
            repeats.users.raise(word, horizon);
        }
        let count = reader.count(PRODUCER_BYTES_MIN)?;
        repeats.producers.reserve_exact(count);
        for _ in 0..count {
            let key = ProducerKey([reader.u64()?, reader.u64()?]);
            if repeats.find(key).is_some() {
                return Err(ImageError("a producer comes twice"));
            }
            let written = reader.u32()?;
            let ranges = Ranges::decode(&mut reader)?;
            let slot = repeats.insert(key);
            let producer = &mut repeats.producers[slot.0 as usize];
            (producer.written, producer.ranges) = (written, ranges);
        }
        if !reader.bytes.is_empty() {
            return Err(ImageError("bytes left over"));
        }
        (repeats.kept_bytes, repeats.grown) = (repeats.live_bytes(), 0);
        Ok((repeats, id))
    }
}

/// Reads the parts of a table; nothing beyond its end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ImageError> {
        let (part, rest) = self.bytes.split_at_checked(len).ok_or(ImageError("too short"))?;
        self.bytes = rest;
        Ok(part)
    }

    /// The next `len` bytes apart.
    pub(super) fn part(&mut self, len: usize) -> Result<Self, ImageError> {
        self.take(len).map(|bytes| Self { bytes })
    }

    /// What is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, ImageError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ImageError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things that take at least so many bytes each.
    fn count(&mut self, least: usize) -> Result<usize, ImageError> {
        let count = self.u32()? as usize;
        let fits = count.checked_mul(least).is_some_and(|bytes| bytes <= self.bytes.len());
        if fits { Ok(count) } else { Err(ImageError("more than there are bytes for")) }
    }

    /// A number of seven bits a byte.
    pub(super) fn number(&mut self) -> Result<u64, ImageError> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ImageError("a number that is too large"))
    }
}

#[cfg(test)]
mod tests;
