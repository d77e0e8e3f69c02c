//! Channel tokens: what an application's backend grants one user on a few channels, for a short time.
//!
//! They are signed by keys of the application, not of the provider that signs people in, and are told apart
//! by their audience. A namespace whose rule is [`Access::ChannelToken`](crate::Access::ChannelToken) lets
//! nobody in without one.

use crate::access::ChannelGrant;
use crate::verifier::Verifier;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};

/// Longest that a channel token may still be valid.
const VALID_MAX: Duration = Duration::from_secs(3600);
/// Channel tokens that one bearer may hold at a time.
pub(crate) const HELD_MAX: usize = 100;

#[derive(Deserialize)]
struct Audience {
    aud: Value,
}

impl Verifier {
    /// Whether the token says that it is a channel token. Nothing of it is trusted yet.
    #[must_use]
    pub fn is_channel_token(&self, token: &str) -> bool {
        let Some(channel) = self.channel_tokens() else { return false };
        let claims = token.split('.').nth(1);
        let claims = claims.and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
        let said = claims.and_then(|claims| serde_json::from_slice::<Audience>(&claims).ok());
        said.is_some_and(|said| channel.is_meant_by(&said.aud))
    }

    /// Adds what a channel token grants to what its bearer, `claims`, may.
    ///
    /// # Errors
    /// As [`Verifier::verify`]; `forbidden` if it is another user's, `invalid_field` if it is valid for too
    /// long or is one too many.
    pub async fn add_channel_token(
        &self,
        claims: &crate::Claims,
        token: &str,
    ) -> Result<crate::Claims, Refusal> {
        let Some(channel) = self.channel_tokens() else {
            let message = "this server takes no channel tokens: auth.channel_jwks is empty";
            return Err(Refusal::new(ErrorCode::Unauthenticated, message));
        };
        let granted = channel.verify(token).await?;
        if granted.user != claims.user {
            let message = "the channel token is of another user; ask for one of your own";
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        let now = self.now();
        if granted.expires.since(now) > VALID_MAX {
            let problem = "a channel token is valid for an hour at most";
            return Err(Refusal::invalid_field("token", problem));
        }
        let held = claims.without_ended(now);
        if held.channels.len() >= HELD_MAX {
            let problem = format!("{HELD_MAX} channel tokens are the most that count at a time");
            return Err(Refusal::invalid_field("token", problem));
        }
        let grant = ChannelGrant { rights: granted.rights, expires: granted.expires };
        Ok(held.with(grant))
    }
}
