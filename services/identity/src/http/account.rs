//! Accounts: make one, change its password, give it a role.

use super::HttpState;
use super::input::{Counted, From, Input};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stormwire_core::Refusal;
use stormwire_tokens::{Permission, Role};
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// An account that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterRequest {
    /// 3 to 32 letters and digits of one script, `-`, `.` and `_`.
    username: Option<String>,
    email: Option<String>,
    /// At least 8 characters.
    #[schema(value_type = String)]
    password: SecretString,
}

/// A new account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Registered {
    /// The account's id.
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordRequest {
    #[schema(value_type = String)]
    current: SecretString,
    #[schema(value_type = String)]
    new: SecretString,
}

/// A role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleRequest {
    /// `user`, `moderator` or `admin`.
    role: String,
}

/// Make an account
///
/// By user name, by address, or by both.
#[utoipa::path(
    post, path = "/v1/auth/register", tag = "auth", request_body = RegisterRequest,
    responses((status = 201, body = Registered), (status = "default", description = "a problem"))
)]
pub(super) async fn register(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<RegisterRequest>,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    let RegisterRequest { username, email, password } = request;
    let (name, email) = (username.as_deref(), email.as_deref());
    let made = state.shared.register(name, email, password, &from).await?;
    Ok((StatusCode::CREATED, Json(Registered { user: made.user, username: made.username })))
}

/// Change the password
///
/// Every session but this one ends.
#[utoipa::path(
    post, path = "/v1/auth/password", tag = "auth", request_body = PasswordRequest,
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn password(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Input(request): Input<PasswordRequest>,
) -> Result<StatusCode, Problem> {
    let PasswordRequest { current, new } = request;
    state.shared.change_password(&caller.claims, current, new, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a role
///
/// For admins. It is in the tokens that are signed from then on.
#[utoipa::path(
    put, path = "/v1/auth/users/{user}/role", tag = "auth", request_body = RoleRequest,
    params(("user" = String, Path, description = "the account's id")),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn role(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(user): Path<String>,
    Input(request): Input<RoleRequest>,
) -> Result<StatusCode, Problem> {
    caller.permit(Permission::ManageRoles)?;
    let role = Role::parse(&request.role)
        .ok_or_else(|| Refusal::invalid_field("role", "expected user, moderator or admin"))?;
    state.shared.require_session(&caller.claims).await?;
    state.shared.give_role(&caller.claims, &user, role, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}
