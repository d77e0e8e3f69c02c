//! Live frames: what streams republish, and word of whatever may have kept some from coming.
//!
//! A task takes messages off the subscriptions as fast as they come and keeps them in a queue bounded in
//! bytes. What does not fit is dropped and told as [`TailEvent::Check`]: the reader fetches it again.

use crate::caller::{CallError, Caller};
use crate::link::Link;
use crate::names;
use crate::read::live_frame;
use async_nats::{Message, Subscriber};
use futures::future::{Fuse, FutureExt as _};
use futures::stream::{self, SelectAll, StreamExt as _};
use metrics::counter;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Partition;
use stormwire_journal::{JournalError, Tail, TailEvent};
use stormwire_telemetry::metrics as metric_names;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Bytes of frames that wait for a tail's reader, for each partition of the tail: a second and more of
/// 500,000 events a second over 16 partitions.
const QUEUE_BYTES_PER_PARTITION: usize = 8 << 20;
/// What a frame costs in the queue besides its bytes.
const FRAME_OVERHEAD_BYTES: usize = 128;
/// Longest wait for the server to have read the subscriptions.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(2);
/// Where the servers tell that a stream has a new leader; the last token is the stream's name.
const LEADER_ELECTED: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*";

/// Begins a tail of `partitions`; returns when the server knows of it.
pub(crate) async fn tail(
    caller: &Arc<Caller>,
    partitions: &[Partition],
) -> Result<Tail, JournalError> {
    let link = caller.link().clone();
    let begin = async {
        link.check().map_err(CallError::NotConnected)?;
        let mut frames = SelectAll::new();
        for partition in partitions {
            let subscriber = subscribe(&link, names::live_of_all_epochs(*partition)).await?;
            let partition = *partition;
            frames.push(subscriber.map(move |message| (partition, message)).boxed());
        }
        let leaders = subscribe(&link, LEADER_ELECTED.to_owned()).await?;
        caller.echo().await?;
        Ok::<_, CallError>((frames, leaders))
    };
    let (frames, leaders) = tokio::time::timeout(SUBSCRIBE_DEADLINE, begin)
        .await
        .map_err(|_| JournalError::Unavailable("tail: NATS does not answer in time".to_owned()))?
        .map_err(|error| JournalError::Unavailable(format!("tail: {error}")))?;
    let queue = Arc::new(Queue::new(partitions.len() * QUEUE_BYTES_PER_PARTITION));
    let ours = partitions.iter().copied().collect();
    let pump = pump(Arc::clone(caller), frames, leaders, ours, Arc::clone(&queue));
    let pump = tokio::spawn(pump).abort_handle();
    let reader = Reader { queue, pump };
    Ok(stream::unfold(reader, |reader| async { Some((reader.queue.pop().await, reader)) }).boxed())
}

async fn subscribe(link: &Link, subject: String) -> Result<Subscriber, CallError> {
    let subscriber = link.client().subscribe(subject).await;
    subscriber.map_err(|error| CallError::Rejected(error.to_string()))
}

/// Moves messages to the queue until it is aborted.
async fn pump(
    caller: Arc<Caller>,
    mut frames: SelectAll<stream::BoxStream<'static, (Partition, Message)>>,
    mut leaders: Subscriber,
    ours: HashSet<Partition>,
    queue: Arc<Queue>,
) {
    let mut state = caller.link().watch();
    let mut disturbances = state.borrow_and_update().disturbances;
    // The client says that it is connected before it renews the subscriptions: what is stored between
    // the two is not heard and would be missed by whoever compares tips at once.
    let mut heard_again = std::pin::pin!(Fuse::terminated());
    loop {
        tokio::select! {
            Some((partition, message)) = frames.next() => {
                let epoch = names::epoch_of_live(&message.subject);
                match epoch.and_then(|epoch| live_frame(partition, epoch, message)) {
                    Some(frame) => queue.push(TailEvent::Frame(frame)),
                    // Not from a stream of ours; if it hides one of ours, comparing tips finds it.
                    None => queue.push(TailEvent::Check),
                }
            }
            Some(advisory) = leaders.next() => {
                let stream = advisory.subject.rsplit_once('.').map_or("", |(_, name)| name);
                if names::parse_stream(stream).is_some_and(|(partition, _)| ours.contains(&partition)) {
                    queue.push(TailEvent::Check);
                }
            }
            // A failure means another loss, hence another reconnect.
            Ok(()) = &mut heard_again => queue.push(TailEvent::Check),
            changed = state.changed() => {
                let now = state.borrow_and_update().disturbances;
                if now != disturbances {
                    disturbances = now;
                    queue.push(TailEvent::Check);
                    heard_again.set(caller.echo().fuse());
                }
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// The reading end of a tail.
struct Reader {
    queue: Arc<Queue>,
    pump: AbortHandle,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Events between the task that receives and the one that reads.
struct Queue {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<TailEvent>,
    bytes: usize,
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, waiting: Mutex::default(), more: Notify::new() }
    }

    fn push(&self, event: TailEvent) {
        let mut waiting = self.waiting.lock();
        let cost = cost(&event);
        let event = if waiting.bytes + cost > self.bytes_max {
            counter!(metric_names::JOURNAL_TAIL_DROPPED).increment(1);
            TailEvent::Check
        } else {
            waiting.bytes += cost;
            event
        };
        // One call to compare tips says as much as many.
        if event != TailEvent::Check || waiting.events.back() != Some(&TailEvent::Check) {
            waiting.events.push_back(event);
        }
        drop(waiting);
        self.more.notify_one();
    }

    async fn pop(&self) -> TailEvent {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if let Some(event) = waiting.events.pop_front() {
                    waiting.bytes -= cost(&event);
                    return event;
                }
            }
            self.more.notified().await;
        }
    }
}

fn cost(event: &TailEvent) -> usize {
    match event {
        TailEvent::Frame(frame) => frame.bytes.len() + FRAME_OVERHEAD_BYTES,
        TailEvent::Check => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use stormwire_core::{Epoch, Timestamp};
    use stormwire_journal::StoredFrame;

    fn frame(seq: u64, bytes: usize) -> TailEvent {
        TailEvent::Frame(StoredFrame {
            partition: Partition(0),
            epoch: Epoch(1),
            seq,
            ts: Timestamp(0),
            bytes: Bytes::from(vec![0; bytes]),
        })
    }

    #[tokio::test]
    async fn a_stalled_reader_is_told_to_check_and_takes_bounded_memory() {
        let queue = Queue::new(1000);
        let half = 500 - FRAME_OVERHEAD_BYTES;
        queue.push(frame(1, half));
        queue.push(frame(2, half));
        queue.push(frame(3, 1));
        queue.push(frame(4, 1));
        assert_eq!(queue.waiting.lock().events.len(), 3, "two frames and one word of the others");
        assert_eq!(queue.pop().await, frame(1, half));
        queue.push(frame(5, 1));
        assert_eq!(queue.pop().await, frame(2, half));
        assert_eq!(queue.pop().await, TailEvent::Check);
        assert_eq!(queue.pop().await, frame(5, 1));
        assert_eq!(queue.waiting.lock().bytes, 0);
    }
}
