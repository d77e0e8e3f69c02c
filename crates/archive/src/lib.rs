//! PORT: the archive, the long store of events, with the ledger that makes each of them count once.
//!
//! The *ledger* has one row a partition: the last frame whose events are in the archive. It moves only
//! in the transaction that stores those events, and only by the holder of the partition's lease. It
//! alone says where a worker goes on; acknowledgements to the journal decide nothing.

mod dead_letter;
mod latest;
mod port;
mod retention;
mod settings;
#[cfg(feature = "suite")]
pub mod suite;

pub use dead_letter::{DeadLetter, DeadLetterFilter};
pub use latest::{KeyQuery, LatestPage};
pub use port::{
    Archive, ArchiveError, Batch, ChannelInfo, ChannelQuery, Counted, Gap, HistoryPage,
    HistoryQuery, Lease, LedgerEntry, MISSING_MAX, Missing, PersistError, Roster, StoredEvent,
    Undecodable,
};
pub use retention::{Retained, Retention, Rule};
pub use settings::{OperatorLine, Setting, Settings};
