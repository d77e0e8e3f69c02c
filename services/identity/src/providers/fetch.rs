//! One request to a provider: bounded in time and bytes, behind a breaker, never following a redirect.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use std::pin::Pin;
use std::time::Duration;
use stormwire_core::with_causes;
use stormwire_guard::{Guard, GuardConfig};
use tokio::sync::Semaphore;

/// Longest time for one answer, from connecting to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of an answer: metadata, keys and tokens have a few thousand.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Requests to one provider at a time; the next one is told to come back.
const AT_A_TIME: usize = 32;
/// Some providers answer nobody without a name.
const USER_AGENT: &str = "stormwire";

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("too many sign-ins are under way")]
    Full,
    #[error("the provider does not answer: {0}")]
    Away(String),
    #[error("the provider's answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

pub(super) struct Fetch {
    client: Option<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    guard: Guard,
    places: Semaphore,
}

impl Fetch {
    pub(super) fn new() -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .ok()
            .map(|builder| builder.https_or_http().enable_http1().build());
        let config = GuardConfig { deadline: DEADLINE, ..GuardConfig::default() };
        Self {
            client: connector
                .map(|connector| Client::builder(TokioExecutor::new()).build(connector)),
            guard: Guard::new("provider", config),
            places: Semaphore::new(AT_A_TIME),
        }
    }

    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let _place = self.places.try_acquire().map_err(|_| FetchError::Full)?;
        let client = self.client.as_ref().ok_or_else(|| FetchError::Away("no TLS".to_owned()))?;
        let (mut parts, body) = request.into_parts();
        let name = http::HeaderValue::from_static(USER_AGENT);
        parts.headers.entry(http::header::USER_AGENT).or_insert(name);
        let request = http::Request::from_parts(parts, Full::new(Bytes::from(body)));
        let answered = self.guard.call("fetch", async {
            let away = |error: &dyn std::error::Error| with_causes(error);
            let answer = client.request(request).await.map_err(|error| away(&error))?;
            let (parts, body) = answer.into_parts();
            // One that is too large is no sign that the provider is away.
            match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
                Ok(body) => Ok(Some(http::Response::from_parts(parts, body.to_bytes().to_vec()))),
                Err(error) if error.is::<LengthLimitError>() => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        });
        let answer = answered.await.map_err(|error| FetchError::Away(error.to_string()))?;
        answer.ok_or(FetchError::TooLarge)
    }
}

/// What the library asks with.
impl<'c> AsyncHttpClient<'c> for Fetch {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
