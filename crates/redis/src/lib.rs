//! REDIS: the engine that counts limits, and knows who is there, for all gateways together.
//!
//! Lua scripts do the whole of each call inside Redis, by Redis's own clock. The limiter's reads a key's two
//! buckets, grants, and writes them back with an expiry: one key a call. Those of presence keep to the
//! keys of one partition, which carry one hash tag. So a Redis Cluster works as well. What is kept there may
//! be lost: windows begin anew, gateways report their members anew. Redis being away is an error at once,
//! and the caller does what it can without (see `stormwire_limits::Limits` and the gateway).

mod limiter;
mod link;
mod presence;

pub use limiter::RedisLimiter;
pub use link::{ConnectError, RedisConfig};
pub use presence::RedisPresence;
