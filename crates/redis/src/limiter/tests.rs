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

/// Every gateway admits requests of the user, all at once, each until it refuses one; how many.
async fn storm(gateways: &[Limits], user: &str) -> u64 {
    let mut storms = tokio::task::JoinSet::new();
    for limits in gateways {
        let (limits, user) = (limits.clone(), user.to_owned());
        storms.spawn(async move {
            let (channel, limits_of_its_own) = (None, None);
            let ip = [127, 0, 0, 1].into();
            let transport = Transport::Rest;
            let subject =
                Subject { user: &user, ip, channel, limits: limits_of_its_own, transport };
            let request = Cost { requests: 1, ..Cost::default() };
            let mut admitted = 0;
            while limits.admit(&subject, request).await.is_ok() {
                admitted += 1;
                assert!(admitted <= 100_000, "nobody counts");
                tokio::task::yield_now().await;
            }
            admitted
        });
    }
    storms.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gateways_admit_one_limit_together_and_their_shares_of_it_without_redis() {
    const LIMIT: u64 = 10_000;
    let Some(redis) = Redis::start().await else { return };
    // An hour: the window does not move on while a busy machine works.
    let rule = Rule { limit: LIMIT, window: Duration::from_secs(3600) };
    let config =
        LimitsConfig { user_requests: Some(rule), ip_requests: None, ..LimitsConfig::default() };
    let mut gateways = Vec::new();
    for _ in 0..4 {
        let limiter = RedisLimiter::connect(patient(redis.url())).await.unwrap();
        let limits = Limits::new(Arc::new(limiter), config.clone());
        limits.set_gateways(4);
        gateways.push(limits);
    }
    // Never one more than the limit; less by what one gateway has leased when another refuses.
    let most = |admitted: u64| assert!((LIMIT / 2..=LIMIT).contains(&admitted), "{admitted}");
    // Twice: what one has leased when another refuses may still be spent, and was counted when it was leased.
    most(storm(&gateways, "alice").await + storm(&gateways, "alice").await);
    redis.kill().await;
    // Nobody knows what the gateways beside have admitted: each has its share, once.
    most(storm(&gateways, "bob").await + storm(&gateways, "bob").await);
    assert!(gateways.iter().all(Limits::degraded));
    redis.restart().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for limits in &gateways {
        for round in 0.. {
            // Somebody new each time: whoever has spent a share is refused without a question.
            storm(std::slice::from_ref(limits), &format!("somebody-{round}")).await;
            if !limits.degraded() {
                break;
            }
            assert!(Instant::now() < deadline, "still degraded");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    most(storm(&gateways, "carol").await + storm(&gateways, "carol").await);
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
