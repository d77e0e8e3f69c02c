//! What a request brings: its body, and where it came from.

use super::HttpState;
use crate::service::Origin;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::header;
use http::request::Parts;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv4Addr};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_limits::{Cost, Subject, Transport};
use stormwire_web::{ClientAddress, Problem, body, header_text};

/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a client's name for itself that are kept.
const AGENT_BYTES_MAX: usize = 200;

/// A JSON body with exactly the fields of `T`.
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<HttpState> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &HttpState) -> Result<Self, Problem> {
        let bytes = body(request.into_body(), BODY_BYTES_MAX).await?;
        let input = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("the body is not the JSON that is expected here: {error}");
            Refusal::new(ErrorCode::Malformed, message)
        })?;
        Ok(Self(input))
    }
}

/// What stands behind the `?`, read as `T`.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<HttpState> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let read = Query::from_request_parts(parts, state).await;
        let Query(parameters) = read.map_err(|error| {
            let message = format!("the parameters are not those expected here: {error}");
            Refusal::new(ErrorCode::Malformed, message)
        })?;
        Ok(Self(parameters))
    }
}

/// Where a request came from. Taking it counts the request against the limits of the address.
pub(crate) struct From(pub(crate) Origin);

impl FromRequestParts<HttpState> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let origin = origin(parts);
        let subject = Subject {
            user: "",
            ip: origin.ip,
            channel: None,
            limits: None,
            transport: Transport::Rest,
        };
        let cost = Cost { requests: 1, ..Cost::default() };
        state.caller.limits.admit(&subject, cost).await?;
        Ok(Self(origin))
    }
}

/// Where a request came from that a [`stormwire_web::Caller`] has counted already.
pub(crate) struct Counted(pub(crate) Origin);

impl FromRequestParts<HttpState> for Counted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Problem> {
        Ok(Self(origin(parts)))
    }
}

fn origin(parts: &Parts) -> Origin {
    let address = parts.extensions.get::<ClientAddress>();
    let ip = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.0);
    let agent = header_text(&parts.headers, &header::USER_AGENT).unwrap_or_default();
    // A header's text is visible ASCII.
    Origin { ip, agent: agent.chars().take(AGENT_BYTES_MAX).collect() }
}
