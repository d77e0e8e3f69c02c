//! Keys of backends: make, list and end them, and exchange one for an access token.

use super::HttpState;
use super::input::{Counted, From, Input};
use crate::domain::ApiKey;
use crate::service::Wanted;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use stormwire_core::Pattern;
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// A key that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequest {
    /// What it is for, at most 64 letters.
    #[serde(default)]
    label: String,
    /// Channels or patterns that it may publish and signal on, of those that the account may.
    #[serde(default)]
    publish: Vec<String>,
    /// Channels or patterns that it may subscribe to and read, of those that the account may.
    #[serde(default)]
    subscribe: Vec<String>,
    /// How long it is good, 1 to 366.
    days: u32,
}

/// A new key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// The key itself, shown this once.
    api_key: String,
    #[serde(flatten)]
    listed: ListedKey,
}

/// The keys of an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Keys {
    /// The newest first.
    keys: Vec<ListedKey>,
}

/// A key without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ListedKey {
    id: String,
    label: String,
    publish: Vec<String>,
    subscribe: Vec<String>,
    /// RFC 3339, as are the others.
    created_at: String,
    expires_at: String,
    /// When it was last exchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_at: Option<String>,
}

impl std::convert::From<ApiKey> for ListedKey {
    fn from(key: ApiKey) -> Self {
        let texts = |patterns: Vec<Pattern>| patterns.iter().map(ToString::to_string).collect();
        Self {
            id: key.id,
            label: key.label,
            publish: texts(key.publish),
            subscribe: texts(key.subscribe),
            created_at: key.created_at.to_rfc3339(),
            expires_at: key.expires_at.to_rfc3339(),
            used_at: key.used_at.map(|at| at.to_rfc3339()),
        }
    }
}

/// A key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeRequest {
    #[schema(value_type = String)]
    api_key: SecretString,
}

/// What a backend gets for its key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exchanged {
    /// The account of the key.
    user: String,
    access_token: String,
    token_type: &'static str,
    /// Seconds that the access token is valid.
    expires_in: u64,
}

/// Make a key
///
/// For a backend: with rights that you have, for a time. It is shown once.
#[utoipa::path(
    post, path = "/v1/auth/keys", tag = "auth", request_body = KeyRequest,
    responses((status = 201, body = Made), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn make(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Input(request): Input<KeyRequest>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    let KeyRequest { label, publish, subscribe, days } = request;
    let wanted = Wanted { label, publish, subscribe, days };
    let (key, api_key) = state.shared.make_api_key(&caller.claims, wanted, &from).await?;
    Ok((StatusCode::CREATED, Json(Made { api_key, listed: key.into() })))
}

/// List your keys
#[utoipa::path(
    get, path = "/v1/auth/keys", tag = "auth",
    responses((status = 200, body = Keys), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    caller: Caller,
) -> Result<Json<Keys>, Problem> {
    let keys = state.shared.list_api_keys(&caller.claims).await?;
    Ok(Json(Keys { keys: keys.into_iter().map(ListedKey::from).collect() }))
}

/// End one of your keys
///
/// The access tokens that it was exchanged for end with it.
#[utoipa::path(
    delete, path = "/v1/auth/keys/{key}", tag = "auth",
    params(("key" = String, Path, description = "the key's id")),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn end(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    state.shared.end_api_key(&caller.claims, &key, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Exchange a key for an access token
///
/// As often as needed; the token is good for channels alone, not for the account.
#[utoipa::path(
    post, path = "/v1/auth/token", tag = "auth", request_body = ExchangeRequest,
    responses((status = 200, body = Exchanged), (status = "default", description = "a problem"))
)]
pub(super) async fn exchange(
    State(state): State<HttpState>,
    From(_from): From,
    Input(request): Input<ExchangeRequest>,
) -> Result<Json<Exchanged>, Problem> {
    let exchanged = state.shared.exchange_api_key(&request.api_key).await?;
    Ok(Json(Exchanged {
        user: exchanged.user,
        access_token: exchanged.access,
        token_type: "Bearer",
        expires_in: exchanged.access_ttl.as_secs(),
    }))
}
