//! Publishing over REST: one request, one answer, after the journal's acknowledgement.

use super::HttpState;
use super::query::{InPath, Parameters};
use crate::ingest::{Answers, Published, Submission};
use crate::receipts::RECEIPT_WITHIN;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, ErrorCode, Refusal};
use stormwire_journal::repeats::BODY_NUMBERS;
use stormwire_limits::Cost;
use stormwire_telemetry::SpanRef;
use stormwire_tokens::Action;
use stormwire_web::{Caller, Problem, header_text};
use stormwire_wire::body::{self, BodyFormat};
use stormwire_wire::frame::{EncodedEvents, TraceContext};
use stormwire_wire::protocol::{INTEGER_MAX, Receipt, check_producer};
use utoipa::ToSchema;

mod waiting;

use waiting::Waiting;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Numbers that stand for events are 2^16 apart; a request has fewer events.
const BODY_NUMBERS_APART: u32 = 16;
/// Most bytes of an idempotency key.
const KEY_BYTES_MAX: usize = 255;
/// How long a request with an idempotency key may be sent again. Every attempt counts as made so long
/// after the first (APPENDER B5); well within the ten minutes that an appender remembers.
const RETRY_WINDOW: Duration = Duration::from_secs(300);
/// The publish deadline, and a little for the way.
const ANSWER_WITHIN: Duration = Duration::from_secs(16);

/// The events are durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acknowledged {
    /// The journal's incarnation.
    epoch: u32,
    /// Offset of the first event.
    first: u64,
    /// Offset of the last event.
    last: u64,
    /// The server's clock, Unix milliseconds.
    server_time: i64,
    /// An earlier attempt had stored them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// How many of them the archive could not store as what they are; only with its receipt.
    #[serde(skip_serializing_if = "is_zero")]
    dead_letters: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What became of one channel's events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChannelResult {
    channel: String,
    /// 200, or the status of the refusal.
    status: u16,
    #[serde(flatten)]
    acknowledged: Option<Acknowledged>,
    /// The refusal's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temporary: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// What became of a request for many channels.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChannelResults {
    /// One for each channel, in the order of their first events.
    results: Vec<ChannelResult>,
}

/// An event to be published.
#[derive(ToSchema)]
#[schema(as = Event)]
#[expect(dead_code, reason = "describes what the body's own parser reads")]
pub(crate) struct EventSchema {
    /// Only where the request is for many channels.
    channel: Option<String>,
    /// What kind of event, 1 to 255 bytes.
    r#type: Option<String>,
    /// What it is about, 1 to 255 bytes.
    key: Option<String>,
    /// An id of your own, 1 to 255 bytes; else it is made from the event's place.
    id: Option<String>,
    /// Any JSON; kept as the bytes that came in.
    data: Option<serde_json::Value>,
    /// In place of `data`: bytes.
    data_base64: Option<String>,
}

