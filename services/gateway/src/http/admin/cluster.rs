//! The cluster as this gateway sees it, and publishing in the server's name.

use super::{AdminState, Operator};
use crate::http::publish;
use crate::http::query::{InPath, Parameters};
use crate::ingest::Role;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use std::collections::BTreeMap;
use stormwire_web::Problem;
use utoipa::ToSchema;

/// The gateways and what they own.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cluster {
    /// Who answers.
    gateway: String,
    /// How many gateways live, as far as it knows.
    gateways: u64,
    /// By gateway, the partitions that it writes.
    owners: BTreeMap<String, Vec<u16>>,
    /// Partitions that nobody is known to write.
    ownerless: Vec<u16>,
    /// By partition, why publishes are not taken.
    problems: BTreeMap<u16, String>,
}

/// See the cluster
///
/// As the gateway that answers sees it. Figures of every process come on `system:stats`.
#[utoipa::path(
    get, path = "/v1/admin/cluster", tag = "admin",
    responses((status = 200, body = Cluster), (status = "default", response = super::super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn cluster(State(state): State<AdminState>, _: Operator) -> Json<Cluster> {
    let mut owners: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    let (mut ownerless, mut problems) = (Vec::new(), BTreeMap::new());
    for status in state.http.ingest.status() {
        let partition = status.partition.0;
        let own = (status.role == Role::Owner).then(|| state.gateway.clone());
        match own.or(status.owner) {
            Some(owner) => owners.entry(owner).or_default().push(partition),
            None => ownerless.push(partition),
        }
        if let Some(problem) = status.problem {
            problems.insert(partition, problem);
        }
    }
    let gateways = state.http.ingest.gateways();
    Json(Cluster { gateway: state.gateway, gateways, owners, ownerless, problems })
}

/// Publish as the server
///
/// As the publish to one channel, from `system`, whatever the namespace's rules are.
#[utoipa::path(
    post, path = "/v1/admin/channels/{channel}/events", tag = "admin",
    params(
        ("channel" = String, Path, description = "namespace:name"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters"),
        ("receipt" = Option<String>, Query, description = "`journal` (default) or `archive`"),
    ),
    request_body(content((publish::EventSchema = "application/json"))),
    responses((status = 200, body = publish::Acknowledged), (status = "default", response = super::super::openapi::Problem)),
    security(("bearer" = []))
)]
pub(super) async fn publish(
    State(state): State<AdminState>,
    operator: Operator,
    InPath(channel): InPath,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    state.note(&operator, "published", channel.as_str(), String::new()).await?;
    let caller = operator.0.speaking_as("system");
    publish::publish(&state.http, &caller, channel, &parameters, &headers, body).await
}
