//! The socket layer: one WebSocket and one [`Outbox`], driven by one task.
//!
//! Reading and writing go on side by side in one poll: a peer that does not read does not keep us from
//! hearing its heartbeat, and everything that waits in the outbox goes out in one write.

use crate::outbox::{Closing, Outbox, Parked};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use futures::{Sink, Stream};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use stormwire_core::CloseCode;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};

/// Silence after which a peer is given up.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The server's pings are this far apart, spread by [`PING_SPREAD`] so that connections do not beat in step.
const PING_EVERY: Duration = Duration::from_secs(25);
const PING_SPREAD: Duration = Duration::from_secs(5);
/// How long a closing connection may take to send what is queued.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Bytes of the read buffer of each connection; what is read at once, it shares with all others
/// ([`crate::listener`]).
const READ_BUFFER: usize = 1024;
/// Bytes gathered before a write is forced within one turn. A connection keeps this much, and as much
/// again, once it was busy.
const WRITE_BUFFER: usize = 16 * 1024;
/// Most bytes of one connection that wait for a peer outside of the kernel's bound: a message, and what
/// was gathered before it.
const WRITE_BUFFER_MAX: usize = 4 * 1024 * 1024;

/// What a connection's task has to deal with.
#[derive(Debug)]
pub enum Happening {
    /// The peer sent a text message.
    Text(axum::extract::ws::Utf8Bytes),
    /// The peer sent a binary message.
    Binary(bytes::Bytes),
    /// The time set by [`Socket::wake_at`] has come.
    Timer,
    /// The connection has ended; nothing more can be sent.
    Ended,
}

/// One WebSocket with its queue.
pub struct Socket {
    ws: WebSocket,
    outbox: Arc<Outbox>,
    pending: VecDeque<Message>,
    parked: Vec<Parked>,
    dirty: bool,
    closing: Option<Closing>,
    close_sent: bool,
    heard: Instant,
    ping_at: Instant,
    wake_at: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

/// Sets the buffers and bounds of a WebSocket before it is accepted.
pub fn configure(upgrade: WebSocketUpgrade, message_bytes_max: usize) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max)
}

impl Socket {
    /// Takes an accepted WebSocket. Live events are queued up to `queue_bytes`.
    #[must_use]
    pub fn new(ws: WebSocket, queue_bytes: usize) -> Self {
        let now = Instant::now();
        let ping_at = now + PING_EVERY + spread();
        Self {
            ws,
            outbox: Outbox::new(queue_bytes),
            pending: VecDeque::new(),
            parked: Vec::new(),
            dirty: false,
            closing: None,
            close_sent: false,
            heard: now,
            ping_at,
            wake_at: None,
            alarm: Box::pin(tokio::time::sleep_until(ping_at)),
        }
    }

    /// Where others put what this connection is to be sent.
    pub(crate) const fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Queues a message.
    pub fn send(&self, message: Message) {
        self.outbox.answer(message);
    }

    /// Ends the connection after what is queued has been sent.
    pub fn close(&self, code: CloseCode, reason: &'static str) {
        self.outbox.close(code, reason);
    }

    /// Asks for one [`Happening::Timer`] at `at`.
    pub(crate) fn wake_at(&mut self, at: Option<Instant>) {
        self.wake_at = at;
        self.set_alarm();
    }

    /// Subscriptions that were parked since the last call.
    pub(crate) fn take_parked(&mut self) -> Vec<Parked> {
        std::mem::take(&mut self.parked)
    }

