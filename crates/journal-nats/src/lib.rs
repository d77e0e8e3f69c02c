//! ENGINE: the journal and the way between gateways, on NATS JetStream 2.15.
//!
//! It exists so that a cluster's log survives any one machine. A frame's way: [`NatsJournal`] publishes
//! it on `storm.events.<partition>.<epoch>` with the last sequence that the appender knows; the leader of
//! the stream `STORM_<partition>_<epoch>` stores it on a quorum or refuses it; stored, it is republished
//! on `storm.live.<partition>.<epoch>`, where every gateway's tail hears it. What a tail misses is read
//! again, by direct get from any replica or from the leader. [`NatsPeers`] carries heartbeats and
//! publishes between gateways over core NATS; [`NatsSignals`] what is told to subscribers and not stored.
//!
//! Appends, reads, tails, requests between gateways, heartbeats and signals have a connection each, so that none
//! waits behind another's bytes.
//!
//! Where NATS has permissions, a gateway must be able to publish to `storm.>`, `$JS.API.>` and `_INBOX.>`
//! and to subscribe to `storm.>`, `_INBOX.>` and `$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*`; a worker
//! publishes to `$JS.API.>` and `_INBOX.>` and subscribes to `storm.live.>` and the last two.

mod api;
mod append;
mod backlog;
mod caller;
mod config;
mod journal;
mod link;
mod names;
mod peers;
mod read;
mod settings;
mod signals;
mod tables;
mod tail;

pub use config::{NatsConfig, NatsError};
pub use journal::NatsJournal;
pub use peers::NatsPeers;
pub use signals::NatsSignals;
