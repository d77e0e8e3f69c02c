//! What this gateway tells the others beside its heartbeats: whether it reaches the journal (D5), and which
//! producers have connected to it (B8).

use super::Shared;
use super::api::LiveProducers;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::Timestamp;
use stormwire_journal::message::{NOTICE_PRODUCERS_MAX, Notice};
use stormwire_journal::owner::BEAT_EVERY;
use stormwire_journal::publish::ProducerKey;
use stormwire_journal::{Journal, Peers};
use stormwire_telemetry::Quiet;
use tokio::sync::Notify;

/// Notices are at least so far apart; what comes meanwhile goes together.
const NOTICE_PAUSE: Duration = Duration::from_millis(50);
/// Producers that may wait to be told. Past it the oldest are not told: their older connections elsewhere
/// stay open, and the appender's table alone keeps their numbers apart.
const ANNOUNCED_MAX: usize = 64 * 1024;
/// How often the journal is asked for a sign of life, where nothing else has brought one.
const ASK_JOURNAL_EVERY: Duration = Duration::from_secs(1);
/// A sign of life counts for so long.
const REACHED_FOR: Duration = Duration::from_secs(3);
static DROPPED: Quiet = Quiet::new(Duration::from_secs(10));

/// What waits to be told.
#[derive(Default)]
pub(super) struct Notices {
    producers: Mutex<Option<Arc<dyn LiveProducers>>>,
    announced: Mutex<VecDeque<(ProducerKey, Timestamp)>>,
    more: Notify,
    /// When the journal answered last, in milliseconds of this process's time; 0: never.
    reached: AtomicU64,
}

impl Notices {
    pub(super) fn watch(&self, producers: Arc<dyn LiveProducers>) {
        *self.producers.lock() = Some(producers);
    }

    pub(super) fn announce(&self, producer: ProducerKey, at: Timestamp) {
        let mut announced = self.announced.lock();
        if announced.len() >= ANNOUNCED_MAX {
            announced.pop_front();
            if let Some(suppressed) = DROPPED.ready() {
                tracing::warn!(
                    suppressed,
                    "more producers connect than other gateways can be told of"
                );
            }
        }
        announced.push_back((producer, at));
        self.more.notify_one();
    }

    /// The journal has answered.
    pub(super) fn reached(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
        self.reached.fetch_max(now, Ordering::Relaxed);
    }

    fn reached_within(&self, now: Duration, age: Duration) -> bool {
        let at = self.reached.load(Ordering::Relaxed);
        at > 0 && now.saturating_sub(Duration::from_millis(at)) < age
    }

    /// Who has connected since the last time and is connected still: one that has gone meanwhile may have
    /// come to another gateway, where it is not to be closed.
    fn connected(&self) -> Vec<(ProducerKey, Timestamp)> {
        let mut announced = self.announced.lock();
        let count = announced.len().min(NOTICE_PRODUCERS_MAX);
        let mut connected: Vec<_> = announced.drain(..count).collect();
        drop(announced);
        if let Some(producers) = &*self.producers.lock() {
            connected.retain(|(producer, at)| producers.is_connected(*producer, *at));
        }
        connected
    }
}

/// Tells the others, for ever.
pub(super) async fn tell(shared: &Shared, peers: &dyn Peers) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shared.notices.more.notified() => tokio::time::sleep(NOTICE_PAUSE).await,
        }
        let notice = shared.notice();
        // More than fit one notice go with the next.
        if notice.connected.len() == NOTICE_PRODUCERS_MAX {
            shared.notices.more.notify_one();
        }
        let _ = tokio::time::timeout(BEAT_EVERY, peers.beat(notice.encode())).await;
    }
}

/// Asks the journal for a sign of life where nothing else has brought one.
pub(super) async fn watch_journal(shared: Arc<Shared>, journal: Arc<dyn Journal>) {
    let mut every = tokio::time::interval(ASK_JOURNAL_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stop = shared.stop.clone();
    let work = async {
        loop {
            every.tick().await;
            if !shared.notices.reached_within(shared.now().mono, ASK_JOURNAL_EVERY)
                && matches!(tokio::time::timeout(REACHED_FOR, journal.ping()).await, Ok(Ok(())))
            {
                shared.notices.reached(shared.now().mono);
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Takes another gateway's notice.
pub(super) fn hear(shared: &Shared, notice: &Notice) {
    if notice.process == shared.process {
        return;
    }
    if shared.members.lock().hear_notice(shared.now().mono, notice) {
        shared.members_changed();
    }
    if notice.connected.is_empty() {
        return;
    }
    let producers = shared.notices.producers.lock().clone();
    if let Some(producers) = producers {
        let wins_tie = notice.process > shared.process;
        for (producer, at) in &notice.connected {
            producers.connected_elsewhere(*producer, *at, wins_tie);
        }
    }
}

impl Shared {
    fn notice(&self) -> Notice {
        let now = self.now().mono;
        Notice {
            gateway: self.config.gateway.clone(),
            process: self.process,
            reaches_journal: self.notices.reached_within(now, REACHED_FOR),
            given_up: self.members.lock().given_up(now),
            connected: self.notices.connected(),
        }
    }
}
