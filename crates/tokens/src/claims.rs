//! What a token says: as it is written, and as it is used.

use crate::access::{Bearer, ChannelGrant, Namespaces, Target, decide};
use crate::{Action, Permission, Rights, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use stormwire_core::{Refusal, Timestamp};

/// A token's contents after verification. Cloning is cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Who it is (`sub`).
    pub user: Arc<str>,
    /// The sign-in it belongs to (`sid`); a revoked session's sockets are closed.
    pub session: Option<Arc<str>>,
    /// Roles, as the provider names them.
    pub roles: Arc<[String]>,
    /// When it was issued (`iat`), if it says so.
    pub issued: Option<Timestamp>,
    /// When it ends.
    pub expires: Timestamp,
    /// What it grants, where its namespaces leave that to tokens: ask [`Claims::require`].
    pub rights: Rights,
    /// What channel tokens grant beside.
    pub channels: Arc<[ChannelGrant]>,
    /// Limits of its own.
    pub limits: TokenLimits,
    /// The rules of the namespaces.
    pub namespaces: Namespaces,
}

impl Claims {
    /// Lets the bearer do `action` on `target`, by the rules of its namespace, this token, and the channel
    /// tokens that came with it.
    ///
    /// # Errors
    /// `forbidden`, naming action and target.
    pub fn require(&self, action: Action, target: Target<'_>) -> Result<(), Refusal> {
        let bearer = Bearer {
            rights: &self.rights,
            channels: &self.channels,
            operates: self.permits(Permission::Operate),
        };
        decide(bearer, self.namespaces.access(action, target), action, target)
    }

    /// Whether the bearer may do `action` on `channel`: as [`Claims::require`].
    #[must_use]
    pub fn may(&self, action: Action, channel: &str) -> bool {
        self.require(action, Target::Channel(channel)).is_ok()
    }

    /// The same, with what a channel token grants beside.
    #[must_use]
    pub fn with(&self, grant: ChannelGrant) -> Self {
        let channels = self.channels.iter().cloned().chain([grant]).collect();
        Self { channels, ..self.clone() }
    }

    /// The same, without the channel tokens that have ended at `now`.
    #[must_use]
    pub fn without_ended(&self, now: Timestamp) -> Self {
        let channels = self.channels.iter().filter(|grant| grant.expires > now).cloned().collect();
        Self { channels, ..self.clone() }
    }

    /// When the first of the token and what came with it ends.
    #[must_use]
    pub fn first_end(&self) -> Timestamp {
        self.channels.iter().map(|grant| grant.expires).fold(self.expires, Timestamp::min)
    }

    /// Whether one of the roles permits it.
    #[must_use]
    pub fn permits(&self, permission: Permission) -> bool {
        self.roles.iter().filter_map(|role| Role::parse(role)).any(|role| role.permits(permission))
    }
}

/// Limits that a token carries; what is `None` follows the server's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenLimits {
    /// No limit at all by user; for development.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
    /// Requests over REST in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Events published in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u64>,
    /// Bytes of events published in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Signals in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals_per_second: Option<u64>,
}

/// A token's contents as our identity service writes them.
#[derive(Debug, Clone, Serialize)]
pub struct TokenClaims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// User.
    pub sub: String,
    /// Session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// What the account is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// The token's own id.
    pub jti: String,
    /// Issued at, Unix seconds.
    pub iat: i64,
    /// Not before, Unix seconds.
    pub nbf: i64,
    /// Expires at, Unix seconds.
    pub exp: i64,
    /// Roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Patterns by action.
    pub channels: ChannelClaims,
    /// Limits of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TokenLimits>,
}

/// The claim `channels`: patterns by action, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelClaims {
    /// See [`Action::Publish`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// See [`Action::Subscribe`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// See [`Action::History`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<String>,
    /// See [`Action::Presence`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub presence: Vec<String>,
    /// See [`Action::Signal`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signal: Vec<String>,
}

impl ChannelClaims {
    /// The patterns of `action`.
    #[must_use]
    pub fn of(&self, action: Action) -> &[String] {
        match action {
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
            Action::History => &self.history,
            Action::Presence => &self.presence,
            Action::Signal => &self.signal,
        }
    }
}
