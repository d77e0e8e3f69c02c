//! The client's memory, which outlives its connections: publishes, subscriptions, questions.
//!
//! Pure: commands of the program and messages of the server go in, requests for the server come out,
//! one by one, when the connection has room for them.

mod beside;

use crate::backoff::Backoff;
pub(crate) use crate::command::{Answer, Command, Effect, Outbound};
use crate::follow::{Follow, Handed, Stage, target_of};
use crate::window::Window;
use crate::{ClientError, End, History, Published, Resume};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use stormwire_core::{Channel, ErrorCode, Pattern};
use stormwire_wire::protocol::{
    Connected, ErrorMessage, GapTarget, Operation, Publish, Request, RequestId, ServerMessage,
    Since, Subscribed,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// First and longest pause before a refused subscription is asked for again.
const SUBSCRIBE_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

struct Ask {
    op: Operation<'static>,
    reply: oneshot::Sender<Result<Answer, ClientError>>,
    deadline: Instant,
}

/// The client's memory.
pub(crate) struct Session {
    window: Window<Outbound>,
    follows: HashMap<Pattern, Follow>,
    asks: HashMap<i64, Ask>,
    /// Signals on their way: the question behind each, whose answer says that it was taken.
    signals: HashMap<i64, i64>,
    /// Subscriptions asked for, by request.
    asked: HashMap<i64, Pattern>,
    /// Subscriptions to be asked for again later.
    later: Vec<(Instant, Pattern)>,
    control: VecDeque<Request<'static>>,
    effects: VecDeque<Effect>,
    last_request: i64,
    backoff: Backoff,
    publish_timeout: Duration,
    request_timeout: Duration,
    connected: bool,
    /// The server's last word, to explain a close that follows it.
    pub(crate) last_error: Option<ErrorMessage>,
}

impl Session {
    /// An empty one.
    pub(crate) fn new(publish_timeout: Duration, request_timeout: Duration, seed: u64) -> Self {
        Self {
            window: Window::new(seed),
            follows: HashMap::new(),
            asks: HashMap::new(),
            signals: HashMap::new(),
            asked: HashMap::new(),
            later: Vec::new(),
            control: VecDeque::new(),
            effects: VecDeque::new(),
            last_request: 0,
            backoff: Backoff::new(SUBSCRIBE_PAUSE.0, SUBSCRIBE_PAUSE.1, seed),
            publish_timeout,
            request_timeout,
            connected: false,
            last_error: None,
        }
    }

    /// Goes on where an earlier process stopped.
    pub(crate) fn resume(&mut self, resume: &Resume) {
        self.window.resume(resume);
    }

    /// Takes a command; [`Command::Close`] is the caller's own.
    pub(crate) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Publish(outbound) => {
                let (events, bytes) = (outbound.events.len(), outbound.events.as_bytes().len());
                self.window.push(outbound, events as u64, bytes, now + self.publish_timeout);
            }
            Command::Subscribe { target, since, mode, sink, asides, opened } => {
                if self.follows.contains_key(&target) {
                    let error = ClientError::AlreadySubscribed(target.to_string());
                    let _ = opened.send(Err(error));
                    return;
                }
                let follow = Follow::new(since, mode, sink, asides, opened);
                self.follows.insert(target.clone(), follow);
                self.ask_for(&target);
            }
            Command::Unsubscribe(target) => self.drop_follow(&target),
            Command::Signal { op, reply } => self.signal(op, reply, now),
            Command::Ask { op, reply } => {
                let id = self.next_id();
                if self.connected {
                    self.control.push_back(request(id, op.clone()));
                }
                let deadline = now + self.request_timeout;
                self.asks.insert(id, Ask { op, reply, deadline });
            }
            Command::Close(done) => drop(done),
        }
    }

    /// A new connection is authenticated.
    pub(crate) fn connected(&mut self, connected: &Connected, now: Instant) {
        self.connected = true;
        self.last_error = None;
        let unacked = usize::try_from(connected.limits.unacked).ok();
        self.window.connected(unacked, connected.server_time, now);
        for (id, ask) in &self.asks {
            self.control.push_back(request(*id, ask.op.clone()));
        }
        let due: Vec<_> = self
            .follows
            .iter()
            .filter(|(_, follow)| follow.stage == Stage::Due)
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in due {
            self.ask_for(&channel);
        }
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.window.disconnected();
        self.control.clear();
        for (_, behind) in std::mem::take(&mut self.signals) {
            if let Some(ask) = self.asks.remove(&behind) {
                let _ = ask.reply.send(Err(ClientError::Lost));
            }
        }
        self.asked.clear();
        self.later.clear();
        // What was asked of this connection is not for the next one to do.
        self.effects.retain(|effect| matches!(effect, Effect::Resting(..)));
        for follow in self.follows.values_mut() {
            if follow.stage != Stage::Resting {
                follow.stage = Stage::Due;
            }
        }
    }

    /// The next request for the connection, if there is one.
    pub(crate) fn next_request(&mut self, now: Instant) -> Option<Request<'_>> {
        if let Some(request) = self.control.pop_front() {
            return Some(request);
        }
        let next = self.window.take(now)?;
        let publish = Publish {
            channel: Cow::Borrowed(next.payload.channel.as_str()),
            seq: Some(next.seq),
            again: next.again,
            receipt: next.payload.receipt,
            events: next.payload.events.clone(),
        };
        let id = i64::try_from(next.seq).ok().map(RequestId::Number);
        Some(Request { id, op: Operation::Publish(publish) })
    }

    /// The next thing for the connection to do.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the server has told to move and nobody has done so yet.
    pub(crate) fn is_told_to_move(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Move(_)))
    }

    /// Asks the server whether it is there, with nobody waiting for the answer.
    pub(crate) fn ping(&mut self) {
        let id = self.next_id();
        self.control.push_back(request(id, Operation::Ping));
    }

    /// Gives the server a fresh token, with nobody waiting for the answer.
    pub(crate) fn refresh(&mut self, token: String) {
        let id = self.next_id();
        self.control.push_back(request(id, Operation::Refresh(token.into())));
    }

    /// A reader has room again.
    pub(crate) fn wake(&mut self, target: &Pattern) {
        let Some(follow) = self.follows.get_mut(target) else { return };
        if follow.stage == Stage::Resting {
            follow.stage = Stage::Due;
            self.ask_for(target);
        }
    }

    /// Takes a message of the server.
    pub(crate) fn incoming(&mut self, message: ServerMessage<'_>, now: Instant) {
        match message {
            ServerMessage::Published(published) => {
                self.window.heard(published.server_time, now);
                if let Some(outbound) =
                    seq(published.id.as_ref()).and_then(|seq| self.window.settled(seq))
                {
                    let Outbound { reply, room, .. } = outbound;
                    let _ = reply.send(Ok(Published::from(published)));
                    drop(room);
                }
            }
            ServerMessage::Events(_)
            | ServerMessage::Gap(_)
            | ServerMessage::Subscribed(_)
            | ServerMessage::Unsubscribed { id: None, .. } => self.following(message),
            ServerMessage::History(page) => {
                if let Some((ask, channel)) =
                    self.answered(page.id.as_ref()).zip(Channel::parse(&page.channel).ok())
                {
                    let _ = ask.reply.send(Ok(Answer::History(History::new(channel, page))));
                }
            }
            ServerMessage::Refreshed { id, expires_in } => {
                if let Some(ask) = self.answered(id.as_ref()) {
                    let _ = ask.reply.send(Ok(Answer::Refreshed(expires_in)));
                }
            }
            ServerMessage::Pong { id, server_time } => {
                self.window.heard(server_time, now);
                if let Some(ask) = self.answered(id.as_ref()) {
                    let _ = ask.reply.send(Ok(Answer::Pong(server_time)));
                }
                self.signals.retain(|_, behind| self.asks.contains_key(behind));
            }
            ServerMessage::Moving { reconnect_after } => {
                self.effects.push_back(Effect::Move(reconnect_after));
            }
            ServerMessage::Error(error) => self.refused(error, now),
            ServerMessage::Connected(_) | ServerMessage::Unsubscribed { .. } => {}
            ServerMessage::Presence(_)
            | ServerMessage::Joined(_)
            | ServerMessage::Left(_)
            | ServerMessage::Signal { .. } => self.beside(message),
        }
    }

    /// What is said about subscriptions.
    fn following(&mut self, message: ServerMessage<'_>) {
        match message {
            ServerMessage::Events(message) => {
                let Ok(channel) = Channel::parse(&message.channel) else { return };
                let exact = || Ok(Pattern::Exact(channel.clone()));
                let target = message.pattern.as_deref().map_or_else(exact, Pattern::parse);
                let Ok(target) = target else { return };
                let Some(follow) = self.follows.get_mut(&target) else { return };
                let handed = follow.events(&channel, message);
                self.handed(&target, handed);
            }
            ServerMessage::Gap(gap) => {
                let target = match &gap.target {
                    GapTarget::Channel(channel) => Ok(Pattern::Exact(channel.clone())),
                    GapTarget::Pattern { pattern, .. } => Pattern::parse(pattern),
                };
                let Ok(target) = target else { return };
                let Some(follow) = self.follows.get_mut(&target) else { return };
                let handed = follow.gap(gap);
                self.handed(&target, handed);
            }
            ServerMessage::Subscribed(Subscribed::Channel { id, channel, position, .. }) => {
                let target = Pattern::Exact(channel);
                self.subscribed(id.as_ref(), &target, Since::Position(position));
            }
            ServerMessage::Subscribed(Subscribed::Pattern { id, pattern, cursor, .. }) => {
                let Ok(target) = Pattern::parse(&pattern) else { return };
                self.subscribed(id.as_ref(), &target, Since::Cursor(cursor));
            }
            ServerMessage::Unsubscribed { id: None, target } => {
                // The server ended it; why, it has said before.
                let error = self.last_error.clone();
                if let Ok(target) = Pattern::parse(&target) {
                    let error = error.map_or(ClientError::Ended(End::Closed), ClientError::from);
                    self.end_follow(&target, error);
                }
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, id: Option<&RequestId>, target: &Pattern, place: Since) {
        let Some(RequestId::Number(id)) = id else { return };
        self.asked.remove(id);
        let Some(follow) = self.follows.get_mut(target) else { return };
        if follow.stage == Stage::Asked(*id) {
            follow.subscribed(place);
            self.backoff.reset();
        }
    }

    fn refused(&mut self, error: ErrorMessage, now: Instant) {
        let Some(RequestId::Number(id)) = error.id else {
            tracing::warn!(code = %error.code, message = %error.message, "the server reports an error");
            self.last_error = Some(error);
            return;
        };
        if let Ok(seq) = u64::try_from(id) {
            self.publish_refused(seq, error, now);
        } else if let Some(channel) = self.asked.remove(&id) {
            if error.temporary {
                let pause = error.retry_after.unwrap_or_else(|| self.backoff.next_pause());
                if let Some(follow) = self.follows.get_mut(&channel) {
                    follow.stage = Stage::Due;
                }
                self.later.push((now + pause, channel));
            } else {
                self.end_follow(&channel, error.into());
            }
        } else if let Some(ask) =
            self.signals.remove(&id).or(Some(id)).and_then(|id| self.asks.remove(&id))
        {
            let _ = ask.reply.send(Err(error.into()));
        } else {
            tracing::warn!(code = %error.code, message = %error.message, "the server refuses");
            self.last_error = Some(error);
        }
    }

    fn publish_refused(&mut self, seq: u64, error: ErrorMessage, now: Instant) {
        if error.temporary {
            let follows = error.known() == Some(ErrorCode::OutOfOrder);
            tracing::debug!(seq, code = %error.code, "a publish goes again");
            self.window.refused(seq, follows, error.retry_after, now);
        } else if let Some(outbound) = self.window.settled(seq) {
            let _ = outbound.reply.send(Err(error.into()));
        }
    }

    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self, now: Instant) {
        let given_up = self.window.give_up(now);
        if given_up.iter().any(|publish| publish.sent) && self.connected {
            self.effects.push_back(Effect::Abandon);
        }
        for publish in given_up {
            let error = if publish.sent { ClientError::Unknown } else { ClientError::Deadline };
            let _ = publish.payload.reply.send(Err(error(self.publish_timeout)));
        }
        let late: Vec<i64> =
            self.asks.iter().filter(|(_, ask)| ask.deadline <= now).map(|(id, _)| *id).collect();
        for ask in late.iter().filter_map(|id| self.asks.remove(id)).collect::<Vec<_>>() {
            let _ = ask.reply.send(Err(ClientError::Deadline(self.request_timeout)));
        }
        let due: Vec<Pattern> =
            self.later.extract_if(.., |(at, _)| *at <= now).map(|(_, channel)| channel).collect();
        for channel in due {
            self.ask_for(&channel);
        }
    }

    /// When [`Session::tick`] is due, or a publish may go again.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let asks = self.asks.values().map(|ask| ask.deadline).min();
        let later = self.later.iter().map(|(at, _)| *at).min();
        [self.window.next_timer(), asks, later].into_iter().flatten().min()
    }

    /// Whether every publish and every question has its answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.window.is_empty() && self.asks.is_empty()
    }

    /// There will be no further connection: everybody who waits is told so.
    pub(crate) fn end(&mut self, end: &End) {
        self.disconnected();
        for publish in self.window.drain() {
            let error = if publish.sent {
                ClientError::Unknown(self.publish_timeout)
            } else {
                ClientError::Ended(end.clone())
            };
            let _ = publish.payload.reply.send(Err(error));
        }
        for (_, ask) in self.asks.drain() {
            let _ = ask.reply.send(Err(ClientError::Ended(end.clone())));
        }
        for (_, follow) in self.follows.drain() {
            follow.end(ClientError::Ended(end.clone()));
        }
    }

    fn next_id(&mut self) -> i64 {
        // Publishes are called by their sequence numbers, which are positive.
        self.last_request -= 1;
        self.last_request
    }

    fn ask_for(&mut self, target: &Pattern) {
        if !self.connected {
            return;
        }
        let id = self.next_id();
        let Some(follow) = self.follows.get_mut(target) else { return };
        if follow.stage == Stage::Due {
            follow.stage = Stage::Asked(id);
            self.control.push_back(request(id, follow.request(target)));
            self.asked.insert(id, target.clone());
        }
    }

    fn handed(&mut self, target: &Pattern, handed: Handed) {
        match handed {
            Handed::Over => {}
            Handed::Full => {
                self.unsubscribe(target);
                if let Some(follow) = self.follows.get(target) {
                    self.effects.push_back(Effect::Resting(target.clone(), follow.sink()));
                }
            }
            Handed::Gone => self.drop_follow(target),
        }
    }

    fn drop_follow(&mut self, target: &Pattern) {
        if let Some(follow) = self.follows.remove(target)
            && matches!(follow.stage, Stage::Asked(_) | Stage::Live)
        {
            self.unsubscribe(target);
        }
    }

    fn end_follow(&mut self, target: &Pattern, error: ClientError) {
        if let Some(follow) = self.follows.remove(target) {
            follow.end(error);
        }
    }

    fn unsubscribe(&mut self, target: &Pattern) {
        if self.connected {
            let id = self.next_id();
            self.control.push_back(request(id, Operation::Unsubscribe(target_of(target))));
        }
    }

    fn answered(&mut self, id: Option<&RequestId>) -> Option<Ask> {
        match id {
            Some(RequestId::Number(id)) => self.asks.remove(id),
            _ => None,
        }
    }
}

fn request(id: i64, op: Operation<'static>) -> Request<'static> {
    Request { id: Some(RequestId::Number(id)), op }
}

fn seq(id: Option<&RequestId>) -> Option<u64> {
    match id {
        Some(RequestId::Number(id)) => u64::try_from(*id).ok(),
        _ => None,
    }
}
