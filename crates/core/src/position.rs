//! Where an event stands: frame sequence, offset, epoch, and the two together.

use std::fmt;
use std::str::FromStr;

/// Most events in one frame; also the factor between a frame's sequence and its events' offsets.
pub const MAX_EVENTS_PER_FRAME: usize = 4096;

/// The sequence number of a frame in its partition's journal, from 1. 0 means "before the first".
pub type FrameSeq = u64;

/// One incarnation of a partition's journal: 1, 2, 3 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The first one.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an event in its partition: `seq * 4096 + index`. It grows along a channel, fits in 53
/// bits, is never used twice and is not contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// Largest offset that JavaScript's numbers keep exactly.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The offset of event `index` of frame `seq`.
    #[must_use]
    pub const fn new(seq: FrameSeq, index: u16) -> Self {
        Self(seq * MAX_EVENTS_PER_FRAME as u64 + index as u64)
    }

    /// The frame that holds it.
    #[must_use]
    pub const fn seq(self) -> FrameSeq {
        self.0 / MAX_EVENTS_PER_FRAME as u64
    }

    /// Its place in that frame.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "below 4096")]
    pub const fn index(self) -> u16 {
        (self.0 % MAX_EVENTS_PER_FRAME as u64) as u16
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An offset and the epoch it belongs to; written `epoch:offset` in URLs, SSE ids and on the command
/// line. Ordered by epoch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// The place in it.
    pub offset: Offset,
}

/// A text that is not `epoch:offset`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position is written epoch:offset, two whole numbers, as in 1:4104192; this is {0:?}")]
pub struct PositionError(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let parse = || {
            let (epoch, offset) = text.split_once(':')?;
            let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
            if !digits(epoch) || !digits(offset) {
                return None;
            }
            let offset = Offset(offset.parse().ok()?);
            let epoch = Epoch(epoch.parse().ok()?);
            (offset <= Offset::MAX).then_some(Self { epoch, offset })
        };
        parse().ok_or_else(|| PositionError(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_offset_is_frame_and_index() {
        let offset = Offset::new(1002, 1);
        assert_eq!(offset, Offset(4_104_193));
        assert_eq!((offset.seq(), offset.index()), (1002, 1));
    }

    #[test]
    fn a_bad_position_is_quoted_with_the_form_that_is_due() {
        for bad in ["", "1", "1:", ":1", "1:-2", "+1:2", "a:b", "1:2:3", "1:9007199254740992"] {
            let error = bad.parse::<Position>().unwrap_err().to_string();
            assert!(error.contains("epoch:offset") && error.contains(bad), "{error}");
        }
    }

    proptest! {
        #[test]
        fn positions_round_trip(epoch: u32, offset in 0..=Offset::MAX.0) {
            let position = Position { epoch: Epoch(epoch), offset: Offset(offset) };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn offsets_order_as_frame_then_index(a in 0u64..1 << 40, i in 0u16..4096, b in 0u64..1 << 40, j in 0u16..4096) {
            prop_assert_eq!(Offset::new(a, i).cmp(&Offset::new(b, j)), (a, i).cmp(&(b, j)));
        }
    }
}
