//! What a connection still has to be sent: one queue, bounded in bytes, filled by many, drained by the
//! connection's own task.
//!
//! Answers are always taken (their number is bounded by what a connection may have open, and a peer
//! that does not read them is not read from). Live events are taken up to the bound; past it the
//! subscription is *parked*: what waits for it is dropped, it keeps its position and nothing else, and
//! is refilled by [`crate::feeder`] at the reader's own pace.

use crate::hub::Subscription;
use axum::extract::ws::Message;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use stormwire_core::{CloseCode, Position};
use stormwire_wire::protocol::Codec;
use tokio::sync::Notify;

/// Bytes that a queued message costs beyond its text.
const MESSAGE_OVERHEAD: usize = 64;
/// This part of the bound may wait while a page of the past is added: who does not read is given no
/// page beyond the one that the socket could not take.
const ROOM: usize = 8;
/// Places of the queue that are kept when it is empty.
const PLACES_KEPT: usize = 64;

/// A subscription that stopped being live, and the position that it was told everything up to.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) position: Position,
}

/// Why a connection ends, told to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) code: CloseCode,
    pub(crate) reason: &'static str,
}

/// A message that waits.
#[derive(Debug)]
struct Queued {
    message: Message,
    /// The subscription whose live events these are, and where it stood before them.
    of: Option<(u64, Position)>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
    /// Bytes that the connection's task took and has not written yet.
    in_hand: usize,
    closing: Option<Closing>,
    parked: Vec<Parked>,
}

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the connection's task.
    waker: AtomicWaker,
    /// Wakes whoever waits for room.
    room: Notify,
    bound: usize,
    codec: OnceLock<Codec>,
    gone: AtomicBool,
}

