//! Tasks with a name and somebody who notices when they end.

use crate::metrics as names;
use ::metrics::{counter, gauge};
use futures::FutureExt as _;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a process. Clones share them.
///
/// A task that panics is logged and counted and leaves the others alone. When an *essential* one ends
/// before shutdown begins, [`Tasks::failing`] tells whoever runs them, who lets the others bring to an end
/// what they do and then leaves: a process that looks alive and does nothing is worse than one that is
/// started anew.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    token: CancellationToken,
    failing: CancellationToken,
    running: Mutex<BTreeMap<&'static str, usize>>,
    failed: Mutex<Option<&'static str>>,
}

impl Tasks {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` under `name` (the label of its metrics: one name for all tasks of a kind).
    pub fn spawn<F>(&self, name: &'static str, work: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, false, work)
    }

    /// Runs `work` under `name`; if it ends before shutdown has begun, [`Self::failing`] is cancelled. The
    /// other tasks go on until [`Self::shutdown`].
    pub fn spawn_essential<F>(&self, name: &'static str, work: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, true, work)
    }

    /// Cancelled when shutdown begins: every long task watches it.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.shared.token.clone()
    }

    /// Begins shutdown: cancels the token.
    pub fn shutdown(&self) {
        self.shared.token.cancel();
    }

    /// Cancelled when an essential task has ended before its time.
    #[must_use]
    pub fn failing(&self) -> CancellationToken {
        self.shared.failing.clone()
    }

    /// The first essential task that ended before its time, if one did.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        *self.shared.failed.lock()
    }

    /// How many tasks run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.tracker.len()
    }

    /// Begins shutdown and waits until every task has ended, for at most `deadline`.
    ///
    /// # Errors
    /// The names of the tasks that still run.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.shutdown();
        self.shared.tracker.close();
        match tokio::time::timeout(deadline, self.shared.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let left: Vec<_> = self.shared.running.lock().keys().copied().collect();
                tracing::warn!(tasks = ?left, "tasks still run after the drain deadline");
                Err(left)
            }
        }
    }

    fn start<F>(&self, name: &'static str, essential: bool, work: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = Running::new(Arc::clone(&self.shared), name);
        let task = async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            running.ended(essential, outcome.is_err());
        };
        self.shared.tracker.spawn(task).abort_handle()
    }
}

/// Counts a task for as long as it lives, also when it is aborted.
struct Running {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Running {
    fn new(shared: Arc<Shared>, name: &'static str) -> Self {
        *shared.running.lock().entry(name).or_default() += 1;
        gauge!(names::TASKS_RUNNING, "task" => name).increment(1);
        Self { shared, name }
    }

    fn ended(&self, essential: bool, panicked: bool) {
        if panicked {
            counter!(names::TASK_PANICS, "task" => self.name).increment(1);
            tracing::error!(task = self.name, "task panicked");
        }
        if essential && !self.shared.token.is_cancelled() {
            tracing::error!(task = self.name, "essential task ended before its time");
            self.shared.failed.lock().get_or_insert(self.name);
            self.shared.failing.cancel();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
        gauge!(names::TASKS_RUNNING, "task" => self.name).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const DEADLINE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_the_others_go_on() {
        let tasks = Tasks::new();
        let stop = tasks.token();
        tasks.spawn("steady", async move { stop.cancelled().await });
        tasks.spawn("bad", async { panic!("on purpose") });
        while tasks.running() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(!tasks.token().is_cancelled());
        assert_eq!(tasks.drain(DEADLINE).await, Ok(()));
        assert_eq!((tasks.running(), tasks.failed()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_essential_task_is_told_and_the_others_go_on() {
        for panics in [true, false] {
            let tasks = Tasks::new();
            tasks.spawn_essential("heart", async move { assert!(!panics, "on purpose") });
            tasks.failing().cancelled().await;
            assert_eq!(tasks.failed(), Some("heart"));
            assert!(!tasks.token().is_cancelled());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_essential_task_may_end_after_the_shutdown_began() {
        let tasks = Tasks::new();
        let stop = tasks.token();
        tasks.spawn_essential("heart", async move { stop.cancelled().await });
        assert_eq!(tasks.drain(DEADLINE).await, Ok(()));
        assert_eq!((tasks.failed(), tasks.failing().is_cancelled()), (None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_names_what_does_not_stop() {
        let tasks = Tasks::new();
        tasks.spawn("good", async {});
        let stuck = tasks.spawn("stuck", pending());
        assert_eq!(tasks.drain(DEADLINE).await, Err(vec!["stuck"]));
        stuck.abort();
        assert_eq!(tasks.drain(DEADLINE).await, Ok(()));
    }
}
