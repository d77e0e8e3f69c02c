//! What a gateway asks: may this subject do that now?

use crate::bucket::Spend;
use crate::check::{Check, Slot, Unit, refund};
use crate::connections::Connections;
use crate::generations::GenerationMap;
use crate::{
    Connection, Cost, Decision, Grant, LimitKey, Limiter, LimiterError, OwnLimits, Quota, Rule,
    Scope, SlidingWindow, Subject, Transport,
};
use metrics::{Counter, counter, gauge};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::Refusal;
use stormwire_telemetry::{Tasks, metrics as names};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long the engine is left alone after it did not answer.
const ENGINE_REST: Duration = Duration::from_secs(1);
/// How often the engine is asked whether it is there.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Most leases fetched ahead at the same time.
const PREFETCHES_MAX: usize = 256;

/// The limits of a gateway. `None` stands for no limit.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Requests of a user over REST.
    pub user_requests: Option<Rule>,
    /// Requests from an address over REST.
    pub ip_requests: Option<Rule>,
    /// Events published by a user.
    pub user_events: Option<Rule>,
    /// Bytes of events published by a user.
    pub user_bytes: Option<Rule>,
    /// Events published on a channel.
    pub channel_events: Option<Rule>,
    /// Signals of a user.
    pub user_signals: Option<Rule>,
    /// Signals on a channel, each of which goes to all of its subscribers.
    pub channel_signals: Option<Rule>,
    /// Connections that one address holds to one gateway.
    pub connections_per_ip: u32,
    /// Operations in a second on one connection.
    pub connection_operations: NonZeroU32,
    /// Signals in a second on one connection.
    pub connection_signals: NonZeroU32,
    /// Users, addresses and channels remembered, each; those not seen for long are forgotten.
    pub subjects_max: usize,
}

impl Default for LimitsConfig {
    /// 1,000 requests a minute a user, 10,000 an address; 1,000 events a second a user; 20,000
    /// connections an address; 20,000 operations a second a connection. Signals: 100 a second a user, 1,000 a
    /// channel, 50 a connection.
    fn default() -> Self {
        let rule = |limit, seconds| Some(Rule { limit, window: Duration::from_secs(seconds) });
        Self {
            user_requests: rule(1000, 60),
            ip_requests: rule(10_000, 60),
            user_events: rule(1000, 1),
            user_bytes: None,
            channel_events: None,
            user_signals: rule(100, 1),
            channel_signals: rule(1000, 1),
            connections_per_ip: 20_000,
            connection_operations: NonZeroU32::new(20_000).unwrap_or(NonZeroU32::MAX),
            connection_signals: NonZeroU32::new(50).unwrap_or(NonZeroU32::MAX),
            subjects_max: 100_000,
        }
    }
}

