//! Publishing: from a connection's submission to the journal's acknowledgement and back.
//!
//! [`Ingest`] is the one way in. A submission goes into the lane of its partition, which keeps order
//! and bounds; one task a partition carries the lane to the partition's appender, in this process or
//! in another gateway. The rules are pure state machines in `stormwire_journal`; here they meet
//! time, the journal and the other gateways.

mod api;

pub use api::{Answers, IngestConfig, PartitionStatus, Published, Role, Submission};
