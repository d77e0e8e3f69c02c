//! Connections of this gateway: who holds them, and how one is ended.

use super::{AdminState, Operator};
use crate::http::query::Parameters;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_web::Problem;
use utoipa::ToSchema;

/// A WebSocket.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct Shown {
    id: u64,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// When its token ends, RFC 3339.
    token_expires_at: String,
}

/// WebSockets of one gateway.
#[derive(Serialize, ToSchema)]
#[schema(as = Connections)]
pub(crate) struct ShownAll {
    /// Which gateway: each tells of its own.
    gateway: String,
    /// How many are open, those that have not signed in yet included.
    open: usize,
    connections: Vec<Shown>,
    /// Give it as `after` for the next page; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// List this gateway's connections
///
/// Those that are signed in, by number; of one user with `user`.
#[utoipa::path(
    get, path = "/v1/admin/connections", tag = "admin",
    params(
        ("user" = Option<String>, Query),
        ("after" = Option<u64>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses((status = 200, body = ShownAll), (status = "default", response = super::super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(state): State<AdminState>,
    _: Operator,
    parameters: Parameters,
) -> Result<Json<ShownAll>, Problem> {
    let (user, limit) = (parameters.text("user"), parameters.limit()?);
    let after = parameters.number("after", 0, u64::MAX)?.unwrap_or(0);
    let connections = &state.http.connections;
    let page = connections.page(user, after, limit);
    let next = page.last().filter(|_| page.len() == limit).map(|(id, _)| *id);
    let shown = page.into_iter().map(|(id, claims)| Shown {
        id,
        user: claims.user.to_string(),
        session: claims.session.as_ref().map(ToString::to_string),
        token_expires_at: claims.expires.to_rfc3339(),
    });
    let (gateway, open) = (state.gateway.clone(), connections.len());
    Ok(Json(ShownAll { gateway, open, connections: shown.collect(), next }))
}

/// Close one of this gateway's connections
///
/// With 4403. Its client may connect again: block the account to keep it out.
#[utoipa::path(
    delete, path = "/v1/admin/connections/{connection}", tag = "admin",
    params(("connection" = u64, Path, description = "its number")),
    responses((status = 204), (status = "default", response = super::super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn close(
    State(state): State<AdminState>,
    operator: Operator,
    Path(connection): Path<u64>,
) -> Result<StatusCode, Problem> {
    let target = format!("{}:{connection}", state.gateway);
    let Some(claims) = state.http.connections.claims(connection) else {
        let message = format!("this gateway has no connection {connection}");
        return Err(Refusal::new(ErrorCode::NotFound, message).into());
    };
    let detail = serde_json::json!({ "user": *claims.user }).to_string();
    state.note(&operator, "connection_closed", &target, detail).await?;
    state.http.connections.end(connection);
    Ok(StatusCode::NO_CONTENT)
}
