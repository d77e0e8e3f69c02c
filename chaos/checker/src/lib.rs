//! Decides from histories whether Stormwire kept its guarantees.
//!
//! In: what many producers sent and were answered, what many subscribers saw, and what the archive holds
//! ([`history`], described for other checkers in `docs/histories.md`). Out: a [`Verdict`]. The core,
//! [`Checker`], does no IO and shares no code with the product: it knows the guarantees alone.
//!
//! * every acknowledged event is in the archive once, where its acknowledgement says, unchanged;
//! * an event all of whose attempts were refused is not there, an unknown one at most once, and nothing
//!   that nobody sent;
//! * a channel has one order: that of the archive, for every subscriber;
//! * the events of a producer keep its order in each partition;
//! * a feed is a contiguous part of its channel, over reconnects too: what is missing was told as a gap.
//!
//! The archive is sorted once; each feed is walked along it and forgotten. So memory is some 80 bytes an
//! event, however many subscribers saw it.

mod checker;
mod evidence;
mod feed;
mod folder;
pub mod history;
mod names;
mod producer;
mod verdict;

pub use checker::Checker;
pub use feed::FeedCheck;
pub use folder::{FolderError, check, explain};
pub use history::{Position, ProducerRecord, Row, SubscriberRecord};
pub use producer::ProducerCheck;
pub use verdict::{Kind, Totals, Verdict, Violation};

/// A history that contradicts itself: it says nothing about the system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HistoryError(pub String);
