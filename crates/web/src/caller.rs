//! Who sent a request, and whether they may send one more.

use crate::Problem;
use crate::request::{header_text, note_quota};
use axum::extract::{FromRef, FromRequestParts, RawPathParams};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_limits::{Cost, Limits, OwnLimits, Subject, Transport};
use stormwire_tokens::{Action, Claims, Permission, Target, TokenLimits, Verifier};

/// What a channel token comes in.
pub const CHANNEL_TOKEN: HeaderName = HeaderName::from_static("stormwire-channel-token");

/// The address of a request's client: an extension that the listener's service sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// What [`Caller`] needs of a router's state.
#[derive(Clone)]
pub struct CallerState {
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Counts requests.
    pub limits: Arc<Limits>,
}

/// The signed-in user of a request, by its `Authorization: Bearer` header. Taking it counts the request
/// against the limits of the user and of the address.
#[derive(Clone)]
pub struct Caller {
    /// What the token says.
    pub claims: Arc<Claims>,
    /// Where the request came from.
    pub ip: IpAddr,
    limits: Arc<Limits>,
}

impl Caller {
    /// Lets the caller act on a channel, or says why not: see [`Claims::require`].
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, action: Action, channel: &str) -> Result<(), Refusal> {
        self.claims.require(action, Target::Channel(channel))
    }

    /// The same request in another's name, once it is clear that the caller may speak so.
    #[must_use]
    pub fn speaking_as(&self, user: &str) -> Self {
        let claims = Claims { user: Arc::from(user), ..(*self.claims).clone() };
        Self { claims: Arc::new(claims), ..self.clone() }
    }

    /// Lets the caller do what is not about a channel, or says that the roles do not permit it.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn permit(&self, permission: Permission) -> Result<(), Refusal> {
        if self.claims.permits(permission) {
            return Ok(());
        }
        let message = format!("no role of this token permits to {}", permission.as_str());
        Err(Refusal::new(ErrorCode::Forbidden, message))
    }

    /// Lets the caller at what belongs to `owner`: its own, or anybody's where a role permits it.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn own_or(&self, owner: &str, permission: Permission) -> Result<(), Refusal> {
        if *self.claims.user == *owner { Ok(()) } else { self.permit(permission) }
    }

    /// Counts `cost` against the limits of the user, the address and the channel.
    ///
    /// # Errors
    /// `limited`, with the time to come back.
    pub async fn admit(&self, channel: Option<&str>, cost: Cost) -> Result<(), Refusal> {
        let own = own_limits(&self.claims.limits);
        let subject = Subject {
            user: &self.claims.user,
            ip: self.ip,
            channel,
            limits: Some(&own),
            transport: Transport::Rest,
        };
        let decision = self.limits.decide(&subject, cost).await;
        note_quota(decision.quota);
        decision.outcome
    }

    async fn of(parts: &Parts, state: CallerState, token: Option<&str>) -> Result<Self, Problem> {
        let token = token.ok_or_else(|| {
            let message = "a token is required: send the header Authorization: Bearer TOKEN";
            Refusal::new(ErrorCode::Unauthenticated, message)
        })?;
        let mut claims = state.verifier.verify(token).await?;
        for token in channel_tokens(parts) {
            claims = state.verifier.add_channel_token(&claims, token).await?;
        }
        let claims = Arc::new(claims);
        tracing::Span::current().record("user_id", &*claims.user);
        let address = parts.extensions.get::<ClientAddress>();
        let ip = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.0);
        let caller = Self { claims, ip, limits: state.limits };
        caller.admit(None, Cost { requests: 1, ..Cost::default() }).await?;
        Ok(caller)
    }
}

/// The limits that a token carries, in the words of the limiter.
#[must_use]
pub fn own_limits(limits: &TokenLimits) -> OwnLimits {
    OwnLimits {
        unlimited: limits.unlimited,
        requests_per_minute: limits.requests_per_minute,
        events_per_second: limits.events_per_second,
        bytes_per_second: limits.bytes_per_second,
        signals_per_second: limits.signals_per_second,
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    CallerState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Self::of(parts, CallerState::from_ref(state), bearer(&parts.headers)).await
    }
}

/// A caller and whose belongings the path names as `{user}`; `me` is the caller. Taking it lets the owner in,
/// and whoever may read the accounts of others.
#[derive(Clone)]
pub struct OwnedBy {
    /// Who asks.
    pub caller: Caller,
    /// Whose it is.
    pub owner: String,
}

impl<S> FromRequestParts<S> for OwnedBy
where
    S: Send + Sync,
    CallerState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let named = RawPathParams::from_request_parts(parts, state).await.ok();
        let named = named.as_ref().and_then(|named| named.iter().find(|(name, _)| *name == "user"));
        let owner = match named {
            Some((_, user)) if user != "me" => user.to_owned(),
            _ => caller.claims.user.to_string(),
        };
        caller.own_or(&owner, Permission::ReadAccounts)?;
        Ok(Self { caller, owner })
    }
}

/// A [`Caller`] that may also give its token as `?access_token=`: for the browser's `EventSource`, which
/// cannot set headers.
#[derive(Clone)]
pub struct StreamCaller(pub Caller);

impl Deref for StreamCaller {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S> FromRequestParts<S> for StreamCaller
where
    S: Send + Sync,
    CallerState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).or_else(|| query_token(parts.uri.query()?));
        Caller::of(parts, CallerState::from_ref(state), token).await.map(Self)
    }
}

/// Channel tokens of a request: each in a header of its own, or in the query for clients that cannot set
/// headers.
fn channel_tokens(parts: &Parts) -> impl Iterator<Item = &str> {
    let in_headers = parts.headers.get_all(&CHANNEL_TOKEN).iter();
    let in_query = parts.uri.query().unwrap_or_default().split('&');
    let in_query = in_query.filter_map(|pair| pair.strip_prefix("channel_token="));
    in_headers.filter_map(|value| value.to_str().ok()).map(str::trim).chain(in_query)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = header_text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A token has no characters that a URL would escape.
fn query_token(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("access_token="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_its_header_or_its_parameter() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.insert(header::AUTHORIZATION, "bearer  a.b.c".parse().unwrap());
        assert_eq!(bearer(&headers), Some("a.b.c"));
        headers.insert(header::AUTHORIZATION, "Basic eDp5".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        assert_eq!(query_token("after=1:2&access_token=a.b"), Some("a.b"));
        assert_eq!(query_token("xaccess_token=a.b"), None);
    }
}
