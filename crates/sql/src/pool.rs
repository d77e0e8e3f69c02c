//! A bounded pool of connections, measured.

use metrics::{Gauge, gauge};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{Connection, Database};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use stormwire_telemetry::metrics::DEPENDENCY_POOL_CONNECTIONS;

/// How often the gauges follow a pool that nobody asks for a connection.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// The bounds of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Most connections at a time.
    pub connections: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// A connection older than this is replaced when it comes back.
    pub lifetime: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections: 20,
            acquire_timeout: Duration::from_secs(30),
            lifetime: Duration::from_secs(5 * 60),
        }
    }
}

impl PoolConfig {
    /// The same bounds as options of sqlx, for what only one database has (hooks and the like).
    #[must_use]
    pub fn options<DB: Database>(&self) -> PoolOptions<DB> {
        PoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(self.acquire_timeout)
            .max_lifetime(self.lifetime)
    }
}

/// How a pool is used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Connections that are open.
    pub open: usize,
    /// Open connections that nobody uses.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// Most connections that may be open.
    pub max: usize,
}

/// A pool of connections that knows how many callers wait for one and keeps
/// [`DEPENDENCY_POOL_CONNECTIONS`] up to date. Clones share it.
#[derive(Debug)]
pub struct Pool<DB: Database> {
    pool: sqlx::Pool<DB>,
    waiting: Arc<AtomicUsize>,
    dependency: &'static str,
}

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            waiting: Arc::clone(&self.waiting),
            dependency: self.dependency,
        }
    }
}

impl<DB: Database> Pool<DB> {
    /// A pool that opens its first connection when it is first asked for one. `dependency` labels its
    /// metrics. To be called inside a runtime: the gauges are kept by a task that ends with the pool.
    #[must_use]
    pub fn lazy(
        dependency: &'static str,
        options: PoolOptions<DB>,
        connect: <DB::Connection as Connection>::Options,
    ) -> Self {
        let pool = options.connect_lazy_with(connect);
        let pool = Self { pool, waiting: Arc::default(), dependency };
        tokio::spawn(sample(pool.pool.close_event(), Arc::downgrade(&pool.waiting), {
            let (inner, gauges) = (pool.pool.clone(), Gauges::of(dependency));
            move |waiting| gauges.set(state_of(&inner, waiting))
        }));
        pool
    }

    /// Takes a connection, waiting for one if all are in use.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] after the acquire time-out, or why none could be opened.
    pub async fn acquire(&self) -> Result<PoolConnection<DB>, sqlx::Error> {
        if let Some(connection) = self.pool.try_acquire() {
            return Ok(connection);
        }
        let _waiting = Waiting::enter(&self.waiting);
        self.pool.acquire().await
    }

    /// Begins a transaction on a connection of the pool.
    ///
    /// # Errors
    /// As [`Pool::acquire`], or why the transaction could not begin.
    pub async fn begin(&self) -> Result<sqlx::Transaction<'static, DB>, sqlx::Error> {
        if let Some(transaction) = self.pool.try_begin().await? {
            return Ok(transaction);
        }
        let _waiting = Waiting::enter(&self.waiting);
        self.pool.begin().await
    }

    /// The name given to [`Pool::lazy`].
    #[must_use]
    pub const fn dependency(&self) -> &'static str {
        self.dependency
    }

    /// How it is used now.
    #[must_use]
    pub fn state(&self) -> PoolState {
        state_of(&self.pool, self.waiting.load(Ordering::Relaxed))
    }

    /// Closes all connections, waiting for those in use to come back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn state_of<DB: Database>(pool: &sqlx::Pool<DB>, waiting: usize) -> PoolState {
    PoolState {
        open: pool.size() as usize,
        idle: pool.num_idle(),
        waiting,
        max: pool.options().get_max_connections() as usize,
    }
}

/// Counts one waiting caller for as long as it lives, also when the caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Gauges {
    open: Gauge,
    idle: Gauge,
    waiting: Gauge,
    max: Gauge,
}

impl Gauges {
    fn of(dependency: &'static str) -> Self {
        let of = |state: &'static str| gauge!(DEPENDENCY_POOL_CONNECTIONS, "dependency" => dependency, "state" => state);
        Self { open: of("open"), idle: of("idle"), waiting: of("waiting"), max: of("max") }
    }

    fn set(&self, state: PoolState) {
        self.open.set(state.open as f64);
        self.idle.set(state.idle as f64);
        self.waiting.set(state.waiting as f64);
        self.max.set(state.max as f64);
    }
}

/// Ends when the pool is closed or its last clone was dropped.
async fn sample(
    mut closed: sqlx::pool::CloseEvent,
    waiting: std::sync::Weak<AtomicUsize>,
    set: impl Fn(usize),
) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        if closed.do_until(every.tick()).await.is_err() {
            return;
        }
        let Some(waiting) = waiting.upgrade() else { return };
        set(waiting.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Sqlite;
    use sqlx::sqlite::SqliteConnectOptions;

    fn pool(connections: u32, acquire_timeout: Duration) -> Pool<Sqlite> {
        let config = PoolConfig { connections, acquire_timeout, ..PoolConfig::default() };
        Pool::lazy("test", config.options(), SqliteConnectOptions::new())
    }

    #[test]
    fn the_default_is_twenty_connections_thirty_seconds_five_minutes() {
        let config = PoolConfig::default();
        assert_eq!(config.connections, 20);
        assert_eq!(config.acquire_timeout, Duration::from_secs(30));
        assert_eq!(config.lifetime, Duration::from_secs(300));
    }

    #[tokio::test]
    async fn a_pool_counts_what_is_open_idle_and_waited_for() {
        let pool = pool(1, Duration::from_secs(30));
        assert_eq!(pool.state(), PoolState { open: 0, idle: 0, waiting: 0, max: 1 });
        let held = pool.acquire().await.unwrap();
        assert_eq!(pool.state(), PoolState { open: 1, idle: 0, waiting: 0, max: 1 });
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move { pool.begin().await.map(drop) }
        });
        while pool.state().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(held);
        waiter.await.unwrap().unwrap();
        assert_eq!(pool.state().waiting, 0);
        pool.close().await;
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolClosed)));
    }

    #[tokio::test]
    async fn a_caller_waits_no_longer_than_the_acquire_time_out() {
        let pool = pool(1, Duration::from_millis(20));
        let _held = pool.acquire().await.unwrap();
        assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
        assert_eq!(pool.state().waiting, 0, "who gave up no longer waits");
    }
}
