//! The limiter: the script, by connections of its own.

use crate::link::{ConnectError, Link, RedisConfig};
use async_trait::async_trait;
use fred::types::scripts::Script;
use std::fmt;
use std::time::Duration;
use stormwire_guard::BreakerState;
use stormwire_limits::{Grant, LimitKey, Limiter, LimiterError, Rule, Scope};

/// Largest number that Lua counts exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Counts limits in Redis. Clones share connections, breaker and metrics.
#[derive(Clone)]
pub struct RedisLimiter {
    link: Link,
    script: Script,
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter").field("breaker", &self.breaker()).finish_non_exhaustive()
    }
}

impl RedisLimiter {
    /// Begins to connect, and goes on trying for as long as the limiter lives: a Redis that is away is an
    /// error of each call, not of this one.
    ///
    /// # Errors
    /// [`ConnectError`] for a URL that is none.
    pub async fn connect(config: RedisConfig) -> Result<Self, ConnectError> {
        let link = Link::connect(config, "redis").await?;
        Ok(Self { link, script: Script::from_lua(include_str!("two_buckets.lua")) })
    }

    /// The state of the circuit breaker, for health reports.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.link.breaker()
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.link.close().await;
    }
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn grant(
        &self,
        key: &LimitKey,
        rule: Rule,
        least: u64,
        most: u64,
    ) -> Result<Grant, LimiterError> {
        let window = u64::try_from(rule.window.as_micros()).unwrap_or(EXACT_MAX).max(1000);
        let number = |number: u64| i64::try_from(number.min(EXACT_MAX)).unwrap_or(i64::MAX);
        let arguments = [rule.limit, window, least.max(1), most].map(number).to_vec();
        let client = self.link.client();
        let script = self.script.evalsha_with_reload(client, name(key, rule), arguments);
        let (granted, remaining, wait, reset): (u64, u64, u64, u64) =
            self.link.call("grant", Box::pin(script)).await.map_err(LimiterError)?;
        Ok(Grant {
            granted,
            valid: Grant::validity(rule),
            retry_after: Duration::from_micros(wait),
            remaining,
            reset: Duration::from_micros(reset),
        })
    }

    async fn ping(&self) -> Result<(), LimiterError> {
        self.link.ping().await.map_err(LimiterError)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// The key in Redis. The subject stands last, so that whatever it holds, two keys never meet.
fn name(key: &LimitKey, rule: Rule) -> String {
    let scope = match key.scope {
        Scope::User => "user",
        Scope::Ip => "ip",
        Scope::Channel => "channel",
    };
    format!("stormwire:limit:{scope}:{}:{}:{}", key.unit, rule.window.as_millis(), key.subject)
}

#[cfg(test)]
mod tests;