    /// Waits for the next thing to deal with, writing meanwhile. With `reading` false nothing is taken
    /// from the peer. Returns early, with `None`, when subscriptions were parked or `reading` should be
    /// decided anew.
    pub async fn next(&mut self, reading: bool) -> Option<Happening> {
        poll_fn(|cx| self.poll_next(cx, reading)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Option<Happening>> {
        let sent = match self.poll_write(cx) {
            Ok(sent) => sent,
            Err(_) => return Poll::Ready(Some(Happening::Ended)),
        };
        if self.close_sent && !self.dirty {
            return Poll::Ready(Some(Happening::Ended));
        }
        if !self.parked.is_empty() || (sent && !reading) {
            return Poll::Ready(None);
        }
        if reading && let Poll::Ready(happening) = self.poll_read(cx) {
            return Poll::Ready(happening);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if let Some(happening) = self.on_alarm() {
                return Poll::Ready(Some(happening));
            }
            // What the alarm queued (a ping, a close) goes out in the next turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Writes what is queued; says whether anything was taken from the outbox.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, axum::Error> {
        let mut sent = false;
        loop {
            if self.pending.is_empty() {
                let closing = self.outbox.drain(cx, &mut self.pending, &mut self.parked);
                if closing.is_some() && self.closing.is_none() {
                    self.closing = closing;
                    self.wake_at = Some(Instant::now() + CLOSE_MAX);
                    self.set_alarm();
                }
            }
            let Some(message) = self.pending.front() else { break };
            match Pin::new(&mut self.ws).poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(sent),
            }
            let message = message.clone();
            self.pending.pop_front();
            Pin::new(&mut self.ws).start_send(message)?;
            self.dirty = true;
            sent = true;
        }
        if let Some(closing) = self.closing.as_ref().filter(|_| !self.close_sent)
            && Pin::new(&mut self.ws).poll_ready(cx).is_ready()
        {
            let frame = CloseFrame { code: closing.code.number(), reason: closing.reason.into() };
            Pin::new(&mut self.ws).start_send(Message::Close(Some(frame)))?;
            self.close_sent = true;
            self.dirty = true;
        }
        if self.dirty && Pin::new(&mut self.ws).poll_flush(cx)?.is_ready() {
            self.dirty = false;
        }
        Ok(sent)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Happening>> {
        loop {
            let message = match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Some(Happening::Ended)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.on_error(&error)),
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.heard = Instant::now();
            match message {
                Message::Text(text) => return Poll::Ready(Some(Happening::Text(text))),
                Message::Binary(bytes) => return Poll::Ready(Some(Happening::Binary(bytes))),
                // The library answers a ping with the next write.
                Message::Ping(_) => self.dirty = true,
                Message::Pong(_) => {}
                Message::Close(_) => return Poll::Ready(Some(Happening::Ended)),
            }
        }
    }

    /// An oversized message is told apart from a broken connection: it gets its close code.
    fn on_error(&mut self, error: &axum::Error) -> Option<Happening> {
        let source = std::error::Error::source(error);
        let (code, reason) = match source.and_then(|error| error.downcast_ref::<WsError>()) {
            Some(WsError::Capacity(_)) => {
                (CloseCode::TooLarge, "a message is larger than this server allows")
            }
            Some(WsError::Utf8(_)) => (CloseCode::Malformed, "a text message is not UTF-8"),
            Some(WsError::Protocol(error))
                if *error != ProtocolError::ResetWithoutClosingHandshake =>
            {
                (CloseCode::Malformed, "the WebSocket protocol was broken")
            }
            _ => return Some(Happening::Ended),
        };
        self.outbox.close(code, reason);
        None
    }

    fn on_alarm(&mut self) -> Option<Happening> {
        let now = Instant::now();
        if self.closing.is_some() {
            return self.wake_at.is_some_and(|at| at <= now).then_some(Happening::Ended);
        }
        if now.duration_since(self.heard) >= SILENCE_MAX {
            self.outbox.close(CloseCode::Silent, "nothing was heard for 60 seconds");
        }
        if self.ping_at <= now {
            self.ping_at = now + PING_EVERY + spread();
            self.outbox.answer(Message::Ping(bytes::Bytes::new()));
        }
        let due = self.wake_at.is_some_and(|at| at <= now);
        if due {
            self.wake_at = None;
        }
        self.set_alarm();
        due.then_some(Happening::Timer)
    }

    fn set_alarm(&mut self) {
        let mut at = if self.closing.is_some() {
            self.wake_at.unwrap_or_else(|| Instant::now() + CLOSE_MAX)
        } else {
            self.ping_at.min((self.heard + SILENCE_MAX).max(Instant::now()))
        };
        if let Some(wake_at) = self.wake_at {
            at = at.min(wake_at);
        }
        self.alarm.as_mut().reset(at);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.outbox.gone();
    }
}

fn spread() -> Duration {
    PING_SPREAD.mul_f64(rand::random::<f64>())
}
