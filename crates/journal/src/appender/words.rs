//! What goes into an appender and comes out of it.

use crate::port::SavedTable;
use crate::publish::{Outcome, Publish};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq};

/// How an appender is set up.
#[derive(Debug, Clone)]
pub struct AppenderConfig {
    /// The gateway it lives in.
    pub gateway: String,
    /// How long an idle appender waits for more events; zero writes at once.
    pub linger: Duration,
    /// Bytes for the table of producers.
    pub repeats_bytes_max: usize,
}

/// What its owner has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The partition is this appender's, from frame `claim` of `epoch` on.
    Claimed {
        /// The log's incarnation.
        epoch: Epoch,
        /// The sequence of the claim frame.
        claim: FrameSeq,
    },
    /// Another was faster; the log has to be read on before a new claim.
    ClaimRefused,
    /// E1: the log has gone back behind frames that this appender knows. It is not written any further.
    Rewound {
        /// The log's incarnation.
        epoch: Epoch,
        /// The highest frame that is known to have been there.
        seen: FrameSeq,
    },
    /// Another has claimed the partition.
    Fenced,
    /// All that waited is written, and the partition is free to be claimed by another.
    Released {
        /// The table of producers as it is now, if it was not saved like that before.
        table: Option<SavedTable>,
    },
    /// D5: the journal did not answer; the partition is left to a gateway that reaches it.
    GaveUp,
    /// A frame was acknowledged.
    Written {
        /// Events in it.
        events: usize,
        /// Bytes of it.
        bytes: usize,
        /// From its first attempt to the acknowledgement.
        took: Duration,
        /// Whether some attempt's outcome was unknown.
        uncertain: bool,
    },
    /// Repeats were answered without being written.
    Duplicates(usize),
}

/// What has become of a batch.
#[derive(Debug)]
pub struct Answer<O> {
    /// The word of the one who pushed it.
    pub origin: O,
    /// The incarnation that the offsets belong to.
    pub epoch: Epoch,
    /// The batch as it was pushed.
    pub items: Vec<Publish>,
    /// What became of each item.
    pub outcomes: Vec<Outcome>,
}
