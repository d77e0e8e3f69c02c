//! The gateway: sockets and REST in, frames out, live fan-out.
//!
//! An event's way in: [`socket`] reads a message, `session` decides what it means and whether it may
//! be, `ingest` orders it in its partition's lane and packs it into a frame for the journal; the
//! journal's acknowledgement goes back the same way. Its way out: `tail` follows a partition's log
//! without a hole, `hub` renders each channel's events once and queues them for everybody who is live,
//! `feeder` brings everybody else up to there with pages from `reader`. Who is there, and signals that are
//! not stored, go beside it: `presence`.
//!
//! The gateway knows ports, never engines, and holds nothing that a client could not find again on
//! another gateway.

mod connections;
mod declared;
mod feeder;
pub mod forward;
mod gateway;
mod health;
mod http;
mod hub;
pub mod ingest;
mod listener;
mod outbox;
mod presence;
mod reader;
mod receipts;
mod render;
mod replies;
mod schema;
mod session;
#[cfg(test)]
mod simulation;
pub mod socket;
mod stats;
mod tail;
mod witness;
mod ws;

pub use gateway::{Gateway, GatewayConfig, GatewayPorts};
pub use http::openapi_document;
pub use hub::Selection;
pub use listener::PeerAddress;
pub use reader::{HistoryBounds, Page, Reader, Told};
pub use stats::{ChannelStats, GatewayStats, PartitionStats};
