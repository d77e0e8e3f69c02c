//! Where the keys come from: a file, a URL, or the configuration itself.

use crate::keys::JWKS_BYTES_MAX;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use stormwire_core::with_causes;
use stormwire_guard::{Guard, GuardConfig, GuardError};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

/// Longest time to fetch the keys, from connecting to the last byte.
pub(crate) const FETCH_DEADLINE: Duration = Duration::from_secs(3);

/// Where the JWKS is.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An `http:` or `https:` URL, fetched on schedule and when a token names an unknown key.
    Url(String),
    /// The metadata of a provider (OpenID Connect Discovery), which names the JWKS. Fetched together.
    Discovered {
        /// Where the metadata is.
        url: String,
        /// What it must call itself.
        issuer: String,
    },
    /// The JWKS itself.
    Inline(String),
    /// The JWKS of a signer in this process, as it changes.
    Watched(watch::Receiver<String>),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) | Self::Discovered { url, .. } => f.write_str(url),
            Self::Inline(_) => f.write_str("the configuration"),
            Self::Watched(_) => f.write_str("this process"),
        }
    }
}

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The URL is not one.
    #[error("{0:?} is not an http: or https: URL")]
    BadUrl(String),
    /// The file cannot be read.
    #[error("the key file cannot be read: {0}")]
    File(std::io::Error),
    /// The server cannot be reached or hung up.
    #[error("the key server does not answer: {0}")]
    Connection(String),
    /// The server answered with something other than 200.
    #[error("the key server answered with status {0}")]
    Status(u16),
    /// More than the bound.
    #[error("the key set is larger than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
    /// The metadata is not what it should be.
    #[error("the provider's metadata cannot be used: {0}")]
    Metadata(String),
    /// Not UTF-8.
    #[error("the key set is not text")]
    NotText,
}

/// A client that only asks.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A source that is ready to be read.
#[derive(Debug)]
pub(crate) struct Source {
    guard: Guard,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File(PathBuf),
    Url(hyper::Uri, Box<HttpClient>),
    Discovered { uri: hyper::Uri, issuer: String, client: Box<HttpClient> },
    Inline(String),
    Watched(watch::Receiver<String>),
}

impl Source {
    pub(crate) fn new(source: &KeySource) -> Result<Self, SourceError> {
        let kind = match source {
            KeySource::File(path) => Kind::File(path.clone()),
            KeySource::Inline(text) => Kind::Inline(text.clone()),
            KeySource::Watched(keys) => Kind::Watched(keys.clone()),
            KeySource::Url(url) => {
                let (uri, client) = http_client(url)?;
                Kind::Url(uri, Box::new(client))
            }
            KeySource::Discovered { url, issuer } => {
                let (uri, client) = http_client(url)?;
                Kind::Discovered { uri, issuer: issuer.clone(), client: Box::new(client) }
            }
        };
        let config = GuardConfig { deadline: FETCH_DEADLINE, ..GuardConfig::default() };
        Ok(Self { guard: Guard::new("jwks", config), kind })
    }

    pub(crate) async fn read(&self) -> Result<String, GuardError<SourceError>> {
        self.guard.call("fetch", self.read_once()).await
    }

    async fn read_once(&self) -> Result<String, SourceError> {
        let bytes = match &self.kind {
            Kind::Inline(text) => return Ok(text.clone()),
            Kind::Watched(keys) => return Ok(keys.borrow().clone()),
            Kind::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(SourceError::File)?;
                let mut bytes = Vec::new();
                let mut file = file.take(JWKS_BYTES_MAX as u64 + 1);
                file.read_to_end(&mut bytes).await.map_err(SourceError::File)?;
                if bytes.len() > JWKS_BYTES_MAX {
                    return Err(SourceError::TooLarge);
                }
                bytes
            }
            Kind::Url(uri, client) => get(client, uri).await?,
            Kind::Discovered { uri, issuer, client } => {
                let metadata = get(client, uri).await?;
                get(client, &keys_of(&metadata, issuer, uri)?).await?
            }
        };
        String::from_utf8(bytes).map_err(|_| SourceError::NotText)
    }
}

