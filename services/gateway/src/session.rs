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
use crate::schema::{Schema, Schemas};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use stormwire_core::{Channel, Clock, CloseCode, ErrorCode, Refusal};
use stormwire_limits::{Connection, Cost, Limits, OwnLimits, Subject, Transport};
use stormwire_telemetry::{Tasks, metrics as names};
use stormwire_tokens::{Claims, Verifier};
use stormwire_wire::frame::{EventsBuilder, TraceContext};
use stormwire_wire::protocol::{
    Codec, MessageLimits, Operation, Publish, Receipt, Rejected, Request, RequestId, ServerMessage,
    json, proto,
};
use tokio::time::Instant;

mod history;
mod pattern;
mod presence;
mod sign_in;
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
    pub(crate) schemas: Schemas,
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

/// A channel that may be published to, and what its data must look like.
type Publishable = (Channel, Option<Arc<Schema>>);

struct SignedIn {
    claims: Arc<Claims>,
    limits: OwnLimits,
    producer: Option<Arc<str>>,
    session: Box<str>,
    /// Channels that the token lets this connection publish to, checked before, with what their data must
    /// look like; and by which version of rules and schemas.
    publishes_to: HashMap<Channel, Option<Arc<Schema>>>,
    decided_by: (u64, u64),
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
        if !parked.is_empty() {
            self.refills.add(parked, &self.reader(), &self.context.tasks);
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
                    // Boxed: a connection, which mostly waits, does not keep room for what it seldom does.
                    Ok(()) => Box::pin(self.handle(id.clone(), op)).await,
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
        if self.signed_in.is_none() {
            return Err(connect_first());
        }
        match operation {
            Operation::Subscribe(subscribe) => self.subscribe(id, subscribe).await,
            Operation::Unsubscribe(target) => self.unsubscribe(id, &target),
            Operation::History(query) => self.history(id, query),
            Operation::Refresh(token) => self.refresh(id, &token).await,
            Operation::Presence(query) => self.presence(id, query).await,
            Operation::Signal(signal) => self.signal(signal).await,
            Operation::Connect(_) | Operation::Ping | Operation::Publish(_) => Ok(()),
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
        let schemas = &self.context.schemas;
        signed_in.forget_old_decisions(schemas);
        let known = signed_in.publishes_to.get_key_value(publish.channel.as_ref());
        let (channel, schema) = match known {
            Some((channel, schema)) => (channel.clone(), schema.clone()),
            None => signed_in.allow_publish(&publish.channel, schemas)?,
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
            None => Box::pin(self.context.limits.admit(&subject, cost)).await,
        };
        admitted.map_err(fail)?;
        // After the limits: what is refused here has cost something too.
        if let Some(schema) = schema {
            schema.check(&publish.events).map_err(fail)?;
        }
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
