//! Sign in, go on, sign out.

use super::HttpState;
use super::input::{From, Input};
use crate::service::{Login, Tokens};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_web::Problem;
use utoipa::ToSchema;

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// The user name, or else the address.
    username: Option<String>,
    email: Option<String>,
    #[schema(value_type = String)]
    password: SecretString,
}

/// What a sign-in and a refresh give.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// The account's id, which is the token's `sub` and the events' `from`.
    user: String,
    session: String,
    access_token: String,
    token_type: &'static str,
    /// Seconds that the access token is valid.
    expires_in: u64,
    /// Good once; keep it where no script reads it.
    refresh_token: String,
    /// Seconds that the refresh token is valid.
    refresh_expires_in: u64,
}

impl std::convert::From<Tokens> for SignedIn {
    fn from(tokens: Tokens) -> Self {
        Self {
            user: tokens.user,
            session: tokens.session,
            access_token: tokens.access,
            token_type: "Bearer",
            expires_in: tokens.access_ttl.as_secs(),
            refresh_token: tokens.refresh,
            refresh_expires_in: tokens.refresh_ttl.as_secs(),
        }
    }
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// Sign in
///
/// By user name or address, and password. After five wrong attempts an account waits, one second and then
/// twice as long each time up to 15 minutes; an address after fifty.
#[utoipa::path(
    post, path = "/v1/auth/login", tag = "auth", request_body = LoginRequest,
    responses((status = 200, body = SignedIn), (status = "default", description = "a problem"))
)]
pub(super) async fn login(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<LoginRequest>,
) -> Result<Json<SignedIn>, Problem> {
    let login = match (request.username, request.email) {
        (Some(name), None) => Login::Name(name),
        (None, Some(email)) => Login::Email(email),
        _ => {
            let message = "username: give a username or an email, one of them";
            return Err(Refusal::new(ErrorCode::InvalidField, message).into());
        }
    };
    Ok(Json(state.shared.sign_in(login, request.password, &from).await?.into()))
}

/// Go on
///
/// Exchanges a refresh token for the next one. Each is good once: one that comes again ends the session,
/// also for whoever got the next one. A client that lost the answer signs in again.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "auth", request_body = RefreshRequest,
    responses((status = 200, body = SignedIn), (status = "default", description = "a problem"))
)]
pub(super) async fn refresh(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<RefreshRequest>,
) -> Result<Json<SignedIn>, Problem> {
    Ok(Json(state.shared.refresh(&request.refresh_token, &from).await?.into()))
}

/// Sign out
///
/// Ends the session of the refresh token. Its access tokens end with it.
#[utoipa::path(
    post, path = "/v1/auth/logout", tag = "auth", request_body = RefreshRequest,
    responses((status = 204), (status = "default", description = "a problem"))
)]
pub(super) async fn logout(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<RefreshRequest>,
) -> Result<StatusCode, Problem> {
    state.shared.sign_out(&request.refresh_token, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}
