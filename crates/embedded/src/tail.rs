//! Live frames: each tail is a queue of its own, bounded in bytes. A reader that falls behind loses
//! frames, never slows the writer down, and is told to compare tips.

use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use stormwire_core::Partition;
use stormwire_journal::{StoredFrame, Tail, TailEvent};
use tokio::sync::Notify;

/// What a queued frame takes besides its bytes.
const FRAME_OVERHEAD: usize = 128;

/// All tails that are held now.
#[derive(Debug)]
pub(crate) struct Tails {
    queues: Mutex<Vec<Weak<Queue>>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Queue {
    partitions: HashSet<Partition>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<StoredFrame>,
    bytes: usize,
    /// Something was left out: after what is queued comes [`TailEvent::Check`].
    lost: bool,
    ended: bool,
}

impl Tails {
    /// No tails yet; each may hold `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { queues: Mutex::default(), bytes_max }
    }

    /// A tail of what is published after this call.
    pub(crate) fn subscribe(&self, partitions: &[Partition]) -> Tail {
        let queue = Arc::new(Queue {
            partitions: partitions.iter().copied().collect(),
            state: Mutex::default(),
            wake: Notify::new(),
        });
        self.queues.lock().push(Arc::downgrade(&queue));
        stream::unfold(queue, |queue| async move {
            let event = queue.next().await?;
            Some((event, queue))
        })
        .boxed()
    }

    /// Hands `frame` to every tail of its partition. Never waits.
    pub(crate) fn publish(&self, frame: &StoredFrame) {
        self.queues.lock().retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            if queue.partitions.contains(&frame.partition) {
                queue.push(frame, self.bytes_max);
            }
            true
        });
    }

    /// Ends every tail after what it holds.
    pub(crate) fn end(&self) {
        for queue in self.queues.lock().drain(..).filter_map(|queue| queue.upgrade()) {
            queue.state.lock().ended = true;
            queue.wake.notify_one();
        }
    }
}

impl Queue {
    fn push(&self, frame: &StoredFrame, bytes_max: usize) {
        let size = frame.bytes.len() + FRAME_OVERHEAD;
        let mut state = self.state.lock();
        if state.lost || state.bytes + size > bytes_max {
            state.lost = true;
        } else {
            state.bytes += size;
            state.frames.push_back(frame.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn next(&self) -> Option<TailEvent> {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            self.wake.notified().await;
        }
    }

    /// `None` if there is nothing yet, `Some(None)` at the end.
    fn take(&self) -> Option<Option<TailEvent>> {
        let mut state = self.state.lock();
        if let Some(frame) = state.frames.pop_front() {
            state.bytes -= frame.bytes.len() + FRAME_OVERHEAD;
            return Some(Some(TailEvent::Frame(frame)));
        }
        if std::mem::take(&mut state.lost) {
            return Some(Some(TailEvent::Check));
        }
        state.ended.then_some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt as _;
    use stormwire_core::{Epoch, Timestamp};

    fn frame(partition: u16, seq: u64, len: usize) -> StoredFrame {
        StoredFrame {
            partition: Partition(partition),
            epoch: Epoch::FIRST,
            seq,
            ts: Timestamp(1),
            bytes: Bytes::from(vec![0; len]),
        }
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_to_check_after_what_it_has() {
        let tails = Tails::new(2 * (100 + FRAME_OVERHEAD));
        let mut tail = tails.subscribe(&[Partition(1)]);
        tails.publish(&frame(2, 1, 100));
        for seq in 1..=4 {
            tails.publish(&frame(1, seq, 100));
        }
        assert_eq!(tail.next().await, Some(TailEvent::Frame(frame(1, 1, 100))));
        tails.publish(&frame(1, 5, 100));
        assert_eq!(tail.next().await, Some(TailEvent::Frame(frame(1, 2, 100))));
        assert_eq!(tail.next().await, Some(TailEvent::Check));
        assert!(tail.next().now_or_never().is_none(), "one check for all that was lost");
        tails.publish(&frame(1, 6, 100));
        assert_eq!(tail.next().await, Some(TailEvent::Frame(frame(1, 6, 100))));
    }

    #[tokio::test]
    async fn a_tail_that_was_dropped_is_forgotten_and_the_end_comes_last() {
        let tails = Tails::new(1 << 20);
        drop(tails.subscribe(&[Partition(1)]));
        let mut tail = tails.subscribe(&[Partition(1)]);
        tails.publish(&frame(1, 1, 1));
        assert_eq!(tails.queues.lock().len(), 1);
        tails.end();
        assert_eq!(tail.next().await, Some(TailEvent::Frame(frame(1, 1, 1))));
        assert_eq!(tail.next().await, None);
    }
}
