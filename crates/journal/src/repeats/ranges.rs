//! The stored ranges of one producer, packed: the newest in the clear, the others as differences of a
//! few bytes each.

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
