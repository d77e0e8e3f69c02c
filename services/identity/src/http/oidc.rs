//! Sign in through another provider: a browser goes there and comes back.

use super::HttpState;
use super::input::{From, Input, Parameters};
use super::login::SignedIn;
use super::well_known::public_url;
use crate::domain::links::Wish;
use crate::service::{Finished, Returned};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_web::{Problem, SIGN_IN_COOKIE, cookie};
use utoipa::{IntoParams, ToSchema};

/// Providers to sign in with.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProviderList {
    /// What stands in the path for each.
    providers: Vec<String>,
}

/// What is wanted in the end.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BeginQuery {
    /// The SHA-256 of a verifier, in base64url: the answer is then a ticket that only the verifier opens.
    challenge: Option<String>,
    /// One of `identity.return_urls`: the browser goes there with `#ticket=…`, or `#error=…`.
    return_to: Option<String>,
}

/// What the provider sends along.
#[derive(Deserialize)]
pub(crate) struct ReturnedQuery {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
}

/// A ticket.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ticket {
    /// Good once, for two minutes, with the verifier of its challenge.
    ticket: String,
}

/// A ticket and its verifier.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketRequest {
    #[schema(value_type = String)]
    pub(super) ticket: SecretString,
    /// The text whose SHA-256 was the challenge, 43 to 128 letters.
    pub(super) verifier: String,
}

/// List providers
#[utoipa::path(
    get, path = "/v1/auth/oidc", tag = "auth", operation_id = "list_providers",
    responses((status = 200, body = ProviderList), (status = "default", description = "a problem"))
)]
pub(super) async fn list(State(state): State<HttpState>) -> Json<ProviderList> {
    Json(ProviderList { providers: state.shared.providers.names() })
}

/// Go to a provider
///
/// A browser is sent there with a cookie, and comes back to the callback.
#[utoipa::path(
    get, path = "/v1/auth/oidc/{provider}", tag = "auth",
    params(("provider" = String, Path, description = "its name in the configuration"), BeginQuery),
    responses((status = 303), (status = "default", description = "a problem"))
)]
pub(super) async fn begin(
    State(state): State<HttpState>,
    From(_from): From,
    Path(provider): Path<String>,
    Parameters(query): Parameters<BeginQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let BeginQuery { challenge, return_to } = query;
    let base = public_url(&state.shared.config, &headers);
    let wish = Wish { challenge, return_to };
    let begun = state.shared.begin_external(&provider, &base, wish).await?;
    let secure = base.starts_with("https://");
    see_other(&begun.url, &set_cookie(&begun.cookie, 600, secure))
}

/// Come back from a provider
///
/// Tokens, or a ticket where a challenge was sent; where a page was named the browser goes there with it.
#[utoipa::path(
    get, path = "/v1/auth/oidc/{provider}/callback", tag = "auth",
    params(("provider" = String, Path, description = "its name in the configuration")),
    responses(
        (status = 200, body = SignedIn), (status = 303), (status = "default", description = "a problem")
    )
)]
pub(super) async fn callback(
    State(state): State<HttpState>,
    From(from): From,
    Path(provider): Path<String>,
    Parameters(query): Parameters<ReturnedQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let brought = cookie(&headers, SIGN_IN_COOKIE).unwrap_or_default();
    let flow = state.shared.flow(&provider, &brought)?;
    let ReturnedQuery { state: shown, code, iss } = query;
    let returned = Returned { state: shown, code, issuer: iss };
    let finished = state.shared.finish_external(&flow, returned, &from).await;
    let over = set_cookie("", 0, flow.redirect.starts_with("https://"));
    if let Some(page) = &flow.wish.return_to {
        // Tokens are never in a URL: a page that is returned to has sent a challenge.
        let end = match finished {
            Ok(Finished::Ticket(ticket)) => format!("ticket={ticket}"),
            Ok(Finished::Tokens(_)) => format!("error={}", ErrorCode::Internal),
            Err(refusal) => format!("error={}", refusal.code),
        };
        return see_other(&format!("{page}#{end}"), &over);
    }
    let mut response = match finished {
        Ok(Finished::Tokens(tokens)) => {
            let signed_in: SignedIn = tokens.into();
            Json(signed_in).into_response()
        }
        Ok(Finished::Ticket(ticket)) => Json(Ticket { ticket }).into_response(),
        Err(refusal) => Problem(refusal).into_response(),
    };
    if let Ok(value) = HeaderValue::from_str(&over) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    Ok(response)
}

/// Sign in with a ticket
#[utoipa::path(
    post, path = "/v1/auth/ticket", tag = "auth", request_body = TicketRequest,
    responses((status = 200, body = SignedIn), (status = "default", description = "a problem"))
)]
pub(super) async fn ticket(
    State(state): State<HttpState>,
    From(from): From,
    Input(request): Input<TicketRequest>,
) -> Result<Json<SignedIn>, Problem> {
    let TicketRequest { ticket, verifier } = request;
    Ok(Json(state.shared.exchange_ticket(&ticket, &verifier, &from).await?.into()))
}

/// The cookie is of this browser and these routes alone; other sites' pages can send it only by going here.
fn set_cookie(value: &str, seconds: u32, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!(
        "{SIGN_IN_COOKIE}={value}; Path=/v1/auth/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    )
}

fn see_other(url: &str, cookie: &str) -> Result<Response, Problem> {
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            Refusal::new(ErrorCode::Internal, "the address to go to cannot be written in a header")
        })
    };
    let headers = [(header::LOCATION, value(url)?), (header::SET_COOKIE, value(cookie)?)];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}
