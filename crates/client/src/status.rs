//! How a client stands, for whoever shows it or waits for it.

use crate::End;
use std::time::Instant;

/// The way that a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Requests, Server-Sent Events and long polls, where no WebSocket passes.
    Http,
}

/// Which ways a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transports {
    /// A WebSocket, HTTP while none passes, and a WebSocket again as soon as one does.
    #[default]
    Any,
    /// A WebSocket alone.
    WebSocket,
    /// HTTP alone.
    Http,
}

/// How a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// There was no connection yet.
    Connecting,
    /// What is sent goes out.
    Connected(Transport),
    /// What is sent waits: the connection is lost, or could not be had again.
    Reconnecting {
        /// Why.
        why: String,
        /// When the next attempt begins.
        next_attempt: Instant,
    },
    /// There will be no further connection.
    Ended(End),
}