impl Outbox {
    /// A queue that takes live events up to `bound` bytes.
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            room: Notify::new(),
            bound,
            codec: OnceLock::new(),
            gone: AtomicBool::new(false),
        })
    }

    /// How the peer wants its messages written; JSON unless it said otherwise.
    pub(crate) fn codec(&self) -> Codec {
        self.codec.get().copied().unwrap_or_default()
    }

    /// Notes how the peer wants its messages written, once.
    pub(crate) fn set_codec(&self, codec: Codec) {
        let _ = self.codec.set(codec);
    }

    /// Takes an answer, whatever waits already.
    pub(crate) fn answer(&self, message: Message) {
        let mut queue = self.queue.lock();
        if self.is_gone() {
            return;
        }
        queue.push(message, None);
        drop(queue);
        self.waker.wake();
    }

    /// Takes something that may be left out, unless the queue is full; says whether it was taken.
    pub(crate) fn event(&self, message: &Message) -> bool {
        self.take(message, None).is_ok()
    }

    /// Takes live events of subscription `id`, which stood at `before` until then. Where the queue is
    /// full, all that waits for the subscription is dropped, and the answer is where it stands now.
    pub(crate) fn live(
        &self,
        message: &Message,
        id: u64,
        before: Position,
    ) -> Result<(), Position> {
        self.take(message, Some((id, before)))
            .map_err(|mut queue| queue.forget(id).unwrap_or(before))
    }

    /// Takes a message if there is room, else gives back the queue that has none.
    fn take(
        &self,
        message: &Message,
        of: Option<(u64, Position)>,
    ) -> Result<(), MutexGuard<'_, Queue>> {
        let mut queue = self.queue.lock();
        if self.is_gone() {
            return Ok(());
        }
        let was_idle = queue.messages.is_empty();
        // What is larger than the whole queue is taken by an empty one.
        let waits = queue.waits();
        if waits > 0 && waits + size(message) > self.bound {
            return Err(queue);
        }
        queue.push(message.clone(), of);
        drop(queue);
        if was_idle {
            self.waker.wake();
        }
        Ok(())
    }

    /// Notes that a subscription is no longer live, for the connection's task to refill it.
    pub(crate) fn park(&self, parked: Parked) {
        let mut queue = self.queue.lock();
        if self.is_gone() {
            return;
        }
        queue.parked.push(parked);
        drop(queue);
        self.waker.wake();
    }

    /// Ends the connection after what is queued has been sent. The first reason stands.
    pub(crate) fn close(&self, code: CloseCode, reason: &'static str) {
        let mut queue = self.queue.lock();
        queue.closing.get_or_insert(Closing { code, reason });
        drop(queue);
        self.waker.wake();
    }

    /// Moves what is queued into `messages`, which is empty, and the parked subscriptions into `parked`; registers the
    /// task to be woken for more. Gives back why the connection ends, once it should.
    pub(crate) fn drain(
        &self,
        cx: &Context<'_>,
        messages: &mut VecDeque<Message>,
        parked: &mut Vec<Parked>,
    ) -> Option<Closing> {
        self.waker.register(cx.waker());
        let mut queue = self.queue.lock();
        debug_assert!(messages.is_empty(), "what was taken before is sent first");
        messages.extend(queue.messages.drain(..).map(|queued| queued.message));
        queue.messages.shrink_to(PLACES_KEPT);
        parked.append(&mut queue.parked);
        queue.in_hand = std::mem::take(&mut queue.bytes);
        let closing = queue.closing.clone();
        drop(queue);
        self.room.notify_waiters();
        closing
    }

    /// Bytes that wait to be written to the socket.
    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().waits()
    }

    /// Waits until next to nothing waits before a page; `false` if the connection has gone.
    pub(crate) async fn room(&self) -> bool {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_gone() {
                return false;
            }
            if self.bytes() <= self.bound / ROOM {
                return true;
            }
            notified.await;
        }
    }

    /// The connection has ended: nothing is taken any more and nobody waits.
    pub(crate) fn gone(&self) {
        self.end(self.queue.lock());
    }

    /// The same, behind what is done `meanwhile`, while nobody has the queue.
    #[cfg(test)]
    pub(crate) fn gone_after(&self, meanwhile: impl FnOnce()) {
        let queue = self.queue.lock();
        meanwhile();
        self.end(queue);
    }

    fn end(&self, mut queue: MutexGuard<'_, Queue>) {
        // Under the lock, so that nothing is taken behind it: a parked subscription would keep itself.
        self.gone.store(true, Ordering::Release);
        let left = std::mem::take(&mut *queue);
        drop(queue);
        drop(left);
        self.room.notify_waiters();
    }

    /// Whether the connection has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Queue {
    const fn waits(&self) -> usize {
        self.bytes + self.in_hand
    }

    fn push(&mut self, message: Message, of: Option<(u64, Position)>) {
        self.bytes += size(&message);
        self.messages.push_back(Queued { message, of });
    }

    /// Drops what waits for a subscription; where it stood before that, if there was anything.
    fn forget(&mut self, id: u64) -> Option<Position> {
        let (mut stood, mut bytes) = (None, 0);
        self.messages.retain(|queued| match queued.of {
            Some((of, before)) if of == id => {
                stood.get_or_insert(before);
                bytes += size(&queued.message);
                false
            }
            _ => true,
        });
        self.bytes -= bytes;
        stood
    }
}

fn size(message: &Message) -> usize {
    let len = match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    };
    len + MESSAGE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::task::noop_waker;

    const BOUND: usize = 64 * 1024;

    fn take(outbox: &Outbox) {
        let waker = noop_waker();
        outbox.drain(&Context::from_waker(&waker), &mut VecDeque::new(), &mut Vec::new());
    }

    /// Who does not read is given no second page: what one costs is bounded by the page it has.
    #[test]
    fn a_page_waits_until_next_to_nothing_waits_before_it() {
        let outbox = Outbox::new(BOUND);
        assert_eq!(outbox.room().now_or_never(), Some(true));
        assert!(outbox.event(&Message::text("x".repeat(BOUND / 4))));
        assert_eq!(outbox.room().now_or_never(), None, "it waits");
        // In hand is not written yet: the socket takes more when it comes for more.
        take(&outbox);
        assert_eq!(outbox.room().now_or_never(), None, "it waits in the socket's hands");
        take(&outbox);
        assert_eq!(outbox.room().now_or_never(), Some(true));
        outbox.gone();
        assert_eq!(outbox.room().now_or_never(), Some(false));
    }
}
