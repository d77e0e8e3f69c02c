//! What goes on in the background: tables brought up to date, keys read and rotated, old rows removed.

use crate::service::{Identity, look};
use std::time::Duration;
use stormwire_telemetry::Tasks;

/// How often keys are read again: another process may have made one.
const KEYS_EVERY: Duration = Duration::from_secs(30);
/// How often old rows are removed, in turns of the keys.
const PRUNE_EVERY: u32 = 20;
/// Bounds of the wait between two attempts at start.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Looks after `identity` until `tasks` shuts down.
pub(crate) fn start(identity: &Identity, tasks: &Tasks) {
    let (worker, stop) = (identity.clone(), tasks.token());
    tasks.spawn("identity", async move {
        stop.run_until_cancelled(work(&worker)).await;
    });
    let (looker, stop) = (identity.clone(), tasks.token());
    tasks.spawn("identity_revocations", async move {
        stop.run_until_cancelled(look(&looker)).await;
    });
}

async fn work(identity: &Identity) {
    let mut pause = BACKOFF.0;
    while let Err(error) = identity.prepare().await {
        tracing::warn!(%error, retry_ms = pause.as_millis(), "accounts are not ready; nobody can sign in until they are");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
    tracing::info!("accounts are ready");
    for turn in 1_u32.. {
        tokio::time::sleep(KEYS_EVERY).await;
        if let Err(error) = identity.refresh_keys().await {
            tracing::warn!(%error, "signing keys were not read again");
        }
        if turn.is_multiple_of(PRUNE_EVERY)
            && let Err(error) = identity.prune().await
        {
            tracing::warn!(%error, "what has ended was not removed");
        }
    }
}