/// Publish to one channel
///
/// Takes one event, an array, NDJSON, or CloudEvents (structured or batch). The answer comes when the
/// journal has the events on disk, or with `receipt=archive` when the archive has stored them. With an
/// `Idempotency-Key` the same request may be sent again for five minutes and is stored once: it gets the
/// first answer again, with `Idempotent-Replayed: true`. Other events under the same key are refused with
/// 409. A client that publishes over a WebSocket at other times gives `producer` and `seq` instead, and
/// what it sent there before is known for a repeat here, with `again`; it sends one publish at a time.
#[utoipa::path(
    post, path = "/v1/channels/{channel}/events", tag = "publish",
    params(
        ("channel" = String, Path, description = "namespace:name"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters"),
        ("receipt" = Option<String>, Query, description = "`journal` (default) or `archive`"),
        ("producer" = Option<String>, Query, description = "with `seq`, in place of Idempotency-Key: the producer of a client of the WebSocket protocol"),
        ("seq" = Option<u64>, Query, description = "the number of the first event among the producer's"),
        ("again" = Option<u64>, Query, description = "a repeat: for how many milliseconds it may have been sent"),
    ),
    request_body(content(
        (EventSchema = "application/json"), (String = "application/x-ndjson"),
        (serde_json::Value = "application/cloudevents+json"),
        (serde_json::Value = "application/cloudevents-batch+json"),
    )),
    responses((status = 200, body = Acknowledged), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn to_channel(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Action::Publish, channel.as_str())?;
    publish(&state, &caller, channel, &parameters, &headers, body).await
}

/// Publishes to a channel that the caller may publish to.
pub(super) async fn publish(
    state: &HttpState,
    caller: &Caller,
    channel: Channel,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (format, bytes) = read(state, headers, body).await?;
    let events = body::events(format, &bytes, &state.message)?;
    let mut publish = Publish::new(state, caller, parameters, headers)?;
    publish.numbered = numbered(parameters, publish.key.is_some())?;
    let [result] = publish.all(vec![(channel, events)]).await.try_into().unwrap_or_else(|_| {
        [Err(Refusal::new(ErrorCode::Internal, "one publish had not one answer"))]
    });
    let acknowledged = result.map(|published| publish.acknowledged(&published))?;
    let replayed = acknowledged.duplicate;
    Ok(publish.told(replayed, axum::Json(acknowledged).into_response()))
}

/// Publish to many channels
///
/// As the publish to one channel, but each event names its `channel`. The channels are stored one by one,
/// so each has a status of its own: 200 if all were stored, else 207. Nothing is stored if the token
/// lacks the right to one of them. An `Idempotency-Key` stands for each channel's events by themselves.
#[utoipa::path(
    post, path = "/v1/events", tag = "publish",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters"),
        ("receipt" = Option<String>, Query, description = "`journal` (default) or `archive`"),
    ),
    request_body(content(
        (EventSchema = "application/json"), (String = "application/x-ndjson"),
        (serde_json::Value = "application/cloudevents+json"),
        (serde_json::Value = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 200, body = ChannelResults), (status = 207, body = ChannelResults),
        (status = "default", response = super::openapi::Problem)
    ),
    security(("bearer" = []))
)]
pub(super) async fn to_channels(
    State(state): State<HttpState>,
    caller: Caller,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (format, bytes) = read(&state, &headers, body).await?;
    let groups = body::events_by_channel(format, &bytes, &state.message)?;
    for (channel, _) in &groups {
        caller.require(Action::Publish, channel.as_str())?;
    }
    let publish = Publish::new(&state, &caller, &parameters, &headers)?;
    let channels: Vec<Channel> = groups.iter().map(|(channel, _)| channel.clone()).collect();
    let answers = publish.all(groups).await;
    let results: Vec<ChannelResult> = channels
        .iter()
        .zip(answers)
        .map(|(channel, answer)| publish.result(channel, answer))
        .collect();
    let all = results.iter().all(|result| result.status == 200);
    let status = if all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let is_repeat = |result: &ChannelResult| {
        result.acknowledged.as_ref().is_some_and(|acknowledged| acknowledged.duplicate)
    };
    let replayed = results.iter().all(is_repeat);
    let response = (status, axum::Json(ChannelResults { results })).into_response();
    Ok(publish.told(replayed, response))
}

async fn read(
    state: &HttpState,
    headers: &HeaderMap,
    body: Body,
) -> Result<(BodyFormat, bytes::Bytes), Refusal> {
    let format = BodyFormat::of(header_text(headers, &header::CONTENT_TYPE))?;
    Ok((format, stormwire_web::body(body, state.message.message_bytes).await?))
}

/// The publishes of one request. Each is a connection of the lanes by itself: what becomes of one says
/// nothing about another.
struct Publish<'a> {
    state: &'a HttpState,
    caller: &'a Caller,
    connections: Mutex<Vec<u64>>,
    key: Option<String>,
    numbered: Option<Numbered>,
    receipt: Receipt,
    trace: Option<TraceContext>,
}

/// The place of a publish among those of a producer, as over a WebSocket.
struct Numbered {
    producer: Arc<str>,
    seq: u64,
    again: Option<Duration>,
}

