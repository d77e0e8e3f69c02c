//! OpenID Connect: metadata and keys by discovery, kept for a while; an ID token that is verified.

use super::fetch::FetchError;
use super::{Begun, Code, Provider, ProviderError, url};
use crate::domain::addresses;
use crate::domain::links::{External, Flow, subject};
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreIdTokenClaims,
    CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    DiscoveryError, EndpointMaybeSet, EndpointNotSet, EndpointSet, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    SignatureVerificationError, TokenResponse as _,
};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long metadata and keys are believed.
const KEPT: Duration = Duration::from_secs(3600);
/// Least time between two discoveries that an unknown key asks for.
const UNKNOWN_KEY_EVERY: Duration = Duration::from_secs(10);
/// Signatures that only the provider can make. Not those that are made with the client's secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What discovery said last, and when. The lock is held while it is asked: one asks for all.
#[derive(Default)]
pub(super) struct Known(Mutex<Option<(Instant, Arc<CoreProviderMetadata>)>>);

impl Provider {
    pub(super) async fn begin_openid(
        &self,
        issuer: &str,
        redirect: &str,
    ) -> Result<Begun, ProviderError> {
        let metadata = self.metadata(issuer, KEPT).await?;
        let client = self.client(&metadata, redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let way = CoreAuthenticationFlow::AuthorizationCode;
        let scopes = self.config.scopes.iter().filter(|scope| *scope != "openid");
        let (url, state, nonce) = client
            .authorize_url(way, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(scopes.map(|scope| Scope::new(scope.clone())))
            .set_pkce_challenge(challenge)
            .url();
        Ok(Begun {
            url: url.to_string(),
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    pub(super) async fn finish_openid(
        &self,
        issuer: &str,
        flow: &Flow,
        code: Code<'_>,
    ) -> Result<External, ProviderError> {
        let metadata = self.metadata(issuer, KEPT).await?;
        let client = self.client(&metadata, &flow.redirect)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.0.to_owned()))
            .map_err(|error| ProviderError::Away(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(flow.verifier.clone()));
        let answer = exchange.request_async(&self.fetch).await.map_err(exchange_failed)?;
        let token = answer.id_token();
        let token = token.ok_or_else(|| refused("the provider gave no ID token"))?;
        let nonce = Nonce::new(flow.nonce.clone());
        let claims = match self.claims(&client, token, &nonce) {
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey
                | SignatureVerificationError::CryptoError(_),
            )) => {
                // The key may be newer than what is known of the provider.
                let metadata = self.metadata(issuer, UNKNOWN_KEY_EVERY).await?;
                let client = self.client(&metadata, &flow.redirect)?;
                self.claims(&client, token, &nonce)
            }
            known => known,
        };
        let claims =
            claims.map_err(|error| refused(&format!("the ID token is not good: {error}")))?;
        self.external(issuer, &claims)
    }

    fn claims(
        &self,
        client: &Client,
        token: &openidconnect::core::CoreIdToken,
        nonce: &Nonce,
    ) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
        let now = self.clock.now().0;
        let time = move || chrono::DateTime::from_timestamp_millis(now).unwrap_or_default();
        let verifier = client.id_token_verifier().set_allowed_algs(ALGORITHMS).set_time_fn(time);
        token.claims(&verifier, nonce).cloned()
    }

    fn external(
        &self,
        issuer: &str,
        claims: &CoreIdTokenClaims,
    ) -> Result<External, ProviderError> {
        let subject = subject(claims.subject().as_str());
        let subject = subject.ok_or_else(|| refused("the ID token names nobody"))?;
        let verified = self.config.trust_email && claims.email_verified() == Some(true);
        let email = claims.email().filter(|_| verified);
        Ok(External {
            provider: self.config.name.clone(),
            authority: issuer.to_owned(),
            subject,
            name: claims.preferred_username().map(|name| name.as_str().to_owned()),
            email: email.and_then(|email| addresses::email(email.as_str()).ok()),
        })
    }

    fn client(
        &self,
        metadata: &CoreProviderMetadata,
        redirect: &str,
    ) -> Result<Client, ProviderError> {
        let id = ClientId::new(self.config.client_id.clone());
        let secret = self.secret.as_ref();
        let secret = secret.map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        let client = CoreClient::from_provider_metadata(metadata.clone(), id, secret)
            .set_redirect_uri(url(redirect, RedirectUrl::new)?);
        let ways = metadata.token_endpoint_auth_methods_supported();
        let only_post = ways.is_some_and(|ways| {
            !ways.contains(&CoreClientAuthMethod::ClientSecretBasic)
                && ways.contains(&CoreClientAuthMethod::ClientSecretPost)
        });
        Ok(if only_post { client.set_auth_type(AuthType::RequestBody) } else { client })
    }

    /// What discovery says, asked anew if it is older than `within`.
    async fn metadata(
        &self,
        issuer: &str,
        within: Duration,
    ) -> Result<Arc<CoreProviderMetadata>, ProviderError> {
        let mut known = self.known.0.lock().await;
        if let Some((at, metadata)) = &*known
            && at.elapsed() < within
        {
            return Ok(Arc::clone(metadata));
        }
        let asked =
            CoreProviderMetadata::discover_async(url(issuer, IssuerUrl::new)?, &self.fetch).await;
        let metadata = asked.map_err(discovery_failed)?;
        no_downgrade(issuer, &metadata)?;
        let metadata = Arc::new(metadata);
        *known = Some((Instant::now(), Arc::clone(&metadata)));
        Ok(metadata)
    }
}

/// An issuer that is reached over TLS has everything behind TLS.
fn no_downgrade(issuer: &str, metadata: &CoreProviderMetadata) -> Result<(), ProviderError> {
    let token = metadata.token_endpoint();
    let token = token.ok_or_else(|| ProviderError::Away("it has no token endpoint".to_owned()))?;
    let all = [metadata.authorization_endpoint().url(), token.url(), metadata.jwks_uri().url()];
    let plain = all.iter().find(|url| url.scheme() != "https");
    match plain {
        Some(url) if issuer.starts_with("https://") => {
            Err(ProviderError::Away(format!("its {url} is not behind TLS, and its issuer is")))
        }
        _ => Ok(()),
    }
}

fn refused(message: &str) -> ProviderError {
    ProviderError::Refused(message.to_owned())
}

fn discovery_failed(error: DiscoveryError<FetchError>) -> ProviderError {
    match error {
        DiscoveryError::Request(error) => ProviderError::Away(error.to_string()),
        DiscoveryError::Validation(text) => ProviderError::Away(text),
        DiscoveryError::Response(_, _, text) => ProviderError::Away(text),
        other => ProviderError::Away(format!("its metadata cannot be read: {other}")),
    }
}

/// Why a code was not exchanged: not what a provider may have put in its answer beside the code.
pub(super) fn exchange_failed<T: openidconnect::ErrorResponse + 'static>(
    error: RequestTokenError<FetchError, T>,
) -> ProviderError {
    match error {
        RequestTokenError::Request(error) => ProviderError::Away(error.to_string()),
        RequestTokenError::ServerResponse(_) => refused("the provider did not take the code"),
        _ => ProviderError::Away("the provider's answer to the code cannot be read".to_owned()),
    }
}
