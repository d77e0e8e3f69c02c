//! `GET /v1/channels/{channel}/events`: a page, a long poll, or a stream of Server-Sent Events; of a
//! channel, or of all channels that a pattern matches.

use super::query::{Parameters, TargetInPath, parse_position};
use super::source::Source;
use super::watch::{self, Watch};
use super::{HttpState, stream, wide};
use crate::hub::Selection;
use crate::reader::{self, Reader};
use crate::render;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use std::time::Duration;
use stormwire_core::{Channel, Partition, Pattern, Position, Refusal};
use stormwire_tokens::Action;
use stormwire_web::{Problem, StreamCaller, header_text, json};
use stormwire_wire::protocol::{Codec, EventsEncoder};
use tokio::time::Instant;

/// About so many bytes of data in one page.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where a reader wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    After(Position),
    Before(Position),
    Last,
}

/// Read a channel
///
/// A page of events in ascending order: the newest, the oldest after a position, or the newest before
/// one. With `wait` and `after` an empty page is held back until there is an event (long poll). With
/// `Accept: text/event-stream` a stream that goes on: events after `after` or `Last-Event-ID`, or from
/// now on; its `id` is the position.
///
/// In the channel's place a pattern (`orders:*`) reads all channels that it matches: a page after a
/// cursor, a long poll, or a stream. Its positions are cursors, and each event names its channel.
#[utoipa::path(
    get, path = "/v1/channels/{channel}/events", tag = "read",
    params(
        ("channel" = String, Path, description = "namespace:name, or a pattern such as namespace:*"),
        ("after" = Option<String>, Query, description = "epoch:offset; the cursor of a pattern"),
        ("before" = Option<String>, Query, description = "epoch:offset"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 100 by default"),
        ("wait" = Option<u32>, Query, description = "seconds up to 30"),
        ("access_token" = Option<String>, Query, description = "for clients that cannot set headers"),
        ("Last-Event-ID" = Option<String>, Header, description = "epoch:offset; the cursor of a pattern"),
    ),
    responses(
        (status = 200, content((super::openapi::Pages = "application/json"), (String = "text/event-stream"))),
        (status = "default", response = super::openapi::Problem)
    ),
    security(("bearer" = []))
)]
pub(super) async fn page(
    State(state): State<HttpState>,
    caller: StreamCaller,
    TargetInPath(target): TargetInPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (state, held) = state.lasting(&caller)?;
    let state = state.read_by(&caller);
    let is_stream =
        header_text(&headers, &header::ACCEPT).unwrap_or_default().contains("text/event-stream");
    let last_seen = header_text(&headers, &LAST_EVENT_ID).filter(|text| !text.is_empty());
    let channel = match target {
        Pattern::Exact(channel) => channel,
        Pattern::Prefix(_) => {
            let request = wide::Request { is_stream, last_seen, parameters: &parameters };
            return Ok(wide::events(&state, &caller, held, &target, &request).await?);
        }
    };
    let after = match last_seen {
        Some(text) => Some(parse_position("Last-Event-ID", text)?),
        None => parameters.position("after")?,
    };
    if is_stream {
        caller.require(Action::Subscribe, channel.as_str())?;
        let source = Source::channel(&state, &channel, after).await?;
        return Ok(stream::events(&state, &caller, held, source));
    }
    caller.require(Action::History, channel.as_str())?;
    let from = match (after, parameters.position("before")?) {
        (Some(after), None) => From::After(after),
        (None, Some(before)) => From::Before(before),
        (None, None) => From::Last,
        (Some(_), Some(_)) => {
            Err(Refusal::invalid_field("before", "give after or before, not both"))?
        }
    };
    let limit = parameters.limit()?;
    let page = match (from, parameters.wait()?) {
        (From::After(after), Some(wait)) => poll(&state, &channel, after, limit, wait).await?,
        (_, Some(_)) => Err(Refusal::invalid_field("wait", "give after as well"))?,
        (from, None) => read(&state.reader, &channel, from, limit).await?,
    };
    let partition = channel.partition(state.partitions);
    Ok(json(page.make(move |page| encode(&channel, partition, from, page)).await))
}

async fn read(
    reader: &Reader,
    channel: &Channel,
    from: From,
    limit: usize,
) -> Result<reader::Page, Refusal> {
    match from {
        From::After(after) => {
            let selection = Selection::Channel(channel.clone());
            reader.after(&selection, after, limit, PAGE_BYTES).await
        }
        From::Before(before) => reader.before(channel, Some(before), limit, PAGE_BYTES).await,
        From::Last => reader.before(channel, None, limit, PAGE_BYTES).await,
    }
}

/// A page after `after`, waiting for its first event where there is none yet.
async fn poll(
    state: &HttpState,
    channel: &Channel,
    after: Position,
    limit: usize,
    wait: Duration,
) -> Result<reader::Page, Refusal> {
    let deadline = Instant::now() + wait;
    let selection = Selection::Channel(channel.clone());
    let mut watch = Watch::new(state.hub.feed(channel));
    let mut at = after;
    loop {
        watch.mark();
        let page = state.reader.after(&selection, at, limit, PAGE_BYTES).await?;
        if !page.events.is_empty() || !page.gaps.is_empty() {
            return Ok(page);
        }
        at = page.next.unwrap_or(at);
        let waiting = std::iter::once(&mut watch);
        if !page.more && !watch::any_moved(waiting, deadline, &state.draining).await {
            return Ok(page);
        }
    }
}

/// The page's text. It holds events of one epoch: of a page that spans two, those nearest to where it
/// began, and then there is more.
fn encode(channel: &Channel, partition: Partition, from: From, page: reader::Page) -> Bytes {
    let epoch_of = |event: &stormwire_archive::StoredEvent| event.position.epoch;
    let ascends = matches!(from, From::After(_));
    let mut chunks = page.events.chunk_by(|a, b| epoch_of(a) == epoch_of(b));
    let events = if ascends { chunks.next() } else { chunks.next_back() }.unwrap_or_default();
    let more = page.more || events.len() < page.events.len();
    let edge = if ascends { events.last() } else { events.first() };
    let next = edge.map(|event| event.position).or(page.next);
    let epoch = next.map_or(stormwire_core::Epoch::FIRST, |next| next.epoch);
    let mut encoder = EventsEncoder::new(Codec::Json, partition, epoch);
    events.iter().for_each(|event| encoder.push(&render::out_event(event)));
    encoder.page(channel.as_str(), more, next, &page.gaps)
}