impl<'a> Publish<'a> {
    fn new(
        state: &'a HttpState,
        caller: &'a Caller,
        parameters: &Parameters,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let receipt = match parameters.text("receipt") {
            None | Some("journal") => Receipt::Journal,
            Some("archive") => Receipt::Archive,
            Some(other) => {
                let problem = format!("`journal` or `archive` is due, not {other:?}");
                return Err(Refusal::invalid_field("receipt", problem));
            }
        };
        Ok(Self {
            state,
            caller,
            connections: Mutex::default(),
            key: idempotency_key(headers)?,
            numbered: None,
            receipt,
            trace: trace(headers),
        })
    }

    /// Submits all and waits for all answers, in order.
    async fn all(&self, groups: Vec<(Channel, EncodedEvents)>) -> Vec<Result<Published, Refusal>> {
        let (answers, receivers) = Waiting::new(groups.len());
        for (ticket, (channel, events)) in groups.into_iter().enumerate() {
            let bytes = events.as_bytes().len() as u64;
            let cost = Cost { events: events.len() as u64, bytes, ..Cost::default() };
            let ticket = ticket as u64;
            let admitted = self.caller.admit(Some(channel.as_str()), cost).await;
            let schema = self.state.schemas.of(&channel);
            let checked = admitted.and_then(|()| schema.map_or(Ok(()), |one| one.check(&events)));
            if let Err(refusal) = checked {
                answers.answer(ticket, Err(refusal));
                continue;
            }
            let answers = Arc::clone(&answers) as Arc<dyn Answers>;
            self.submit(ticket, channel, events, answers);
        }
        let receipt = match self.receipt {
            Receipt::Journal => Duration::ZERO,
            Receipt::Archive => RECEIPT_WITHIN,
        };
        let deadline = tokio::time::Instant::now() + ANSWER_WITHIN + receipt;
        let mut results = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            let answer = tokio::time::timeout_at(deadline, receiver).await;
            let answer = answer.map_err(|_| ()).and_then(|answer| answer.map_err(|_| ()));
            results.push(self.judge(answer.unwrap_or_else(|()| Err(unknown_outcome()))));
        }
        results
    }

    fn submit(
        &self,
        ticket: u64,
        channel: Channel,
        events: EncodedEvents,
        mut answers: Arc<dyn Answers>,
    ) {
        let user = &self.caller.claims.user;
        let (producer, seq, again) = match (&self.key, &self.numbered) {
            (Some(key), _) => {
                let (producer, seq) = one_publish(user, key, &channel, &events);
                (Some(producer), seq, Some(RETRY_WINDOW))
            }
            (None, Some(own)) => (Some(Arc::clone(&own.producer)), own.seq, own.again),
            (None, None) => (None, 0, None),
        };
        let connection = self.state.next_publish();
        self.connections.lock().push(connection);
        if self.receipt == Receipt::Archive {
            answers = self.state.receipts.of_archive(channel.clone(), events.len(), answers);
        }
        self.state.ingest.submit(Submission {
            connection,
            ticket,
            channel,
            user: Arc::clone(user),
            producer,
            seq,
            again,
            events,
            trace: self.trace,
            answers,
        });
    }

    /// Says in a header that the answer is that of an earlier attempt.
    fn told(&self, replayed: bool, mut response: Response) -> Response {
        if replayed && self.key.is_some() {
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// B5: with an idempotency key a table that does not reach back far enough is a reason to wait.
    fn judge(&self, answer: Result<Published, Refusal>) -> Result<Published, Refusal> {
        answer.map_err(|refusal| {
            if self.key.is_none() {
                return refusal;
            }
            if refusal.code == ErrorCode::Conflict {
                let message = "this Idempotency-Key stands for other events that were published to this \
                               channel; take a new key for new events";
                return Refusal::new(ErrorCode::Conflict, message);
            }
            if refusal.code != ErrorCode::Forgotten {
                return refusal;
            }
            let message = "this server cannot tell yet whether the events were stored before; send the \
                           request again with the same Idempotency-Key";
            Refusal::new(ErrorCode::UnknownOutcome, message).retry_after(Duration::from_secs(10))
        })
    }

    fn acknowledged(&self, published: &Published) -> Acknowledged {
        Acknowledged {
            epoch: published.epoch.0,
            first: published.first.0,
            last: published.last.0,
            server_time: self.state.clock.now().0,
            duplicate: published.duplicate,
            dead_letters: published.dead_letters,
        }
    }

    fn result(&self, channel: &Channel, answer: Result<Published, Refusal>) -> ChannelResult {
        let channel = channel.to_string();
        match answer {
            Ok(published) => ChannelResult {
                channel,
                status: 200,
                acknowledged: Some(self.acknowledged(&published)),
                code: None,
                message: None,
                temporary: None,
                retry_after_ms: None,
            },
            Err(refusal) => ChannelResult {
                channel,
                status: refusal.code.http_status(),
                acknowledged: None,
                code: Some(refusal.code.as_str()),
                temporary: Some(refusal.is_temporary()),
                retry_after_ms: refusal
                    .retry_after
                    .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                message: Some(refusal.message.into_owned()),
            },
        }
    }
}

impl Drop for Publish<'_> {
    fn drop(&mut self) {
        for connection in self.connections.get_mut().drain(..) {
            self.state.ingest.closed(connection);
        }
    }
}

