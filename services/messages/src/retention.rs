//! Removing what the archive may forget: by one worker at a time, beside its other work.

use crate::config::MessagesConfig;
use metrics::counter;
use std::sync::Arc;
use stormwire_archive::{Archive, ArchiveError};
use stormwire_core::Clock;
use stormwire_telemetry::metrics as names;
use tokio::time::{MissedTickBehavior, interval};

/// The right to maintain lasts so many rounds without renewal.
const ROUNDS: u32 = 3;

/// Looks from time to time, for ever. Where everything is kept there is nothing to look for.
pub(crate) async fn keep(
    archive: Arc<dyn Archive>,
    worker: String,
    config: Arc<MessagesConfig>,
    clock: Arc<dyn Clock>,
) {
    if config.retention.keeps_all() {
        return;
    }
    let mut every = interval(config.retain_every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(error) = round(&*archive, &worker, &config, &*clock).await {
            counter!(names::RETENTION_FAILURES).increment(1);
            tracing::warn!(worker, error = %error, "what is past its bounds was not removed; trying again");
        }
    }
}

async fn round(
    archive: &dyn Archive,
    worker: &str,
    config: &MessagesConfig,
    clock: &dyn Clock,
) -> Result<(), ArchiveError> {
    let mut events = 0;
    loop {
        if !archive.maintain(worker, config.retain_every * ROUNDS).await? {
            return Ok(());
        }
        let done = archive.retain(worker, &config.retention, clock.now()).await?;
        events += done.events;
        if !done.more {
            break;
        }
    }
    if events > 0 {
        tracing::info!(worker, events, "removed what was past its namespace's bounds");
    }
    Ok(())
}
