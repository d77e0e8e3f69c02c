//! `/v1/admin/…`: what operators see and change. Every change is written to the audit.

use super::HttpState;
use super::query::Parameters;
use crate::declared::{Declaration, Declared, DeclaredNamespaces};
use crate::reader::archive_refusal;
use crate::schema::Schema;
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts, Path, State};
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use stormwire_archive::OperatorLine;
use stormwire_core::{Channel, ErrorCode, Refusal};
use stormwire_tokens::{Permission, SYSTEM};
use stormwire_web::{Caller, CallerState, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

mod cluster;
mod connections;

/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a namespace's description.
const DESCRIPTION_BYTES_MAX: usize = 1000;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) http: HttpState,
    pub(crate) declared: DeclaredNamespaces,
    pub(crate) gateway: String,
}

impl FromRef<AdminState> for CallerState {
    fn from_ref(state: &AdminState) -> Self {
        state.http.caller.clone()
    }
}

/// A caller who may operate the server.
pub(super) struct Operator(pub(super) Caller);

impl FromRequestParts<AdminState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.permit(Permission::Operate)?;
        Ok(Self(caller))
    }
}

impl AdminState {
    /// A line of the audit.
    fn line(&self, operator: &Operator, what: &str, target: &str, detail: String) -> OperatorLine {
        OperatorLine {
            at: self.http.clock.now(),
            by: operator.0.claims.user.to_string(),
            ip: operator.0.ip.to_string(),
            what: what.to_owned(),
            target: target.to_owned(),
            detail,
        }
    }

    /// Writes one by itself.
    async fn note(
        &self,
        operator: &Operator,
        what: &str,
        target: &str,
        detail: String,
    ) -> Result<(), Refusal> {
        let line = self.line(operator, what, target, detail);
        self.declared.note(&line).await.map_err(archive_refusal)?;
        Ok(())
    }
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(namespaces))
        .routes(routes!(namespace, declare, undeclare))
        .routes(routes!(connections::list))
        .routes(routes!(connections::close))
        .routes(routes!(cluster::cluster))
        .routes(routes!(cluster::publish))
        .routes(routes!(audit))
}

/// A namespace.
#[derive(Serialize, ToSchema)]
#[schema(as = Namespace)]
pub(crate) struct Shown {
    name: String,
    #[serde(flatten)]
    declaration: Declaration,
    /// Grows with each change; give it as `version` to change only what you have seen.
    version: u64,
}

impl From<Declared> for Shown {
    fn from(one: Declared) -> Self {
        Self { name: one.name, declaration: one.declaration, version: one.version }
    }
}

/// The declared namespaces.
#[derive(Serialize, ToSchema)]
#[schema(as = Namespaces)]
pub(crate) struct ShownAll {
    namespaces: Vec<Shown>,
}

