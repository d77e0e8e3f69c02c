//! The handle that a program holds.

use crate::actor::Actor;
use crate::asides::{AsidesSink, asides};
use crate::event::{self, NewEvent};
use crate::follow::Told;
use crate::session::{Answer, Command, Outbound};
use crate::{Attendance, ClientConfig, ClientError, Delivery, End, Event, History, Status};
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use stormwire_core::{Channel, Epoch, Offset, Pattern, Position, Timestamp};
use stormwire_wire::frame::EncodedEvents;
use stormwire_wire::protocol::{
    self, EVENTS_PER_PUBLISH_MAX, MESSAGE_BYTES_MAX, MembersPage, Mode, Operation, Page, Payload,
    Since,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Commands on their way to the client's task.
const COMMANDS: usize = 1024;

/// Most bytes of one publish: what the server takes, less what base64 and field names add.
const PUBLISH_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// A durable publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The journal's incarnation.
    pub epoch: Epoch,
    /// Where the first event is.
    pub first: Offset,
    /// Where the last event is.
    pub last: Offset,
    /// Whether an earlier attempt, whose answer was lost, had stored them.
    pub duplicate: bool,
}

impl From<protocol::Published> for Published {
    fn from(message: protocol::Published) -> Self {
        let protocol::Published { epoch, first, last, duplicate, .. } = message;
        Self { epoch, first, last, duplicate }
    }
}

/// A connection to a Stormwire cluster that mends itself. Cheap to clone; clones share the connection.
///
/// When the last handle (subscriptions count as handles) is dropped, what was sent is still brought to
/// its end as long as the runtime lives.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    room_max: u32,
    producer: Arc<str>,
    connections: Arc<AtomicU64>,
    status: watch::Receiver<Status>,
    subscription_queue: usize,
}

