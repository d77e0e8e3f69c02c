//! The connections to one Redis, and a guard round every call.

use fred::clients::{Client, Pool};
use fred::error::Error;
use fred::interfaces::ClientLike as _;
use fred::types::Builder;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use metrics::{Gauge, gauge};
use std::fmt;
use std::time::Duration;
use stormwire_guard::{BreakerState, Guard, GuardConfig};
use stormwire_telemetry::metrics as names;

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

/// Connections, breaker and metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Link {
    pool: Pool,
    guard: Guard,
    open: Gauge,
    waiting: Gauge,
}

impl Link {
    /// Begins to connect, and goes on trying for as long as it lives: a Redis that is away is an error of each
    /// call, not of this one. `dependency` names it in metrics.
    pub(crate) async fn connect(
        config: RedisConfig,
        dependency: &'static str,
    ) -> Result<Self, ConnectError> {
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
                dependency,
                "redis does not answer yet; what it does waits until it does"
            );
        }
        let state = |state| gauge!(names::DEPENDENCY_POOL_CONNECTIONS, "dependency" => dependency, "state" => state);
        state("max").set(config.connections.max(1) as f64);
        // A call is up to three commands: a Redis that was restarted does not know the script.
        let guard = GuardConfig { deadline: config.command_timeout * 3, ..GuardConfig::default() };
        Ok(Self {
            pool,
            guard: Guard::new(dependency, guard),
            open: state("open"),
            waiting: state("waiting"),
        })
    }

    /// The state of the circuit breaker, for health reports.
    pub(crate) fn breaker(&self) -> BreakerState {
        self.guard.state()
    }

    /// Ends the connections.
    pub(crate) async fn close(&self) {
        // What is lost by not saying goodbye is nothing.
        let _ = self.guard.call("quit", self.pool.quit()).await;
    }

    /// Runs one guarded call, counted among those that wait; the error as text.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, String> {
        let _waiting = Waiting::new(&self.waiting);
        let result = self.guard.call(operation, work).await;
        let open = self.pool.clients().iter().filter(|client| client.is_connected()).count();
        self.open.set(open as f64);
        result.map_err(|error| error.to_string())
    }

    /// Answers if Redis can be reached now.
    pub(crate) async fn ping(&self) -> Result<(), String> {
        let client = self.client();
        self.call("ping", Box::pin(async { client.ping::<String>(None).await.map(drop) })).await
    }

    pub(crate) fn client(&self) -> &Client {
        self.pool.next_connected()
    }
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
