//! Following the list of what is revoked.

use super::Shared;
use crate::RevocationFeed;
use crate::revocations::WAIT;
use metrics::{counter, gauge};
use std::time::Duration;
use stormwire_telemetry::{Quiet, metrics as names};

/// How long the list is left alone after it did not answer.
const RETRY: Duration = Duration::from_millis(500);
static UNTOLD: Quiet = Quiet::new(Duration::from_secs(10));

impl Shared {
    /// Takes the list's lines as they come, from the first that there is. Nothing is lost while its keeper
    /// is away: the next question goes on behind the last line that was taken.
    pub(super) async fn follow_revocations(&self, feed: &dyn RevocationFeed) {
        loop {
            let seen = self.revoked.read().seen();
            match feed.after(seen, WAIT).await {
                Ok(page) => {
                    gauge!(names::REVOCATIONS_AWAY).set(0.0);
                    if page.revocations.is_empty() {
                        continue;
                    }
                    counter!(names::REVOCATIONS).increment(page.revocations.len() as u64);
                    let now = self.clock.now();
                    let mut revoked = self.revoked.write();
                    page.revocations.iter().for_each(|line| revoked.take(line, now));
                    let seen = revoked.seen();
                    drop(revoked);
                    self.revocations.send_replace(seen);
                }
                Err(error) => {
                    gauge!(names::REVOCATIONS_AWAY).set(1.0);
                    if let Some(suppressed) = UNTOLD.ready() {
                        tracing::warn!(%error, suppressed, "this process is not told which tokens are revoked");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