/// Decides for a gateway. Clones are the same.
#[derive(Clone)]
pub struct Limits {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Limiter>,
    config: LimitsConfig,
    users: GenerationMap<Box<str>, Slot>,
    channels: GenerationMap<Box<str>, Slot>,
    ips: GenerationMap<IpAddr, Slot>,
    connections: Arc<Connections>,
    fallback: SlidingWindow,
    gateways: AtomicU64,
    degraded: AtomicBool,
    engine_again_at: Mutex<Option<Instant>>,
    prefetches: Arc<Semaphore>,
    counters: [[Counter; 2]; 3],
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Limits {
    /// Decides by `config`, with `engine` counting.
    #[must_use]
    pub fn new(engine: Arc<dyn Limiter>, config: LimitsConfig) -> Self {
        let counters = ["user", "ip", "channel"].map(|scope| {
            ["admitted", "refused"].map(
                |outcome| counter!(names::LIMIT_DECISIONS, "scope" => scope, "outcome" => outcome),
            )
        });
        let shared = Shared {
            users: GenerationMap::new(config.subjects_max),
            channels: GenerationMap::new(config.subjects_max),
            ips: GenerationMap::new(config.subjects_max),
            connections: Arc::default(),
            fallback: SlidingWindow::new(config.subjects_max),
            gateways: AtomicU64::new(1),
            degraded: AtomicBool::new(false),
            engine_again_at: Mutex::new(None),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_MAX)),
            counters,
            engine,
            config,
        };
        gauge!(names::LIMITS_DEGRADED).set(0.0);
        Self { shared: Arc::new(shared) }
    }

    /// Decides without IO, or `None`: a lease must be fetched, so ask [`Limits::admit`].
    pub fn try_admit(&self, subject: &Subject<'_>, cost: Cost) -> Option<Result<(), Refusal>> {
        let checks = self.checks(subject, cost);
        for (at, check) in checks.iter().enumerate() {
            let refusal = match self.spend(check) {
                Spend::Done | Spend::DoneAndAsk(_) => continue,
                Spend::Ask(..) => {
                    refund(&checks[..at]);
                    return None;
                }
                Spend::Wait(after) => check.refusal(after),
                Spend::Never => check.never(),
            };
            refund(&checks[..at]);
            self.count(check.slot.scope, false);
            return Some(Err(refusal));
        }
        self.count_admitted(&checks);
        Some(Ok(()))
    }

    /// Decides, asking the engine where it must.
    ///
    /// # Errors
    /// `limited` with the time to come back, or `too_large` for more at once than any window holds.
    pub async fn admit(&self, subject: &Subject<'_>, cost: Cost) -> Result<(), Refusal> {
        self.admit_all(&self.checks(subject, cost)).await
    }

    /// As [`Limits::admit`], with what to tell the client about its limit.
    pub async fn decide(&self, subject: &Subject<'_>, cost: Cost) -> Decision {
        let checks = self.checks(subject, cost);
        let outcome = self.admit_all(&checks).await;
        let now = Instant::now();
        let quotas = checks.iter().filter_map(|check| check.quota(now));
        let nearest = quotas.min_by(|a, b| {
            let left = |quota: &Quota| quota.remaining as f64 / (quota.limit as f64).max(1.0);
            left(a).total_cmp(&left(b))
        });
        Decision { outcome, quota: nearest }
    }

    /// Takes a place among the connections of `ip`.
    ///
    /// # Errors
    /// `limited`, if the address holds as many as it may.
    pub fn connect(&self, ip: IpAddr) -> Result<Connection, Refusal> {
        let config = &self.shared.config;
        let most = config.connections_per_ip;
        let speed = (config.connection_operations, config.connection_signals);
        Connections::open(&self.shared.connections, network(ip), most, speed)
    }

    /// Says how many gateways are known to live: while the engine is away, or if it counts for this process
    /// alone, each takes its share of every limit.
    pub fn set_gateways(&self, count: u64) {
        self.shared.gateways.store(count.max(1), Ordering::Relaxed);
    }

    /// Whether limits are counted by this process alone because the engine is away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.shared.degraded.load(Ordering::Relaxed)
    }

    /// Looks after this limiter until `tasks` shuts down: asks the engine now and then whether it is there,
    /// so that [`Limits::degraded`] is true also when nobody asks for anything; takes the number of living
    /// gateways from `gateways`; reports how many subjects are remembered.
    pub fn watch(&self, tasks: &Tasks, gateways: impl Fn() -> u64 + Send + 'static) {
        let limits = self.clone();
        let stop = tasks.token();
        tasks.spawn("limits", async move {
            let mut every = tokio::time::interval(WATCH_EVERY);
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                limits.set_gateways(gateways());
                let shared = &limits.shared;
                match shared.engine.ping().await {
                    Ok(()) => shared.engine_answered(),
                    Err(error) => shared.engine_failed(&error),
                }
                let kept = shared.users.len() + shared.channels.len() + shared.ips.len();
                gauge!(names::LIMIT_KEYS).set(kept as f64);
            }
        });
    }

    async fn admit_all(&self, checks: &[Check]) -> Result<(), Refusal> {
        for (at, check) in checks.iter().enumerate() {
            if let Err(refusal) = self.take(check).await {
                refund(&checks[..at]);
                self.count(check.slot.scope, false);
                return Err(refusal);
            }
        }
        self.count_admitted(checks);
        Ok(())
    }

    /// The limits that apply, the address first: it is known before the user is.
    fn checks(&self, subject: &Subject<'_>, cost: Cost) -> Vec<Check> {
        let default = OwnLimits::default();
        let own = subject.limits.unwrap_or(&default);
        let mut checks = Vec::new();
        if own.unlimited {
            return checks;
        }
        let config = &self.shared.config;
        let mut push = |slot: Arc<Slot>, limits: &[(Unit, Option<Rule>, u64)]| {
            checks.extend(limits.iter().filter_map(|&(unit, rule, units)| {
                let slot = Arc::clone(&slot);
                rule.filter(|_| units > 0).map(|rule| Check { slot, unit, rule, units })
            }));
        };
        let requests = if subject.transport == Transport::Rest { cost.requests } else { 0 };
        if requests > 0 && config.ip_requests.is_some() {
            push(self.ip(subject.ip), &[(Unit::Requests, config.ip_requests, requests)]);
        }
        if !subject.user.is_empty() {
            let or = |limit: Option<u64>, seconds, usual| {
                let window = Duration::from_secs(seconds);
                limit.map(|limit| Rule { limit, window }).or(usual)
            };
            let user = self.named(&self.shared.users, Scope::User, subject.user);
            push(
                user,
                &[
                    (
                        Unit::Requests,
                        or(own.requests_per_minute, 60, config.user_requests),
                        requests,
                    ),
                    (Unit::Events, or(own.events_per_second, 1, config.user_events), cost.events),
                    (Unit::Bytes, or(own.bytes_per_second, 1, config.user_bytes), cost.bytes),
                    (
                        Unit::Signals,
                        or(own.signals_per_second, 1, config.user_signals),
                        cost.signals,
                    ),
                ],
            );
        }
        if let Some(channel) = subject.channel
            && (config.channel_events.is_some() || cost.signals > 0)
        {
            let channel = self.named(&self.shared.channels, Scope::Channel, channel);
            push(
                channel,
                &[
                    (Unit::Events, config.channel_events, cost.events),
                    (Unit::Signals, config.channel_signals, cost.signals),
                ],
            );
        }
        checks
    }

    fn named(&self, map: &GenerationMap<Box<str>, Slot>, scope: Scope, name: &str) -> Arc<Slot> {
        map.get(name, || (name.into(), Slot::new(scope, name.into())))
    }

    fn ip(&self, ip: IpAddr) -> Arc<Slot> {
        let ip = network(ip);
        self.shared.ips.get(&ip, || (ip, Slot::new(Scope::Ip, ip.to_string().into())))
    }

    fn spend(&self, check: &Check) -> Spend {
        let spend = check.spend();
        if let Spend::DoneAndAsk(most) = spend {
            self.prefetch(check, most);
        }
        spend
    }

    /// Spends the units of `check`, fetching a lease if need be.
    async fn take(&self, check: &Check) -> Result<(), Refusal> {
        let decided = |spend| match spend {
            Spend::Done | Spend::DoneAndAsk(_) => Some(Ok(())),
            Spend::Wait(after) => Some(Err(check.refusal(after))),
            Spend::Never => Some(Err(check.never())),
            Spend::Ask(..) => None,
        };
        if let Some(result) = decided(self.spend(check)) {
            return result;
        }
        let _fetching = check.slot.fetching.lock().await;
        loop {
            // Somebody else may have fetched meanwhile.
            let (least, most) = match self.spend(check) {
                Spend::Ask(least, most) => (least, most),
                spend => return decided(spend).unwrap_or(Ok(())),
            };
            if let Some(after) = check.with_bucket(|bucket, _| bucket.too_fast(least)) {
                return Err(check.refusal(after));
            }
            let grant = self.shared.grant(&check.key(), check.rule, least, most).await;
            // At once: nobody else spends what was fetched for this.
            let spend = check.with_bucket(|bucket, now| {
                bucket.receive(grant, least, now);
                bucket.spend(check.units, now)
            });
            match decided(spend) {
                Some(result) => return result,
                None if grant.granted == 0 => return Err(check.refusal(grant.retry_after)),
                // What lay beside it was spent by others meanwhile, or has run out: that is fetched too.
                None => {}
            }
        }
    }

    /// Fetches the next lease while the rest of this one is spent.
    fn prefetch(&self, check: &Check, most: u64) {
        let permit = Arc::clone(&self.shared.prefetches).try_acquire_owned();
        let too_fast = || check.with_bucket(|bucket, _| bucket.too_fast(most)).is_some();
        let Some(permit) = permit.ok().filter(|_| !too_fast()) else {
            check.with_bucket(|bucket, _| bucket.prefetch_dropped());
            return;
        };
        let shared = Arc::clone(&self.shared);
        let check = Check { slot: Arc::clone(&check.slot), ..*check };
        tokio::spawn(async move {
            let _permit = permit;
            let grant = shared.grant(&check.key(), check.rule, 1, most).await;
            check.with_bucket(|bucket, now| bucket.receive(grant, 1, now));
        });
    }

    fn count_admitted(&self, checks: &[Check]) {
        checks.iter().for_each(|check| self.count(check.slot.scope, true));
    }

    fn count(&self, scope: Scope, admitted: bool) {
        let scope = match scope {
            Scope::User => 0,
            Scope::Ip => 1,
            Scope::Channel => 2,
        };
        self.shared.counters[scope][usize::from(!admitted)].increment(1);
    }
}

