//! The protocol of one connection: what each operation of a client means, and what it is answered.
//!
//! Operations are handled in the order in which they came. What needs time (a page of history, a
//! subscription that starts in the past) goes on beside the connection and answers later, by its id.

use crate::connections::{Connections, Registered};
use crate::feeder::Refills;
use crate::gateway::GatewayConfig;
use crate::hub::{Hub, Subscription};
use crate::ingest::{Ingest, Submission};
use crate::outbox::{Outbox, Parked};
use crate::presence::Rooms;
use crate::reader::Reader;
use crate::receipts::Receipts;
use crate::render;
use crate::replies::Replies;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use stormwire_core::{Channel, Clock, CloseCode, ErrorCode, Pattern, Refusal};
use stormwire_journal::publish::ProducerKey;
use stormwire_limits::{Connection, Cost, Limits, OwnLimits, Subject, Transport};
use stormwire_telemetry::{Tasks, metrics as names};
use stormwire_tokens::{Action, Claims, Verifier};
use stormwire_wire::frame::{EventsBuilder, TraceContext};
use stormwire_wire::protocol::{
    Codec, Connect, Connected, ConnectedLimits, MessageLimits, Operation, Publish, Receipt,
    Rejected, Request, RequestId, ServerMessage, json, proto,
};
use tokio::time::Instant;

mod history;
mod pattern;
mod presence;
mod subscribe;

pub(crate) use pattern::{place_in, prefix_of};
pub(crate) use presence::{check_signal, cursor};

use presence::Membership;

/// How long a client may take to authenticate.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How often a client should say something, as it is told.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Channels that a connection has published to and need not be checked again.
const KNOWN_CHANNELS_MAX: usize = 256;
/// Bytes of unread answers at which a peer is not read from any more.
const UNREAD_ANSWERS_MAX: usize = 256 * 1024;

/// What all sessions of a gateway share.
pub(crate) struct SessionContext {
    pub(crate) config: GatewayConfig,
    pub(crate) hub: Arc<Hub>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) ingest: Ingest,
    pub(crate) rooms: Rooms,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
}

/// What is known of a connection when it is accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) ip: IpAddr,
    pub(crate) codec: Codec,
    /// The token of the HTTP request, if it had one.
    pub(crate) token: Option<Box<str>>,
    /// The trace of the HTTP request, if it had one.
    pub(crate) trace: Option<TraceContext>,
    /// Its place among the connections of its address.
    pub(crate) place: Connection,
}

struct SignedIn {
    claims: Arc<Claims>,
    limits: OwnLimits,
    producer: Option<Arc<str>>,
    session: Box<str>,
    /// Channels that the token lets this connection publish to, checked before.
    publishes_to: HashSet<Channel>,
}

/// One connection's state.
pub(crate) struct Session {
    context: Arc<SessionContext>,
    registered: Registered,
    accepted: Accepted,
    outbox: Arc<Outbox>,
    replies: Arc<Replies>,
    signed_in: Option<SignedIn>,
    since: Instant,
    deadline_changed: bool,
    subscriptions: HashMap<Channel, Arc<Subscription>>,
    /// A pattern has a subscription in each partition.
    patterns: HashMap<Box<str>, Vec<Arc<Subscription>>>,
    refills: Arc<Refills>,
    membership: Membership,
    events: EventsBuilder,
    reads: Arc<AtomicUsize>,
}

