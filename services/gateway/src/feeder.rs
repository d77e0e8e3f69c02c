//! Brings subscriptions that are not live up to the tail: new ones with a `since`, and parked ones.
//!
//! It sends a page when the connection has room, at the reader's own pace, and holds no more than the
//! page in its hand: a thousand stalled readers cost a thousand positions.

use crate::hub::{Hub, Joined};
use crate::outbox::Parked;
use crate::reader::Reader;
use crate::render;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Position;
use stormwire_telemetry::metrics as names;

/// Bytes sent for one subscription before the next one has its turn.
const PAGE_BYTES: usize = 64 * 1024;
/// Events of one page read from the archive.
const PAGE_EVENTS: usize = 1_000;
/// Wait before a failed read is tried again; doubles up to 32 times.
const RETRY: Duration = Duration::from_millis(250);

/// Feeds the subscriptions of one connection until each is live or the connection has gone.
pub(crate) async fn feed(hub: Arc<Hub>, reader: Arc<Reader>, behind: Vec<Parked>) {
    let mut queue: VecDeque<Parked> = behind.into();
    let mut failures = 0u32;
    while let Some(mut next) = queue.pop_front() {
        let subscription = &next.subscription;
        if subscription.is_cancelled() || !subscription.outbox.room().await {
            continue;
        }
        let feed = hub.feed(&subscription.channel);
        // Watched before it is looked at: what moves in between is not missed.
        let mut reached = feed.watch();
        match feed.join(subscription, next.position, PAGE_BYTES) {
            Joined::Live => continue,
            Joined::Advanced(position) => next.position = position,
            // The position was checked when it was given: this gateway's tail is behind it.
            Joined::Above => {
                tokio::select! {
                    _ = reached.changed() => {}
                    () = subscription.outbox.ended() => continue,
                }
            }
            Joined::NotReady => {
                tokio::select! {
                    () = feed.ready() => {}
                    () = subscription.outbox.ended() => continue,
                }
            }
            Joined::Behind => match catch_up(&hub, &reader, &next).await {
                Ok(position) => {
                    failures = 0;
                    next.position = position;
                }
                Err(wait) => {
                    failures += 1;
                    let wait = wait.max(RETRY * (1 << failures.min(5)));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = subscription.outbox.ended() => continue,
                    }
                }
            },
        }
        queue.push_back(next);
    }
}

/// Sends one page from the archive or the journal; says where the subscription stands then, or how
/// long to wait before trying again.
async fn catch_up(hub: &Hub, reader: &Reader, behind: &Parked) -> Result<Position, Duration> {
    let subscription = &behind.subscription;
    let page = reader
        .after(&subscription.channel, behind.position, PAGE_EVENTS, PAGE_BYTES)
        .await
        .map_err(|refusal| refusal.retry_after.unwrap_or(RETRY))?;
    for (from, to) in &page.gaps {
        send_gap(behind, *from, *to);
    }
    metrics::counter!(names::EVENTS_RECOVERED).increment(page.events.len() as u64);
    let (codec, channel) = (subscription.codec, &subscription.channel);
    render::page(codec, channel, hub.partitions(), &page.events, |message| {
        subscription.outbox.answer(message);
    });
    match page.next {
        Some(next) if next > behind.position => Ok(next),
        // Nothing new was found and nothing was skipped: ask again in a while.
        _ => Err(RETRY),
    }
}

fn send_gap(behind: &Parked, from: Position, to: Position) {
    metrics::counter!(names::GAPS_TOLD).increment(1);
    let subscription = &behind.subscription;
    let message = render::gap(subscription.codec, &subscription.channel, from, to);
    subscription.outbox.answer(message);
}
