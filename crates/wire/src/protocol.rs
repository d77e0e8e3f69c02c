//! The client protocol, version 1: one set of types, two codecs.
//!
//! A WebSocket message is one operation or an array of them (in protobuf always a list). What a client
//! says is a [`Request`]; what a server says is a [`ServerMessage`]. A publish is read straight into
//! the frame's encoding ([`crate::frame::EncodedEvents`]): its data is checked to be JSON and copied
//! once, never made into a tree. Fields that this version does not know are skipped, so that a newer
//! client can talk to an older server; a field given twice is refused.
//!
//! What a subscriber sees goes the other way without a tree as well: [`EventsEncoder`] writes each
//! event once per codec, and the bytes are shared by everybody who reads that channel.

pub(crate) mod bounds;
mod cursor;
pub(crate) mod encode;
mod events;
pub mod json;
mod operations;
mod presence;
pub mod proto;
mod server;

pub use bounds::{MessageLimits, channel, check_producer, page_of_key, page_of_keys};
pub use cursor::Cursor;
pub use encode::{MessageBatch, error, message, published, request};
pub use events::{EventsBody, EventsEncoder, OutEvent};
pub use operations::{
    Connect, History, Mode, Operation, Page, Payload, Publish, Receipt, Request, RequestId, Signal,
    Since, Subscribe, Target,
};
pub use presence::{
    MEMBERS_CURSOR_BYTES_MAX, MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX, Member, MemberChange,
    MembersPage, PresenceQuery,
};
pub use server::{
    Connected, ConnectedLimits, DeliveredEvent, ErrorMessage, EventsMessage, Gap, GapTarget,
    HistoryPage, Published, ServerMessage, Subscribed,
};

use crate::frame::DATA_BYTES_MAX;
use std::fmt;
use stormwire_core::{MAX_EVENTS_PER_FRAME, Refusal};

/// Most bytes of one WebSocket message or of one REST body.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most operations in one WebSocket message.
pub const OPERATIONS_PER_MESSAGE_MAX: usize = 1024;
/// Most events in one publish.
pub const EVENTS_PER_PUBLISH_MAX: usize = MAX_EVENTS_PER_FRAME;
/// Most bytes of one event's data, unless its namespace says otherwise.
pub const EVENT_BYTES_DEFAULT: usize = 64 * 1024;
/// Deepest nesting of arrays and objects in JSON.
pub const DEPTH_MAX: u32 = 128;
/// Most channels named by one subscribe or unsubscribe.
pub const CHANNELS_PER_SUBSCRIBE_MAX: usize = 1000;
/// Most events in a page of history.
pub const HISTORY_LIMIT_MAX: u32 = 1000;
/// Events in a page of history that asks for no number.
pub const HISTORY_LIMIT_DEFAULT: u32 = 100;
/// Most bytes of a request id that is a text.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Most bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Largest whole number that JavaScript keeps exactly; the bound of sequence numbers and offsets.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

const _: () = assert!(EVENT_BYTES_DEFAULT <= DATA_BYTES_MAX);
const _: () = assert!(DATA_BYTES_MAX < MESSAGE_BYTES_MAX);

/// How messages are written on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Text messages, JSON.
    #[default]
    Json,
    /// Binary messages, protobuf.
    Protobuf,
}

impl Codec {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The WebSocket subprotocol that asks for it.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "stormwire.v1.json",
            Self::Protobuf => "stormwire.v1.proto",
        }
    }

    /// The codec of a WebSocket subprotocol, if it is one of ours.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.subprotocol() == name)
    }
}

/// An operation that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The request it answers, where that could be read.
    pub id: Option<RequestId>,
    /// What is wrong.
    pub refusal: Refusal,
    /// Whether the rest of the message was lost with it: the peer does not speak the protocol, and the
    /// connection is closed with 4400 (4413 for a message past its bound).
    pub fatal: bool,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

#[cfg(test)]
mod tests;
