//! What a client says.

use super::{Cursor, PresenceQuery};
use crate::frame::EncodedEvents;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Pattern, Position, Timestamp};

/// What a client calls a request; its answer carries it as it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// A whole number of 64 bits.
    Number(i64),
    /// A text of at most 64 bytes.
    Text(Box<str>),
}

/// One operation of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// What its answer carries; without one, only errors and publishes are answered.
    pub id: Option<RequestId>,
    /// What is asked for.
    pub op: Operation<'a>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation<'a> {
    /// The first operation of a connection.
    Connect(Connect),
    /// Events of some channels from now on, or from a point in the past on.
    Subscribe(Subscribe),
    /// Store and deliver events.
    Publish(Publish<'a>),
    /// Deliver something to those who are there, without storing it.
    Signal(Signal<'a>),
    /// A page of a channel's past.
    History(History),
    /// Who is there.
    Presence(PresenceQuery),
    /// No more events of these.
    Unsubscribe(Target),
    /// Carry on with a fresh token.
    Refresh(Box<str>),
    /// Are you there?
    Ping,
}

impl Operation<'_> {
    /// Its name in the protocol.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Subscribe(_) => "subscribe",
            Self::Publish(_) => "publish",
            Self::Signal(_) => "signal",
            Self::History(_) => "history",
            Self::Presence(_) => "presence",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Refresh(_) => "refresh",
            Self::Ping => "ping",
        }
    }
}

/// `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connect {
    /// The access token; absent when the HTTP request carried it.
    pub token: Option<Box<str>>,
    /// The producer id that this process drew at its start.
    pub producer: Option<Arc<str>>,
}

/// `subscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Which channels.
    pub target: Target,
    /// From where on; from now on without it.
    pub since: Option<Since>,
    /// All events, or the newest by key when the reader is slow.
    pub mode: Mode,
    /// Whether to tell who joins and leaves.
    pub presence: bool,
}

/// Which channels a subscription is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// These, at least one.
    Channels(Vec<Channel>),
    /// All that match.
    Pattern(Pattern),
}

/// From where on a subscription wants events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// After this position.
    Position(Position),
    /// From this time on.
    Time(Timestamp),
    /// The last so many.
    Last(u32),
    /// Where a pattern's `events` left off.
    Cursor(Cursor),
}

/// What a slow reader is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every event.
    #[default]
    All,
    /// The newest event of each key.
    Latest,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Receipt {
    /// Replicated and on disk in the journal.
    #[default]
    Journal,
    /// Committed in the archive.
    Archive,
}

/// `publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The channel as it was written. Not checked yet: look it up among those that were, or use
    /// [`super::channel`].
    pub channel: Cow<'a, str>,
    /// The producer's number of the first event, from 1.
    pub seq: Option<u64>,
    /// This was sent before, so long ago at most.
    pub again: Option<Duration>,
    /// What the acknowledgement shall mean.
    pub receipt: Receipt,
    /// The events, checked; at least one.
    pub events: EncodedEvents,
}

/// JSON text as it came in, or bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Checked JSON.
    Json(Cow<'a, str>),
    /// Anything.
    Binary(Cow<'a, [u8]>),
}

impl Payload<'_> {
    /// The same, kept apart from what it was read from.
    #[must_use]
    pub fn into_owned(self) -> Payload<'static> {
        match self {
            Self::Json(text) => Payload::Json(Cow::Owned(text.into_owned())),
            Self::Binary(bytes) => Payload::Binary(Cow::Owned(bytes.into_owned())),
        }
    }

    /// The bytes, and whether they are anything but JSON.
    #[must_use]
    pub fn parts(&self) -> (&[u8], bool) {
        match self {
            Self::Json(text) => (text.as_bytes(), false),
            Self::Binary(bytes) => (bytes, true),
        }
    }
}

/// `signal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal<'a> {
    /// Who listens.
    pub channel: Channel,
    /// What they are told.
    pub data: Payload<'a>,
}

/// `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whose past.
    pub channel: Channel,
    /// Which part of it.
    pub page: Page,
    /// At most so many events.
    pub limit: u32,
}

/// Which part of a channel's past; answered in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The newest.
    Last,
    /// The oldest after this position.
    After(Position),
    /// The newest before this position.
    Before(Position),
    /// The newest event of this key.
    Key(Box<str>),
    /// The newest event of each key behind this one, ascending by the keys' bytes; empty: from the first.
    KeysAfter(Box<str>),
}
