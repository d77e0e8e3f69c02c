//! What a program asks of its client, and what the client's memory asks of its connection.

use crate::asides::AsidesSink;
use crate::follow::Told;
use crate::{ClientError, History, Published};
use std::time::Duration;
use stormwire_core::{Channel, Pattern, Timestamp};
use stormwire_wire::frame::EncodedEvents;
use stormwire_wire::protocol::{MembersPage, Mode, Operation, Receipt, Since};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// What a program asks of its client.
pub(crate) enum Command {
    /// Publish these events.
    Publish(Outbound),
    /// Follow a channel, or all that match a pattern.
    Subscribe {
        target: Pattern,
        since: Option<Since>,
        mode: Mode,
        sink: mpsc::Sender<Told>,
        /// Hears of members and signals; the subscription is one as a member then.
        asides: Option<AsidesSink>,
        opened: oneshot::Sender<Result<(), ClientError>>,
    },
    /// The reader of a subscription has gone.
    Unsubscribe(Pattern),
    /// Tell something that is not stored, once.
    Signal { op: Operation<'static>, reply: oneshot::Sender<Result<Answer, ClientError>> },
    /// Ask the server something.
    Ask { op: Operation<'static>, reply: oneshot::Sender<Result<Answer, ClientError>> },
    /// End when everything is answered.
    Close(oneshot::Sender<()>),
}

/// A publish on its way.
pub(crate) struct Outbound {
    pub(crate) channel: Channel,
    pub(crate) receipt: Receipt,
    pub(crate) events: EncodedEvents,
    pub(crate) reply: oneshot::Sender<Result<Published, ClientError>>,
    /// Its share of the client's queue, given back with the answer.
    pub(crate) room: OwnedSemaphorePermit,
}

/// What the server answered to a question.
#[derive(Debug)]
pub(crate) enum Answer {
    History(History),
    Members(MembersPage),
    Pong(Timestamp),
    Refreshed(Duration),
}

/// What the connection has to do besides reading and writing.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Call [`Session::wake`] when half of this reader's queue is free.
    Resting(Pattern, mpsc::Sender<Told>),
    /// Connect again after this time, elsewhere if possible.
    Move(Duration),
    /// End the connection: the server may wait on it for what has been given up.
    Abandon,
}
