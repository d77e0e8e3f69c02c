//! Requests to a gateway, and what its answers mean.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use stormwire_core::{Clock as _, ErrorCode, SystemClock, Timestamp, with_causes};
use tokio::time::timeout;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The path behind which a gateway has its WebSocket; what stands before it leads to its REST interface.
const SOCKET_PATH: &str = "/v1/ws";
const CODE_UNKNOWN: &str = "internal";

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server says no.
    Refused(Refusal),
    /// Nothing says what became of it.
    Lost(String),
}

/// A refusal as the server tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) code: Box<str>,
    pub(super) message: Box<str>,
    #[serde(default)]
    pub(super) temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: &str) -> Self {
        let temporary = code.is_temporary();
        let (code, message) = (code.as_str().into(), message.into());
        Self { code, message, temporary, retry_after_ms: None, expected: None }
    }

    pub(super) fn is(&self, code: ErrorCode) -> bool {
        *self.code == *code.as_str()
    }

    /// Of an answer that may be a proxy's, which knows nothing of the protocol.
    fn of(status: u16, body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_else(|_| Self {
            code: if status == 401 { ErrorCode::Unauthenticated.as_str() } else { CODE_UNKNOWN }
                .into(),
            message: format!("the server answers HTTP {status}").into(),
            temporary: matches!(status, 408 | 425 | 429 | 500..),
            retry_after_ms: None,
            expected: None,
        })
    }
}

/// The REST interface of one gateway.
pub(super) struct Web {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Scheme, host, and the path before the interface's own.
    base: String,
    token: Mutex<String>,
    timeout: Duration,
}

impl Web {
    /// Behind the URL of a WebSocket; `None` if that does not tell where the interface is.
    pub(super) fn new(
        socket: &Uri,
        tls: rustls::ClientConfig,
        token: String,
        timeout: Duration,
    ) -> Option<Self> {
        let scheme = if socket.scheme_str() == Some("wss") { "https" } else { "http" };
        let prefix = socket.path().strip_suffix(SOCKET_PATH)?;
        let base = format!("{scheme}://{}{prefix}", socket.authority()?);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Some(Self { client, base, token: Mutex::new(token), timeout })
    }

    pub(super) fn set_token(&self, token: String) {
        *self.token.lock() = token;
    }

    /// Sends a request; the answer's body is still to be read.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, Trouble> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.lock()));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let lost = |error: &dyn std::error::Error| Trouble::Lost(with_causes(error));
        let mut request =
            request.body(Full::new(body.unwrap_or_default())).map_err(|error| lost(&error))?;
        request.headers_mut().extend(headers);
        let answer = self.client.request(request).await.map_err(|error| lost(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let after = retry_after(answer.headers());
        let body = read(answer).await?;
        let mut refusal = Refusal::of(status.as_u16(), &body);
        refusal.retry_after_ms = refusal.retry_after_ms.or(after);
        Err(Trouble::Refused(refusal))
    }

    /// Sends a request and reads the whole answer, which may take `longer` than the usual time.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        longer: Duration,
    ) -> Result<(Timestamp, Bytes), Trouble> {
        let within = self.timeout + longer;
        let asked = async {
            let answer = self.open(method, path, HeaderMap::new(), body).await?;
            let time = server_time(answer.headers());
            Ok((time, read(answer).await?))
        };
        let late = |_| Trouble::Lost(format!("no answer within {within:?}"));
        timeout(within, asked).await.map_err(late)?
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, Trouble> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| Trouble::Lost(with_causes(&*error)))
}

fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(seconds * 1_000)
}

/// The server's clock as its answer tells it, cut to seconds; else this machine's.
fn server_time(headers: &HeaderMap) -> Timestamp {
    let told = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let told = told.and_then(|date| httpdate::parse_http_date(date).ok());
    let told = told.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let told = told.and_then(|since| i64::try_from(since.as_millis()).ok());
    told.map_or_else(|| SystemClock.now(), Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(socket: &'static str) -> Option<String> {
        let tls = rustls::ClientConfig::builder_with_provider(
            rustls::crypto::ring::default_provider().into(),
        );
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let web = Web::new(&Uri::from_static(socket), tls, String::new(), Duration::ZERO);
        web.map(|web| web.base)
    }

    #[test]
    fn the_interface_is_beside_the_socket() {
        assert_eq!(base("ws://a:1/v1/ws").unwrap(), "http://a:1");
        assert_eq!(base("wss://a/edge/v1/ws").unwrap(), "https://a/edge");
        assert_eq!(base("wss://a/somewhere"), None);
    }

    #[test]
    fn an_answer_of_a_proxy_is_a_refusal_as_well() {
        let of = |status, body: &str| Refusal::of(status, body.as_bytes());
        assert!(of(502, "<html>").temporary && of(502, "<html>").is(ErrorCode::Internal));
        assert!(!of(404, "").temporary);
        assert!(of(401, "").is(ErrorCode::Unauthenticated));
        let said = r#"{"code":"limited","message":"less","temporary":true,"retry_after_ms":7,"status":429}"#;
        assert_eq!(of(429, said).retry_after_ms, Some(7));
    }
}