impl Client {
    /// Connects. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Ended`]: a configuration that cannot work, a token that is refused, or no server
    /// within [`ClientConfig::connect_within`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let producer: Arc<str> = match &config.producer {
            Some(producer) => producer.as_str().into(),
            None => uuid::Uuid::new_v4().simple().to_string().into(),
        };
        protocol::check_producer(&producer)
            .map_err(|refusal| ClientError::Invalid(refusal.to_string()))?;
        let room_max = u32::try_from(config.queue_bytes.max(1)).unwrap_or(u32::MAX);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (first, is_connected) = oneshot::channel();
        let (told, status) = watch::channel(Status::Connecting);
        let client = Self {
            commands,
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            producer: Arc::clone(&producer),
            connections: Arc::default(),
            status,
            subscription_queue: config.subscription_queue.max(1),
        };
        let told = (Arc::clone(&client.connections), told);
        let actor = Actor::new(config, producer, inbox, first, told).map_err(ClientError::Ended)?;
        tokio::spawn(actor.run());
        match is_connected.await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(end)) => Err(ClientError::Ended(end)),
            Err(_) => Err(ClientError::Ended(End::Closed)),
        }
    }

    /// The producer id of this client's publishes.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// How many connections there have been: 1 after the first, and one more after each reconnect.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How it stands now, and each time that changes: to be shown, or to be waited for. What is sent
    /// without a connection waits for one, whatever this says.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Publishes events on one channel and waits until they are durable. What is refused for now, and
    /// what was lost with a connection, is sent again; no event is stored twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] and [`ClientError::Unknown`] most of all.
    pub async fn publish(
        &self,
        channel: &Channel,
        events: &[NewEvent],
    ) -> Result<Published, ClientError> {
        self.send(channel, events).await?.await
    }

    /// Puts a publish into the queue, waiting while that is full, and gives back its receipt to be
    /// awaited. Publishes go out in the order in which this function was called, many at once.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for events that the protocol does not carry, [`ClientError::Ended`].
    pub async fn send(
        &self,
        channel: &Channel,
        events: &[NewEvent],
    ) -> Result<Receipt, ClientError> {
        self.send_encoded(channel, event::encode(events)?).await
    }

    /// As [`Client::send`], with events that are encoded already.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_encoded(
        &self,
        channel: &Channel,
        events: EncodedEvents,
    ) -> Result<Receipt, ClientError> {
        if events.is_empty() || events.len() > EVENTS_PER_PUBLISH_MAX {
            let found = events.len();
            return Err(ClientError::Invalid(format!(
                "a publish has 1 to {EVENTS_PER_PUBLISH_MAX} events, this one has {found}"
            )));
        }
        let bytes = events.as_bytes().len();
        if bytes > PUBLISH_BYTES_MAX {
            return Err(ClientError::Invalid(format!(
                "a publish has at most {PUBLISH_BYTES_MAX} bytes, this one has {bytes}: split it"
            )));
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.min(self.room_max)).await;
        let room = room.map_err(|_| ClientError::Ended(End::Closed))?;
        let (reply, answer) = oneshot::channel();
        let receipt = protocol::Receipt::Journal;
        let outbound = Outbound { channel: channel.clone(), receipt, events, reply, room };
        self.command(Command::Publish(outbound)).await?;
        Ok(Receipt(answer))
    }

    /// Follows a channel: from now on, or since a position, a time, or the last so many events. It goes
    /// on over reconnects without a loss, a repeat, or an event out of order; what can not be given any
    /// more is told as [`Delivery::Gap`].
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::AlreadySubscribed`], [`ClientError::Ended`].
    pub async fn subscribe(
        &self,
        channel: &Channel,
        since: Option<Since>,
    ) -> Result<Subscription, ClientError> {
        self.follow(&Pattern::Exact(channel.clone()), since, Mode::All).await
    }

    /// As [`Client::subscribe`], of a channel or of all channels that match a pattern (`orders:*`); with
    /// [`Mode::Latest`], whoever reads slowly is given the newest event of each key.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn follow(
        &self,
        target: &Pattern,
        since: Option<Since>,
        mode: Mode,
    ) -> Result<Subscription, ClientError> {
        self.open(target, since, mode, None).await
    }

    /// As [`Client::subscribe`], as a member of the channel: the others see that this client is there, and
    /// it is told who is there, who comes and goes, and signals. Over reconnects what is told stays exact:
    /// always the difference between two complete states.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn attend(
        &self,
        channel: &Channel,
        since: Option<Since>,
    ) -> Result<Attendance, ClientError> {
        let (sink, asides) = asides(self.subscription_queue);
        let target = Pattern::Exact(channel.clone());
        let subscription = self.open(&target, since, Mode::All, Some(sink)).await?;
        Ok(Attendance::new(self.clone(), channel.clone(), subscription, asides))
    }

    async fn open(
        &self,
        target: &Pattern,
        since: Option<Since>,
        mode: Mode,
        asides: Option<AsidesSink>,
    ) -> Result<Subscription, ClientError> {
        let (sink, reader) = mpsc::channel(self.subscription_queue);
        let (opened, is_open) = oneshot::channel();
        let (target, place) = (target.clone(), since.clone());
        let subscribed = target.clone();
        let command = Command::Subscribe { target: subscribed, since, mode, sink, asides, opened };
        self.command(command).await?;
        // Made before the answer, so that a caller who stops waiting unsubscribes.
        let commands = Some(self.commands.clone());
        let mut subscription = Subscription { target, reader, place, commands };
        match is_open.await {
            Ok(Ok(())) => Ok(subscription),
            refused => {
                subscription.commands = None;
                refused.unwrap_or(Ok(())).and(Err(ClientError::Ended(End::Closed)))
            }
        }
    }

    /// A page of a channel's past, ascending: the newest events, or those beside a position.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Deadline`], [`ClientError::Ended`].
    pub async fn history(
        &self,
        channel: &Channel,
        page: Page,
        limit: u32,
    ) -> Result<History, ClientError> {
        let op = Operation::History(protocol::History { channel: channel.clone(), page, limit });
        match self.ask(op).await? {
            Answer::History(history) => Ok(history),
            other => Err(unexpected(&other)),
        }
    }

    /// All events of a channel after `position`, page by page.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn history_after(
        &self,
        channel: &Channel,
        position: Position,
        limit: u32,
    ) -> Result<History, ClientError> {
        self.history(channel, Page::After(position), limit).await
    }

    /// The newest event of a channel, or of one key of it; everything that was acknowledged before counts.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn latest(
        &self,
        channel: &Channel,
        key: Option<&str>,
    ) -> Result<Option<Event>, ClientError> {
        let page = key.map_or(Page::Last, |key| Page::Key(key.into()));
        Ok(self.history(channel, page, 1).await?.events.pop())
    }

    /// The newest event of each key behind `after` (of all, without it), ascending by key. Where there
    /// is more, the next page begins behind the last event's key.
    ///
    /// # Errors
    /// As [`Client::history`].
    pub async fn latest_by_key(
        &self,
        channel: &Channel,
        after: Option<&str>,
        limit: u32,
    ) -> Result<History, ClientError> {
        self.history(channel, Page::KeysAfter(after.unwrap_or_default().into()), limit).await
    }

    /// A page of a channel's members, ascending by user and session, behind `after`: `next` of the page
    /// before. Whoever asks need not be a member.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Deadline`], [`ClientError::Ended`].
    pub async fn members(
        &self,
        channel: &Channel,
        after: Option<&str>,
        limit: u32,
    ) -> Result<MembersPage, ClientError> {
        let (channel, after) = (channel.clone(), after.map(Into::into));
        let query = protocol::PresenceQuery { channel, after, limit };
        match self.ask(Operation::Presence(query)).await? {
            Answer::Members(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells `data` to those who are subscribed to the channel now: not stored, and at most once. Returns
    /// when the server has taken it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] (also for a limit: it is not sent again), [`ClientError::Lost`],
    /// [`ClientError::Invalid`], [`ClientError::Deadline`], [`ClientError::Ended`].
    pub async fn signal(
        &self,
        channel: &Channel,
        data: Payload<'static>,
    ) -> Result<(), ClientError> {
        if let Payload::Json(text) = &data {
            protocol::json::check(text)
                .map_err(|refusal| ClientError::Invalid(refusal.to_string()))?;
        }
        let op = Operation::Signal(protocol::Signal { channel: channel.clone(), data });
        let (reply, answer) = oneshot::channel();
        self.command(Command::Signal { op, reply }).await?;
        answer.await.unwrap_or(Err(ClientError::Ended(End::Closed))).map(drop)
    }

    /// Asks the server for its time.
    ///
    /// # Errors
    /// [`ClientError::Deadline`], [`ClientError::Ended`].
    pub async fn ping(&self) -> Result<Timestamp, ClientError> {
        match self.ask(Operation::Ping).await? {
            Answer::Pong(server_time) => Ok(server_time),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives the server a fresh token now; says for how long it holds. A provider's token is refreshed
    /// without this.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Deadline`], [`ClientError::Ended`].
    pub async fn refresh(&self, token: &str) -> Result<Duration, ClientError> {
        match self.ask(Operation::Refresh(token.into())).await? {
            Answer::Refreshed(expires_in) => Ok(expires_in),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until everything sent has its answer, then closes the connection for all clones.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        if self.command(Command::Close(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    async fn ask(&self, op: Operation<'static>) -> Result<Answer, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Ask { op, reply }).await?;
        answer.await.unwrap_or(Err(ClientError::Ended(End::Closed)))
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Ended(End::Closed))
    }
}

fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Invalid(format!("the server answered something else: {answer:?}"))
}

/// The answer to a publish, some time later. Dropping it changes nothing about the publish.
#[derive(Debug)]
#[must_use = "a publish is durable only when its receipt says so"]
pub struct Receipt(oneshot::Receiver<Result<Published, ClientError>>);

impl Future for Receipt {
    type Output = Result<Published, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.unwrap_or(Err(ClientError::Ended(End::Closed))))
    }
}

/// The events of one channel or of one pattern, as a stream. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    target: Pattern,
    reader: mpsc::Receiver<Told>,
    place: Option<Since>,
    /// None when there is nothing to unsubscribe from.
    commands: Option<mpsc::Sender<Command>>,
}

impl Subscription {
    /// The channel or the pattern.
    #[must_use]
    pub const fn target(&self) -> &Pattern {
        &self.target
    }

    /// Where the reader stands after what it was told last: another process goes on from here. Before
    /// that, what it asked for.
    #[must_use]
    pub const fn place(&self) -> Option<&Since> {
        self.place.as_ref()
    }

    /// The next delivery; an error is the last one, `None` the end after [`Client::close`].
    pub async fn next(&mut self) -> Option<Result<Delivery, ClientError>> {
        let told = self.reader.recv().await;
        self.take(told)
    }

    fn take(&mut self, told: Option<Told>) -> Option<Result<Delivery, ClientError>> {
        told.map(|told| {
            told.map(|(delivery, place)| {
                self.place = Some(place);
                delivery
            })
        })
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let told = ready!(self.reader.poll_recv(context));
        Poll::Ready(self.take(told))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(commands) = &self.commands {
            // Where the queue of commands is full, the next delivery finds the reader gone.
            let _ = commands.try_send(Command::Unsubscribe(self.target.clone()));
        }
    }
}
