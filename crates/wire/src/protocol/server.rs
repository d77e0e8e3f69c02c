//! What a server says.

use super::{Cursor, MemberChange, MembersPage, OutEvent, Payload, RequestId};
use std::borrow::Cow;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, ErrorCode, Offset, Partition, Position, Refusal, Timestamp};

/// One message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// The connection is authenticated.
    Connected(Connected),
    /// A subscription begins; one for each channel.
    Subscribed(Subscribed),
    /// The events of a publish are durable.
    Published(Published),
    /// Events of one channel.
    Events(EventsMessage<'a>),
    /// Events that cannot be given any more.
    Gap(Gap),
    /// A page of a channel's past.
    History(HistoryPage<'a>),
    /// Who is there.
    Presence(MembersPage),
    /// Somebody came.
    Joined(MemberChange),
    /// Somebody went.
    Left(MemberChange),
    /// What somebody said without storing it.
    Signal {
        /// Where.
        channel: Channel,
        /// Who.
        from: Cow<'a, str>,
        /// What.
        data: Payload<'a>,
    },
    /// A subscription has ended.
    Unsubscribed {
        /// The request it answers; none where the server ended it.
        id: Option<RequestId>,
        /// The channel or the pattern.
        target: Cow<'a, str>,
    },
    /// The fresh token holds.
    Refreshed {
        /// The request it answers.
        id: Option<RequestId>,
        /// For how long.
        expires_in: Duration,
    },
    /// The server is there.
    Pong {
        /// The request it answers.
        id: Option<RequestId>,
        /// The server's clock.
        server_time: Timestamp,
    },
    /// The server goes away: connect again.
    Moving {
        /// After this time: each client has a slot of its own.
        reconnect_after: Duration,
    },
    /// A refusal.
    Error(ErrorMessage),
}

/// `connected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The request it answers.
    pub id: Option<RequestId>,
    /// The session, a UUID.
    pub session: Box<str>,
    /// Whose token it was.
    pub user: Box<str>,
    /// How often the server wants to hear something.
    pub heartbeat: Duration,
    /// What the connection may do.
    pub limits: ConnectedLimits,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectedLimits {
    /// Most publishes without an answer.
    pub unacked: u32,
}

/// `subscribed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribed {
    /// To one channel.
    Channel {
        /// The request it answers.
        id: Option<RequestId>,
        /// Which.
        channel: Channel,
        /// Events after this position follow.
        position: Position,
        /// Whether everything since the asked position follows.
        recovered: bool,
    },
    /// To a pattern.
    Pattern {
        /// The request it answers.
        id: Option<RequestId>,
        /// Which, as it was written.
        pattern: Box<str>,
        /// Events after this position follow.
        cursor: Cursor,
        /// Whether everything since the asked position follows.
        recovered: bool,
    },
}

/// `published`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The request it answers.
    pub id: Option<RequestId>,
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// Where the first event is.
    pub first: Offset,
    /// Where the last event is.
    pub last: Offset,
    /// The server's clock.
    pub server_time: Timestamp,
    /// Whether an earlier attempt had stored them.
    pub duplicate: bool,
    /// How many of them the archive could not store as what they are; only where its receipt was asked
    /// for.
    pub dead_letters: u32,
}

/// `events`: some events of one channel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsMessage<'a> {
    /// Whose.
    pub channel: Cow<'a, str>,
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// At least one.
    pub events: Vec<DeliveredEvent<'a>>,
    /// The pattern that these events are given for, where it is not the channel itself.
    pub pattern: Option<Cow<'a, str>>,
    /// Where a pattern's subscription stands after this and all before it in the same WebSocket message;
    /// with the last of them.
    pub cursor: Option<Cursor>,
}

/// An event as a subscriber gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredEvent<'a> {
    /// Where it stands.
    pub offset: Offset,
    /// When the journal took it.
    pub ts: Timestamp,
    /// Its id: the publisher's, or `partition-epoch-offset`.
    pub id: Cow<'a, str>,
    /// What kind of event.
    pub kind: Option<Cow<'a, str>>,
    /// What it is about.
    pub key: Option<Cow<'a, str>>,
    /// Who published it.
    pub from: Cow<'a, str>,
    /// What it says.
    pub data: Payload<'a>,
}

impl DeliveredEvent<'_> {
    /// The same event, to be written.
    #[must_use]
    pub fn as_out(&self) -> OutEvent<'_> {
        let (data, binary) = self.data.parts();
        OutEvent {
            offset: self.offset,
            ts: self.ts,
            id: Some(&self.id),
            kind: self.kind.as_deref(),
            key: self.key.as_deref(),
            from: &self.from,
            data,
            binary,
        }
    }

    /// The same, kept apart from what it was read from.
    #[must_use]
    pub fn into_owned(self) -> DeliveredEvent<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        DeliveredEvent {
            offset: self.offset,
            ts: self.ts,
            id: own(self.id),
            kind: self.kind.map(own),
            key: self.key.map(own),
            from: own(self.from),
            data: self.data.into_owned(),
        }
    }
}

/// `gap`: everything after `from` up to `to` is not there, or `from` was above everything that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub target: GapTarget,
    /// Where the subscriber stood.
    pub from: Position,
    /// Where it stands now.
    pub to: Position,
}

/// Whose events are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapTarget {
    /// One channel's.
    Channel(Channel),
    /// Those of a pattern's channels that live in one partition; the positions are of that partition.
    Pattern {
        /// Which, as it was written.
        pattern: Box<str>,
        /// The partition.
        partition: Partition,
        /// Where the subscription stands now.
        cursor: Cursor,
    },
}

/// `history`: a page of one epoch, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage<'a> {
    /// The request it answers.
    pub id: Option<RequestId>,
    /// Whose.
    pub channel: Cow<'a, str>,
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// The events.
    pub events: Vec<DeliveredEvent<'a>>,
    /// Whether there is more in the direction that was asked for.
    pub more: bool,
    /// Stretches in this page that are missing and always will be: after the first position, up to the
    /// second.
    pub gaps: Vec<(Position, Position)>,
}

/// `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorMessage {
    /// The request it answers, if any.
    pub id: Option<RequestId>,
    /// The stable code. A newer server may send one that [`ErrorMessage::known`] does not know.
    pub code: Box<str>,
    /// For people.
    pub message: Box<str>,
    /// Whether the same request may succeed later.
    pub temporary: bool,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// For `out_of_order`: the sequence number that is due.
    pub expected: Option<u64>,
}

impl ErrorMessage {
    /// The code, if this program knows it.
    #[must_use]
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.as_str() == &*self.code)
    }

    /// The message that carries `refusal`.
    #[must_use]
    pub fn new(id: Option<RequestId>, refusal: &Refusal) -> Self {
        Self {
            id,
            code: refusal.code.as_str().into(),
            message: refusal.message.as_ref().into(),
            temporary: refusal.is_temporary(),
            retry_after: refusal.retry_after,
            expected: refusal.expected,
        }
    }
}
