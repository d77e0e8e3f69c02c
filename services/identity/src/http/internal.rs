//! What gateways ask of this service and clients have no way to: the list of what is revoked.

use crate::service::Identity;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_tokens::{RevocationFeed as _, RevocationPage, RevocationUrl};
use stormwire_web::Problem;

/// Longest wait of one question, in seconds.
const WAIT_MAX: u64 = 30;

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    wait: u64,
}

impl Identity {
    /// Routes for gateways alone: whoever serves them keeps them from the public network.
    pub fn internal_routes(&self) -> Router {
        Router::new().route(RevocationUrl::PATH, get(revocations)).with_state(self.clone())
    }
}

async fn revocations(
    State(identity): State<Identity>,
    Query(Asked { after, wait }): Query<Asked>,
) -> Result<Json<RevocationPage>, Problem> {
    let wait = Duration::from_secs(wait.min(WAIT_MAX));
    let page = identity.after(after, wait).await.map_err(|error| {
        tracing::error!(%error, "the list of what is revoked cannot be read");
        let message = "the list cannot be read now";
        Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1))
    })?;
    Ok(Json(page))
}