impl Session {
    pub(crate) fn new(
        context: Arc<SessionContext>,
        accepted: Accepted,
        outbox: Arc<Outbox>,
    ) -> Self {
        let registered = context.connections.enter(Arc::clone(&outbox));
        let clock = Arc::clone(&context.clock);
        let replies = Arc::new(Replies::new(accepted.codec, Arc::clone(&outbox), clock));
        Self {
            context,
            registered,
            accepted,
            outbox,
            replies,
            signed_in: None,
            since: Instant::now(),
            deadline_changed: false,
            subscriptions: HashMap::new(),
            patterns: HashMap::new(),
            refills: Arc::default(),
            membership: Membership::default(),
            events: EventsBuilder::default(),
            reads: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Whether the peer may be read from: not while it leaves its answers or acknowledgements waiting.
    pub(crate) fn may_read(&self) -> bool {
        self.replies.unacked() < self.context.config.unacked_max
            && self.outbox.bytes() < UNREAD_ANSWERS_MAX
    }

    /// When something is due even if nothing comes: the token, or the end of it.
    pub(crate) fn deadline(&self) -> Instant {
        match &self.signed_in {
            None => self.since + CONNECT_WITHIN,
            Some(signed_in) => {
                Instant::now() + signed_in.claims.expires.since(self.context.clock.now())
            }
        }
    }

    /// Whether [`Session::deadline`] has another answer than when this was asked last.
    pub(crate) fn take_deadline_changed(&mut self) -> bool {
        std::mem::take(&mut self.deadline_changed)
    }

    /// The deadline has come.
    pub(crate) fn on_deadline(&self) {
        let expired = |signed_in: &SignedIn| signed_in.claims.expires <= self.context.clock.now();
        if self.signed_in.as_ref().is_none_or(expired) {
            self.outbox.close(
                CloseCode::Unauthenticated,
                if self.signed_in.is_some() {
                    "the token has expired"
                } else {
                    "no connect operation within 10 seconds"
                },
            );
        }
    }

    /// Handles a text message.
    pub(crate) async fn on_text(&mut self, text: &str) {
        if self.accepted.codec != Codec::Json {
            return self.outbox.close(CloseCode::Malformed, "binary messages are due here");
        }
        let mut events = std::mem::take(&mut self.events);
        for request in json::Requests::new(text, self.message_limits(), &mut events) {
            self.on_request(request).await;
        }
        self.events = events;
    }

    /// Handles a binary message.
    pub(crate) async fn on_binary(&mut self, bytes: &[u8]) {
        if self.accepted.codec != Codec::Protobuf {
            return self.outbox.close(CloseCode::Malformed, "text messages are due here");
        }
        let mut events = std::mem::take(&mut self.events);
        for request in proto::Requests::new(bytes, self.message_limits(), &mut events) {
            self.on_request(request).await;
        }
        self.events = events;
    }

    /// Refills subscriptions that were parked.
    pub(crate) fn refill(&self, parked: Vec<Parked>) {
        self.refills.add(parked, &self.context.reader, &self.context.tasks);
    }

    /// Signs in with the token of the HTTP request, if it had one.
    pub(crate) async fn sign_in_by_header(&mut self) {
        if let Some(token) = self.accepted.token.take()
            && let Err(refusal) = self.sign_in(&token, None).await
        {
            self.refuse(None, &refusal);
            self.outbox.close(CloseCode::Unauthenticated, "the token was refused");
        }
    }

    fn message_limits(&self) -> MessageLimits {
        MessageLimits {
            message_bytes: self.context.config.message_bytes_max,
            event_bytes: self.context.config.event_bytes_max,
            ..MessageLimits::default()
        }
    }

    async fn on_request(&mut self, request: Result<Request<'_>, Rejected>) {
        match request {
            Err(rejected) => {
                self.refuse(rejected.id, &rejected.refusal);
                if rejected.fatal {
                    let code = match rejected.refusal.code {
                        ErrorCode::TooLarge => CloseCode::TooLarge,
                        _ => CloseCode::Malformed,
                    };
                    self.outbox.close(code, "the message does not follow the protocol");
                }
            }
            Ok(Request { id, op: Operation::Publish(publish) }) => self.publish(id, publish).await,
            Ok(Request { id, op }) => {
                let own = self.signed_in.as_ref().map(|signed_in| &signed_in.limits);
                let handled = match self.accepted.place.operation(own) {
                    Ok(()) => self.handle(id.clone(), op).await,
                    limited => limited,
                };
                if let Err(refusal) = handled {
                    self.refuse(id, &refusal);
                }
            }
        }
    }

    async fn handle(
        &mut self,
        id: Option<RequestId>,
        operation: Operation<'_>,
    ) -> Result<(), Refusal> {
        if let Operation::Connect(connect) = operation {
            return self.connect(id, connect).await;
        }
        if let Operation::Ping = operation {
            let server_time = self.context.clock.now();
            self.say(&ServerMessage::Pong { id, server_time });
            return Ok(());
        }
        let signed_in = self.signed_in.as_mut().ok_or_else(connect_first)?;
        match operation {
            Operation::Subscribe(subscribe) => self.subscribe(id, subscribe).await,
            Operation::Unsubscribe(target) => self.unsubscribe(id, &target),
            Operation::History(query) => self.history(id, query),
            Operation::Refresh(token) => {
                let claims = Arc::new(self.context.verifier.verify(&token).await?);
                if claims.user != signed_in.claims.user {
                    return Err(Refusal::new(
                        ErrorCode::Forbidden,
                        "the fresh token is of another user; connect anew with it",
                    ));
                }
                let expires_in = claims.expires.since(self.context.clock.now());
                signed_in.limits = stormwire_web::own_limits(&claims.limits);
                signed_in.claims = claims;
                self.deadline_changed = true;
                signed_in.publishes_to.clear();
                self.say(&ServerMessage::Refreshed { id, expires_in });
                self.drop_withdrawn();
                self.drop_withdrawn_memberships();
                Ok(())
            }
            Operation::Presence(query) => self.presence(id, query).await,
            Operation::Signal(signal) => self.signal(signal).await,
            Operation::Connect(_) | Operation::Ping | Operation::Publish(_) => Ok(()),
        }
    }

    async fn connect(&mut self, id: Option<RequestId>, connect: Connect) -> Result<(), Refusal> {
        match (&connect.token, &mut self.signed_in) {
            (Some(token), None) => {
                if let Err(refusal) = self.sign_in(token, connect.producer).await {
                    self.outbox.close(CloseCode::Unauthenticated, "the token was refused");
                    return Err(refusal);
                }
            }
            // The HTTP request carried the token; only the producer is new.
            (None, Some(signed_in)) if signed_in.producer.is_none() => {
                signed_in.producer = connect.producer;
                self.announce_producer();
            }
            (None, None) => {
                return Err(Refusal::new(ErrorCode::Unauthenticated, "connect without a token"));
            }
            (_, Some(_)) => {
                return Err(Refusal::new(ErrorCode::Conflict, "this connection is connected"));
            }
        }
        let Some(signed_in) = &self.signed_in else { return Ok(()) };
        let unacked = u32::try_from(self.context.config.unacked_max).unwrap_or(u32::MAX);
        self.say(&ServerMessage::Connected(Connected {
            id,
            session: signed_in.session.clone(),
            user: (*signed_in.claims.user).into(),
            heartbeat: HEARTBEAT,
            limits: ConnectedLimits { unacked },
            server_time: self.context.clock.now(),
        }));
        Ok(())
    }

    async fn sign_in(&mut self, token: &str, producer: Option<Arc<str>>) -> Result<(), Refusal> {
        let claims = Arc::new(self.context.verifier.verify(token).await?);
        let session = match &claims.session {
            Some(session) => (**session).into(),
            None => uuid::Uuid::now_v7().to_string().into_boxed_str(),
        };
        let publishes_to = HashSet::new();
        self.deadline_changed = true;
        let limits = stormwire_web::own_limits(&claims.limits);
        self.signed_in = Some(SignedIn { claims, limits, producer, session, publishes_to });
        self.announce_producer();
        Ok(())
    }

    fn announce_producer(&self) {
        if let Some(SignedIn { claims, producer: Some(producer), .. }) = &self.signed_in {
            let producer = ProducerKey::of(&claims.user, producer);
            let now = self.context.clock.now();
            if self.context.connections.produce(self.registered.id, producer, now) {
                self.context.ingest.producer_connected(producer, now);
            }
        }
    }

    async fn publish(&mut self, id: Option<RequestId>, publish: Publish<'_>) {
        let seq = publish.seq;
        match self.admit(&publish).await {
            Ok(channel) => self.submit(id, channel, publish),
            Err((channel, refusal)) => {
                // The fence of an ordered producer stands before its next publish is looked at.
                if let (Some(channel), Some(seq)) = (channel, seq) {
                    let temporary = refusal.is_temporary();
                    self.context.ingest.refused(self.registered.id, &channel, seq, temporary);
                }
                self.refuse(id, &refusal);
            }
        }
    }

    /// Rights, bounds and limits of a publish; the channel comes with a refusal where it is known.
    async fn admit(
        &mut self,
        publish: &Publish<'_>,
    ) -> Result<Channel, (Option<Channel>, Refusal)> {
        let Some(signed_in) = &mut self.signed_in else { return Err((None, connect_first())) };
        let channel = match signed_in.publishes_to.get(publish.channel.as_ref()) {
            Some(known) => known.clone(),
            None => allow_publish(signed_in, &publish.channel)?,
        };
        let fail = |refusal| (Some(channel.clone()), refusal);
        if publish.seq.is_some() && signed_in.producer.is_none() {
            let problem = "needs a producer; give one in connect, or leave seq out";
            return Err(fail(Refusal::invalid_field("seq", problem)));
        }
        if self.replies.unacked() >= self.context.config.unacked_max {
            let max = self.context.config.unacked_max;
            let text =
                format!("{max} publishes of this connection wait already; await their answers");
            let refusal = Refusal::new(ErrorCode::Limited, text);
            return Err(fail(refusal.retry_after(Duration::from_millis(100))));
        }
        let subject = Subject {
            user: &signed_in.claims.user,
            ip: self.accepted.ip,
            channel: Some(channel.as_str()),
            limits: Some(&signed_in.limits),
            transport: Transport::WebSocket,
        };
        let events = publish.events.len() as u64;
        let bytes = publish.events.as_bytes().len() as u64;
        let cost = Cost { events, bytes, ..Cost::default() };
        let admitted = match self.context.limits.try_admit(&subject, cost) {
            Some(decided) => decided,
            None => self.context.limits.admit(&subject, cost).await,
        };
        admitted.map_err(fail)?;
        Ok(channel)
    }

    fn submit(&self, id: Option<RequestId>, channel: Channel, publish: Publish<'_>) {
        let Some(signed_in) = &self.signed_in else { return };
        let producer = publish.seq.and(signed_in.producer.clone());
        let mut answers = Arc::clone(&self.replies) as Arc<dyn crate::ingest::Answers>;
        if publish.receipt == Receipt::Archive {
            let events = publish.events.len();
            answers = self.context.receipts.of_archive(channel.clone(), events, answers);
        }
        self.context.ingest.submit(Submission {
            connection: self.registered.id,
            ticket: self.replies.expect(id),
            channel,
            user: Arc::clone(&signed_in.claims.user),
            producer,
            seq: publish.seq.unwrap_or(0),
            again: publish.again,
            events: publish.events,
            trace: self.accepted.trace,
            answers,
        });
    }

    /// Ends the subscriptions that a fresh token no longer allows.
    fn drop_withdrawn(&mut self) {
        let Some(signed_in) = &self.signed_in else { return };
        let rights = &signed_in.claims.rights;
        let withdrawn: Vec<Channel> = self
            .subscriptions
            .keys()
            .filter(|channel| !rights.may(Action::Subscribe, channel.as_str()))
            .cloned()
            .collect();
        let patterns = self.patterns.keys().filter(|text| {
            Pattern::parse(text)
                .is_ok_and(|pattern| !rights.may_pattern(Action::Subscribe, &pattern))
        });
        let patterns: Vec<Box<str>> = patterns.cloned().collect();
        for channel in withdrawn {
            self.end_subscription(&channel);
            let target = channel.as_str().to_owned().into();
            self.say(&ServerMessage::Unsubscribed { id: None, target });
        }
        for pattern in patterns {
            self.end_pattern(&pattern);
            let target = String::from(pattern).into();
            self.say(&ServerMessage::Unsubscribed { id: None, target });
        }
    }

    fn end_subscription(&mut self, channel: &Channel) -> bool {
        let Some(subscription) = self.subscriptions.remove(channel) else { return false };
        self.context.hub.feed(channel).leave(&subscription);
        self.leave(channel);
        metrics::gauge!(names::SUBSCRIPTIONS).decrement(1.0);
        true
    }

    fn say(&self, message: &ServerMessage<'_>) {
        self.outbox.answer(render::message(self.accepted.codec, message));
    }

    fn refuse(&self, id: Option<RequestId>, refusal: &Refusal) {
        metrics::counter!(names::REFUSALS, "code" => refusal.code.as_str()).increment(1);
        self.outbox.answer(render::error(self.accepted.codec, id.as_ref(), refusal));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.ingest.closed(self.registered.id);
        for (channel, subscription) in std::mem::take(&mut self.subscriptions) {
            self.context.hub.feed(&channel).leave(&subscription);
            self.leave(&channel);
            metrics::gauge!(names::SUBSCRIPTIONS).decrement(1.0);
        }
        let patterns: Vec<_> = self.patterns.keys().cloned().collect();
        for pattern in patterns {
            self.end_pattern(&pattern);
        }
    }
}

fn connect_first() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "the first operation of a connection is connect")
}

/// Checks a channel that this connection has not published to before, and remembers it.
fn allow_publish(
    signed_in: &mut SignedIn,
    text: &str,
) -> Result<Channel, (Option<Channel>, Refusal)> {
    let channel = stormwire_wire::protocol::channel("channel", text).map_err(|no| (None, no))?;
    if !signed_in.claims.rights.may(Action::Publish, text) {
        let message = format!("this token may not publish to {channel}");
        return Err((Some(channel), Refusal::new(ErrorCode::Forbidden, message)));
    }
    if signed_in.publishes_to.len() >= KNOWN_CHANNELS_MAX {
        signed_in.publishes_to.clear();
    }
    signed_in.publishes_to.insert(channel.clone());
    Ok(channel)
}