impl Shared {
    /// Asks the engine, or counts alone while it is away.
    async fn grant(&self, key: &LimitKey, rule: Rule, least: u64, most: u64) -> Grant {
        let resting = self.engine_again_at.lock().is_some_and(|at| at > Instant::now());
        if !resting {
            let rule = if self.engine.is_shared() { rule } else { self.share(rule) };
            match self.engine.grant(key, rule, least, most).await {
                Ok(grant) => {
                    self.engine_answered();
                    count_lease(match grant.granted {
                        0 => "empty",
                        granted if granted < most => "partial",
                        _ => "granted",
                    });
                    return grant;
                }
                Err(error) => {
                    count_lease("failed");
                    self.engine_failed(&error);
                }
            }
        }
        // A batch that the limit allows is not refused for good because its share is smaller.
        let share = self.share(rule);
        let share = Rule { limit: share.limit.max(least.min(rule.limit)), ..share };
        self.fallback.grant_now(key, share, least, most)
    }

    fn share(&self, rule: Rule) -> Rule {
        let limit = rule.limit / self.gateways.load(Ordering::Relaxed);
        Rule { limit: if rule.limit == 0 { 0 } else { limit.max(1) }, ..rule }
    }

    fn engine_answered(&self) {
        if self.degraded.swap(false, Ordering::Relaxed) {
            *self.engine_again_at.lock() = None;
            gauge!(names::LIMITS_DEGRADED).set(0.0);
            tracing::info!("limits are shared by all gateways again");
        }
    }

    fn engine_failed(&self, error: &LimiterError) {
        *self.engine_again_at.lock() = Some(Instant::now() + ENGINE_REST);
        if !self.degraded.swap(true, Ordering::Relaxed) {
            gauge!(names::LIMITS_DEGRADED).set(1.0);
            tracing::warn!(%error, "limits are counted by this gateway alone");
        }
    }
}

fn count_lease(outcome: &'static str) {
    counter!(names::LIMIT_LEASES, "outcome" => outcome).increment(1);
}

/// What an address counts as: IPv6 users have a whole /64 to choose from.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}

#[cfg(test)]
mod tests;