fn unknown_outcome() -> Refusal {
    let message = "the journal has not answered in time: the events may be stored or not; with an \
                   Idempotency-Key the request can be sent again safely";
    Refusal::new(ErrorCode::UnknownOutcome, message).retry_after(Duration::from_secs(1))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(None);
    }
    let key = header_text(headers, &IDEMPOTENCY_KEY).filter(|key| {
        (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| matches!(b, b' '..=b'~'))
    });
    let Some(key) = key else {
        let problem = format!("1 to {KEY_BYTES_MAX} printable ASCII characters are due");
        return Err(Refusal::invalid_field("Idempotency-Key", problem));
    };
    Ok(Some(key.to_owned()))
}

/// `producer`, `seq` and `again` of a client that numbers its events itself.
fn numbered(parameters: &Parameters, has_key: bool) -> Result<Option<Numbered>, Refusal> {
    let seq = parameters.number("seq", 1, INTEGER_MAX)?;
    let again = parameters.number("again", 0, INTEGER_MAX)?.map(Duration::from_millis);
    let (producer, seq) = match (parameters.text("producer"), seq) {
        (None, None) => return Ok(None),
        (Some(producer), Some(seq)) => (producer, seq),
        (None, Some(_)) => Err(Refusal::invalid_field("producer", "goes with seq"))?,
        (Some(_), None) => Err(Refusal::invalid_field("seq", "goes with producer"))?,
    };
    if has_key {
        let problem = "give producer and seq, or an Idempotency-Key, not both";
        return Err(Refusal::invalid_field("producer", problem));
    }
    check_producer(producer)?;
    Ok(Some(Numbered { producer: producer.into(), seq, again }))
}

/// The producer that an idempotency key stands for on a channel, and the number that stands for these
/// events: hashes both. So the log itself holds which events the key was used for, and whichever
/// gateway writes the channel knows them again, or others under the same key for others, by the table
/// that it makes of the log. Nothing else keeps answers.
fn one_publish(
    user: &str,
    key: &str,
    channel: &Channel,
    events: &EncodedEvents,
) -> (Arc<str>, u64) {
    let mut hash = Sha256::new();
    for text in [user, key] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(channel.as_str());
    let hex = hash.finalize().iter().take(20).map(|b| format!("{b:02x}")).collect::<String>();
    let digest = Sha256::digest(events.as_bytes());
    let word = u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default());
    // Room for the numbers of a publish's events between two such numbers.
    (format!("key-{hex}").into(), BODY_NUMBERS | (word << BODY_NUMBERS_APART & !BODY_NUMBERS))
}

/// The trace that the events carry: this request's span, or else what the client sent.
fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    if let Some(SpanRef { trace, span, flags }) = SpanRef::current() {
        return Some(TraceContext { trace, span, flags });
    }
    let name = HeaderName::from_static("traceparent");
    header_text(headers, &name).and_then(TraceContext::parse)
}
