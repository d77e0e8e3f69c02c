//! The stored ranges of one producer, packed: the newest in the clear, the others as differences of a
//! few bytes each.

use super::image::{ImageError, Reader};
use stormwire_core::Offset;

/// B1: how many of a producer's last publishes are kept. It is the bound on what a connection may have
/// unacknowledged, so whatever may rightly come again is among them.
pub(super) const PUBLISHES_MAX: usize = 256;
/// The oldest are dropped this many at a time.
const DROP: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Ranges {
    first: u64,
    offset: u64,
    count: u32,
    history: Option<Box<History>>,
}

/// Ranges before the newest, oldest first. Each is three numbers: the distance of its first number from
/// the end of the range before, its length less one, and the distance of its offset from the end of
/// the range before.
#[derive(Debug, Default)]
struct History {
    /// Number and offset that the first range's distances are counted from.
    base: (u64, u64),
    /// Number and offset of the end of the last range.
    end: (u64, u64),
    len: usize,
    bytes: Vec<u8>,
}

struct Range {
    first: u64,
    offset: u64,
    count: u64,
}

impl Range {
    const fn end(&self) -> (u64, u64) {
        (self.first + self.count - 1, self.offset + self.count - 1)
    }
}

impl Ranges {
    /// The highest number stored; 0 if there is none.
    pub(super) const fn highest(&self) -> u64 {
        if self.count == 0 { 0 } else { self.first + self.count as u64 - 1 }
    }

    /// Adds the newest range. One that does not lie behind all others says nothing new and is dropped.
    pub(super) fn push(&mut self, first: u64, count: u32, offset: Offset) {
        if count == 0 || first <= self.highest() {
            return;
        }
        let touches =
            first == self.highest() + 1 && offset.0 == self.offset + u64::from(self.count);
        if let Some(sum) = self.count.checked_add(count).filter(|_| self.count > 0 && touches) {
            self.count = sum;
            return;
        }
        if self.count > 0 {
            let newest =
                Range { first: self.first, offset: self.offset, count: u64::from(self.count) };
            self.history.get_or_insert_default().push(&newest);
        }
        (self.first, self.count, self.offset) = (first, count, offset.0);
    }

    /// The offset of number `seq`, and the last number of the range that it is in.
    pub(super) fn find(&self, seq: u64) -> Option<(Offset, u64)> {
        if self.count > 0 && seq >= self.first {
            let found = seq <= self.highest();
            return found.then(|| (Offset(self.offset + seq - self.first), self.highest()));
        }
        let range = self.history.as_ref()?.iter().find(|range| seq <= range.end().0)?;
        (seq >= range.first).then(|| (Offset(range.offset + seq - range.first), range.end().0))
    }

    /// Keeps at most `keep` ranges before the newest.
    pub(super) fn shorten(&mut self, keep: usize) {
        let Some(history) = &mut self.history else { return };
        if keep == 0 {
            self.history = None;
        } else if history.len > keep {
            history.drop_first(history.len - keep);
            history.bytes.shrink_to_fit();
        }
    }

    /// Appends the ranges as bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let len = self.history.as_ref().map_or(0, |history| history.len);
        for number in [self.first, u64::from(self.count), self.offset, len as u64] {
            put(out, number);
        }
        if let Some(History { base, bytes, .. }) = self.history.as_deref().filter(|of| of.len > 0) {
            for number in [base.0, base.1, bytes.len() as u64] {
                put(out, number);
            }
            out.extend_from_slice(bytes);
        }
    }

    /// Reads what [`Ranges::encode`] wrote; nothing that could not have come from there.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, ImageError> {
        let (first, count, offset) = (reader.number()?, reader.number()?, reader.number()?);
        let count = u32::try_from(count).map_err(|_| ImageError("a range that is too long"))?;
        let fits = count > 0 && first.checked_add(u64::from(count)).is_some();
        if first == 0 || !fits || offset.checked_add(u64::from(count)).is_none() {
            return Err(ImageError("a range without numbers"));
        }
        let history = match reader.number()? {
            0 => None,
            len => Some(Box::new(History::decode(reader, len, first)?)),
        };
        Ok(Self { first, offset, count, history })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, |history| size_of::<History>() + history.bytes.capacity())
    }
}

impl History {
    fn push(&mut self, range: &Range) {
        let (seq, offset) = self.end;
        for number in [range.first - seq, range.count - 1, range.offset.wrapping_sub(offset)] {
            put(&mut self.bytes, number);
        }
        self.end = range.end();
        self.len += 1;
        if self.len >= PUBLISHES_MAX + DROP {
            self.drop_first(DROP);
        }
    }

    fn decode(reader: &mut Reader<'_>, len: u64, newest: u64) -> Result<Self, ImageError> {
        let bad = ImageError("ranges that do not follow each other");
        let len = usize::try_from(len).ok().filter(|len| *len < PUBLISHES_MAX + DROP).ok_or(bad)?;
        let base = (reader.number()?, reader.number()?);
        let bytes = usize::try_from(reader.number()?).map_err(|_| bad)?;
        let mut ranges = reader.part(bytes)?;
        let bytes = ranges.rest().to_vec();
        let mut end = base;
        for _ in 0..len {
            let (distance, less_one, offset) =
                (ranges.number()?, ranges.number()?, ranges.number()?);
            let first = end.0.checked_add(distance).filter(|first| *first > 0).ok_or(bad)?;
            let offset = end.1.wrapping_add(offset);
            let last = first.checked_add(less_one).ok_or(bad)?;
            end = (last, offset.checked_add(less_one).ok_or(bad)?);
        }
        if !ranges.rest().is_empty() || end.0 >= newest {
            return Err(bad);
        }
        Ok(Self { base, end, len, bytes })
    }

    fn drop_first(&mut self, count: usize) {
        let (mut at, mut end) = (0, self.base);
        for _ in 0..count {
            end = take_range(&self.bytes, &mut at, end).end();
        }
        self.bytes.drain(..at);
        self.base = end;
        self.len -= count;
    }

    fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        let (mut at, mut end) = (0, self.base);
        (0..self.len).map(move |_| {
            let range = take_range(&self.bytes, &mut at, end);
            end = range.end();
            range
        })
    }
}

fn take_range(bytes: &[u8], at: &mut usize, (seq, offset): (u64, u64)) -> Range {
    let first = seq + take(bytes, at);
    let count = take(bytes, at) + 1;
    Range { first, count, offset: offset.wrapping_add(take(bytes, at)) }
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits")]
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    bytes.push(number as u8);
}

fn take(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}
