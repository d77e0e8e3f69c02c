//! OAuth 2.0 without OpenID Connect: the token is shown to the provider's own place that tells whose it is.

use super::oidc::exchange_failed;
use super::{Begun, Code, Protocol, Provider, ProviderError, url};
use crate::domain::links::{External, Flow, subject};
use http::header::{ACCEPT, AUTHORIZATION};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse as _, TokenUrl,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;

type Client = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

impl Provider {
    pub(super) fn begin_oauth(&self, redirect: &str) -> Result<Begun, ProviderError> {
        let client = self.oauth_client(redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let scopes = self.config.scopes.iter().map(|scope| Scope::new(scope.clone()));
        let (url, state) = client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(scopes)
            .set_pkce_challenge(challenge)
            .url();
        let (state, verifier) = (state.into_secret(), verifier.into_secret());
        Ok(Begun { url: url.to_string(), state, nonce: String::new(), verifier })
    }

    pub(super) async fn finish_oauth(
        &self,
        user_url: &str,
        flow: &Flow,
        code: Code<'_>,
    ) -> Result<External, ProviderError> {
        let client = self.oauth_client(&flow.redirect)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.0.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(flow.verifier.clone()));
        let answer = exchange.request_async(&self.fetch).await.map_err(exchange_failed)?;
        let request = http::Request::get(user_url)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", answer.access_token().secret()))
            .body(Vec::new())
            .map_err(|error| ProviderError::Away(error.to_string()))?;
        let told = self.fetch.send(request).await;
        let told = told.map_err(|error| ProviderError::Away(error.to_string()))?;
        if !told.status().is_success() {
            let message = format!("the provider answered {} for its user", told.status());
            return Err(ProviderError::Away(message));
        }
        let user: Value = serde_json::from_slice(told.body())
            .map_err(|_| ProviderError::Away("the provider's user is not JSON".to_owned()))?;
        self.oauth_user(user_url, &user)
    }

    fn oauth_user(&self, user_url: &str, user: &Value) -> Result<External, ProviderError> {
        let Protocol::OAuth { subject_field, name_field, .. } = &self.config.protocol else {
            return Err(ProviderError::Away("the provider is not one of OAuth".to_owned()));
        };
        let found = match &user[subject_field] {
            Value::String(text) => subject(text),
            Value::Number(number) if !number.is_f64() => Some(number.to_string()),
            _ => None,
        };
        let missing = || format!("the provider's user has no field {subject_field}");
        Ok(External {
            provider: self.config.name.clone(),
            authority: user_url.to_owned(),
            subject: found.ok_or_else(|| ProviderError::Refused(missing()))?,
            name: user[name_field].as_str().map(str::to_owned),
            // Nobody has said that it is verified.
            email: None,
        })
    }

    fn oauth_client(&self, redirect: &str) -> Result<Client, ProviderError> {
        let Protocol::OAuth { authorize_url, token_url, .. } = &self.config.protocol else {
            return Err(ProviderError::Away("the provider is not one of OAuth".to_owned()));
        };
        let client = BasicClient::new(ClientId::new(self.config.client_id.clone()))
            .set_auth_uri(url(authorize_url, AuthUrl::new)?)
            .set_token_uri(url(token_url, TokenUrl::new)?)
            .set_redirect_uri(url(redirect, RedirectUrl::new)?);
        Ok(match &self.secret {
            Some(secret) => {
                client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()))
            }
            None => client,
        })
    }
}
