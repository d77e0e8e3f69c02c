//! The protobuf codec. `proto/stormwire.v1.proto` is its contract; [`messages`] are the same messages
//! as structs, and a test holds the two together. Publishes and events, which make up the traffic, are
//! read and written by hand on top of [`raw`]; everything else goes by way of the structs.

mod client;
mod decode;
pub mod messages;
pub(crate) mod raw;
mod server;

pub(crate) use client::request;
pub use decode::Requests;
pub use server::server_messages;
pub(crate) use server::{message, stretch};
