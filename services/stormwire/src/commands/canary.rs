//! `stormwire canary`: a publisher and a subscriber that never stop, across every partition of a running
//! cluster, and what they see: each event once, in order, how late, or not at all.
//!
//! Events carry this life's name, a number and the time. What decides about them is [`Watch`], without IO.

mod watch;

use crate::cli::CanaryArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use crate::roles::{Process, serve_metrics};
use metrics::{counter, histogram};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stormwire_client::{Client, Delivery, Mode, NewEvent, Subscription};
use stormwire_core::{Channel, PartitionCount, Pattern};
use stormwire_telemetry::CancellationToken;
use stormwire_telemetry::metrics as names;
use tokio::time::{MissedTickBehavior, interval, sleep};
use watch::{Told, Watch};

/// The namespace of its channels.
const NAMESPACE: &str = "canary";
/// Names tried until one is found for each partition.
const NAMES_MAX: u32 = 100_000;
/// An acknowledged event that has not come after so long is lost. Recovery over a fail-over takes less.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked for what has not come, and a line is printed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Runs until it is asked to end, or for as long as was said.
pub(crate) async fn run(args: CanaryArgs, config: &Config) -> Result<(), Failure> {
    let process = Process::start(config, "canary")?;
    serve_metrics(config, &process).await?;
    let channels = channels(config.partitions)?;
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    let pattern = Pattern::parse(&format!("{NAMESPACE}:*")).map_err(Failure::usage)?;
    let subscription = client.follow(&pattern, None, Mode::All).await.map_err(Failure::failed)?;
    let canary = Arc::new(Canary {
        life: uuid::Uuid::new_v4().simple().to_string(),
        began: Instant::now(),
        watch: Mutex::new(Watch::new(channels.len())),
        channels,
    });
    output::line(json!({ "canary": canary.life, "channels": canary.channels.len() }))?;
    let stop = process.tasks.token();
    let publishing = stop.child_token();
    let mut publishers = tokio::task::JoinSet::new();
    for index in 0..canary.channels.len() {
        let (canary, client) = (Arc::clone(&canary), client.clone());
        publishers.spawn(canary.publish(index, client, args.every, publishing.clone()));
    }
    let reader = tokio::spawn(Arc::clone(&canary).read(subscription, stop.clone()));
    let outcome = Arc::clone(&canary).report(args.lasting, &stop).await;
    publishing.cancel();
    while publishers.join_next().await.is_some() {}
    canary.settle().await;
    let figures = canary.figures();
    output::line(&figures)?;
    reader.abort();
    client.close().await;
    process.tasks.shutdown();
    process.end().await;
    outcome?;
    if figures["lost"] == 0 && figures["doubled"] == 0 {
        return Ok(());
    }
    Err(Failure::failed(
        "events were lost or doubled: see `stormwire verify` and `stormwire trace`",
    ))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One channel in each partition.
fn channels(count: PartitionCount) -> Result<Vec<Channel>, Failure> {
    let mut found: Vec<Option<Channel>> = vec![None; usize::from(count.get())];
    for number in 0..NAMES_MAX {
        let channel = Channel::parse(&format!("{NAMESPACE}:{number}")).map_err(Failure::failed)?;
        let place = &mut found[usize::from(channel.partition(count).0)];
        place.get_or_insert(channel);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(found.into_iter().flatten().collect())
}

struct Canary {
    /// Who else publishes there is not listened to.
    life: String,
    began: Instant,
    channels: Vec<Channel>,
    watch: Mutex<Watch>,
}

impl Canary {
    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn publish(
        self: Arc<Self>,
        index: usize,
        client: Client,
        every: Duration,
        stop: CancellationToken,
    ) {
        let mut pace = interval(every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(pace.tick()).await.is_some() {
            let number = self.watch().next_number(index);
            let sent = self.now();
            let data = json!({ "life": self.life, "n": number, "us": micros(sent) });
            let Ok(event) = NewEvent::serialize(&data) else { continue };
            let answer = client.publish(&self.channels[index], &[event]).await;
            let outcome = if answer.is_ok() { "acknowledged" } else { "refused" };
            counter!(names::CANARY_PUBLISHED, "outcome" => outcome).increment(1);
            match answer {
                Ok(_) => self.watch().acknowledged(index, number, self.now()),
                Err(error) => {
                    self.watch().unknown(index, number);
                    tracing::warn!(channel = %self.channels[index], %error, "not acknowledged");
                }
            }
        }
    }

    async fn read(self: Arc<Self>, mut subscription: Subscription, stop: CancellationToken) {
        while let Some(Some(delivery)) = stop.run_until_cancelled(subscription.next()).await {
            match delivery {
                Ok(Delivery::Events(events)) => {
                    for event in &events {
                        self.arrived(event.channel.as_str(), event.json().unwrap_or_default());
                    }
                }
                Ok(Delivery::Gap { from, to }) => {
                    tracing::warn!(%from, %to, "a gap was told");
                }
                Err(error) => tracing::warn!(%error, "the subscription failed"),
            }
        }
    }

    fn arrived(&self, channel: &str, data: &str) {
        let Ok(data) = serde_json::from_str::<serde_json::Value>(data) else { return };
        if data["life"] != self.life {
            return;
        }
        let index = self.channels.iter().position(|own| own.as_str() == channel);
        let (Some(index), Some(number)) = (index, data["n"].as_u64()) else { return };
        let sent = Duration::from_micros(data["us"].as_u64().unwrap_or_default());
        let late = self.now().saturating_sub(sent);
        match self.watch().delivered(index, number, late) {
            Told::Once => histogram!(names::CANARY_DELIVERY_SECONDS).record(late.as_secs_f64()),
            Told::Doubled => {
                counter!(names::CANARY_DOUBLED).increment(1);
                tracing::error!(channel, number, "delivered twice, or behind a later one");
            }
        }
    }

    /// Counts what has not come, and prints a line from time to time.
    async fn report(
        self: Arc<Self>,
        lasting: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        // They stand at zero from the beginning: an alert compares with that.
        counter!(names::CANARY_LOST).increment(0);
        counter!(names::CANARY_DOUBLED).increment(0);
        let until = lasting.map(|lasting| Instant::now() + lasting);
        loop {
            let pause = until.map_or(LOOK_EVERY, |until| {
                until.saturating_duration_since(Instant::now()).min(LOOK_EVERY)
            });
            if pause.is_zero() || stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(());
            }
            self.count_lost();
            output::line(self.figures())?;
        }
    }

    fn count_lost(&self) {
        let lost = self.watch().overdue(self.now(), LOST_AFTER);
        if lost > 0 {
            counter!(names::CANARY_LOST).increment(lost);
            tracing::error!(lost, "acknowledged and not delivered");
        }
    }

    /// Waits for what is under way; what has not come by then is lost.
    async fn settle(&self) {
        let until = Instant::now() + LOST_AFTER;
        while self.watch().is_waiting() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        let lost = self.watch().overdue(self.now(), Duration::ZERO);
        counter!(names::CANARY_LOST).increment(lost);
    }

    fn figures(&self) -> serde_json::Value {
        self.watch().figures()
    }
}
