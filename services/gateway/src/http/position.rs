//! `GET` and `PUT /v1/channels/{channel}/position`: how far the caller has read, and what he has not.

use super::HttpState;
use super::query::{InPath, parse_position};
use crate::reader::{Above, archive_refusal};
use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use stormwire_core::{Channel, Epoch, ErrorCode, Offset, Position, Refusal};
use stormwire_tokens::Action;
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// Unread events are counted up to here.
const UNREAD_MAX: u64 = 10_000;
/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 1024;
const START: Position = Position { epoch: Epoch(0), offset: Offset(0) };

/// How far a user has read a channel.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadPosition {
    channel: String,
    /// The last event that was read, `epoch:offset`; null before the first `PUT`.
    position: Option<String>,
    /// Events behind it; with no position, all that there are.
    unread: u64,
    /// Whether there may be more than `unread`: nothing is counted beyond 10,000.
    capped: bool,
}

/// How far the caller has read now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetReadPosition {
    /// `epoch:offset` of the last event that was read.
    position: String,
    /// Whether it may go back. Otherwise the furthest of several devices stays.
    #[serde(default)]
    force: bool,
}

/// Read position
///
/// How far the caller has read the channel, and how many events lie behind that.
#[utoipa::path(
    get, path = "/v1/channels/{channel}/position", tag = "read",
    params(("channel" = String, Path, description = "namespace:name")),
    responses((status = 200, body = ReadPosition), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn get(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
) -> Result<axum::Json<ReadPosition>, Problem> {
    require(&caller, &channel)?;
    let state = state.read_by(&caller);
    let user = &caller.claims.user;
    let position = state.archive.read_position(user, &channel).await.map_err(archive_refusal)?;
    Ok(axum::Json(answer(&state, &channel, position).await?))
}

/// Set the read position
///
/// Notes how far the caller has read and answers with what is noted then: a position that does not lie
/// ahead changes nothing without `force`. One above the end of the channel's partition is refused.
#[utoipa::path(
    put, path = "/v1/channels/{channel}/position", tag = "read",
    params(("channel" = String, Path, description = "namespace:name")),
    request_body = SetReadPosition,
    responses((status = 200, body = ReadPosition), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn put(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
    body: Body,
) -> Result<axum::Json<ReadPosition>, Problem> {
    require(&caller, &channel)?;
    let state = state.read_by(&caller);
    let text = stormwire_web::body(body, BODY_BYTES_MAX).await?;
    let asked: SetReadPosition = serde_json::from_slice(&text).map_err(|error| {
        let due = "{\"position\":\"epoch:offset\",\"force\":false} is due";
        Refusal::new(ErrorCode::Malformed, format!("{due}: {error}"))
    })?;
    let position = parse_position("position", &asked.position)?;
    let partition = channel.partition(state.partitions);
    // A doubt is enough: nothing is lost by a refusal.
    let above = state.reader.end_below(partition, position).await?;
    if let Above::Nothing(end) | Above::Doubted(end) = above {
        let problem = format!("{position} lies above {end}, the end of what there is");
        return Err(Refusal::invalid_field("position", problem).into());
    }
    let user = &caller.claims.user;
    let set = state.archive.set_read_position(user, &channel, position, asked.force).await;
    let noted = set.map_err(archive_refusal)?;
    Ok(axum::Json(answer(&state, &channel, Some(noted)).await?))
}

fn require(caller: &Caller, channel: &Channel) -> Result<(), Refusal> {
    if caller.claims.may(Action::Subscribe, channel.as_str()) {
        return Ok(());
    }
    caller.require(Action::History, channel.as_str())
}

async fn answer(
    state: &HttpState,
    channel: &Channel,
    position: Option<Position>,
) -> Result<ReadPosition, Refusal> {
    let count = state.reader.count_after(channel, position.unwrap_or(START), UNREAD_MAX).await?;
    Ok(ReadPosition {
        channel: channel.to_string(),
        position: position.map(|position| position.to_string()),
        unread: count.events,
        capped: count.is_capped,
    })
}
