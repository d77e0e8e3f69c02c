//! The guard under a paused clock.

use super::*;
use std::cell::Cell;
use std::future::{pending, ready};

type Outcome = Result<u32, GuardError<&'static str>>;

fn guard(config: GuardConfig) -> Guard {
    Guard::new("test", config)
}

fn quick() -> GuardConfig {
    GuardConfig {
        deadline: Duration::from_millis(100),
        open_after: 3,
        open_for: Duration::from_secs(1),
        ..GuardConfig::default()
    }
}

async fn fail(guard: &Guard) -> Outcome {
    guard.call("op", ready(Err("broken"))).await
}

async fn work(guard: &Guard) -> Outcome {
    guard.call("op", ready(Ok(7))).await
}

async fn hang(guard: &Guard) -> Outcome {
    guard.call("op", pending()).await
}

async fn opened() -> Guard {
    let guard = guard(quick());
    for _ in 0..3 {
        assert_eq!(fail(&guard).await, Err(GuardError::Failed("broken")));
    }
    assert_eq!(guard.state(), BreakerState::Open);
    guard
}

#[tokio::test(start_paused = true)]
async fn failures_and_deadlines_in_a_row_open_it_and_a_good_probe_closes_it() {
    let guard = guard(quick());
    assert_eq!(fail(&guard).await, Err(GuardError::Failed("broken")));
    assert_eq!(hang(&guard).await, Err(GuardError::Deadline(Duration::from_millis(100))));
    assert_eq!(guard.state(), BreakerState::Closed);
    assert_eq!(fail(&guard).await, Err(GuardError::Failed("broken")));
    assert_eq!(guard.state(), BreakerState::Open);
    assert_eq!(work(&guard).await, Err(GuardError::Open { retry_after: Duration::from_secs(1) }));

    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(guard.state(), BreakerState::HalfOpen);
    assert_eq!(work(&guard).await, Ok(7));
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_success_between_failures_keeps_it_closed() {
    let guard = guard(quick());
    for _ in 0..10 {
        let _ = fail(&guard).await;
        let _ = fail(&guard).await;
        assert_eq!(work(&guard).await, Ok(7));
    }
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_bad_probe_opens_it_for_another_turn() {
    let guard = opened().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(fail(&guard).await, Err(GuardError::Failed("broken")));
    assert_eq!(guard.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn only_one_probe_runs_at_a_time() {
    let guard = opened().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let (first, second) = tokio::join!(hang(&guard), work(&guard));
    assert!(matches!(first, Err(GuardError::Deadline(_))), "{first:?}");
    assert!(matches!(second, Err(GuardError::Open { .. })), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_leaves_room_for_the_next() {
    let guard = opened().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let probe = timeout(Duration::from_millis(10), hang(&guard)).await;
    assert!(probe.is_err(), "the caller gave up before the deadline");
    assert_eq!(work(&guard).await, Ok(7));
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_from_before_does_not_close_an_open_breaker() {
    let guard = guard(quick());
    let slow = guard.call("op", async {
        sleep(Duration::from_millis(90)).await;
        Ok::<_, &str>(1)
    });
    let failures = async {
        for _ in 0..3 {
            let _ = fail(&guard).await;
        }
    };
    let (late, ()) = tokio::join!(slow, failures);
    assert_eq!(late, Ok(1));
    assert_eq!(guard.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_error_is_tried_again_and_a_final_one_is_not() {
    let guard = guard(quick());
    let tries = Cell::new(0);
    let flaky = || {
        tries.set(tries.get() + 1);
        ready(if tries.get() < 3 { Err("busy") } else { Ok(tries.get()) })
    };
    assert_eq!(guard.retry("op", |e| *e == "busy", flaky).await, Ok(3));

    tries.set(0);
    let wrong = || {
        tries.set(tries.get() + 1);
        ready(Err::<u32, _>("wrong"))
    };
    assert_eq!(guard.retry("op", |e| *e == "busy", wrong).await, Err(GuardError::Failed("wrong")));
    assert_eq!(tries.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    let guard = guard(GuardConfig { attempts: 4, open_after: 100, ..quick() });
    let tries = Cell::new(0);
    let hang = || {
        tries.set(tries.get() + 1);
        pending::<Result<u32, &str>>()
    };
    let result = guard.retry("op", |_| true, hang).await;
    assert_eq!((result, tries.get()), (Err(GuardError::Deadline(Duration::from_millis(100))), 4));
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_retries_add_at_most_a_tenth_to_the_load() {
    let config = GuardConfig { open_after: u32::MAX, ..quick() };
    let guard = guard(config);
    let tries = Cell::new(0_u32);
    for _ in 0..1000 {
        let result = guard
            .retry(
                "op",
                |_| true,
                || {
                    tries.set(tries.get() + 1);
                    ready(Err::<u32, _>("down"))
                },
            )
            .await;
        assert_eq!(result, Err(GuardError::Failed("down")));
    }
    // The burst of 10 that was saved up, and a tenth of the thousand first attempts.
    assert!((1100..=1111).contains(&tries.get()), "{} attempts", tries.get());
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_ends_the_retries_at_once() {
    let guard = guard(GuardConfig { attempts: 10, ..quick() });
    let tries = Cell::new(0);
    let result = guard
        .retry(
            "op",
            |_| true,
            || async {
                tries.set(tries.get() + 1);
                Err::<u32, _>("down")
            },
        )
        .await;
    assert!(matches!(result, Err(GuardError::Open { .. })), "{result:?}");
    assert_eq!(tries.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_operation_may_have_a_deadline_of_its_own() {
    let guard = guard(quick());
    let started = Instant::now();
    let result: Outcome = guard.call_within("op", Duration::from_secs(30), pending()).await;
    assert_eq!(result, Err(GuardError::Deadline(Duration::from_secs(30))));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[test]
fn errors_say_what_happened_once() {
    let open: GuardError<std::io::Error> = GuardError::Open { retry_after: Duration::from_secs(2) };
    assert!(open.to_string().contains("2.0s"), "{open}");
    let failed = GuardError::Failed(std::io::Error::other("disk on fire"));
    assert_eq!(failed.to_string(), "disk on fire");
    assert!(std::error::Error::source(&failed).is_none());
    assert_eq!(failed.map(|e| e.kind()), GuardError::Failed(std::io::ErrorKind::Other));
    for state in [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open] {
        assert!(!state.as_str().is_empty());
    }
}
