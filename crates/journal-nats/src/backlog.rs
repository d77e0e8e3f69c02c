//! How far the workers are, shown where an autoscaler looks: as the backlog of a durable consumer.
//!
//! Workers read pages, not through this consumer, and the ledger alone says where they stand. So the
//! consumer is not pulled from; it is reset to the frame after the last persisted one, at most once a
//! second a partition [M: 0.4 ms a reset], and its `num_pending` is then what remains to be persisted.

use crate::api::Api;
use crate::names;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::JournalError;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Pause between reports; what changes meanwhile is reported once.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The last persisted frame of each log that has not been reported yet.
#[derive(Default)]
struct Due {
    frames: Mutex<HashMap<(Partition, Epoch), FrameSeq>>,
    more: Notify,
}

/// Reports in the background; nobody waits for it.
pub(crate) struct Backlog {
    due: Arc<Due>,
    task: AbortHandle,
}

impl Backlog {
    pub(crate) fn start(api: Arc<Api>) -> Self {
        let due = Arc::new(Due::default());
        let task = tokio::spawn(report_all(api, Arc::clone(&due))).abort_handle();
        Self { due, task }
    }

    /// Notes that everything up to `through` is persisted.
    pub(crate) fn persisted(&self, partition: Partition, epoch: Epoch, through: FrameSeq) {
        self.due.frames.lock().insert((partition, epoch), through);
        self.due.more.notify_one();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn report_all(api: Arc<Api>, due: Arc<Due>) {
    let mut made = HashSet::new();
    loop {
        due.more.notified().await;
        let batch = std::mem::take(&mut *due.frames.lock());
        for (log, through) in batch {
            if let Err(error) = report(&api, &mut made, log, through).await {
                tracing::debug!(partition = %log.0, epoch = %log.1, %error, "the backlog could not be reported");
                // Made anew next time: the server leaves a reset of an absent consumer unanswered [M].
                made.remove(&log);
                // Again with the next round, unless a newer number has come.
                due.frames.lock().entry(log).or_insert(through);
                due.more.notify_one();
            }
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

async fn report(
    api: &Api,
    made: &mut HashSet<(Partition, Epoch)>,
    log: (Partition, Epoch),
    through: FrameSeq,
) -> Result<(), JournalError> {
    let stream = names::stream(log.0, log.1);
    if !made.contains(&log) {
        let subject = format!("CONSUMER.CREATE.{stream}.{}", names::PERSIST_CONSUMER);
        let settings = json!({
            "stream_name": stream,
            "config": {
                "durable_name": names::PERSIST_CONSUMER,
                "ack_policy": "all",
                "deliver_policy": "all",
                "metadata": { "program": "stormwire" },
            },
        });
        api.ask::<Value>("backlog", &subject, &settings).await??;
        made.insert(log);
    }
    let subject = format!("CONSUMER.RESET.{stream}.{}", names::PERSIST_CONSUMER);
    api.ask::<Value>("backlog", &subject, &json!({ "seq": through + 1 })).await??;
    Ok(())
}
