//! Brings subscriptions that are not live up to the tail: new ones with a `since`, and parked ones.
//!
//! A connection has one feeder at most, whatever it is subscribed to. It sends a page when the
//! connection has room, at the reader's own pace, and holds no more than the page in its hand: a
//! thousand stalled readers cost a thousand positions.

mod conflate;

use crate::hub::{Joined, Subscription};
use crate::outbox::{Outbox, Parked};
use crate::reader::{Page, Reader};
use crate::render::Gathered;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Position;
use stormwire_telemetry::{Tasks, metrics as names};
use stormwire_wire::protocol::Mode;
use tokio::time::Instant;

/// Bytes sent for one subscription before the next one has its turn.
const PAGE_BYTES: usize = 64 * 1024;
/// Events of one page that is read.
const PAGE_EVENTS: usize = 1_000;
/// First wait of one who can do nothing now (the tail starts, a store is away); doubles with each.
const RETRY: Duration = Duration::from_millis(10);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(4);

/// One that catches up.
struct Behind {
    subscription: Arc<Subscription>,
    position: Position,
    failures: u32,
    /// Nothing can be done for it before.
    at: Option<Instant>,
}

/// What was done for one that catches up.
enum Step {
    /// It is live, or has ended.
    Done,
    /// It stands here now.
    To(Position),
    /// Nothing can be done now; at least this long.
    Wait(Duration),
}

#[derive(Default)]
struct Queue {
    behind: VecDeque<Behind>,
    /// Whether a feeder runs.
    is_fed: bool,
}

/// The subscriptions of one connection that are not live.
#[derive(Default)]
pub(crate) struct Refills(Mutex<Queue>);

impl Refills {
    /// Takes subscriptions that are behind, and starts the connection's feeder unless it runs.
    pub(crate) fn add(self: &Arc<Self>, parked: Vec<Parked>, reader: &Arc<Reader>, tasks: &Tasks) {
        if parked.is_empty() {
            return;
        }
        let mut queue = self.0.lock();
        queue.behind.extend(parked.into_iter().map(|Parked { subscription, position }| Behind {
            subscription,
            position,
            failures: 0,
            at: None,
        }));
        if !std::mem::replace(&mut queue.is_fed, true) {
            tasks.spawn("feeder", feed(Arc::clone(reader), Arc::clone(self)));
        }
    }

    /// The next one that something can be done for; `None` ends the feeder.
    fn next(&self) -> Option<Result<Behind, Instant>> {
        let mut queue = self.0.lock();
        let now = Instant::now();
        let due = |behind: &Behind| behind.at.is_none_or(|at| at <= now);
        if let Some(at) = queue.behind.iter().position(due) {
            return queue.behind.remove(at).map(Ok);
        }
        let soonest = queue.behind.iter().filter_map(|behind| behind.at).min();
        if soonest.is_none() {
            queue.is_fed = false;
        }
        soonest.map(Err)
    }
}

/// Feeds the subscriptions of one connection until each is live or the connection has gone.
async fn feed(reader: Arc<Reader>, refills: Arc<Refills>) {
    while let Some(next) = refills.next() {
        let mut behind = match next {
            Ok(behind) => behind,
            Err(at) => {
                // Whoever comes meanwhile is not kept waiting for those who wait.
                tokio::time::sleep_until(at.min(Instant::now() + RETRY)).await;
                continue;
            }
        };
        let outbox: &Arc<Outbox> = &behind.subscription.outbox;
        if behind.subscription.is_cancelled() || !outbox.room().await {
            continue;
        }
        match step(&reader, &behind).await {
            Step::Done => continue,
            Step::To(position) => {
                (behind.position, behind.failures, behind.at) = (position, 0, None)
            }
            Step::Wait(wait) => {
                let wait = wait.max(RETRY * (1 << behind.failures.min(10))).min(RETRY_MAX);
                behind.failures += 1;
                behind.at = Some(Instant::now() + wait);
            }
        }
        refills.0.lock().behind.push_back(behind);
    }
}

async fn step(reader: &Reader, behind: &Behind) -> Step {
    let subscription = &behind.subscription;
    let feed = subscription.feed();
    if subscription.mode == Mode::Latest
        && feed.standing().is_some_and(|standing| behind.position < standing.position())
    {
        return match conflate::newest(reader, subscription, behind.position).await {
            Ok(page) => join(subscription, send(behind, page).await),
            Err(wait) => Step::Wait(wait),
        };
    }
    match feed.join(subscription, behind.position, PAGE_BYTES) {
        Joined::Live => Step::Done,
        Joined::Advanced(position) => Step::To(position),
        Joined::NotReady => Step::Wait(RETRY),
        Joined::Behind | Joined::Above => catch_up(reader, behind).await,
    }
}

/// Goes live where the reader has come to, if that is near enough to the tail.
fn join(subscription: &Arc<Subscription>, position: Position) -> Step {
    match subscription.feed().join(subscription, position, PAGE_BYTES) {
        Joined::Live => Step::Done,
        Joined::Advanced(position) => Step::To(position),
        Joined::Behind | Joined::Above | Joined::NotReady => Step::To(position),
    }
}

/// Sends one page from the archive or the journal.
async fn catch_up(reader: &Reader, behind: &Behind) -> Step {
    let selection = &behind.subscription.selection;
    match reader.after(selection, behind.position, PAGE_EVENTS, PAGE_BYTES).await {
        Err(refusal) => Step::Wait(refusal.retry_after.unwrap_or(RETRY)),
        // Nothing new was found and nothing was skipped: ask again in a while.
        Ok(page) if page.next.is_none_or(|next| next == behind.position) => Step::Wait(RETRY),
        Ok(page) => Step::To(send(behind, page).await),
    }
}

/// Sends a page, and says where its reader stands then.
async fn send(behind: &Behind, page: Page) -> Position {
    let subscription = &behind.subscription;
    metrics::counter!(names::GAPS_TOLD).increment(page.gaps.len() as u64);
    metrics::counter!(names::EVENTS_RECOVERED).increment(page.events.len() as u64);
    let position = page.next.unwrap_or(behind.position);
    let (codec, partition) = (subscription.codec, subscription.feed().partition);
    let gathered = page.make(move |page| Gathered::of(codec, partition, page)).await;
    subscription.answer(gathered, position);
    position
}
