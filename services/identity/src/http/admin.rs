//! `/v1/admin/users/…`: accounts as operators see them.

use super::HttpState;
use super::input::{Counted, Input};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_tokens::Permission;
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// An account.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserAccount {
    user: String,
    /// Null where somebody signed up by mail address alone.
    username: Option<String>,
    role: &'static str,
    /// Whether it may not sign in.
    blocked: bool,
    email_verified: bool,
}

/// Whether an account may sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockRequest {
    blocked: bool,
}

/// What a sign-out ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedOut {
    /// Sessions.
    ended: u64,
}

/// See an account
///
/// For moderators and admins.
#[utoipa::path(
    get, path = "/v1/admin/users/{user}", tag = "admin",
    params(("user" = String, Path, description = "the account's id")),
    responses((status = 200, body = UserAccount), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn user(
    State(state): State<HttpState>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<UserAccount>, Problem> {
    caller.permit(Permission::ReadAccounts)?;
    let found = state.shared.store.account(&user).await.map_err(Refusal::from)?;
    let account =
        found.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "there is no such account"))?;
    Ok(Json(UserAccount {
        user: account.id,
        username: account.name,
        role: account.role.as_str(),
        blocked: account.blocked,
        email_verified: account.email_verified,
    }))
}

/// Block an account, or let it in again
///
/// With the block its sessions end and its sockets close, on every gateway. For moderators and admins;
/// moderators and admins themselves are blocked by admins alone.
#[utoipa::path(
    put, path = "/v1/admin/users/{user}/blocked", tag = "admin", request_body = BlockRequest,
    params(("user" = String, Path, description = "the account's id")),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn block(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(user): Path<String>,
    Input(request): Input<BlockRequest>,
) -> Result<StatusCode, Problem> {
    caller.permit(Permission::BlockAccounts)?;
    state.shared.block(&caller.claims, &user, request.blocked, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign somebody out everywhere
///
/// Every session of the account ends, and with them its sockets on every gateway. For moderators and
/// admins.
#[utoipa::path(
    post, path = "/v1/admin/users/{user}/sign-out", tag = "admin",
    params(("user" = String, Path, description = "the account's id")),
    responses((status = 200, body = SignedOut), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn sign_out(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(user): Path<String>,
) -> Result<Json<SignedOut>, Problem> {
    caller.permit(Permission::RevokeSessions)?;
    let ended = state.shared.sign_out_everywhere(&caller.claims, &user, &from).await?;
    Ok(Json(SignedOut { ended }))
}
