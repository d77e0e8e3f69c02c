//! The suite on a real Redis, and a Redis that is killed, paused, emptied and started again.

use super::*;
use fred::interfaces::ClientLike as _;
use std::sync::Arc;
use stormwire_limits::suite::{self, Harness};
use stormwire_limits::{Cost, Limits, LimitsConfig, Subject, Transport};
use stormwire_testkit::redis::Redis;
use tokio::time::Instant;

struct Real(Arc<RedisLimiter>);

#[async_trait]
impl Harness for Real {
    fn limiter(&self) -> Arc<dyn Limiter> {
        Arc::clone(&self.0) as Arc<dyn Limiter>
    }

    /// Redis counts by its own clock, which nobody can move.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A machine that runs many tests at once stalls; what is tested here is not how fast it is.
fn patient(url: String) -> RedisConfig {
    RedisConfig { command_timeout: Duration::from_secs(2), ..RedisConfig::new(url) }
}

const RULE: Rule = Rule { limit: 10, window: Duration::from_secs(60) };

fn key(subject: &str) -> LimitKey {
    LimitKey { scope: Scope::User, subject: subject.to_owned(), unit: "events" }
}

async fn until_granted(limiter: &RedisLimiter, subject: &str) -> Grant {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match limiter.grant(&key(subject), RULE, 1, 1).await {
            Ok(grant) => return grant,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_ports_promises() {
    let Some(redis) = Redis::start().await else { return };
    let limiter = RedisLimiter::connect(patient(redis.url())).await.unwrap();
    assert!(limiter.is_shared());
    suite::run(&Real(Arc::new(limiter.clone()))).await;
    limiter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_is_an_error_at_once_and_counts_again_when_it_is_back() {
    let Some(redis) = Redis::start().await else { return };
    let limiter = RedisLimiter::connect(RedisConfig::new(redis.url())).await.unwrap();
    assert_eq!(until_granted(&limiter, "a").await.granted, 1);
    redis.kill().await;
    let mut errors = 0;
    while limiter.breaker() == BreakerState::Closed {
        let started = Instant::now();
        let result = limiter.grant(&key("a"), RULE, 1, 1).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        errors += u32::from(result.is_err());
        assert!(errors < 50);
    }
    assert!(errors > 0);
    assert!(limiter.ping().await.is_err());
    // Restarted, it knows neither the counts nor the script.
    redis.restart().await;
    assert_eq!(until_granted(&limiter, "a").await.remaining, 9);
    let deadline = Instant::now() + Duration::from_secs(20);
    while limiter.breaker() != BreakerState::Closed || limiter.ping().await.is_err() {
        assert!(Instant::now() < deadline, "the breaker stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_silent_costs_the_deadline_and_no_more() {
    let Some(redis) = Redis::start().await else { return };
    let limiter = RedisLimiter::connect(RedisConfig::new(redis.url())).await.unwrap();
    until_granted(&limiter, "a").await;
    redis.pause().await;
    let started = Instant::now();
    assert!(limiter.grant(&key("a"), RULE, 1, 1).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    redis.resume().await;
    until_granted(&limiter, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_redis_forgot_is_loaded_again() {
    let Some(redis) = Redis::start().await else { return };
    let limiter = RedisLimiter::connect(patient(redis.url())).await.unwrap();
    assert_eq!(limiter.grant(&key("a"), RULE, 1, 4).await.unwrap().remaining, 6);
    let flush = fred::types::CustomCommand::new_static("SCRIPT", None::<u16>, false);
    let _: () = limiter.link.client().custom(flush, vec!["FLUSH"]).await.unwrap();
    assert_eq!(limiter.grant(&key("a"), RULE, 1, 4).await.unwrap().remaining, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_expires() {
    let Some(redis) = Redis::start().await else { return };
    let limiter = RedisLimiter::connect(patient(redis.url())).await.unwrap();
    limiter.grant(&key("a"), RULE, 1, 1).await.unwrap();
    let ttl = fred::types::CustomCommand::new_static("PTTL", None::<u16>, false);
    let name = name(&key("a"), RULE);
    let left: i64 = limiter.link.client().custom(ttl, vec![name]).await.unwrap();
    assert!((100_000..=120_000).contains(&left), "{left} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_absent_at_start_degrades_and_is_found_later() {
    let Some(redis) = Redis::start().await else { return };
    redis.kill().await;
    let config = RedisConfig {
        connect_timeout: Duration::from_millis(200),
        ..RedisConfig::new(redis.url())
    };
    let limiter = RedisLimiter::connect(config).await.unwrap();
    let limits = Limits::new(Arc::new(limiter), LimitsConfig::default());
    let subject = Subject {
        user: "alice",
        ip: [127, 0, 0, 1].into(),
        channel: None,
        limits: None,
        transport: Transport::Rest,
    };
    let request = Cost { requests: 1, ..Cost::default() };
    assert_eq!(limits.admit(&subject, request).await, Ok(()));
    assert!(limits.degraded());
    redis.restart().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while limits.degraded() {
        assert!(Instant::now() < deadline, "still degraded");
        assert_eq!(limits.admit(&subject, request).await, Ok(()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_and_a_password_is_never_shown() {
    for url in ["", "nonsense", "http://localhost"] {
        assert!(RedisLimiter::connect(RedisConfig::new(url)).await.is_err(), "{url:?}");
    }
    let config = RedisConfig::new("redis://user:hunter2@localhost:1");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn keys_name_scope_unit_and_window() {
    let wider = Rule { window: Duration::from_secs(61), ..RULE };
    assert_eq!(name(&key("a:b"), RULE), "stormwire:limit:user:events:60000:a:b");
    assert_ne!(name(&key("a"), RULE), name(&key("a"), wider));
}