async fn get(client: &HttpClient, uri: &hyper::Uri) -> Result<Vec<u8>, SourceError> {
    let answer = client
        .get(uri.clone())
        .await
        .map_err(|error| SourceError::Connection(with_causes(&error)))?;
    if answer.status() != http::StatusCode::OK {
        return Err(SourceError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), JWKS_BYTES_MAX);
    let body = body.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            SourceError::TooLarge
        } else {
            SourceError::Connection(error.to_string())
        }
    })?;
    Ok(body.to_bytes().into())
}

/// Where the keys are, by the metadata of `issuer` that was found at `from`.
fn keys_of(metadata: &[u8], issuer: &str, from: &hyper::Uri) -> Result<hyper::Uri, SourceError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let bad = |why: String| SourceError::Metadata(why);
    let metadata: Metadata =
        serde_json::from_slice(metadata).map_err(|error| bad(error.to_string()))?;
    if metadata.issuer != issuer {
        return Err(bad(format!("it is of {:?}, expected {issuer:?}", metadata.issuer)));
    }
    let uri = metadata.jwks_uri.parse::<hyper::Uri>().map_err(|error| bad(error.to_string()))?;
    let downgraded = from.scheme_str() == Some("https") && uri.scheme_str() != Some("https");
    if downgraded || uri.host().is_none() {
        return Err(bad(format!(
            "its jwks_uri {:?} is not behind TLS as it is itself",
            metadata.jwks_uri
        )));
    }
    Ok(uri)
}

/// A client for an `http:` or `https:` URL.
pub(crate) fn http_client(url: &str) -> Result<(hyper::Uri, HttpClient), SourceError> {
    let bad = || SourceError::BadUrl(url.to_owned());
    let uri: hyper::Uri = url.parse().map_err(|_| bad())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(bad());
    }
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| SourceError::Connection(error.to_string()))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok((uri, Client::builder(TokioExecutor::new()).build(connector)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_guard::BreakerState;

    #[test]
    fn metadata_names_keys_of_its_own_issuer_behind_the_same_tls() {
        let from = "https://id.example/.well-known/openid-configuration".parse().unwrap();
        let keys = |issuer: &str, jwks: &str| {
            let text =
                serde_json::json!({ "issuer": issuer, "jwks_uri": jwks, "x": 1 }).to_string();
            keys_of(text.as_bytes(), "https://id.example", &from).map(|uri| uri.to_string())
        };
        let good = keys("https://id.example", "https://keys.example/jwks").unwrap();
        assert_eq!(good, "https://keys.example/jwks");
        for (issuer, jwks) in [
            ("https://id.example/", "https://keys.example/jwks"),
            ("https://evil.example", "https://keys.example/jwks"),
            ("https://id.example", "http://keys.example/jwks"),
            ("https://id.example", "/jwks"),
            ("https://id.example", "file:///etc/passwd"),
        ] {
            let refused = keys(issuer, jwks);
            assert!(
                matches!(refused, Err(SourceError::Metadata(_))),
                "{issuer} {jwks}: {refused:?}"
            );
        }
        for text in ["", "[]", "{}", r#"{"issuer":"https://id.example"}"#] {
            assert!(keys_of(text.as_bytes(), "https://id.example", &from).is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_gone_opens_the_breaker_and_one_that_is_back_closes_it() {
        let name = format!("stormwire-jwks-{:032x}", rand::random::<u128>());
        let path = std::env::temp_dir().join(name);
        let source = Source::new(&KeySource::File(path.clone())).unwrap();
        let config = GuardConfig::default();
        for _ in 0..config.open_after {
            assert!(matches!(source.read().await, Err(GuardError::Failed(SourceError::File(_)))));
        }
        assert_eq!(source.guard.state(), BreakerState::Open);
        assert!(matches!(source.read().await, Err(GuardError::Open { .. })));
        std::fs::write(&path, "{}").unwrap();
        tokio::time::advance(config.open_for).await;
        assert_eq!(source.read().await.unwrap(), "{}");
        assert_eq!(source.guard.state(), BreakerState::Closed);
        std::fs::remove_file(path).unwrap();
    }
}
