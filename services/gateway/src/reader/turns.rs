//! Whose turn it is to read history: so many reads go on at the same time in this process, whatever is
//! asked. Who waits stands in a line of its own (a connection's, or over HTTP a user's), and the lines
//! are served in turn, so that one who asks for much keeps nobody else waiting.

use super::aside::Aside;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use tokio::sync::oneshot;

/// How long a read may wait for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Reads of all that may wait.
const WAITING_MAX: usize = 65_536;

/// How much history is read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Pages that are read and written out at the same time.
    pub reads: usize,
    /// Pages of one connection, or of one user over HTTP, that may wait for their turn.
    pub waiting: usize,
    /// Threads of their own that pages are read and written out on; without any, it is done where they
    /// are asked for.
    pub threads: usize,
}

impl Default for HistoryBounds {
    fn default() -> Self {
        Self { reads: 4, waiting: 64, threads: 0 }
    }
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Who(u64);

impl Who {
    /// This process itself.
    pub(super) const OURSELVES: Self = Self(0);

    /// A connection.
    pub(crate) fn connection(id: u64) -> Self {
        Self::of(&(false, id))
    }

    /// A user, over HTTP.
    pub(crate) fn user(name: &str) -> Self {
        Self::of(&(true, name))
    }

    fn of(what: &impl std::hash::Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// All who read, and all who wait.
pub(super) struct Turns {
    state: Mutex<State>,
    bounds: HistoryBounds,
    aside: Aside,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: usize,
    lines: HashMap<Who, VecDeque<oneshot::Sender<Turn>>>,
    /// Whose turn is next; each who has a line is here once.
    order: VecDeque<Who>,
}

/// A right to read a page, until it is dropped.
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turns {
    pub(super) fn new(bounds: HistoryBounds) -> Arc<Self> {
        let aside = Aside::new(bounds.threads);
        Arc::new(Self { state: Mutex::default(), bounds, aside })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `limited` if too many of the same one wait, `overloaded` if it takes too long. Both temporary.
    pub(super) async fn take(self: &Arc<Self>, who: Who) -> Result<Turn, Refusal> {
        let mut called = {
            let mut state = self.state.lock();
            if state.running < self.bounds.reads.max(1) && state.order.is_empty() {
                state.running += 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            state.wait(who, self.bounds.waiting)?
        };
        match tokio::time::timeout(WAIT_MAX, &mut called).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(overloaded()),
        }
    }

    /// How many read, and how many wait.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running, state.waiting)
    }

    /// Gives a turn that is over to the next who still waits.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.next();
                if next.is_none() {
                    state.running -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // It does not wait any more; the turn is still ours to give.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl Turn {
    /// Works where history is read.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match &self.0 {
            Some(turns) => turns.aside.run(work).await,
            // Only one that was given on to nobody is empty.
            None => work.await,
        }
    }
}

impl State {
    fn wait(&mut self, who: Who, most: usize) -> Result<oneshot::Receiver<Turn>, Refusal> {
        let line = self.lines.entry(who).or_default();
        let is_new = line.is_empty();
        if line.len() >= most {
            let before = line.len();
            line.retain(|waiter| !waiter.is_closed());
            self.waiting -= before - line.len();
        }
        if line.len() >= most {
            let message =
                format!("{most} pages of history wait for this reader already; await them");
            let refusal = Refusal::new(ErrorCode::Limited, message);
            return Err(refusal.retry_after(Duration::from_millis(500)));
        }
        if self.waiting >= WAITING_MAX {
            if is_new {
                self.lines.remove(&who);
            }
            return Err(overloaded());
        }
        let (call, called) = oneshot::channel();
        line.push_back(call);
        self.waiting += 1;
        if is_new {
            self.order.push_back(who);
        }
        Ok(called)
    }

    /// The first of the line whose turn it is; that line is last then.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let who = self.order.pop_front()?;
        let line = self.lines.get_mut(&who)?;
        let next = line.pop_front();
        self.waiting -= usize::from(next.is_some());
        if line.is_empty() {
            self.lines.remove(&who);
        } else {
            self.order.push_back(who);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

fn overloaded() -> Refusal {
    let message = "too many reads of history at once on this server";
    Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::pin::Pin;

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn, Refusal>> + Send>>;

    fn take(turns: &Arc<Turns>, who: u64) -> Waiting {
        let turns = Arc::clone(turns);
        let mut waiting: Waiting = Box::pin(async move { turns.take(Who(who)).await });
        // In line from now on; one that is done at once is handed on as it is.
        match (&mut waiting).now_or_never() {
            Some(done) => Box::pin(std::future::ready(done)),
            None => waiting,
        }
    }

    fn now(waiting: &mut Waiting) -> Option<Turn> {
        waiting.now_or_never().map(|turn| turn.expect("a turn"))
    }

    #[tokio::test]
    async fn no_more_read_than_may_and_the_lines_are_served_in_turn() {
        let turns = Turns::new(HistoryBounds { reads: 2, waiting: 64, threads: 0 });
        let (first, second) = (take(&turns, 1).await.unwrap(), take(&turns, 1).await.unwrap());
        // One asks for fifty pages before two others ask for one each.
        let mut greedy: Vec<_> = (0..50).map(|_| take(&turns, 1)).collect();
        let (mut modest, mut late) = (take(&turns, 2), take(&turns, 3));
        assert!(now(&mut greedy[0]).is_none() && now(&mut modest).is_none(), "two read already");
        drop(first);
        let greedy_reads = now(&mut greedy[0]).expect("it was there first");
        drop(second);
        let modest_reads = now(&mut modest).expect("its line is next");
        assert!(now(&mut greedy[1]).is_none());
        drop(greedy_reads);
        let _late_reads = now(&mut late).expect("then this one's");
        drop(modest_reads);
        let greedy_reads = now(&mut greedy[1]).expect("then the first again");
        // Those who have gone are passed over, and their turns are not lost.
        greedy.drain(..40);
        drop(greedy_reads);
        let mut left: Vec<_> = greedy.iter_mut().map(now).collect();
        assert_eq!(left.iter().flatten().count(), 1);
        let running = || turns.state.lock().running;
        assert_eq!(running(), 2);
        left.clear();
        drop(greedy);
        assert_eq!(running(), 1, "only the late one reads");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_too_much_or_waits_too_long_is_told_when_to_come_back() {
        let turns = Turns::new(HistoryBounds { reads: 1, waiting: 3, threads: 0 });
        let reads = take(&turns, 1).await.unwrap();
        let waiting: Vec<_> = (0..3).map(|_| take(&turns, 1)).collect();
        let limited = take(&turns, 1).await.expect_err("a fourth");
        assert_eq!(limited.code, ErrorCode::Limited);
        assert!(limited.retry_after.is_some() && limited.message.contains('3'), "{limited:?}");
        drop(waiting);
        let late = take(&turns, 1).await.expect_err("nobody gives up the turn");
        assert_eq!((late.code, late.is_temporary()), (ErrorCode::Overloaded, true));
        drop(reads);
        drop(take(&turns, 1).await.unwrap());
        let state = turns.state.lock();
        assert_eq!((state.running, state.waiting, state.lines.len()), (0, 0, 0));
    }
}
