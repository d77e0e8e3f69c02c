//! REDIS: the engine that counts limits for all gateways together.
//!
//! One Lua script a call does the whole of it inside Redis, by Redis's own clock: read the key's two
//! buckets, grant, write them back with an expiry. One key a call, so a Redis Cluster works as well. What
//! is kept there may be lost; then windows begin anew. Redis being away is an error at once, and the
//! caller counts alone (see `stormwire_limits::Limits`).

mod limiter;

pub use limiter::{ConnectError, RedisConfig, RedisLimiter};
