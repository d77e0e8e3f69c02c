//! Passing requests on to the identity service, so that clients need one address.
//!
//! What a client may say to the other side is listed here; the rest of its headers end here. Bodies are
//! bounded both ways, and a service that is slow or gone is answered for by the breaker.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, LOCATION, RETRY_AFTER,
    SET_COOKIE, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_guard::{Guard, GuardConfig};
use stormwire_web::{ClientAddress, Problem, REQUEST_ID, RequestId, SIGN_IN_COOKIE, body, cookie};

/// The paths that are passed on.
const PATHS: [&str; 3] = ["/v1/auth/{*rest}", "/v1/admin/users/{*rest}", "/.well-known/{*rest}"];
/// Most bytes of a request's body, and of an answer's.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest time for an answer: a password may have to wait for its turn.
const DEADLINE: Duration = Duration::from_secs(20);
/// Where a request came from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const TRACE: HeaderName = HeaderName::from_static("traceparent");
const PASSED_ON: [HeaderName; 6] = [ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, TRACE, USER_AGENT];
const PASSED_BACK: [HeaderName; 6] =
    [CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE];

/// The address is no `http:` or `https:` URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an http: or https: URL of the identity service")]
pub struct BadAddress(String);

struct Forward {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    guard: Guard,
}

/// Routes that pass requests on to the identity service at `url`.
///
/// # Errors
/// [`BadAddress`].
pub fn routes(url: &str) -> Result<Router, BadAddress> {
    let bad = || BadAddress(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(bad());
    }
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|_| bad())?
        .https_or_http()
        .enable_http1()
        .build();
    let config = GuardConfig { deadline: DEADLINE, ..GuardConfig::default() };
    let forward = Arc::new(Forward {
        base: url.trim_end_matches('/').to_owned(),
        client: Client::builder(TokioExecutor::new()).build(connector),
        guard: Guard::new("identity", config),
    });
    let router =
        PATHS.into_iter().fold(Router::new(), |router, path| router.route(path, any(pass)));
    Ok(router.with_state(forward))
}

async fn pass(State(forward): State<Arc<Forward>>, request: Request) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut outgoing = http::Request::builder()
        .method(parts.method.clone())
        .uri(format!("{}{path}", forward.base))
        .body(Full::new(body(content, REQUEST_BYTES_MAX).await?))
        .map_err(|error| Refusal::new(ErrorCode::Malformed, error.to_string()))?;
    let headers = outgoing.headers_mut();
    copy(&PASSED_ON, &parts.headers, headers);
    // Of all cookies the one that the service itself has set.
    if let Some(value) = cookie(&parts.headers, SIGN_IN_COOKIE)
        && let Ok(value) = HeaderValue::from_str(&format!("{SIGN_IN_COOKIE}={value}"))
    {
        headers.insert(COOKIE, value);
    }
    // Only what this gateway has seen itself: what the client claims about its address ends here.
    let address = parts.extensions.get::<ClientAddress>().map(|address| address.0.to_string());
    let id = parts.extensions.get::<RequestId>().map(|id| id.0.to_string());
    for (name, text) in [(FORWARDED_FOR, address), (REQUEST_ID, id)] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    let answer = forward.guard.call("forward", async {
        let answer = forward.client.request(outgoing).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        Ok::<_, String>((parts, body.map_err(|error| error.to_string())?.to_bytes()))
    });
    let (told, body) = answer.await.map_err(|error| {
        tracing::warn!(%error, "the identity service does not answer");
        let message = "accounts cannot be reached now; whoever is signed in stays so";
        Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(2))
    })?;
    let mut response = (told.status, body).into_response();
    response.headers_mut().remove(CONTENT_TYPE);
    copy(&PASSED_BACK, &told.headers, response.headers_mut());
    Ok(response)
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::net::IpAddr;
    use tower::ServiceExt as _;

    async fn other_side() -> String {
        let app = Router::new().fallback(|request: Request| async move {
            let mut seen: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            seen.sort();
            let text = format!("{} {}\n{}", request.method(), request.uri(), seen.join("\n"));
            ([("x-inside", "secret"), ("retry-after", "3")], text)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn request() -> Request {
        let mut request = Request::post("/v1/auth/login?x=1")
            .header("authorization", "Bearer t")
            .header("host", "events.example")
            .header("x-forwarded-for", "6.6.6.6")
            .header("cookie", "c=1; stormwire_sign_in=sealed; d=2")
            .body(Body::from("{}"))
            .unwrap();
        request.extensions_mut().insert(ClientAddress("192.0.2.7".parse::<IpAddr>().unwrap()));
        request
    }

    #[tokio::test]
    async fn a_request_goes_on_with_its_true_address_and_without_what_is_not_listed() {
        let routes = routes(&other_side().await).unwrap();
        let answer = routes.oneshot(request()).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers().contains_key("x-inside")),
            (200, false)
        );
        assert_eq!(answer.headers()["retry-after"], "3");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(
            seen,
            "POST /v1/auth/login?x=1\nauthorization: Bearer t\ncontent-length: 2\ncookie: stormwire_sign_in=sealed\nhost: events.example\nx-forwarded-for: 192.0.2.7"
        );
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_told_with_when_to_come_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let routes = routes(&url).unwrap();
        for _ in 0..10 {
            let answer = routes.clone().oneshot(request()).await.unwrap();
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["retry-after"], "2");
        }
        for bad in ["", "identity:8080", "ftp://x", "http://"] {
            assert!(super::routes(bad).is_err(), "{bad:?}");
        }
    }
}
