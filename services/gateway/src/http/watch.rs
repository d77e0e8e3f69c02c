//! Waiting for a channel's partition to move on, while its tail runs for the one who waits.

use crate::hub::{Feed, Standing, Wanted};
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

    /// Waits until the tail has moved; `false` at the deadline or when the gateway goes away.
    pub(super) async fn moved(&mut self, deadline: Instant, draining: &CancellationToken) -> bool {
        tokio::select! {
            changed = self.reached.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = draining.cancelled() => false,
        }
    }
}
