//! PORT: limits, how much of something a user, an address or a channel may do in a window.
//!
//! The semantics: a *rule* allows `limit` units in any sliding window of `window`, up to the error that
//! the engine states. Engines hand out *leases* of many units at once, so that a busy gateway asks its
//! engine thousands of times a second less than it admits events and spends them without IO.

mod port;

pub use port::{Grant, LimitKey, Limiter, LimiterError, Rule, Scope};
