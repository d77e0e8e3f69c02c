//! MESSAGES: the worker between journal and archive. It exists so that every acknowledged event is in
//! the archive exactly once, in the journal's order, whatever fails in between.
//!
//! A worker holds some partitions by lease. For each of them it asks the archive's ledger where to go
//! on, reads the frames after it without a hole, and persists them batch by batch; the ledger moves in
//! the transaction that stores the events, so nothing is lost and nothing counts twice. What the worker
//! remembers decides nothing: it begins again from the ledger after every doubt.
//!
//! - [`Worker`]: who holds what; `share`: how much is fair;
//! - `partition`: one partition, from ledger to ledger; `follow`: its frames, as they come;
//! - `plan`: what to do next, decided without IO; `trim`: what the journal may forget;
//! - `retention`: what the archive may forget;
//! - [`DeadLetters`]: what could not be stored as what it is;
//! - [`Restore`]: frames of a backup, stored behind the ledger of a restored archive.

mod config;
mod dead_letters;
mod follow;
mod partition;
mod plan;
mod progress;
mod restore;
mod retention;
mod share;
mod trace;
mod trim;
mod worker;

pub use config::MessagesConfig;
pub use dead_letters::{DeadLetters, ReplayError, Replayed};
pub use restore::{Restore, RestoreError, Restored};
pub use worker::Worker;
