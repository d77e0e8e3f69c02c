//! GUARD: what stands between this process and a dependency that is slow, failing or gone.
//!
//! Every call to a database, a journal or a remote service goes through the one [`Guard`] of that
//! dependency. It gives the call a deadline, so that nothing waits for ever; it opens a circuit
//! breaker after repeated failures, so that callers are refused at once instead of queueing up; and it
//! pays for retries out of a budget filled by first attempts, so that retries add at most a tenth to
//! the load of a dependency that is already in trouble. All of it is counted.

mod breaker;
mod budget;

use breaker::Breaker;
pub use breaker::BreakerState;
use budget::Budget;
use metrics::{counter, histogram};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use stormwire_telemetry::metrics as names;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

/// How patient a [`Guard`] is.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// Longest time for one attempt.
    pub deadline: Duration,
    /// Most attempts of [`Guard::retry`], the first included; at least 1.
    pub attempts: u32,
    /// Failures and missed deadlines in a row that open the breaker; at least 1.
    pub open_after: u32,
    /// How long an open breaker refuses before it lets one probe through.
    pub open_for: Duration,
    /// Upper bound of the wait before the first retry; it doubles with each further one.
    pub backoff: Duration,
    /// Upper bound of any wait between attempts.
    pub backoff_max: Duration,
    /// Retries that a hundred first attempts pay for.
    pub retry_percent: u32,
    /// Most retries saved up.
    pub retry_burst: u32,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            attempts: 3,
            open_after: 5,
            open_for: Duration::from_secs(2),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            retry_percent: 10,
            retry_burst: 10,
        }
    }
}

/// Why a guarded call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardError<E> {
    /// The breaker is open; nothing was sent.
    Open {
        /// When it lets a probe through.
        retry_after: Duration,
    },
    /// No answer within the deadline; whether the call took effect is unknown.
    Deadline(Duration),
    /// The dependency's own error.
    Failed(E),
}

impl<E> GuardError<E> {
    /// The same error with the dependency's own error turned into another.
    pub fn map<F>(self, convert: impl FnOnce(E) -> F) -> GuardError<F> {
        match self {
            Self::Open { retry_after } => GuardError::Open { retry_after },
            Self::Deadline(after) => GuardError::Deadline(after),
            Self::Failed(error) => GuardError::Failed(convert(error)),
        }
    }
}

impl<E: fmt::Display> fmt::Display for GuardError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { retry_after } => {
                write!(f, "not tried after repeated failures; next try in {retry_after:.1?}")
            }
            Self::Deadline(after) => write!(f, "no answer within {after:?}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for GuardError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Failed` shows the error itself, so the chain goes on with what is below it.
        match self {
            Self::Failed(error) => error.source(),
            Self::Open { .. } | Self::Deadline(_) => None,
        }
    }
}

/// The guard of one dependency. Clones share breaker, budget and counts.
#[derive(Debug, Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dependency: &'static str,
    config: GuardConfig,
    breaker: Breaker,
    budget: Budget,
}

impl Guard {
    /// A closed guard for `dependency`, the label of its metrics: `nats`, `postgres`, `redis` …
    #[must_use]
    pub fn new(dependency: &'static str, config: GuardConfig) -> Self {
        let breaker = Breaker::new(dependency, config.open_after.max(1), config.open_for);
        let budget = Budget::new(config.retry_percent, config.retry_burst);
        Self { shared: Arc::new(Shared { dependency, config, breaker, budget }) }
    }

