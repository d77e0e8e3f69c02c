//! LIMITS: how much of something a user, an address or a channel may do in a window of time.
//!
//! The port is [`Limiter`]: an engine that counts units in a sliding window, for all gateways at once or
//! for this process alone ([`SlidingWindow`]). [`Limits`] is what a gateway asks. It holds *leases*:
//! many units granted by one call and spent here without IO, as many as a key used in the last 100 ms,
//! fetched anew when half is spent. In front of the engine stands a governor (GCRA) a key, so that
//! somebody far over a limit costs no call; if the engine is away, each gateway counts its share of the
//! limit by itself and says so ([`Limits::degraded`]).

mod bucket;
mod check;
mod connections;
mod decision;
mod generations;
mod limits;
mod port;
mod window;

#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use connections::Connection;
pub use decision::{Cost, Decision, OwnLimits, Quota, Subject, Transport};
pub use limits::{Limits, LimitsConfig};
pub use port::{Grant, LimitKey, Limiter, LimiterError, Rule, Scope};
pub use window::{SlidingWindow, TwoBuckets};
