//! WEB: what every HTTP surface has in common, so that each service writes only its routes.
//!
//! A refusal becomes a problem ([`Problem`], RFC 9457); [`Caller`] is a request's signed-in user, whose
//! token was verified and whose request was counted against the limits; [`finish`] puts around a router
//! what all requests need: an id in and out, a span, metrics by route, a deadline, a bound on the body,
//! CORS, compression, security headers, and an answer even if a handler panics.

mod caller;
mod finish;
mod openapi;
mod problem;
mod proxies;
mod request;

pub use caller::{
    CHANNEL_TOKEN, Caller, CallerState, ClientAddress, OwnedBy, StreamCaller, own_limits,
};
pub use finish::{WebConfig, finish};
pub use openapi::described;
pub use problem::{Problem, problem};
pub use proxies::{Network, NotANetwork, TrustedProxies};
pub use request::{REQUEST_ID, RequestId, SIGN_IN_COOKIE, body, cookie, header_text, json};
