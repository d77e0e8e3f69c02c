//! What is put around every router.

use crate::request::{not_found, observe};
use crate::{Problem, REQUEST_ID};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, Method, header};
use std::any::Any;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How an HTTP surface behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// Origins whose pages may call this server, such as `https://app.example.com`; `*` for all. None by
    /// default: browsers then refuse pages of other origins.
    pub cors_origins: Vec<String>,
    /// How long a handler may take to begin its answer.
    pub deadline: Duration,
    /// Most bytes of a request's body.
    pub body_bytes_max: usize,
}

impl Default for WebConfig {
    fn default() -> Self {
        let body_bytes_max = stormwire_wire::protocol::MESSAGE_BYTES_MAX;
        Self { cors_origins: Vec::new(), deadline: Duration::from_secs(40), body_bytes_max }
    }
}

/// Puts around `router` what every request needs. Call it last, once.
pub fn finish(router: Router, config: &WebConfig) -> Router {
    let deadline = config.deadline;
    // From the inside out; the outermost layer is the one added last.
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(config.body_bytes_max))
        .layer(from_fn(move |request, next| within(deadline, request, next)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new().compress_when(
            DefaultPredicate::new().and(NotForContentType::const_new("text/event-stream")),
        ))
        .layer(cors(config))
        .layer(from_fn(secure))
        .layer(from_fn(observe))
}

fn cors(config: &WebConfig) -> CorsLayer {
    let exposed = ["retry-after", "ratelimit", "ratelimit-policy"].map(HeaderName::from_static);
    let allowed = ["last-event-id", "idempotency-key", "traceparent"].map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(
            [header::AUTHORIZATION, header::CONTENT_TYPE, REQUEST_ID, crate::CHANNEL_TOKEN]
                .into_iter()
                .chain(allowed)
                .collect::<Vec<_>>(),
        )
        .expose_headers([REQUEST_ID].into_iter().chain(exposed).collect::<Vec<_>>())
        .max_age(Duration::from_secs(3600));
    if config.cors_origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(AllowOrigin::any());
    }
    let origins =
        config.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}

async fn within(deadline: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s; try again", deadline.as_secs());
            let refusal = Refusal::new(ErrorCode::Overloaded, message);
            Problem(refusal.retry_after(Duration::from_secs(1))).into_response()
        }
    }
}

async fn method_not_allowed(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{path} does not take {method}; see /v1/openapi.json");
    let mut response = Problem(Refusal::new(ErrorCode::UnknownOp, message)).into_response();
    *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        error = text.unwrap_or("a panic without a text"),
        "a request's handler panicked"
    );
    let message = "the server failed; the request id finds it in the logs";
    Problem(Refusal::new(ErrorCode::Internal, message)).into_response()
}

/// Answers are data, never pages.
async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
