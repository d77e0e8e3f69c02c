//! Decisions under a paused clock, with an engine that can be counted, shared and switched off.

use super::*;
use async_trait::async_trait;
use std::sync::atomic::AtomicUsize;
use stormwire_core::ErrorCode;

/// The in-process engine as if it were a shared one, with a switch and a count of calls.
struct Shareable {
    inner: SlidingWindow,
    away: AtomicBool,
    calls: AtomicUsize,
}

impl Shareable {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: SlidingWindow::new(1000),
            away: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Limiter for Shareable {
    async fn grant(
        &self,
        key: &LimitKey,
        rule: Rule,
        least: u64,
        most: u64,
    ) -> Result<Grant, LimiterError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(LimiterError("switched off".to_owned()));
        }
        Ok(self.inner.grant_now(key, rule, least, most))
    }

    async fn ping(&self) -> Result<(), LimiterError> {
        if self.away.load(Ordering::SeqCst) { Err(LimiterError("off".to_owned())) } else { Ok(()) }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn subject<'a>(user: &'a str, transport: Transport) -> Subject<'a> {
    Subject { user, ip: IpAddr::from([10, 0, 0, 1]), channel: None, limits: None, transport }
}

fn events(events: u64) -> Cost {
    Cost { events, ..Cost::default() }
}

const REQUEST: Cost = Cost { requests: 1, events: 0, bytes: 0, signals: 0 };

