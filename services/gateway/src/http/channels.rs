//! `GET /v1/channels` and `GET /v1/channels/{channel}`.

use super::HttpState;
use super::query::{InPath, Parameters};
use crate::reader::archive_refusal;
use crate::render;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use stormwire_archive::{ChannelInfo, ChannelQuery};
use stormwire_core::{Channel, ErrorCode, Refusal};
use stormwire_tokens::{Action, Claims};
use stormwire_web::{Caller, Problem};
use stormwire_wire::protocol::{Codec, EventsEncoder, channel};
use utoipa::ToSchema;

/// Reads of the archive that one page may take where the caller may see few channels.
const READS_MAX: usize = 8;

/// A channel as a list tells it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Channel)]
pub(crate) struct Listed {
    channel: String,
    namespace: String,
    /// RFC 3339.
    created_at: String,
    created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Events in the archive.
    count: u64,
    /// Position of the newest event in the archive.
    last: String,
    /// When it was stored, RFC 3339.
    last_at: String,
}

impl From<ChannelInfo> for Listed {
    fn from(info: ChannelInfo) -> Self {
        Self {
            channel: info.channel.to_string(),
            namespace: info.channel.namespace().to_owned(),
            created_at: info.created_at.to_rfc3339(),
            created_by: info.created_by,
            title: info.title,
            count: info.count,
            last: info.last.to_string(),
            last_at: info.last_at.to_rfc3339(),
        }
    }
}

/// Channels by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Channels {
    channels: Vec<Listed>,
    /// Give it as `cursor` for the next page; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One channel.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChannelDetails)]
pub(crate) struct Details {
    /// What the archive knows; absent before its first event was persisted.
    #[serde(flatten)]
    listed: Option<Listed>,
    /// The position behind everything that its partition holds now.
    tip: String,
    /// The newest event, persisted or not.
    #[schema(value_type = Object)]
    last_event: Option<Box<RawValue>>,
}

/// List channels
///
/// By name, ascending; only those that the token may read.
#[utoipa::path(
    get, path = "/v1/channels", operation_id = "list_channels", tag = "read",
    params(
        ("namespace" = Option<String>, Query),
        ("prefix" = Option<String>, Query, description = "of the name after the colon"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses((status = 200, body = Channels), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let limit = parameters.limit()?;
    let mut query = ChannelQuery {
        namespace: parameters.text("namespace").map(str::to_owned),
        prefix: parameters.text("prefix").map(str::to_owned),
        after: parameters.text("cursor").map(|text| channel("cursor", text)).transpose()?,
        limit,
    };
    let mut channels = Vec::new();
    let mut ended = false;
    for _ in 0..READS_MAX {
        let found = state.archive.channels(&query).await.map_err(archive_refusal)?;
        ended = found.len() < query.limit;
        query.after = found.last().map(|info| info.channel.clone()).or(query.after);
        let seen = found.into_iter().filter(|info| may_see(&caller.claims, &info.channel));
        channels.extend(seen.map(Listed::from));
        if ended || channels.len() >= limit {
            break;
        }
    }
    // The last one of the page is where the next one begins, also if more were read.
    let cut = channels.len() > limit;
    channels.truncate(limit);
    let next = match channels.last() {
        Some(last) if cut => Some(last.channel.clone()),
        _ if ended => None,
        _ => query.after.map(|channel| channel.to_string()),
    };
    Ok(axum::Json(Channels { channels, next }).into_response())
}

fn may_see(claims: &Claims, channel: &Channel) -> bool {
    [Action::History, Action::Subscribe]
        .into_iter()
        .any(|action| claims.may(action, channel.as_str()))
}

/// Describe a channel
///
/// Its tip, its count of events, and its newest event.
#[utoipa::path(
    get, path = "/v1/channels/{channel}", tag = "read",
    params(("channel" = String, Path, description = "namespace:name")),
    responses((status = 200, body = Details), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn one(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
) -> Result<Response, Problem> {
    caller.require(Action::History, channel.as_str())?;
    let state = state.read_by(&caller);
    let listed = state.archive.channel(&channel).await.map_err(archive_refusal)?;
    let page = state.reader.before(&channel, None, 1, 1).await?;
    if listed.is_none() && page.events.is_empty() {
        let message = format!("nothing was ever published to {channel}");
        return Err(Refusal::new(ErrorCode::NotFound, message).into());
    }
    let tip = state.reader.tip(&channel).await?.to_string();
    let last_event = page.events.last().and_then(|event| {
        let partition = channel.partition(state.partitions);
        let mut encoder = EventsEncoder::new(Codec::Json, partition, event.position.epoch);
        encoder.push(&render::out_event(event));
        let text = String::from_utf8(encoder.fragments().into()).ok()?;
        RawValue::from_string(text).ok()
    });
    Ok(axum::Json(Details { listed: listed.map(Listed::from), tip, last_event }).into_response())
}
