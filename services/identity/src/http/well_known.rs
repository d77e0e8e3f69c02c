//! What verifiers find by themselves: the public keys, and where they are.

use super::HttpState;
use crate::IdentityConfig;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use serde_json::json;
use stormwire_web::{header_text, json};

/// How long verifiers may keep the keys: a new one is published for longer before it signs.
const CACHE: &str = "public, max-age=300";

/// Where clients reach this service: what is configured, or else where the request was sent.
pub(super) fn public_url(config: &IdentityConfig, headers: &HeaderMap) -> String {
    let url = config.public_url.clone().or_else(|| {
        let host = header_text(headers, &header::HOST)?;
        Some(format!("http://{host}"))
    });
    url.unwrap_or_default()
}

/// The public keys
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "auth",
    responses((status = 200, description = "a JWKS, RFC 7517"))
)]
pub(super) async fn jwks(State(state): State<HttpState>) -> Response {
    let keys = state.shared.keys.jwks().borrow().clone();
    ([(header::CACHE_CONTROL, CACHE)], json(keys)).into_response()
}

/// Where the public keys are
///
/// What a verifier of OpenID Connect needs to find issuer and keys.
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "auth",
    responses((status = 200, description = "metadata in the form of OpenID Connect Discovery"))
)]
pub(super) async fn configuration(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    let config = &state.shared.config;
    let url = public_url(config, &headers);
    let document = json!({
        "issuer": config.issuer,
        "jwks_uri": format!("{}/.well-known/jwks.json", url.trim_end_matches('/')),
        "id_token_signing_alg_values_supported": [config.algorithm.as_str()],
        "subject_types_supported": ["public"],
        "response_types_supported": [],
        "claims_supported": ["iss", "aud", "sub", "sid", "preferred_username", "jti", "iat", "nbf", "exp", "roles", "channels"],
    });
    ([(header::CACHE_CONTROL, CACHE)], json(document.to_string())).into_response()
}
