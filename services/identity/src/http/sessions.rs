//! Sessions: list them, end them.

use super::HttpState;
use super::input::Counted;
use crate::domain::Session;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use stormwire_tokens::Permission;
use stormwire_web::{Caller, OwnedBy, Problem};
use utoipa::ToSchema;

/// The sessions of an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sessions {
    /// The newest first.
    sessions: Vec<Listed>,
}

/// One sign-in.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct Listed {
    id: String,
    /// RFC 3339, as are the others.
    created_at: String,
    /// When it was last refreshed.
    used_at: String,
    expires_at: String,
    /// Where it was last refreshed from.
    ip: String,
    /// What the client calls itself.
    agent: String,
    /// Whether it is the one that asks.
    current: bool,
}

async fn list(state: &HttpState, caller: &Caller, owner: &str) -> Result<Json<Sessions>, Problem> {
    let current = caller.claims.session.as_deref();
    let listed = |session: Session| Listed {
        current: current == Some(session.id.as_str()),
        id: session.id,
        created_at: session.created_at.to_rfc3339(),
        used_at: session.used_at.to_rfc3339(),
        expires_at: session.expires_at.to_rfc3339(),
        ip: session.ip,
        agent: session.agent,
    };
    let sessions = state.shared.list_sessions(&caller.claims, owner).await?;
    Ok(Json(Sessions { sessions: sessions.into_iter().map(listed).collect() }))
}

/// List your sessions
#[utoipa::path(
    get, path = "/v1/auth/sessions", tag = "auth",
    responses((status = 200, body = Sessions), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn own(
    State(state): State<HttpState>,
    caller: Caller,
) -> Result<Json<Sessions>, Problem> {
    list(&state, &caller, &caller.claims.user).await
}

/// List somebody's sessions
///
/// Your own as `me`; those of others for moderators and admins.
#[utoipa::path(
    get, path = "/v1/auth/users/{user}/sessions", tag = "auth",
    params(("user" = String, Path, description = "the account's id, or me")),
    responses((status = 200, body = Sessions), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn of_user(
    State(state): State<HttpState>,
    OwnedBy { caller, owner }: OwnedBy,
) -> Result<Json<Sessions>, Problem> {
    list(&state, &caller, &owner).await
}

/// End one of your sessions
#[utoipa::path(
    delete, path = "/v1/auth/sessions/{session}", tag = "auth",
    params(("session" = String, Path, description = "the session's id")),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn end_own(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    let claims = &caller.claims;
    state.shared.end_session(claims, &claims.user, &session, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End one of somebody's sessions
///
/// Your own as `me`; those of others for moderators and admins.
#[utoipa::path(
    delete, path = "/v1/auth/users/{user}/sessions/{session}", tag = "auth",
    params(
        ("user" = String, Path, description = "the account's id, or me"),
        ("session" = String, Path, description = "the session's id"),
    ),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn end_of_user(
    State(state): State<HttpState>,
    OwnedBy { caller, owner }: OwnedBy,
    Counted(from): Counted,
    Path((_user, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    caller.own_or(&owner, Permission::RevokeSessions)?;
    state.shared.end_session(&caller.claims, &owner, &session, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}
