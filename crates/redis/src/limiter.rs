//! The limiter: connections, the script, and a guard round every call.

use async_trait::async_trait;
use fred::clients::{Client, Pool};
use fred::error::Error;
use fred::interfaces::ClientLike as _;
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use fred::types::scripts::Script;
use metrics::{Gauge, gauge};
use std::fmt;
use std::time::Duration;
use stormwire_guard::{BreakerState, Guard, GuardConfig};
use stormwire_limits::{Grant, LimitKey, Limiter, LimiterError, Rule, Scope};
use stormwire_telemetry::metrics as names;

/// Largest number that Lua counts exactly.
const EXACT_MAX: u64 = 1 << 53;
/// Shortest and longest wait before connecting again, in milliseconds, and the factor between.
const RECONNECT: (u32, u32, u32) = (50, 5000, 2);
/// What an address may begin with.
const SCHEMES: [&str; 4] = ["redis", "rediss", "redis-cluster", "rediss-cluster"];
/// A connection that owes an answer for so long is closed and made anew.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(2);

/// How Redis is reached.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` (TLS) or `redis-cluster://`, with user and password if it wants any.
    pub url: String,
    /// Connections held open.
    pub connections: usize,
    /// Longest time for one command; a decision waits for it, so it is short.
    pub command_timeout: Duration,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Most commands that wait for one connection; more are refused at once.
    pub waiting_max: usize,
}

impl RedisConfig {
    /// Four connections, 50 ms a command, 2 s to connect, 1,000 commands waiting for a connection.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 4,
            command_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(2),
            waiting_max: 1000,
        }
    }
}

/// The URL may hold a password and is not shown.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("connections", &self.connections)
            .field("command_timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
}

/// A configuration that no Redis can be reached with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of Redis cannot be used (redis://user:password@host:port/database is due): {0}"
)]
pub struct ConnectError(String);

/// Counts limits in Redis. Clones share connections, breaker and metrics.
#[derive(Clone)]
pub struct RedisLimiter {
    pool: Pool,
    script: Script,
    guard: Guard,
    open: Gauge,
    waiting: Gauge,
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter").field("breaker", &self.guard.state()).finish_non_exhaustive()
    }
}

impl RedisLimiter {
    /// Begins to connect, and goes on trying for as long as the limiter lives: a Redis that is away is an
    /// error of each call, not of this one.
    ///
    /// # Errors
    /// [`ConnectError`] for a URL that is none.
    pub async fn connect(config: RedisConfig) -> Result<Self, ConnectError> {
        let wrong = |error: Error| ConnectError(error.details().to_owned());
        let scheme = config.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(ConnectError(format!("{scheme:?} is none of {SCHEMES:?}")));
        }
        let mut redis = Config::from_url(&config.url).map_err(wrong)?;
        redis.fail_fast = false;
        let pool = Builder::from_config(redis)
            .with_connection_config(|connection| {
                connection.connection_timeout = config.connect_timeout;
                connection.internal_command_timeout = config.connect_timeout;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = config.waiting_max;
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: Some(UNRESPONSIVE_AFTER),
                    interval: UNRESPONSIVE_AFTER / 4,
                };
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = config.command_timeout;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT.0, RECONNECT.1, RECONNECT.2))
            .build_pool(config.connections.max(1))
            .map_err(wrong)?;
        pool.connect_pool();
        let first = tokio::time::timeout(config.connect_timeout, pool.wait_for_connect()).await;
        if !matches!(first, Ok(Ok(()))) {
            tracing::warn!(
                "redis does not answer yet; limits are counted without it until it does"
            );
        }
        let state = |state| gauge!(names::DEPENDENCY_POOL_CONNECTIONS, "dependency" => "redis", "state" => state);
        state("max").set(config.connections.max(1) as f64);
        // A call is up to three commands: a Redis that was restarted does not know the script.
        let guard = GuardConfig { deadline: config.command_timeout * 3, ..GuardConfig::default() };
        Ok(Self {
            pool,
            script: Script::from_lua(include_str!("two_buckets.lua")),
            guard: Guard::new("redis", guard),
            open: state("open"),
            waiting: state("waiting"),
        })
    }

    /// The state of the circuit breaker, for health reports.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.guard.state()
    }

    /// Ends the connections.
    pub async fn close(&self) {
        // What is lost by not saying goodbye is nothing.
        let _ = self.guard.call("quit", self.pool.quit()).await;
    }

    /// Runs one guarded call, counted among those that wait.
    async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, LimiterError> {
        let _waiting = Waiting::new(&self.waiting);
        let result = self.guard.call(operation, work).await;
        let open = self.pool.clients().iter().filter(|client| client.is_connected()).count();
        self.open.set(open as f64);
        result.map_err(|error| LimiterError(error.to_string()))
    }

    fn client(&self) -> &Client {
        self.pool.next_connected()
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
        let script = self.script.evalsha_with_reload(self.client(), name(key, rule), arguments);
        let (granted, remaining, wait, reset): (u64, u64, u64, u64) =
            self.call("grant", Box::pin(script)).await?;
        Ok(Grant {
            granted,
            valid: Grant::validity(rule),
            retry_after: Duration::from_micros(wait),
            remaining,
            reset: Duration::from_micros(reset),
        })
    }

    async fn ping(&self) -> Result<(), LimiterError> {
        let client = self.client();
        self.call("ping", Box::pin(async { client.ping::<String>(None).await.map(drop) })).await
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

/// Counts a call among those that wait for as long as it lives.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests;
