//! The words of a decision: who asks, for what, and what the answer was.

use std::net::IpAddr;
use std::time::Duration;
use stormwire_core::Refusal;

/// How the request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over HTTP, one request at a time.
    Rest,
    /// Over a WebSocket.
    WebSocket,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The signed-in user; empty before sign-in, then only the address counts.
    pub user: &'a str,
    /// Where the request comes from. IPv6 is counted by /64.
    pub ip: IpAddr,
    /// The channel published to.
    pub channel: Option<&'a str>,
    /// Limits that the token carries.
    pub limits: Option<&'a OwnLimits>,
    /// How it came.
    pub transport: Transport,
}

/// Limits that a token carries; what is `None` follows the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLimits {
    /// No limit at all.
    pub unlimited: bool,
    /// Requests over REST in a minute.
    pub requests_per_minute: Option<u64>,
    /// Events published in a second.
    pub events_per_second: Option<u64>,
    /// Bytes of events published in a second.
    pub bytes_per_second: Option<u64>,
    /// Signals in a second.
    pub signals_per_second: Option<u64>,
}

/// What it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Requests; counted over REST only.
    pub requests: u64,
    /// Events to be stored.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Signals, which are counted apart from everything else.
    pub signals: u64,
}

/// What a client is told about its limit: the members of the `RateLimit` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Units in a window.
    pub limit: u64,
    /// The window.
    pub window: Duration,
    /// Units left, as far as is known here.
    pub remaining: u64,
    /// When all are there again if nothing more is spent.
    pub reset: Duration,
}

/// A decision with what a client is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Admitted, or why not and when to come back.
    pub outcome: Result<(), Refusal>,
    /// The limit that is nearest to its end; `None` if none applies.
    pub quota: Option<Quota>,
}
