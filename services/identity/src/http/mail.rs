//! What goes by mail: an address confirmed, a forgotten password replaced.

use super::HttpState;
use super::input::{From, Input};
use axum::extract::State;
use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// What a mail said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    #[schema(value_type = String)]
    token: SecretString,
}

/// Whose password is forgotten.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgottenRequest {
    email: String,
}

/// A new password, and what the mail said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResetRequest {
    #[schema(value_type = String)]
    token: SecretString,
    /// At least 8 characters.
    #[schema(value_type = String)]
    password: SecretString,
}

/// Ask for the mail that confirms your address
#[utoipa::path(
    post, path = "/v1/auth/email", tag = "auth",
    responses((status = 202), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn ask_for_verification(
    State(state): State<HttpState>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    state.shared.ask_for_verification(&caller.claims).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Confirm an address
#[utoipa::path(
    post, path = "/v1/auth/email/verify", tag = "auth", request_body = VerifyRequest,
    responses((status = 204), (status = "default", description = "a problem"))
)]
pub(super) async fn verify(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<VerifyRequest>,
) -> Result<StatusCode, Problem> {
    state.shared.verify_email(&request.token, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for a new password
///
/// The answer is the same whether there is an account with that address or not.
#[utoipa::path(
    post, path = "/v1/auth/password/forgotten", tag = "auth", request_body = ForgottenRequest,
    responses((status = 202), (status = "default", description = "a problem"))
)]
pub(super) async fn ask_for_reset(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<ForgottenRequest>,
) -> Result<StatusCode, Problem> {
    state.shared.ask_for_reset(&request.email, &from).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Set a new password
///
/// With what the mail said. Every session of the account ends.
#[utoipa::path(
    post, path = "/v1/auth/password/reset", tag = "auth", request_body = ResetRequest,
    responses((status = 204), (status = "default", description = "a problem"))
)]
pub(super) async fn reset(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<ResetRequest>,
) -> Result<StatusCode, Problem> {
    state.shared.reset_password(&request.token, request.password, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}
