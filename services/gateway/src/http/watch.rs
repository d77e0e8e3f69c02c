//! Waiting for a partition to move on, while its tail runs for the one who waits.

use crate::hub::{Feed, Standing, Wanted};
use futures::future::select_all;
use std::sync::Arc;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One who waits.
pub(super) struct Watch {
    reached: Receiver<Option<Standing>>,
    _wanted: Wanted,
}

impl Watch {
    pub(super) fn new(feed: &Arc<Feed>) -> Self {
        Self { reached: feed.watch(), _wanted: feed.want() }
    }

    /// Whatever moves after this call ends the next wait: call it before looking.
    pub(super) fn mark(&mut self) {
        self.reached.mark_unchanged();
    }
}

/// Waits until one of the tails has moved; `false` at the deadline or when the gateway goes away.
pub(super) async fn any_moved(
    watches: impl Iterator<Item = &mut Watch>,
    deadline: Instant,
    draining: &CancellationToken,
) -> bool {
    let changes = watches.map(|watch| Box::pin(watch.reached.changed()));
    tokio::select! {
        (changed, ..) = select_all(changes) => changed.is_ok(),
        () = tokio::time::sleep_until(deadline) => false,
        () = draining.cancelled() => false,
    }
}
