//! Other providers that people sign in with: OpenID Connect by discovery, or plain OAuth 2.0.
//!
//! Both are the authorization code with PKCE and a state; OpenID Connect adds a nonce and a signed ID
//! token. A provider is asked from here alone, within a deadline, behind a breaker, so many at a time.

mod fetch;
mod oauth;
mod oidc;

use crate::domain::links::{External, Flow};
use crate::key_file;
use fetch::Fetch;
use secrecy::SecretString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stormwire_core::{Clock, ErrorCode, Refusal};

/// A provider that people may sign in with.
#[derive(Clone)]
pub struct ProviderConfig {
    /// What the routes call it.
    pub name: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What it calls this server.
    pub client_id: String,
    /// The file of what shows that this server is that client; without one PKCE alone does.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; `openid` is always.
    pub scopes: Vec<String>,
    /// Whether its word for a verified mail address is taken.
    pub trust_email: bool,
    /// Whether whoever comes for the first time gets an account; by default as for everybody.
    pub registration: Option<crate::Registration>,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// OpenID Connect; everything else is found from the issuer.
    OpenId {
        /// Its `iss`, letter for letter.
        issuer: String,
    },
    /// OAuth 2.0, and a place that tells who somebody is.
    OAuth {
        /// Where the browser is sent.
        authorize_url: String,
        /// Where the code is exchanged.
        token_url: String,
        /// What tells, as JSON, whose token it is.
        user_url: String,
        /// The field of that answer that never changes.
        subject_field: String,
        /// The field of that answer with a name.
        name_field: String,
    },
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ProviderConfig");
        text.field("name", &self.name).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// A client's secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the client secret {} cannot be read: {why}", .path.display())]
pub struct SecretError {
    path: PathBuf,
    why: String,
}

/// The provider did not vouch for anybody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// It does not answer, or not as it should; the same may succeed later.
    #[error("{0}")]
    Away(String),
    /// It said no, or what it said cannot be believed.
    #[error("{0}")]
    Refused(String),
}

/// What the provider's redirect carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code<'a>(pub(crate) &'a str);

/// Where to send the browser, and what to remember of it.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
}

/// The providers of the configuration.
pub(crate) struct Providers {
    all: Vec<Provider>,
}

pub(crate) struct Provider {
    pub(crate) config: ProviderConfig,
    secret: Option<SecretString>,
    fetch: Fetch,
    known: oidc::Known,
    clock: Arc<dyn Clock>,
}

impl Providers {
    /// Reads the clients' secrets; nobody is asked yet.
    pub(crate) fn new(
        configs: &[ProviderConfig],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, SecretError> {
        let provider = |config: &ProviderConfig| {
            Ok(Provider {
                config: config.clone(),
                secret: config.client_secret_file.as_deref().map(secret).transpose()?,
                fetch: Fetch::new(),
                known: oidc::Known::default(),
                clock: Arc::clone(clock),
            })
        };
        Ok(Self { all: configs.iter().map(provider).collect::<Result<_, _>>()? })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all.iter().map(|provider| provider.config.name.clone()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Provider, Refusal> {
        let found = self.all.iter().find(|provider| provider.config.name == name);
        found.ok_or_else(|| {
            let message = "there is no such provider; GET /v1/auth/oidc lists them";
            Refusal::new(ErrorCode::NotFound, message)
        })
    }
}

impl Provider {
    /// Whether an answer that names `issuer` can be of this provider.
    pub(crate) fn is_issuer(&self, named: &str) -> bool {
        match &self.config.protocol {
            Protocol::OpenId { issuer } => issuer == named,
            Protocol::OAuth { .. } => true,
        }
    }

    /// Where a browser signs in, that is then sent to `redirect`.
    pub(crate) async fn begin(&self, redirect: &str) -> Result<Begun, ProviderError> {
        match &self.config.protocol {
            Protocol::OpenId { issuer } => Box::pin(self.begin_openid(issuer, redirect)).await,
            Protocol::OAuth { .. } => self.begin_oauth(redirect),
        }
    }

    /// Who it was that came back with `code`.
    pub(crate) async fn finish(
        &self,
        flow: &Flow,
        code: Code<'_>,
    ) -> Result<External, ProviderError> {
        match &self.config.protocol {
            Protocol::OpenId { issuer } => Box::pin(self.finish_openid(issuer, flow, code)).await,
            Protocol::OAuth { user_url, .. } => {
                Box::pin(self.finish_oauth(user_url, flow, code)).await
            }
        }
    }
}

fn secret(path: &Path) -> Result<SecretString, SecretError> {
    let failed = |why: String| SecretError { path: path.to_owned(), why };
    let text = key_file::read(path).map_err(|error| failed(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    Ok(text.to_owned().into())
}

/// An endpoint's or the redirect's URL in the type that the library wants.
fn url<T>(
    text: &str,
    make: impl FnOnce(String) -> Result<T, openidconnect::url::ParseError>,
) -> Result<T, ProviderError> {
    make(text.to_owned())
        .map_err(|error| ProviderError::Away(format!("{text:?} is no URL: {error}")))
}