/// Publishes one event at a time for `time`, `every` so often; how many were admitted.
async fn publish_for(limits: &Limits, user: &str, time: Duration, every: Duration) -> u64 {
    let subject = subject(user, Transport::WebSocket);
    let (until, mut admitted) = (Instant::now() + time, 0);
    while Instant::now() < until {
        let result = match limits.try_admit(&subject, events(1)) {
            Some(result) => result,
            None => limits.admit(&subject, events(1)).await,
        };
        admitted += u64::from(result.is_ok());
        tokio::time::sleep(every).await;
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn leases_admit_the_limit_with_few_calls() {
    let engine = Shareable::new();
    let config = LimitsConfig {
        user_events: Some(Rule { limit: 100_000, window: Duration::from_secs(1) }),
        ..LimitsConfig::default()
    };
    let limits = Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, config);
    let subject = subject("alice", Transport::WebSocket);
    let mut admitted = 0;
    for _ in 0..5000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for _ in 0..50 {
            let result = match limits.try_admit(&subject, events(1)) {
                Some(result) => result,
                None => limits.admit(&subject, events(1)).await,
            };
            admitted += u64::from(result.is_ok());
        }
    }
    assert_eq!(admitted, 250_000, "50,000 a second are below the limit");
    assert!(engine.calls() < 500, "{} calls for 250,000 events", engine.calls());
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_a_user_gets_the_limit_and_is_told_when_to_come_back() {
    let engine = Shareable::new();
    let limits = Limits::new(engine, LimitsConfig::default());
    let ten = Duration::from_secs(10);
    let admitted = publish_for(&limits, "alice", ten, Duration::from_micros(333)).await;
    assert!((9000..=11_000).contains(&admitted), "{admitted} in 10 s");
    assert!(
        publish_for(&limits, "bob", ten, ten / 100).await == 100,
        "another user is not touched"
    );

    let subject = subject("alice", Transport::WebSocket);
    let refusal = loop {
        if let Err(refusal) = limits.admit(&subject, events(900)).await {
            break refusal;
        }
    };
    assert_eq!(refusal.code, ErrorCode::Limited);
    assert!(
        refusal.message.starts_with("1,000 events a second for this user; try again in"),
        "{refusal}"
    );
    tokio::time::sleep(refusal.retry_after.unwrap()).await;
    assert_eq!(limits.admit(&subject, events(900)).await, Ok(()), "after the time that was named");
}

#[tokio::test(start_paused = true)]
async fn gateways_share_a_limit() {
    let engine = Shareable::new();
    let gateway = || Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, LimitsConfig::default());
    let (one, two) = (gateway(), gateway());
    let time = Duration::from_secs(10);
    let every = Duration::from_millis(1);
    let (a, b) = tokio::join!(
        publish_for(&one, "alice", time, every),
        publish_for(&two, "alice", time, every)
    );
    assert!((9000..=11_000).contains(&(a + b)), "{a} + {b} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_any_window_is_refused_for_good() {
    let limits = Limits::new(Shareable::new(), LimitsConfig::default());
    let subject = subject("alice", Transport::WebSocket);
    let refusal = limits.admit(&subject, events(1001)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert!(refusal.message.contains("1,001 events at once"), "{refusal}");
    assert_eq!(
        limits.try_admit(&subject, events(1001)).unwrap().unwrap_err().code,
        ErrorCode::TooLarge
    );
    assert_eq!(limits.admit(&subject, events(1000)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn far_over_the_limit_costs_no_call_to_the_engine() {
    let engine = Shareable::new();
    let limits = Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, LimitsConfig::default());
    let subject = subject("alice", Transport::WebSocket);
    while limits.admit(&subject, events(1)).await.is_ok() {}
    let before = engine.calls();
    for _ in 0..10_000 {
        assert!(limits.admit(&subject, events(1)).await.is_err());
    }
    assert_eq!(engine.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_user_and_by_address() {
    let limits = Limits::new(Shareable::new(), LimitsConfig::default());
    let mut admitted = 0;
    while limits.admit(&subject("alice", Transport::Rest), REQUEST).await.is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 1000);
    let refusal = limits.admit(&subject("alice", Transport::Rest), REQUEST).await.unwrap_err();
    assert!(refusal.message.starts_with("1,000 requests a minute for this user"), "{refusal}");
    // What the user's limit refused was given back to the address: 9,000 are left, from 9 other users.
    for n in 0..9000 {
        let user = format!("user-{}", n % 18);
        assert_eq!(limits.admit(&subject(&user, Transport::Rest), REQUEST).await, Ok(()), "{n}");
    }
    let refusal = limits.admit(&subject("", Transport::Rest), REQUEST).await.unwrap_err();
    assert!(refusal.message.starts_with("10,000 requests a minute for this address"), "{refusal}");
    // A WebSocket sends no requests.
    assert_eq!(limits.admit(&subject("bob", Transport::WebSocket), REQUEST).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_decision_tells_the_nearest_limit() {
    let limits = Limits::new(Shareable::new(), LimitsConfig::default());
    let decision = limits.decide(&subject("alice", Transport::Rest), REQUEST).await;
    assert_eq!(decision.outcome, Ok(()));
    let quota = decision.quota.unwrap();
    assert_eq!((quota.limit, quota.remaining), (1000, 999));
    assert_eq!(quota.window, Duration::from_secs(60));
    assert!(quota.reset > Duration::from_secs(30) && quota.reset <= Duration::from_secs(120));
    while limits.admit(&subject("alice", Transport::Rest), REQUEST).await.is_ok() {}
    let decision = limits.decide(&subject("alice", Transport::Rest), REQUEST).await;
    assert!(decision.outcome.is_err());
    assert_eq!(decision.quota.unwrap().remaining, 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_carries_its_own_limits() {
    let limits = Limits::new(Shareable::new(), LimitsConfig::default());
    let own = OwnLimits {
        events_per_second: Some(5),
        bytes_per_second: Some(100),
        ..OwnLimits::default()
    };
    let with = |own| Subject { limits: Some(own), ..subject("alice", Transport::WebSocket) };
    for _ in 0..5 {
        assert_eq!(limits.admit(&with(&own), events(1)).await, Ok(()));
    }
    let refusal = limits.admit(&with(&own), events(1)).await.unwrap_err();
    assert!(refusal.message.starts_with("5 events a second"), "{refusal}");
    let heavy = Cost { events: 1, bytes: 101, ..Cost::default() };
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(limits.admit(&with(&own), heavy).await.unwrap_err().code, ErrorCode::TooLarge);
    for _ in 0..5 {
        assert_eq!(
            limits.admit(&with(&own), events(1)).await,
            Ok(()),
            "what was refused cost nothing"
        );
    }
    let unlimited = OwnLimits { unlimited: true, ..own };
    for _ in 0..20_000 {
        assert_eq!(limits.try_admit(&with(&unlimited), events(100)), Some(Ok(())));
    }
    let none = OwnLimits { events_per_second: Some(0), ..OwnLimits::default() };
    assert_eq!(limits.admit(&with(&none), events(1)).await.unwrap_err().code, ErrorCode::Limited);
}

#[tokio::test(start_paused = true)]
async fn signals_are_counted_apart_from_events() {
    let limits = Limits::new(Shareable::new(), LimitsConfig::default());
    fn on(user: &str) -> Subject<'_> {
        Subject { channel: Some("a:b"), ..subject(user, Transport::WebSocket) }
    }
    let signal = Cost { signals: 1, ..Cost::default() };
    let mut said = 0;
    while limits.admit(&on("alice"), signal).await.is_ok() {
        said += 1;
        assert!(said <= 100, "100 a second a user");
    }
    let refusal = limits.admit(&on("alice"), signal).await.unwrap_err();
    assert!(refusal.message.starts_with("100 signals a second for this user"), "{refusal}");
    assert_eq!(limits.admit(&on("alice"), events(100)).await, Ok(()), "events are not touched");
    // Many users share what the subscribers of one channel can be told.
    let mut all = said;
    for user in 0..20 {
        let user = format!("user-{user}");
        while limits.admit(&on(&user), signal).await.is_ok() {
            all += 1;
        }
    }
    assert!((900..=1000).contains(&all), "{all}");
    let refusal = limits.admit(&on("bob"), signal).await.unwrap_err();
    assert!(refusal.message.contains("for this channel"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_channel_has_a_limit_where_one_is_set() {
    let rule = Rule { limit: 10, window: Duration::from_secs(1) };
    let config = LimitsConfig { channel_events: Some(rule), ..LimitsConfig::default() };
    let limits = Limits::new(Shareable::new(), config);
    let on =
        |user, channel| Subject { channel: Some(channel), ..subject(user, Transport::WebSocket) };
    assert_eq!(limits.admit(&on("alice", "a:b"), events(10)).await, Ok(()));
    let refusal = limits.admit(&on("bob", "a:b"), events(1)).await.unwrap_err();
    assert!(refusal.message.contains("for this channel"), "{refusal}");
    assert_eq!(limits.admit(&on("bob", "a:c"), events(1)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn without_the_engine_each_gateway_counts_its_share_and_says_so() {
    let engine = Shareable::new();
    let limits = Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, LimitsConfig::default());
    limits.set_gateways(4);
    let time = Duration::from_secs(10);
    let every = Duration::from_millis(1);
    engine.away.store(true, Ordering::SeqCst);
    let admitted = publish_for(&limits, "alice", time, every).await;
    assert!(limits.degraded());
    assert!((2200..=2800).contains(&admitted), "{admitted}, a quarter of 10,000 is due");
    assert!(engine.calls() <= 12, "{} calls to an engine that is away", engine.calls());

    let batch = limits.admit(&subject("bob", Transport::WebSocket), events(900)).await;
    assert_eq!(batch, Ok(()), "larger than the share, not than the limit");

    engine.away.store(false, Ordering::SeqCst);
    let admitted = publish_for(&limits, "alice", time, every).await;
    assert!(!limits.degraded());
    assert!((8800..=11_000).contains(&admitted), "{admitted} after it came back");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_nobody_asks_is_watched() {
    let engine = Shareable::new();
    let limits = Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, LimitsConfig::default());
    let tasks = Tasks::new();
    limits.watch(&tasks, || 3);
    for away in [true, false, true] {
        engine.away.store(away, Ordering::SeqCst);
        tokio::time::sleep(WATCH_EVERY * 2).await;
        assert_eq!(limits.degraded(), away);
    }
    assert_eq!(limits.shared.share(Rule { limit: 9, window: WATCH_EVERY }).limit, 3);
    assert_eq!(tasks.drain(WATCH_EVERY).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_of_one_process_counts_its_share_too() {
    let limits = Limits::new(Arc::new(SlidingWindow::new(100)), LimitsConfig::default());
    limits.set_gateways(2);
    let time = Duration::from_secs(10);
    let admitted = publish_for(&limits, "alice", time, Duration::from_millis(1)).await;
    assert!((4500..=5500).contains(&admitted), "{admitted}");
    assert!(!limits.degraded());
}

#[test]
fn an_ipv6_user_is_a_network() {
    let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
    assert!(same("2001:db8::1", "2001:db8::ffff:1"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
    assert!(!same("10.0.0.1", "10.0.0.2"));
}

/// An engine whose answers wait until they are let go.
struct Slow {
    inner: SlidingWindow,
    asked: Semaphore,
    answers: Semaphore,
}

#[async_trait]
impl Limiter for Slow {
    async fn grant(
        &self,
        key: &LimitKey,
        rule: Rule,
        least: u64,
        most: u64,
    ) -> Result<Grant, LimiterError> {
        self.asked.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        Ok(self.inner.grant_now(key, rule, least, most))
    }

    async fn ping(&self) -> Result<(), LimiterError> {
        Ok(())
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// What others spend while a lease is on its way is missing when it comes, and is no reason to refuse.
#[tokio::test(start_paused = true)]
async fn what_others_spend_meanwhile_is_fetched_as_well() {
    let engine = Arc::new(Slow {
        inner: SlidingWindow::new(1000),
        asked: Semaphore::new(0),
        answers: Semaphore::new(2),
    });
    let config = LimitsConfig {
        user_events: Some(Rule { limit: 100_000, window: Duration::from_secs(1) }),
        ..LimitsConfig::default()
    };
    let limits = Limits::new(Arc::clone(&engine) as Arc<dyn Limiter>, config);
    let alice = subject("alice", Transport::WebSocket);
    limits.admit(&alice, events(100)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    limits.admit(&alice, events(1)).await.unwrap();
    let left = 1000 - 1;
    engine.asked.acquire_many(2).await.unwrap().forget();
    let many = tokio::spawn({
        let limits = limits.clone();
        async move { limits.admit(&subject("alice", Transport::WebSocket), events(left + 100)).await }
    });
    engine.asked.acquire().await.unwrap().forget();
    // All of what was leased before.
    assert_eq!(limits.try_admit(&alice, events(left)), Some(Ok(())));
    engine.answers.add_permits(100);
    assert_eq!(many.await.unwrap(), Ok(()));
}
