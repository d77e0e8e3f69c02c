//! What a channel's subscribers are told besides its events, and is not stored: who is there, and signals.

use crate::members::MembersTold;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stormwire_wire::protocol::Payload;
use tokio::sync::mpsc;

/// One of these things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aside {
    /// What somebody said without storing it.
    Signal {
        /// Who.
        from: String,
        /// What.
        data: Payload<'static>,
    },
    /// About members; for a [`crate::MembersView`].
    Members(MembersTold),
    /// The reader was too slow, and something was left out: read the members again.
    Missed,
}

/// What is told besides a channel's events. What a slow reader does not take in time is left out, and said so.
#[derive(Debug)]
pub(crate) struct Asides {
    reader: mpsc::Receiver<Aside>,
    missed: Arc<AtomicBool>,
}

/// The client's end of it.
#[derive(Debug)]
pub(crate) struct AsidesSink {
    sink: mpsc::Sender<Aside>,
    missed: Arc<AtomicBool>,
}

/// Both ends, with room for `queue` things.
pub(crate) fn asides(queue: usize) -> (AsidesSink, Asides) {
    let (sink, reader) = mpsc::channel(queue);
    let missed = Arc::<AtomicBool>::default();
    (AsidesSink { sink, missed: Arc::clone(&missed) }, Asides { reader, missed })
}

impl Asides {
    /// The next one; `None` when the subscription has ended.
    pub(crate) async fn next(&mut self) -> Option<Aside> {
        if self.reader.is_empty() && self.missed.swap(false, Ordering::AcqRel) {
            return Some(Aside::Missed);
        }
        self.reader.recv().await
    }
}

impl AsidesSink {
    /// Hands it over, or notes that it was left out.
    pub(crate) fn tell(&self, aside: Aside) {
        if self.sink.try_send(aside).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_out_is_said_behind_what_was_taken() {
        let (sink, mut reader) = asides(2);
        let signal =
            || Aside::Signal { from: "a".to_owned(), data: Payload::Binary(vec![].into()) };
        (0..5).for_each(|_| sink.tell(signal()));
        assert_eq!(reader.next().await, Some(signal()));
        assert_eq!(reader.next().await, Some(signal()));
        assert_eq!(reader.next().await, Some(Aside::Missed));
        sink.tell(signal());
        assert_eq!(reader.next().await, Some(signal()));
        drop(sink);
        assert_eq!(reader.next().await, None);
    }
}
