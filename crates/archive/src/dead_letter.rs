//! What could not be stored as what it is.

use bytes::Bytes;
use stormwire_core::{Partition, Position, Timestamp};

/// An event or a frame that could not be stored as what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the archive.
    pub id: i64,
    /// Whose log it is from.
    pub partition: Partition,
    /// The first (or only) offset it stands for.
    pub position: Position,
    /// When the journal took it.
    pub ts: Timestamp,
    /// The channel, where it could be read.
    pub channel: Option<String>,
    /// Why it is here.
    pub error: String,
    /// A whole frame, or one event in the frame's encoding.
    pub bytes: Bytes,
    /// Whether `bytes` is a whole frame.
    pub whole_frame: bool,
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterFilter {
    /// Only of this partition.
    pub partition: Option<Partition>,
    /// Only numbers above this one.
    pub after: i64,
    /// At most so many.
    pub limit: usize,
}
