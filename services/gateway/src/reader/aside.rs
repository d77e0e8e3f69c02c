//! Where history is read: on threads of its own that give way to all others, so that live events don't
//! wait behind the decoding and writing out of pages.

use std::future::Future;
use tokio::runtime::Runtime;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// How far the threads give way, of 19. What has a tenth of the usual weight goes on when there is no
/// time to spare, at a tenth of a thread's share.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The threads; without any, whoever asks works where it is.
pub(super) struct Aside(Option<Runtime>);

impl Aside {
    /// So many threads, where the system has them to give.
    pub(super) fn new(threads: usize) -> Self {
        if threads == 0 {
            return Self(None);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("history")
            .on_thread_start(give_way)
            .enable_all()
            .build();
        if let Err(error) = &runtime {
            tracing::warn!(%error, "history has no threads of its own");
        }
        Self(runtime.ok())
    }

    /// Works on one of the threads. Whoever does not wait for it any more ends it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let Some(runtime) = &self.0 else { return work.await };
        match AbortOnDropHandle::new(runtime.spawn(work.in_current_span())).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process is ending.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn give_way() {
    // On Linux a priority is a thread's own, elsewhere the whole process's. Threads that are started from
    // here, as those of SQLite's connections are, have it as well.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the threads of history do not give way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_is_done_on_threads_that_give_way() {
        let (here, aside) = (Aside::new(0), Aside::new(1));
        let name = async || std::thread::current().name().map(str::to_owned);
        assert_ne!(here.run(name()).await.as_deref(), Some("history"));
        assert_eq!(aside.run(name()).await.as_deref(), Some("history"));
        #[cfg(target_os = "linux")]
        {
            let nice = async || rustix::process::getpriority_process(None).unwrap();
            assert_eq!((here.run(nice()).await, aside.run(nice()).await), (nice().await, NICE));
            let inherited =
                async || std::thread::spawn(|| rustix::process::getpriority_process(None));
            assert_eq!(aside.run(inherited()).await.join().unwrap().unwrap(), NICE);
        }
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends_and_a_panic_is_passed_on() {
        let aside = Arc::new(Aside::new(1));
        let (alive, ended) = oneshot::channel::<()>();
        let (started, starts) = oneshot::channel::<()>();
        let work = {
            let aside = Arc::clone(&aside);
            let forever = async move {
                let _alive = alive;
                started.send(()).unwrap();
                std::future::pending::<()>().await;
            };
            tokio::spawn(async move { aside.run(forever).await })
        };
        starts.await.unwrap();
        work.abort();
        assert!(ended.await.is_err(), "dropped with the work");
        let failing = tokio::spawn(async move { aside.run(async { panic!("on purpose") }).await });
        let error = failing.await.unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
    }
}
