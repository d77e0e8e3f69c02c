//! The conformance suite of the port: what every engine must do, on a clock that the engine's test moves.

use crate::{Grant, LimitKey, Limiter, Rule, Scope};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// An engine under test, and its clock.
#[async_trait]
pub trait Harness {
    /// The engine, with no counts that this run would meet.
    fn limiter(&self) -> Arc<dyn Limiter>;
    /// Lets `time` pass for the engine: by moving a paused clock, or by waiting.
    async fn pass(&self, time: Duration);
}

/// The window that the suite counts in. Real engines really wait, so it is short; a machine that stalls for
/// longer than this between two steps fails no step, since every bound holds for any delay.
const WINDOW: Duration = Duration::from_millis(1000);

fn rule(limit: u64) -> Rule {
    Rule { limit, window: WINDOW }
}

fn key(subject: &str) -> LimitKey {
    LimitKey { scope: Scope::User, subject: subject.to_owned(), unit: "events" }
}

async fn ask(limiter: &dyn Limiter, key: &LimitKey, limit: u64, least: u64, most: u64) -> Grant {
    let grant =
        limiter.grant(key, rule(limit), least, most).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(grant.granted == 0 || (least..=most).contains(&grant.granted), "{grant:?}");
    assert!(!grant.valid.is_zero() && grant.remaining <= limit, "{grant:?}");
    // Two windows, and what an engine rounds up.
    let longest = WINDOW * 2 + WINDOW / 100;
    assert!(grant.retry_after <= longest && grant.reset <= longest, "{grant:?}");
    assert_eq!(grant.granted == 0, !grant.retry_after.is_zero(), "{grant:?}");
    grant
}

/// Runs every case against the engine of `harness`.
///
/// # Panics
/// At the first promise of the port that the engine breaks.
pub async fn run(harness: &dyn Harness) {
    grants_up_to_the_limit_and_then_nothing(harness).await;
    grants_at_least_what_is_needed_or_nothing(harness).await;
    nothing_is_granted_of_nothing(harness).await;
    keys_do_not_share_counts(harness).await;
    comes_back_when_it_says(harness).await;
    forgets_after_two_windows(harness).await;
    saturation_gets_a_limit_a_window(harness).await;
    callers_at_once_share_one_limit(harness).await;
    let limiter = harness.limiter();
    assert_eq!(limiter.ping().await, Ok(()));
}

async fn grants_up_to_the_limit_and_then_nothing(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("up-to"));
    let first = ask(&*limiter, &key, 1000, 1, 600).await;
    assert_eq!((first.granted, first.remaining), (600, 400));
    let second = ask(&*limiter, &key, 1000, 1, 600).await;
    assert!((400..=600).contains(&second.granted), "{second:?}");
}

async fn grants_at_least_what_is_needed_or_nothing(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("least"));
    assert_eq!(ask(&*limiter, &key, 1000, 900, 900).await.granted, 900);
    // Were all of that forgotten at once, more than the limit would be granted here.
    let refused = ask(&*limiter, &key, 1000, 1000, 1000).await;
    assert_eq!(refused.granted, 0);
    let too_much = ask(&*limiter, &key, 1000, 1001, 2000).await;
    assert_eq!(too_much.granted, 0);
}

async fn nothing_is_granted_of_nothing(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("nothing"));
    for _ in 0..3 {
        assert_eq!(ask(&*limiter, &key, 0, 1, 10).await.granted, 0);
    }
}

async fn keys_do_not_share_counts(harness: &dyn Harness) {
    let limiter = harness.limiter();
    let long = "x".repeat(2000);
    let mut keys = Vec::new();
    for subject in ["a", "A", "a:", "a b", "ü", "a*", "{a}", "a\n", "", "a:events", &long] {
        for scope in [Scope::User, Scope::Ip, Scope::Channel] {
            for unit in ["requests", "events", "bytes"] {
                keys.push(LimitKey { scope, subject: subject.to_owned(), unit });
            }
        }
    }
    for key in &keys {
        assert_eq!(ask(&*limiter, key, 7, 7, 7).await.granted, 7, "{key:?} met another's count");
    }
}

async fn comes_back_when_it_says(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("comes-back"));
    assert_eq!(ask(&*limiter, &key, 100, 100, 100).await.granted, 100);
    for least in [1, 30, 100] {
        let mut waits = 0;
        loop {
            let grant = ask(&*limiter, &key, 100, least, least).await;
            if grant.granted > 0 {
                break;
            }
            harness.pass(grant.retry_after).await;
            waits += 1;
        }
        // The first wait is exact; the second is for clocks that tick in milliseconds.
        assert!(waits <= 2, "{least} units came after {waits} waits");
    }
}

async fn forgets_after_two_windows(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("forgets"));
    assert_eq!(ask(&*limiter, &key, 50, 50, 50).await.granted, 50);
    harness.pass(WINDOW * 2).await;
    let again = ask(&*limiter, &key, 50, 50, 50).await;
    assert_eq!((again.granted, again.remaining), (50, 0));
}

async fn saturation_gets_a_limit_a_window(harness: &dyn Harness) {
    let (limiter, key) = (harness.limiter(), key("saturation"));
    let started = tokio::time::Instant::now();
    let mut granted = 0;
    for _ in 0..40 {
        granted += ask(&*limiter, &key, 1000, 1, 1000).await.granted;
        harness.pass(WINDOW / 10).await;
    }
    let windows = started.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
    let most = 1000.0 * (windows + 2.0);
    assert!((granted as f64) <= most, "{granted} in {windows} windows");
    assert!(granted >= 3000, "{granted} in {windows} windows");
}

async fn callers_at_once_share_one_limit(harness: &dyn Harness) {
    let started = tokio::time::Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let limiter = harness.limiter();
        callers.spawn(async move {
            let mut granted = 0;
            for _ in 0..20 {
                granted += ask(&*limiter, &key("at-once"), 100, 1, 3).await.granted;
            }
            granted
        });
    }
    let granted: u64 = callers.join_all().await.iter().sum();
    let windows = started.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
    assert!(granted >= 100 && granted as f64 <= 100.0 * (windows + 2.0), "{granted}");
}