/// List the declared namespaces
#[utoipa::path(
    get, path = "/v1/admin/namespaces", tag = "admin",
    responses((status = 200, body = ShownAll), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn namespaces(
    State(state): State<AdminState>,
    _: Operator,
) -> Result<Json<ShownAll>, Problem> {
    let all = state.declared.all().await.map_err(archive_refusal)?;
    Ok(Json(ShownAll { namespaces: all.into_iter().map(Shown::from).collect() }))
}

/// See a declared namespace
#[utoipa::path(
    get, path = "/v1/admin/namespaces/{namespace}", tag = "admin",
    params(("namespace" = String, Path, description = "the part of a channel before the colon")),
    responses((status = 200, body = Shown), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn namespace(
    State(state): State<AdminState>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Shown>, Problem> {
    Ok(Json(find(&state, &name).await?.into()))
}

async fn find(state: &AdminState, name: &str) -> Result<Declared, Refusal> {
    let all = state.declared.all().await.map_err(archive_refusal)?;
    all.into_iter().find(|one| one.name == name).ok_or_else(|| {
        let message = format!("the namespace {name:?} is not declared");
        Refusal::new(ErrorCode::NotFound, message)
    })
}

/// Declare a namespace
///
/// Replaces what was declared of it. It holds on this gateway when the answer comes, and on the others
/// within two seconds. With `version` only if it is still what you have seen; 0 is for one that is not there.
#[utoipa::path(
    put, path = "/v1/admin/namespaces/{namespace}", tag = "admin", request_body = Declaration,
    params(
        ("namespace" = String, Path, description = "the part of a channel before the colon"),
        ("version" = Option<u64>, Query, description = "what you have seen"),
    ),
    responses((status = 200, body = Shown), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn declare(
    State(state): State<AdminState>,
    operator: Operator,
    Path(name): Path<String>,
    parameters: Parameters,
    body: Body,
) -> Result<Json<Shown>, Problem> {
    check_name(&name)?;
    let declaration: Declaration = read(body).await?;
    if declaration.description.len() > DESCRIPTION_BYTES_MAX {
        let problem = format!("at most {DESCRIPTION_BYTES_MAX} bytes");
        return Err(Refusal::invalid_field("description", problem).into());
    }
    if let Some(schema) = &declaration.schema {
        Schema::compile(schema)?;
    }
    let detail = serde_json::to_string(&declaration).unwrap_or_default();
    let line = state.line(&operator, "namespace_declared", &name, detail);
    let expected = parameters.number("version", 0, u64::MAX)?;
    let set = state.declared.set(&name, Some(&declaration), expected, &line).await;
    let version = set.map_err(archive_refusal)?.ok_or_else(changed)?;
    Ok(Json(Shown { name, declaration, version }))
}

/// Take a namespace's declaration back
#[utoipa::path(
    delete, path = "/v1/admin/namespaces/{namespace}", tag = "admin",
    params(
        ("namespace" = String, Path, description = "the part of a channel before the colon"),
        ("version" = Option<u64>, Query, description = "what you have seen"),
    ),
    responses((status = 204), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn undeclare(
    State(state): State<AdminState>,
    operator: Operator,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, Problem> {
    let found = find(&state, &name).await?;
    let detail = serde_json::to_string(&found.declaration).unwrap_or_default();
    let line = state.line(&operator, "namespace_undeclared", &name, detail);
    let expected = parameters.number("version", 0, u64::MAX)?.unwrap_or(found.version);
    let set = state.declared.set(&name, None, Some(expected), &line).await;
    set.map_err(archive_refusal)?.ok_or_else(changed)?;
    Ok(StatusCode::NO_CONTENT)
}

fn changed() -> Refusal {
    let message = "the namespace is not what you have seen: somebody has changed it; look again";
    Refusal::new(ErrorCode::Conflict, message)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name == SYSTEM {
        let message = "the namespace system is the server's own and cannot be declared";
        return Err(Refusal::new(ErrorCode::Forbidden, message));
    }
    match Channel::parse(&format!("{name}:any")) {
        Ok(channel) if channel.namespace() == name => Ok(()),
        Ok(_) => Err(Refusal::invalid_field("namespace", "it has a colon")),
        Err(error) => Err(Refusal::invalid_field("namespace", error)),
    }
}

/// A JSON body with exactly the fields of `T`.
async fn read<T: for<'de> Deserialize<'de>>(body: Body) -> Result<T, Refusal> {
    let bytes = stormwire_web::body(body, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body is not the JSON that is expected here: {error}");
        Refusal::new(ErrorCode::Malformed, message)
    })
}

/// What an operator did.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLine {
    number: u64,
    /// RFC 3339.
    at: String,
    by: String,
    ip: String,
    what: String,
    target: String,
    detail: String,
}

/// What operators did.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPage {
    /// The newest first.
    lines: Vec<AuditLine>,
    /// Give it as `before` for the next page; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// What operators did
///
/// Sign-ins and what concerns accounts are in the identity service's own audit.
#[utoipa::path(
    get, path = "/v1/admin/audit", tag = "admin",
    params(
        ("before" = Option<u64>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses((status = 200, body = AuditPage), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn audit(
    State(state): State<AdminState>,
    _: Operator,
    parameters: Parameters,
) -> Result<Json<AuditPage>, Problem> {
    let (before, limit) = (parameters.number("before", 1, u64::MAX)?, parameters.limit()?);
    let found = state.declared.lines(before, limit).await.map_err(archive_refusal)?;
    let next = found.last().filter(|_| found.len() == limit).map(|(number, _)| *number);
    let lines = found.into_iter().map(|(number, line)| AuditLine {
        number,
        at: line.at.to_rfc3339(),
        by: line.by,
        ip: line.ip,
        what: line.what,
        target: line.target,
        detail: line.detail,
    });
    Ok(Json(AuditPage { lines: lines.collect(), next }))
}
