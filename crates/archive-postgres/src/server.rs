//! One Postgres server, or one of several of which one takes writes: its pool and its guard. Every call
//! goes through here.

use crate::config::PostgresConfig;
use crate::error::{answered, is_answer, unavailable};
use crate::hosts;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, Postgres};
use sqlx::{ConnectOptions as _, Connection as _};
use std::future::Future;
use std::str::FromStr;
use stormwire_archive::ArchiveError;
use stormwire_guard::Guard;
use stormwire_sql::{Pool, PoolConfig};

/// Longest time that the server works on one statement, whether anybody still waits for it or not.
const STATEMENT_TIMEOUT: &str = "60s";

pub(crate) struct Server {
    pub(crate) guard: Guard,
    dependency: &'static str,
    config: PoolConfig,
    /// The servers that the URL names.
    hosts: Vec<PgConnectOptions>,
    place: RwLock<Place>,
}

/// The server in use.
struct Place {
    host: usize,
    pool: Pool<Postgres>,
}

impl Server {
    /// Opens no connection yet. Of several servers the first is in use until another one is chosen by
    /// [`Server::moved_to`].
    pub(crate) fn new(
        dependency: &'static str,
        url: &str,
        config: &PostgresConfig,
    ) -> Result<Self, ArchiveError> {
        let hosts: Result<Vec<_>, _> = hosts::split(url)
            .iter()
            .map(|url| PgConnectOptions::from_str(url).map(configured))
            .collect();
        let hosts = hosts.map_err(|error| {
            // Not the URL itself: it may hold a password.
            ArchiveError::Protocol(format!("the URL of {dependency} cannot be read: {error}"))
        })?;
        let Some(first) = hosts.first() else {
            return Err(ArchiveError::Protocol(format!("the URL of {dependency} names no server")));
        };
        let pool = pool(dependency, &config.pool, first);
        Ok(Self {
            guard: Guard::new(dependency, config.guard.clone()),
            dependency,
            config: config.pool.clone(),
            hosts,
            place: RwLock::new(Place { host: 0, pool }),
        })
    }

    /// The servers that the URL names.
    pub(crate) fn hosts(&self) -> &[PgConnectOptions] {
        &self.hosts
    }

    /// Which of them is in use.
    pub(crate) fn host(&self) -> usize {
        self.place.read().host
    }

    /// Uses another one from now on. Who waits for a connection of the last one is told that it is gone.
    pub(crate) fn moved_to(&self, host: usize) {
        let pool = pool(self.dependency, &self.config, &self.hosts[host]);
        let last = std::mem::replace(&mut *self.place.write(), Place { host, pool });
        tokio::spawn(async move { last.pool.close().await });
    }

    /// The pool of the server in use.
    pub(crate) fn pool(&self) -> Pool<Postgres> {
        self.place.read().pool.clone()
    }

    /// How to open a connection of one's own, without a bound on its statements.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.hosts[self.host()]
    }

    /// Whether the server answers, and if it has the schema. Without a free connection it opens one of its
    /// own: the pool would try again until the deadline and not say what is wrong.
    pub(crate) async fn probe(&self) -> Result<bool, ArchiveError> {
        let work = async {
            let question = sqlx::query_scalar("SELECT to_regclass('ledger') IS NOT NULL");
            if self.pool().state().idle > 0 {
                return question.fetch_one(&mut *self.connection().await?).await;
            }
            let mut connection = self.options().connect().await?;
            let schema = question.fetch_one(&mut connection).await?;
            let _ = connection.close().await;
            Ok(schema)
        };
        self.once("ping", work).await
    }

    pub(crate) async fn connection(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.pool().acquire().await
    }

    /// An operation that may be repeated: retried within the guard's budget.
    pub(crate) async fn ask<T, F>(
        &self,
        operation: &'static str,
        mut make: impl FnMut() -> F,
    ) -> Result<T, ArchiveError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let make = || {
            let work = make();
            async move { answer(work.await) }
        };
        match self.guard.retry(operation, |_| true, make).await {
            Ok(outcome) => outcome.map_err(|error| answered(&error)),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// An operation that is tried once. Boxed: waiting for a connection alone takes kilobytes.
    pub(crate) fn once<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, ArchiveError>> {
        let work = async move { answer(work.await) }.boxed();
        async move {
            match self.guard.call(operation, work).await {
                Ok(outcome) => outcome.map_err(|error| answered(&error)),
                Err(error) => Err(unavailable(error)),
            }
        }
        .boxed()
    }
}

fn configured(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("stormwire").options([
        ("standard_conforming_strings", "on"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("client_min_messages", "warning"),
    ])
}

fn pool(dependency: &'static str, config: &PoolConfig, host: &PgConnectOptions) -> Pool<Postgres> {
    let pooled = host.clone().options([("statement_timeout", STATEMENT_TIMEOUT)]);
    Pool::lazy(dependency, config.options(), pooled)
}

/// Sets answers of a healthy server apart from its failures.
pub(crate) fn answer<T>(
    outcome: Result<T, sqlx::Error>,
) -> Result<Result<T, sqlx::Error>, sqlx::Error> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(error) if is_answer(&error) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}
