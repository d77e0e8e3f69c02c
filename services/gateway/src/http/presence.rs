//! `GET /v1/channels/{channel}/presence` and `POST /v1/channels/{channel}/signals`.

use super::HttpState;
use super::query::{InPath, Parameters};
use crate::session::{check_signal, cursor};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_limits::Cost;
use stormwire_tokens::Action;
use stormwire_web::{Caller, Problem};
use stormwire_wire::body;
use utoipa::ToSchema;

/// Somebody who is there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Member {
    user: String,
    /// One of that user's sessions.
    session: String,
}

/// Who is there, ascending by user and session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Members {
    channel: String,
    /// The version of the channel's members that this page was read from.
    version: u64,
    /// How many users are there in that version.
    users: u64,
    /// How many members (sessions of users) are there in that version.
    sessions: u64,
    members: Vec<Member>,
    /// Give it as `after` for the next page; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Members of some gateways may be missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// What the subscribers of a channel are told.
#[derive(ToSchema)]
#[schema(as = Signal)]
#[expect(dead_code, reason = "describes what the body's own parser reads")]
pub(crate) struct SignalSchema {
    /// Any JSON, at most 16 KiB.
    data: Option<serde_json::Value>,
    /// In place of `data`: bytes.
    data_base64: Option<String>,
}

/// List who is there
///
/// Sessions that are subscribed with `presence`, on any gateway. The counts are exact in the version that
/// they come with.
#[utoipa::path(
    get, path = "/v1/channels/{channel}/presence", tag = "read",
    params(
        ("channel" = String, Path, description = "namespace:name"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses((status = 200, body = Members), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn members(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
    parameters: Parameters,
) -> Result<Response, Problem> {
    caller.require(Action::Presence, channel.as_str())?;
    let after = parameters.text("after").map(cursor).transpose()?;
    let known = state.rooms.page(&channel, after.as_ref(), parameters.limit()?).await?;
    let page = known.page;
    let next = page.members.last().filter(|_| page.more).map(|last| last.to_cursor());
    let members = page.members.iter().map(|member| Member {
        user: member.user.to_string(),
        session: member.session.to_string(),
    });
    Ok(axum::Json(Members {
        channel: channel.to_string(),
        version: page.counts.version,
        users: page.counts.users,
        sessions: page.counts.sessions,
        members: members.collect(),
        next,
        partial: known.partial,
    })
    .into_response())
}

/// Signal to a channel
///
/// Told to those who are subscribed now, on every gateway; not stored; at most once.
#[utoipa::path(
    post, path = "/v1/channels/{channel}/signals", tag = "publish",
    params(("channel" = String, Path, description = "namespace:name")),
    request_body(content((SignalSchema = "application/json"))),
    responses((status = 204, description = "on its way"), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn signal(
    State(state): State<HttpState>,
    caller: Caller,
    InPath(channel): InPath,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Action::Signal, channel.as_str())?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| Refusal::new(ErrorCode::Malformed, format!("the body: {error}")))?;
    let data = body::signal(text)?;
    check_signal(data.parts().0.len())?;
    caller.admit(Some(channel.as_str()), Cost { signals: 1, ..Cost::default() }).await?;
    // No connection of this gateway is its own.
    state.rooms.signal(&channel, 0, &caller.claims.user, data).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
