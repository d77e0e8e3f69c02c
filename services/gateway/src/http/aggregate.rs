//! `POST /v1/aggregate`: several reads side by side, each with a status of its own.

use super::HttpState;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Extensions, HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_web::{CHANNEL_TOKEN, Problem, body};
use tower::ServiceExt as _;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Most reads in one request.
const READS_MAX: usize = 32;
/// Reads of one request at the same time.
const READS_AT_ONCE: usize = 8;
/// Most bytes of the request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of all answers together.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Several reads.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AggregateRequest {
    /// At most 32.
    requests: Vec<Read>,
}

/// One read.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Read {
    /// Comes back with the answer.
    id: Option<String>,
    /// Path and query of a GET below `/v1/channels`.
    path: String,
}

/// The answers, in the order of the requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AggregateResponse {
    responses: Vec<Answer>,
}

/// The answer to one read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The status that the read would have had alone.
    status: u16,
    /// Its body.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
}

#[derive(Clone)]
struct Aggregate {
    reads: Router,
}

pub(super) fn router(_: HttpState, reads: Router) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(aggregate)).with_state(Aggregate { reads })
}

pub(super) fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::<Aggregate>::new().routes(routes!(aggregate)).into_openapi()
}

/// Read several things at once
///
/// Each read counts and is allowed as if it had been asked alone, and has its own status.
#[utoipa::path(
    post, path = "/v1/aggregate", tag = "read",
    request_body = AggregateRequest,
    responses((status = 200, body = AggregateResponse), (status = "default", response = super::openapi::Problem)),
    security(("bearer" = []))
)]
async fn aggregate(
    State(Aggregate { reads }): State<Aggregate>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, text) = request.into_parts();
    let text = body(text, BODY_BYTES_MAX).await?;
    let asked: AggregateRequest = serde_json::from_slice(&text).map_err(|error| {
        Refusal::new(
            ErrorCode::Malformed,
            format!("{{\"requests\":[{{\"path\":..}}]}} is due: {error}"),
        )
    })?;
    if asked.requests.is_empty() || asked.requests.len() > READS_MAX {
        let count = asked.requests.len();
        let problem = format!("1 to {READS_MAX} reads are due, not {count}");
        return Err(Refusal::invalid_field("requests", problem).into());
    }
    let single = |read: Read| one(reads.clone(), read, &parts.headers, &parts.extensions);
    let mut answers = stream::iter(asked.requests.into_iter().map(single)).buffered(READS_AT_ONCE);
    let mut responses = Vec::new();
    let mut bytes = 0;
    while let Some(mut answer) = answers.next().await {
        bytes += answer.body.get().len();
        if bytes > ANSWER_BYTES_MAX {
            bytes -= answer.body.get().len();
            let refusal = Refusal::new(
                ErrorCode::TooLarge,
                "the answers together are too large; ask for this one alone",
            );
            answer = Answer { id: answer.id, ..refused(&refusal) };
        }
        responses.push(answer);
    }
    Ok(axum::Json(AggregateResponse { responses }).into_response())
}

async fn one(reads: Router, read: Read, headers: &HeaderMap, extensions: &Extensions) -> Answer {
    let id = read.id.clone();
    let answer = match request(&read, headers, extensions) {
        // A router cannot fail: what goes wrong is a response.
        Ok(request) => collect(reads.oneshot(request).await.into_response()).await,
        Err(refusal) => refused(&refusal),
    };
    Answer { id, ..answer }
}

fn request(read: &Read, headers: &HeaderMap, extensions: &Extensions) -> Result<Request, Refusal> {
    let uri: Uri = read.path.parse().map_err(|error| Refusal::invalid_field("path", error))?;
    let known = uri.path() == "/v1/channels" || uri.path().starts_with("/v1/channels/");
    if !known || uri.authority().is_some() {
        let problem = format!("a path below /v1/channels is due, not {:?}", read.path);
        return Err(Refusal::invalid_field("path", problem));
    }
    if uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("wait="))) {
        return Err(Refusal::invalid_field("path", "a read that waits cannot be aggregated"));
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.extensions_mut() = extensions.clone();
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    }
    for token in headers.get_all(CHANNEL_TOKEN) {
        request.headers_mut().append(CHANNEL_TOKEN, token.clone());
    }
    Ok(request)
}

async fn collect(response: Response) -> Answer {
    let status = response.status();
    let bytes = response.into_body().collect().await.map(|body| body.to_bytes());
    match raw(bytes.unwrap_or_default()) {
        Some(body) => Answer { id: None, status: status.as_u16(), body },
        None if status == StatusCode::NOT_FOUND => {
            refused(&Refusal::new(ErrorCode::NotFound, "there is nothing at this path"))
        }
        None => refused(&Refusal::new(ErrorCode::Internal, "the answer was not JSON")),
    }
}

fn raw(bytes: Bytes) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(bytes.into()).ok()?).ok()
}

fn refused(refusal: &Refusal) -> Answer {
    let text = stormwire_wire::problem::problem(refusal, "");
    let body = raw(text).unwrap_or_default();
    Answer { id: None, status: refusal.code.http_status(), body }
}
