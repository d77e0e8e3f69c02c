//! `GET /v1/channels/{channel}/latest`: the newest event of a channel, of a key, or of each key.

use super::HttpState;
use super::events::PAGE_BYTES;
use super::query::{InPath, Parameters};
use crate::reader::{Latest, Page};
use crate::render;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use stormwire_archive::KeyQuery;
use stormwire_core::{Channel, Epoch, Partition, Refusal};
use stormwire_tokens::Action;
use stormwire_web::{Caller, Problem, json};
use stormwire_wire::protocol::{Codec, EventsEncoder, page_of_key, page_of_keys};

/// Read the newest event
///
/// The newest event of the channel; with `key` the newest of that key; with `keys_after` (empty for the
/// first page) the newest of each key behind it, ascending by key, and `next` is the `keys_after` of the
/// next page. An event that was acknowledged before is seen. `events` is empty where there is none.
#[utoipa::path(
    get, path = "/v1/channels/{channel}/latest", tag = "read",
    params(
        ("channel" = String, Path, description = "namespace:name"),
        ("key" = Option<String>, Query, description = "only this key's"),
        ("keys_after" = Option<String>, Query, description = "each key's behind this one; empty: from the first"),
        ("limit" = Option<u32>, Query, description = "1 to 1000 keys, 100 by default"),
    ),
    responses(
        (status = 200, body = super::openapi::LatestPage),
        (status = "default", response = super::openapi::Problem)
    ),
    security(("bearer" = []))
)]
pub(super) async fn latest(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
    parameters: Parameters,
) -> Result<Response, Problem> {
    caller.require(Action::History, channel.as_str())?;
    let limit = parameters.limit()?;
    let query = match (parameters.text("key"), parameters.text("keys_after")) {
        (None, None) => Latest::OfChannel,
        (Some(key), None) => {
            page_of_key(key)?;
            Latest::OfKeys(KeyQuery::Of(key.to_owned()))
        }
        (None, Some(after)) => {
            page_of_keys(after)?;
            let after = Some(after.to_owned()).filter(|key| !key.is_empty());
            Latest::OfKeys(KeyQuery::After(after))
        }
        (Some(_), Some(_)) => {
            Err(Refusal::invalid_field("keys_after", "give key or keys_after, not both"))?
        }
    };
    let state = state.read_by(&caller);
    let page = state.reader.latest(&channel, &query, limit, PAGE_BYTES).await?;
    Ok(json(encode(&channel, channel.partition(state.partitions), &page)))
}

/// The page's text. It holds events of one epoch; behind those of a page that spans two there is more.
fn encode(channel: &Channel, partition: Partition, page: &Page) -> Bytes {
    let mut epochs = page.events.chunk_by(|a, b| a.position.epoch == b.position.epoch);
    let events = epochs.next().unwrap_or_default();
    let more = page.more || events.len() < page.events.len();
    let epoch = events.first().map_or(Epoch::FIRST, |event| event.position.epoch);
    let mut encoder = EventsEncoder::new(Codec::Json, partition, epoch);
    events.iter().for_each(|event| encoder.push(&render::out_event(event)));
    let next = events.last().filter(|_| more).and_then(|event| event.key.as_deref());
    encoder.latest_page(channel.as_str(), more, next)
}
