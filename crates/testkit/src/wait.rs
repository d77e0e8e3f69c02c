//! Waiting for a condition with a deadline, which is what tests do instead of sleeping.

use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks again until it is true; panics with `what` after `deadline`.
#[track_caller]
pub fn wait_until<F, W>(
    what: &str,
    deadline: Duration,
    mut condition: F,
) -> impl Future<Output = ()> + use<F, W>
where
    F: FnMut() -> W,
    W: Future<Output = bool>,
{
    wait_for(what, deadline, move || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
}

/// Asks again until there is an answer and returns it; panics with `what` after `deadline`.
#[track_caller]
pub fn wait_for<T, F, W>(
    what: &str,
    deadline: Duration,
    mut ask: F,
) -> impl Future<Output = T> + use<T, F, W>
where
    F: FnMut() -> W,
    W: Future<Output = Option<T>>,
{
    let what = what.to_owned();
    let caller = std::panic::Location::caller();
    async move {
        match poll(deadline, &mut ask).await {
            Some(answer) => answer,
            None => panic!("{what}: not within {deadline:?} (waited at {caller})"),
        }
    }
}

/// The same without a panic: `None` after the deadline.
pub(crate) async fn poll<T, F, W>(deadline: Duration, mut ask: F) -> Option<T>
where
    F: FnMut() -> W,
    W: Future<Output = Option<T>>,
{
    let until = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(Some(answer)) = tokio::time::timeout_at(until, ask()).await {
            return Some(answer);
        }
        if Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether `GET path` on 127.0.0.1 is answered with 200.
pub async fn http_ok(port: u16, path: &str) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let question = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    let mut answer = [0; 12];
    socket.write_all(question.as_bytes()).await.is_ok()
        && socket.read_exact(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.")
        && answer.ends_with(b" 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_returns_as_soon_as_the_condition_holds() {
        let mut asked = 0;
        let started = Instant::now();
        wait_until("three asked", Duration::from_secs(60), || {
            asked += 1;
            let holds = asked == 3;
            async move { holds }
        })
        .await;
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the impossible: not within 1s")]
    async fn a_condition_that_never_holds_is_named() {
        wait_until("the impossible", Duration::from_secs(1), || async { false }).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a stuck question")]
    async fn a_question_that_hangs_ends_at_the_deadline_too() {
        wait_for("a stuck question", Duration::from_secs(1), std::future::pending::<Option<()>>)
            .await;
    }
}
