//! ENGINE: the archive on Postgres. It exists to store each event exactly once, at nearly the speed of
//! a bare COPY, and to answer history pages from the same tables.
//!
//! A batch is one transaction: binary COPY first, encoded straight from the frames; last, in one round
//! trip, a SQL function that checks lease and ledger, moves the ledger and the `COMMIT` behind it. So no
//! row is locked while Postgres waits for this process, and a worker that stops in the middle of a COPY
//! stands in nobody's way. There is no unique index: the ledger alone makes a repeat impossible.
//!
//! - `persist`, `copy`, `memory`: a batch on its way in, and what is kept between batches;
//! - `refused`: rows that Postgres will not store become dead letters, the rest of the batch goes on;
//! - `history`, `prefix`, `channels`, `positions`, `dead_letters`, `leases`: the other tables;
//! - `readers`: whether the replica or the primary answers a read of history;
//! - `partitions`: tables by time, made ahead; `retention`: what is removed, and when;
//! - `server`: one database with its pool and its guard; `hosts`: which of several it is.

mod archive;
mod channels;
mod config;
mod copy;
mod dead_letters;
mod error;
mod history;
mod hosts;
mod inspect;
mod latest;
mod leases;
mod literal;
mod memory;
mod partitions;
mod persist;
mod positions;
mod prefix;
mod readers;
mod refused;
mod retention;
mod schema;
mod server;
mod settings;
mod time;

pub use archive::PostgresArchive;
pub use config::{PartitionSpan, PostgresConfig};
pub use inspect::{Inspection, inspect};
