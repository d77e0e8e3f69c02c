//! What can be set.

use std::time::Duration;
use stormwire_archive::Retention;
use stormwire_core::PartitionCount;

/// How a worker works. The defaults suit 500,000 events a second over a few workers.
#[derive(Debug, Clone)]
pub struct MessagesConfig {
    /// Begins this worker's name in the table of workers; a random part follows.
    pub name: String,
    /// How many partitions the cluster has.
    pub partitions: PartitionCount,
    /// How long a lease lasts without renewal; it is renewed three times in that time. A dead worker's
    /// partitions are taken over a quarter of a second after it.
    pub lease: Duration,
    /// A batch is closed at so many events …
    pub batch_events: usize,
    /// … or so many bytes of frames. A partition holds at most four batches in memory.
    pub batch_bytes: usize,
    /// How long the journal keeps what is persisted, so that subscribers recover from it.
    pub recovery_window: Duration,
    /// How often trimming is considered.
    pub trim_every: Duration,
    /// How often an idle partition compares its position with the journal's tip.
    pub check_every: Duration,
    /// What the archive may forget.
    pub retention: Retention,
    /// How often the one worker that maintains the archive looks for what is to be removed.
    pub retain_every: Duration,
    /// How long a frame must be missing, at every look, before it is told as a gap: longer than a
    /// leader of the journal that was cut off from the others goes on answering.
    pub hole_proof: Duration,
    /// Longest wait for batches on their way when the worker stops.
    pub drain: Duration,
}

impl Default for MessagesConfig {
    fn default() -> Self {
        Self {
            name: "messages".to_owned(),
            partitions: PartitionCount::DEFAULT,
            lease: Duration::from_secs(6),
            batch_events: 10_000,
            batch_bytes: 2 * 1024 * 1024,
            recovery_window: Duration::from_secs(10 * 60),
            trim_every: Duration::from_secs(5),
            check_every: Duration::from_secs(1),
            retention: Retention::default(),
            retain_every: Duration::from_secs(60),
            hole_proof: Duration::from_secs(15),
            drain: Duration::from_secs(10),
        }
    }
}
