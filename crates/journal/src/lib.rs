//! PORT: the journal, the short durable log of each partition, and the one writer of it.
//!
//! A [`Journal`] keeps frames: one log a partition and epoch, numbered from 1 without a hole. It is
//! written by one appender a partition, tailed by every gateway and pulled by the workers. What
//! protects the log from two writers is the journal's own check of the expected last sequence,
//! nothing else.

pub mod appender;
pub mod epoch;
pub mod lane;
pub mod message;
pub mod owner;
pub mod publish;
pub mod repeats;
pub mod rewind;

mod flight;
mod known;
mod peers;
mod port;
mod rebuild;
#[cfg(feature = "suite")]
pub mod suite;

pub use flight::{ATTEMPT, Found, Op, OpResult};
pub use known::Known;
pub use peers::{Beat, PeerError, PeerRequest, Peers};
pub use port::{
    AppendError, Journal, JournalError, SavedTable, StoredFrame, TABLE_BYTES_MAX, Tail, TailEvent,
    Tip,
};
pub use rebuild::LogEnd;
