//! What belongs to one request: its id, its span, its body.

use crate::Problem;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_limits::Quota;
use stormwire_telemetry::{SpanRef, metrics as names};
use tracing::Instrument as _;

/// The header that carries a request's id in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of an id that a client gives.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request's id: the client's `X-Request-ID`, else drawn here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// What the answer to a request is told on its way out.
struct Current {
    id: RequestId,
    quota: Cell<Option<Quota>>,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// The id of the request that this task serves; empty outside of one.
pub(crate) fn current_id() -> Arc<str> {
    CURRENT.try_with(|current| Arc::clone(&current.id.0)).unwrap_or_default()
}

/// Notes the limit that this request is nearest to, for the `RateLimit` headers of its answer.
pub(crate) fn note_quota(quota: Option<Quota>) {
    if quota.is_some() {
        // Outside of a request nobody wants to know.
        let _ = CURRENT.try_with(|current| current.quota.set(quota));
    }
}

/// A header's text, if it is there and is text.
#[must_use]
pub fn header_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The cookie of a sign-in at another provider that is under way: the identity service sets and reads it,
/// gateways pass it on.
pub const SIGN_IN_COOKIE: &str = "stormwire_sign_in";

/// The value of a cookie, if the client has sent it once.
#[must_use]
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (known, value) = pair.trim().split_once('=')?;
        (known == name).then(|| value.to_owned())
    });
    let first = values.next()?;
    // Two of one name: a page of a neighbouring host has put in one of its own.
    values.next().is_none().then_some(first)
}

/// Gives a request its id, its span and its place in the metrics.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let method = request.method().as_str().to_owned();
    let span = tracing::info_span!(
        "http",
        request_id = &*id.0,
        user_id = tracing::field::Empty,
        method,
        route,
        status = tracing::field::Empty,
    );
    let parent = header_text(request.headers(), &HeaderName::from_static("traceparent"));
    if let Some(parent) = parent.and_then(|text| text.parse::<SpanRef>().ok()) {
        parent.adopt(&span);
    }
    request.extensions_mut().insert(id.clone());
    let start = Instant::now();
    let current = Current { id: id.clone(), quota: Cell::new(None) };
    let served = CURRENT.scope(current, async {
        let response = next.run(request).await;
        (response, CURRENT.with(|current| current.quota.get()))
    });
    let (mut response, quota) = served.instrument(span.clone()).await;
    quota.into_iter().for_each(|quota| tell_quota(response.headers_mut(), quota));
    let status = response.status().as_u16();
    span.record("status", status);
    let elapsed = start.elapsed();
    tracing::debug!(parent: &span, duration_ms = elapsed.as_secs_f64() * 1e3, "request served");
    let labels = [
        ("route", route),
        ("method", if known(&method) { method } else { "other".to_owned() }),
        ("status", status.to_string()),
    ];
    metrics::counter!(names::HTTP_REQUESTS, &labels).increment(1);
    // A long poll is a GET that waits on purpose: latency is judged by method.
    metrics::histogram!(names::HTTP_REQUEST_SECONDS, &labels[..2]).record(elapsed.as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The limit's headers, as in the IETF's draft of them.
fn tell_quota(headers: &mut HeaderMap, quota: Quota) {
    let Quota { limit, window, remaining, reset } = quota;
    let (window, reset) = (window.as_secs().max(1), reset.as_millis().div_ceil(1000));
    let policy = format!("\"default\";q={limit};w={window}");
    let state = format!("\"default\";r={remaining};t={reset}");
    for (name, text) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

fn known(method: &str) -> bool {
    matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS")
}

fn request_id(headers: &HeaderMap) -> RequestId {
    let given = header_text(headers, &REQUEST_ID).filter(|text| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic())
    });
    given.map_or_else(
        || RequestId(uuid::Uuid::now_v7().to_string().into()),
        |id| RequestId(id.into()),
    )
}

/// The whole body, at most `max` bytes of it.
///
/// # Errors
/// `too_large`, or `malformed` if the client stops in the middle.
pub async fn body(body: Body, max: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("the body has more than {max} bytes; send less at once"),
        )),
        Err(error) => {
            Err(Refusal::new(ErrorCode::Malformed, format!("the body ended early: {error}")))
        }
    }
}

/// An answer of JSON text.
pub fn json(text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

/// What a path that leads nowhere is answered.
pub(crate) async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().to_owned();
    Problem(Refusal::new(ErrorCode::NotFound, format!("there is nothing at {path}")))
}
