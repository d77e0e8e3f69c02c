//! A process's figures, told once a second on the channel `system:stats` (docs/stats.md).

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_core::{Channel, Clock, PartitionCount};
use stormwire_engine::{Message, Sender, SignalMessage, Signals};
use stormwire_telemetry::{Figures, Tasks, metrics as names, metrics_handle};

/// Where they are told.
const CHANNEL: &str = "system:stats";
/// Who tells them.
const FROM: &str = "system";
/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Who tells its figures, and how.
pub(super) struct Teller {
    pub(super) process: String,
    pub(super) role: &'static str,
    pub(super) partitions: PartitionCount,
    pub(super) signals: Arc<dyn Signals>,
    pub(super) clock: Arc<dyn Clock>,
}

/// One process, one second.
#[derive(Debug, Serialize)]
struct Stats<'a> {
    process: &'a str,
    role: &'static str,
    version: &'static str,
    at: i64,
    uptime_s: u64,
    interval_ms: u64,
    draining: bool,
    rates: BTreeMap<&'static str, f64>,
    refused: BTreeMap<String, u64>,
    latency_ms: BTreeMap<&'static str, Latency>,
    totals: BTreeMap<&'static str, u64>,
    connections: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backlog: Vec<Backlog>,
    #[serde(flatten)]
    own: Value,
}

#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    p50: f64,
    p99: f64,
}

#[derive(Debug, Serialize)]
struct Backlog {
    partition: u16,
    frames: u64,
    lag_s: f64,
}

const RATES: [(&str, &str); 9] = [
    ("published", names::PUBLISH_ACKNOWLEDGED),
    ("frames", names::INGEST_FRAMES),
    ("delivered", names::EVENTS_DELIVERED),
    ("recovered", names::EVENTS_RECOVERED),
    ("signals", names::SIGNALS),
    ("requests", names::HTTP_REQUESTS),
    ("refused", names::REFUSALS),
    ("persisted", names::PERSIST_EVENTS),
    ("sign_ins", names::SIGN_INS),
];
const LATENCIES: [(&str, &str); 5] = [
    ("publish", names::PUBLISH_SECONDS),
    ("append", names::INGEST_APPEND_SECONDS),
    ("deliver", names::DELIVERY_SECONDS),
    ("request", names::HTTP_REQUEST_SECONDS),
    ("persist", names::PERSIST_BATCH_SECONDS),
];
const TOTALS: [(&str, &str); 7] = [
    ("published", names::PUBLISH_ACKNOWLEDGED),
    ("delivered", names::EVENTS_DELIVERED),
    ("recovered", names::EVENTS_RECOVERED),
    ("persisted", names::PERSIST_EVENTS),
    ("refused", names::REFUSALS),
    ("gaps", names::GAPS_TOLD),
    ("dead_letters", names::DEAD_LETTERS),
];

impl Teller {
    /// Tells until the process is asked to end, and then once more, that it does. `own` is what this kind
    /// of process has beside its metrics.
    pub(super) fn start(self, tasks: &Tasks, own: impl Fn() -> Value + Send + Sync + 'static) {
        let metrics = match metrics_handle() {
            Ok(metrics) => metrics,
            Err(error) => return tracing::error!(%error, "figures cannot be told"),
        };
        let Ok(channel) = Channel::parse(CHANNEL) else { return };
        let stop = tasks.token();
        tasks.spawn("stats", async move {
            let (started, mut at) = (Instant::now(), Instant::now());
            let mut before = metrics.figures();
            let mut every = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let draining = stop.run_until_cancelled(every.tick()).await.is_none();
                let now = metrics.figures();
                let stats =
                    self.stats((&before, at.elapsed()), &now, started.elapsed(), draining, own());
                (before, at) = (now, Instant::now());
                self.tell(&channel, &stats).await;
                if draining {
                    return;
                }
            }
        });
    }

    fn stats(
        &self,
        (before, passed): (&Figures, Duration),
        now: &Figures,
        uptime: Duration,
        draining: bool,
        own: Value,
    ) -> Stats<'_> {
        let seconds = passed.as_secs_f64().max(0.001);
        let rate = |(label, name)| Some((label, rounded(now.grown(before, name) / seconds)));
        let known = |(_, name): &(&str, &str)| now.sum(name).is_some();
        let codes = now.by(names::REFUSALS, "code").into_iter().filter_map(|(code, count)| {
            let earlier = before.by(names::REFUSALS, "code").get(&code).copied().unwrap_or(0.0);
            let grown = whole(count - earlier);
            (grown > 0).then_some((code, grown))
        });
        Stats {
            process: &self.process,
            role: self.role,
            version: env!("CARGO_PKG_VERSION"),
            at: self.clock.now().0,
            uptime_s: uptime.as_secs(),
            interval_ms: u64::try_from(passed.as_millis()).unwrap_or(u64::MAX),
            draining,
            rates: RATES.into_iter().filter(known).filter_map(rate).collect(),
            refused: codes.collect(),
            latency_ms: LATENCIES
                .into_iter()
                .filter_map(|(label, name)| Some((label, latency(now, before, name)?)))
                .collect(),
            totals: TOTALS
                .into_iter()
                .filter_map(|(label, name)| Some((label, whole(now.sum(name)?))))
                .collect(),
            connections: whole(now.sum(names::CONNECTIONS).unwrap_or(0.0)),
            subscriptions: whole(now.sum(names::SUBSCRIPTIONS).unwrap_or(0.0)),
            backlog: backlog(now),
            own,
        }
    }

    async fn tell(&self, channel: &Channel, stats: &Stats<'_>) {
        let Ok(data) = serde_json::to_vec(stats) else { return };
        let message = Message::Signal(SignalMessage {
            // Of no connection that could be left out.
            sender: Sender { process: 0, connection: 0 },
            channel: channel.clone(),
            from: FROM.into(),
            data: data.into(),
            binary: false,
        });
        let partition = channel.partition(self.partitions);
        // Lost with the connection that carries it; the next one says more than a line in the log.
        let _ = self.signals.send(partition, message.encode()).await;
    }
}

fn latency(now: &Figures, before: &Figures, name: &str) -> Option<Latency> {
    let taken = now.taken(before, name);
    let ms = |q| Some(rounded(taken.quantile(q)? * 1000.0));
    Some(Latency { count: whole(taken.count()), p50: ms(0.5)?, p99: ms(0.99)? })
}

fn backlog(now: &Figures) -> Vec<Backlog> {
    let lag = now.by(names::PERSIST_LAG_SECONDS, "partition");
    let frames = now.by(names::PERSIST_BACKLOG_FRAMES, "partition").into_iter();
    let of = |(partition, frames): (String, f64)| {
        let lag_s = rounded(lag.get(&partition).copied().unwrap_or(0.0));
        Some(Backlog { partition: partition.parse().ok()?, frames: whole(frames), lag_s })
    };
    let mut all: Vec<_> = frames.filter_map(of).collect();
    all.sort_by_key(|one| one.partition);
    all
}

/// Two decimals are what a console shows.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, never negative"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}
