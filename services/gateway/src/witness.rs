//! What this process can say of a log before its appender claims it (APPENDER E1): how far its tail has
//! come, and how far the archive.

use crate::hub::Hub;
use crate::ingest::Witness;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::Archive;
use stormwire_core::Partition;
use stormwire_journal::Known;

/// How long the archive may take to answer. Without it publishing goes on: the worker, which cannot do
/// without it, finds a journal that has gone back as well.
const WITHIN: Duration = Duration::from_secs(1);

/// The tails of this gateway, and the archive's ledger.
pub(crate) struct Records {
    pub(crate) hub: Arc<Hub>,
    pub(crate) archive: Arc<dyn Archive>,
}

#[async_trait]
impl Witness for Records {
    async fn known(&self, partition: Partition) -> Known {
        let mut known = Known::default();
        let feed = self.hub.feeds().get(usize::from(partition.0));
        if let Some(standing) = feed.and_then(|feed| feed.standing()) {
            known.saw(standing.epoch, standing.last);
        }
        let ledger = tokio::time::timeout(WITHIN, self.archive.ledger(partition)).await;
        if let Ok(Ok(Some(entry))) = ledger {
            known.saw(entry.epoch, entry.last_seq);
            if let Some(id) = entry.last_frame {
                known.keep(entry.epoch, entry.last_seq, id);
            }
        }
        known
    }
}
