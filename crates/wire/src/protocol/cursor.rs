//! The position of a pattern, which spans partitions: opaque to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use stormwire_core::{Epoch, Offset, Partition, PartitionCount, Position};

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 2 + 4 + 8;

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

    /// The text that a client keeps.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(1 + self.0.len() * ENTRY_BYTES);
        bytes.push(VERSION);
        for (partition, position) in &self.0 {
            bytes.extend(partition.0.to_le_bytes());
            bytes.extend(position.epoch.0.to_le_bytes());
            bytes.extend(position.offset.0.to_le_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let text_max = (1 + usize::from(PartitionCount::MAX) * ENTRY_BYTES).div_ceil(3) * 4;
        if text.len() > text_max {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, entries) = bytes.split_first()?;
        if *version != VERSION || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let mut positions: Vec<(Partition, Position)> = Vec::new();
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let partition = Partition(u16::from_le_bytes(entry[..2].try_into().ok()?));
            let epoch = Epoch(u32::from_le_bytes(entry[2..6].try_into().ok()?));
            let offset = Offset(u64::from_le_bytes(entry[6..].try_into().ok()?));
            let ascends = positions.last().is_none_or(|(last, _)| *last < partition);
            if !ascends || partition.0 >= PartitionCount::MAX || offset > Offset::MAX {
                return None;
            }
            positions.push((partition, Position { epoch, offset }));
        }
        Some(Self(positions))
    }
}
