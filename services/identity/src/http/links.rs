//! Links between an account and its identities at other providers.

use super::HttpState;
use super::input::{Counted, Input};
use super::oidc::TicketRequest;
use crate::domain::links::Link;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use stormwire_web::{Caller, Problem};
use utoipa::ToSchema;

/// The links of an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Links {
    /// The newest first.
    links: Vec<ListedLink>,
}

/// Somebody at another provider who is this account.
#[derive(Serialize, ToSchema)]
#[schema(as = Link)]
pub(crate) struct ListedLink {
    id: String,
    provider: String,
    /// RFC 3339.
    created_at: String,
}

impl From<Link> for ListedLink {
    fn from(link: Link) -> Self {
        let created_at = link.created_at.to_rfc3339();
        Self { id: link.id, provider: link.provider, created_at }
    }
}

/// List your links
#[utoipa::path(
    get, path = "/v1/auth/links", tag = "auth", operation_id = "list_links",
    responses((status = 200, body = Links), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn list(
    State(state): State<HttpState>,
    caller: Caller,
) -> Result<Json<Links>, Problem> {
    let links = state.shared.list_links(&caller.claims).await?;
    Ok(Json(Links { links: links.into_iter().map(ListedLink::from).collect() }))
}

/// Link a provider
///
/// Whoever the ticket stands for signs in to this account from then on.
#[utoipa::path(
    post, path = "/v1/auth/links", tag = "auth", request_body = TicketRequest,
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn add(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Input(request): Input<TicketRequest>,
) -> Result<StatusCode, Problem> {
    let TicketRequest { ticket, verifier } = request;
    state.shared.link(&caller.claims, &ticket, &verifier, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a link
///
/// Not the only way into the account. Sessions that began with it go on until they are ended.
#[utoipa::path(
    delete, path = "/v1/auth/links/{link}", tag = "auth",
    params(("link" = String, Path, description = "the link's id")),
    responses((status = 204), (status = "default", description = "a problem")),
    security(("bearer" = []))
)]
pub(super) async fn remove(
    State(state): State<HttpState>,
    caller: Caller,
    Counted(from): Counted,
    Path(link): Path<String>,
) -> Result<StatusCode, Problem> {
    state.shared.unlink(&caller.claims, &link, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}
