//! How a client is set up.

use crate::Transports;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Timestamp;
use stormwire_wire::protocol::Codec;

/// Why there is no token now; shown in logs and tried again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no token: {0}")]
pub struct TokenError(pub String);

/// Gives the client a token at every connect, and again before it expires.
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is valid for a while.
    fn token(&self) -> BoxFuture<'_, Result<String, TokenError>>;
}

impl TokenProvider for String {
    fn token(&self) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// Where a process that ended had come to, so that its successor publishes nothing twice. The successor
/// uses the same [`ClientConfig::producer`] and sends the same publishes in the same order from
/// `next_seq` on, before the server's memory of repeats (10 minutes) is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The number of the next event; everything below has its answer.
    pub next_seq: u64,
    /// The last number that may have been sent.
    pub sent_through: u64,
    /// The server's time before `next_seq` was sent for the first time.
    pub first_sent: Timestamp,
}

/// How a [`crate::Client`] is set up. [`ClientConfig::new`] gives the defaults.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where gateways answer: `ws://`, `wss://`, `http://` or `https://`, in the order of preference. A
    /// URL without a path gets `/v1/ws`.
    pub urls: Vec<String>,
    /// Where tokens come from.
    pub token: Arc<dyn TokenProvider>,
    /// The producer id, 1 to 64 bytes; drawn when absent. A program that keeps one over its own restarts
    /// would restart its sequence numbers as well, and be refused: draw it unless you know better.
    pub producer: Option<String>,
    /// Where an earlier process with this producer id had come to.
    pub resume: Option<Resume>,
    /// Which ways may be taken: a WebSocket, and HTTP while none passes.
    pub transports: Transports,
    /// How messages are written: JSON by default, protobuf is smaller where data is binary. Over HTTP it
    /// is always JSON.
    pub codec: Codec,
    /// Certificate authorities beside the usual ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Deadline of one attempt to connect.
    pub connect_timeout: Duration,
    /// How long [`crate::Client::connect`] keeps trying before it gives up.
    pub connect_within: Duration,
    /// How long a publish is tried. Keep it below the server's horizon for repeats (10 minutes).
    pub publish_timeout: Duration,
    /// How long any other request is tried.
    pub request_timeout: Duration,
    /// Bytes of publishes without an answer; past it [`crate::Client::send`] waits.
    pub queue_bytes: usize,
    /// Deliveries that wait for a subscription's reader. When a reader is slower, the subscription
    /// rests at the server and goes on where it stopped.
    pub subscription_queue: usize,
    /// First pause before connecting again; doubles, spread evenly from zero.
    pub backoff_base: Duration,
    /// Longest such pause.
    pub backoff_cap: Duration,
    /// First pause before a WebSocket is tried again while HTTP is used; doubles up to twenty times of it,
    /// spread evenly from zero.
    pub upgrade_base: Duration,
}

impl ClientConfig {
    /// One URL and one token, all else by default.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            token: Arc::new(token.into()),
            producer: None,
            resume: None,
            transports: Transports::default(),
            codec: Codec::Json,
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            connect_within: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(15),
            queue_bytes: 8 * 1024 * 1024,
            subscription_queue: 64,
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(30),
            upgrade_base: Duration::from_secs(30),
        }
    }

    /// Further URLs, tried in turn.
    #[must_use]
    pub fn with_urls(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.urls.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Trusts the certificate authorities of a PEM file's content as well.
    ///
    /// # Errors
    /// [`crate::ClientError::Invalid`] if `pem` holds no certificate.
    pub fn with_roots(mut self, pem: &[u8]) -> Result<Self, crate::ClientError> {
        use rustls::pki_types::pem::PemObject as _;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| crate::ClientError::Invalid(error.to_string()))?;
        if found.is_empty() {
            return Err(crate::ClientError::Invalid("no certificate in the PEM text".to_owned()));
        }
        self.extra_roots.extend(found);
        Ok(self)
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("urls", &self.urls)
            .field("producer", &self.producer)
            .finish_non_exhaustive()
    }
}