    /// The name given to [`Guard::new`].
    #[must_use]
    pub fn dependency(&self) -> &'static str {
        self.shared.dependency
    }

    /// The breaker's state now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.shared.breaker.state()
    }

    /// Runs `work` once, within the deadline, if the breaker lets it. A call that is dropped on the way
    /// counts neither for nor against the dependency.
    ///
    /// An `Err` of `work` counts against the breaker. An error that is the answer of a healthy
    /// dependency, such as a conflict, is to be returned as `Ok(Err(..))`.
    ///
    /// # Errors
    /// [`GuardError`]: refused by the breaker, out of time, or the error of `work`.
    pub async fn call<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, GuardError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.shared.budget.earn();
        self.attempt(operation, self.shared.config.deadline, Box::pin(work)).await
    }

    /// Like [`Guard::call`] with another deadline, for operations that are slow by nature.
    ///
    /// # Errors
    /// As [`Guard::call`].
    pub async fn call_within<T, E, F>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: F,
    ) -> Result<T, GuardError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.shared.budget.earn();
        self.attempt(operation, deadline, Box::pin(work)).await
    }

    /// Runs an idempotent operation until it succeeds, fails for good, or attempts or budget are used up.
    /// `make` makes one attempt; a missed deadline and every error that `temporary` affirms are tried
    /// again after a random wait that doubles its bound. An open breaker ends it at once.
    ///
    /// # Errors
    /// The [`GuardError`] of the last attempt.
    pub async fn retry<T, E, F, M>(
        &self,
        operation: &'static str,
        temporary: impl Fn(&E) -> bool,
        mut make: M,
    ) -> Result<T, GuardError<E>>
    where
        F: Future<Output = Result<T, E>>,
        M: FnMut() -> F,
    {
        let config = &self.shared.config;
        self.shared.budget.earn();
        let mut attempt = 1;
        loop {
            let error = match self.attempt(operation, config.deadline, Box::pin(make())).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match &error {
                GuardError::Open { .. } => false,
                GuardError::Deadline(_) => true,
                GuardError::Failed(error) => temporary(error),
            };
            if !again || attempt >= config.attempts || !self.may_retry() {
                return Err(error);
            }
            sleep(self.pause(attempt)).await;
            attempt += 1;
        }
    }

    /// `work` is boxed: each layer round a future holds room for it, and clients' futures are large.
    async fn attempt<T, E, F>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: Pin<Box<F>>,
    ) -> Result<T, GuardError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let dependency = self.shared.dependency;
        let mut call = Call { dependency, operation, outcome: "cancelled" };
        let permit = match self.shared.breaker.admit() {
            Ok(permit) => permit,
            Err(retry_after) => {
                call.outcome = "open";
                return Err(GuardError::Open { retry_after });
            }
        };
        let started = Instant::now();
        let span = tracing::debug_span!("dependency", dependency, operation);
        let result = timeout(deadline, work.instrument(span)).await;
        let took = started.elapsed().as_secs_f64();
        histogram!(names::DEPENDENCY_CALL_SECONDS, "dependency" => dependency, "operation" => operation)
            .record(took);
        match result {
            Ok(Ok(value)) => {
                call.outcome = "ok";
                permit.succeeded();
                Ok(value)
            }
            Ok(Err(error)) => {
                call.outcome = "failed";
                permit.failed();
                Err(GuardError::Failed(error))
            }
            Err(_) => {
                call.outcome = "deadline";
                permit.failed();
                Err(GuardError::Deadline(deadline))
            }
        }
    }

    fn may_retry(&self) -> bool {
        let made = self.shared.budget.spend();
        let outcome = if made { "made" } else { "refused" };
        counter!(names::DEPENDENCY_RETRIES, "dependency" => self.shared.dependency, "outcome" => outcome)
            .increment(1);
        made
    }

    /// A random wait, so that many callers that failed together do not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let config = &self.shared.config;
        let bound =
            config.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(config.backoff_max);
        bound.mul_f64(rand::random::<f64>())
    }
}

/// Counts one attempt when it ends, however it ends.
struct Call {
    dependency: &'static str,
    operation: &'static str,
    outcome: &'static str,
}

impl Drop for Call {
    fn drop(&mut self) {
        counter!(
            names::DEPENDENCY_CALLS,
            "dependency" => self.dependency, "operation" => self.operation, "outcome" => self.outcome
        )
        .increment(1);
    }
}

#[cfg(test)]
mod tests;
