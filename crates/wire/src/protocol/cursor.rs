//! The position of a pattern, which spans partitions: opaque to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use stormwire_core::{Epoch, MAX_EVENTS_PER_FRAME, Offset, Partition, PartitionCount, Position};

const VERSION: u8 = 2;
/// Most bytes of a partition's entry: partition, epoch, sequence number with its mark, index.
const ENTRY_BYTES_MAX: usize = 1 + 5 + 7 + 2;
/// The index of a position behind a whole frame, which most positions are.
const WHOLE: u64 = MAX_EVENTS_PER_FRAME as u64 - 1;

/// One position a partition, ascending by partition, each partition at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(Vec<(Partition, Position)>);

impl Cursor {
    /// The cursor of these positions; of two of one partition the later one counts.
    #[must_use]
    pub fn new(positions: impl IntoIterator<Item = (Partition, Position)>) -> Self {
        let mut cursor = Self::default();
        for (partition, position) in positions {
            cursor.advance(partition, position);
        }
        cursor
    }

    /// Moves one partition; a position behind the one it has is ignored.
    pub fn advance(&mut self, partition: Partition, position: Position) {
        match self.0.binary_search_by_key(&partition, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(position),
            Err(at) => self.0.insert(at, (partition, position)),
        }
    }

    /// Puts one partition where it is said to be, be that further or back.
    pub fn set(&mut self, partition: Partition, position: Position) {
        match self.0.binary_search_by_key(&partition, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = position,
            Err(at) => self.0.insert(at, (partition, position)),
        }
    }

    /// The position in one partition.
    #[must_use]
    pub fn get(&self, partition: Partition) -> Option<Position> {
        let at = self.0.binary_search_by_key(&partition, |(known, _)| *known).ok()?;
        Some(self.0[at].1)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Position)> {
        self.0.iter().copied()
    }

    /// The text that a client keeps. It comes with every message of a pattern, so it is short: some six
    /// bytes a partition.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(1 + self.0.len() * ENTRY_BYTES_MAX);
        bytes.push(VERSION);
        for (partition, position) in &self.0 {
            let (seq, index) = (position.offset.seq(), u64::from(position.offset.index()));
            put(&mut bytes, u64::from(partition.0));
            put(&mut bytes, u64::from(position.epoch.0));
            put(&mut bytes, seq << 1 | u64::from(index == WHOLE));
            if index != WHOLE {
                put(&mut bytes, index);
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let text_max = (1 + usize::from(PartitionCount::MAX) * ENTRY_BYTES_MAX).div_ceil(3) * 4;
        if text.len() > text_max {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut positions: Vec<(Partition, Position)> = Vec::new();
        while !rest.is_empty() {
            let partition = Partition(u16::try_from(take(&mut rest)?).ok()?);
            let epoch = Epoch(u32::try_from(take(&mut rest)?).ok()?);
            let seq = take(&mut rest)?;
            let index = if seq & 1 == 1 { WHOLE } else { take(&mut rest)? };
            let offset = (seq >> 1).checked_mul(MAX_EVENTS_PER_FRAME as u64)?.checked_add(index)?;
            let ascends = positions.last().is_none_or(|(last, _)| *last < partition);
            let holds = partition.0 < PartitionCount::MAX && index <= WHOLE;
            if !ascends || !holds || offset > Offset::MAX.0 {
                return None;
            }
            positions.push((partition, Position { epoch, offset: Offset(offset) }));
        }
        Some(Self(positions))
    }
}

/// Appends a number, seven bits a byte, the low ones first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
