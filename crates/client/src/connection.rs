//! One connection at work: reads, writes, heartbeats, fresh tokens, until it is lost.

use crate::actor::{Actor, COMMANDS_AT_ONCE, Lost, Open};
use crate::codec;
use crate::dial::{self, Refused};
use crate::follow::Told;
use crate::session::Effect;
use crate::socket::Socket;
use crate::{Transport, token};
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::SplitSink;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use rand::Rng as _;
use std::time::Duration;
use stormwire_core::{Pattern, Timestamp};
use stormwire_wire::protocol::{Codec, Connected};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

/// Messages read in one go before anything else has its turn.
const MESSAGES_AT_ONCE: usize = 64;
/// Messages waiting to be written.
const WRITES_AHEAD: usize = 4;
/// A server that says nothing for so long is asked whether it is there (and five seconds of spread).
const PING_AFTER: Duration = Duration::from_secs(25);
/// A server that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two looks for a fresh token.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// The clock is looked at no more often than this.
const TICK_MIN: Duration = Duration::from_millis(1);
/// How long the closing handshake may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait before asking again for a token that could not be had.
const REFRESH_RETRY: Duration = Duration::from_secs(10);

/// What is known of the connection itself.
struct Link {
    token: String,
    server_time: Timestamp,
    codec: Codec,
    refresh_at: Option<Instant>,
    move_at: Option<Instant>,
    /// When a better way is looked for.
    upgrade_at: Option<Instant>,
    heard: Instant,
    pinged: bool,
    ping_after: Duration,
}

impl Link {
    fn new(token: String, connected: &Connected, codec: Codec, now: Instant) -> Self {
        let spread = rand::rng().random_range(Duration::ZERO..Duration::from_secs(5));
        let mut link = Self {
            token,
            server_time: connected.server_time,
            codec,
            refresh_at: None,
            move_at: None,
            upgrade_at: None,
            heard: now,
            pinged: false,
            ping_after: PING_AFTER + spread,
        };
        link.refresh_at = link.next_refresh(now);
        link
    }

    /// When three quarters of the token's life are over.
    fn next_refresh(&self, now: Instant) -> Option<Instant> {
        let left = token::lifetime(&self.token, self.server_time)?;
        Some(now + left.mul_f64(0.75).max(REFRESH_MIN))
    }

    /// When something is due though nothing happens.
    fn timer(&self) -> Instant {
        let silence = self.heard + if self.pinged { SILENCE_MAX } else { self.ping_after };
        let others = [self.move_at, self.refresh_at, self.upgrade_at];
        others.into_iter().flatten().fold(silence, Instant::min)
    }
}

impl Actor {
    /// Serves a connection until it is lost.
    pub(crate) async fn serve(
        &mut self,
        socket: Socket,
        connected: &Connected,
        token: String,
    ) -> Lost {
        let now = Instant::now();
        self.session.connected(connected, now);
        let transport = socket.transport();
        let mut link = Link::new(token, connected, self.dialer.codec(transport), now);
        link.upgrade_at = self.next_upgrade(transport);
        let mut upgrading: Option<BoxFuture<'static, Result<Open, Refused>>> = None;
        let (sink, mut stream) = socket.split();
        let (ahead, queue) = mpsc::channel(WRITES_AHEAD);
        let mut ahead = Some(ahead);
        let mut writer = std::pin::pin!(write(sink, queue));
        let mut buffer = Vec::new();
        loop {
            // Taken here as well, because a busy connection would not let them have their turn below.
            while buffer.len() < COMMANDS_AT_ONCE
                && let Ok(command) = self.commands.try_recv()
            {
                buffer.push(command);
            }
            self.take_commands(&mut buffer);
            let now = Instant::now();
            if let Some(lost) = self.due(&mut link, now).await {
                return lost;
            }
            if link.upgrade_at.take_if(|at| *at <= now).is_some() {
                upgrading = Some(Box::pin(self.attempt(Transport::WebSocket)));
            }
            let full = ahead.as_ref().is_some_and(|ahead| !self.fill(ahead, link.codec, now));
            if self.is_done() {
                ahead = None;
            }
            // What is overdue waits for the writer's room, not for the clock.
            let timer = self.session.next_timer().map_or(link.timer(), |at| at.min(link.timer()));
            let timer = timer.max(now + TICK_MIN);
            tokio::select! {
                biased;
                outcome = &mut writer => return outcome,
                message = stream.next() => {
                    (link.heard, link.pinged) = (Instant::now(), false);
                    let mut next = Some(message);
                    for _ in 0..MESSAGES_AT_ONCE {
                        let Some(message) = next else { break };
                        if let Some(lost) = self.read(message) {
                            return self.told(&link, lost);
                        }
                        next = stream.next().now_or_never();
                    }
                    if let Some(Some(lost)) = next.map(|message| self.read(message)) {
                        return self.told(&link, lost);
                    }
                }
                _ = self.commands.recv_many(&mut buffer, COMMANDS_AT_ONCE), if !self.has_all_commands() => {}
                Some(target) = self.resting.next(), if !self.resting.is_empty() => {
                    self.session.wake(&target);
                }
                Some(()) = has_room(ahead.as_ref()), if full => {}
                Some(outcome) = OptionFuture::from(upgrading.as_mut()), if upgrading.is_some() => {
                    upgrading = None;
                    match outcome {
                        Ok(open) => return Lost::Upgraded(Box::new(open)),
                        Err(_) => link.upgrade_at = self.next_upgrade(transport),
                    }
                }
                () = sleep_until(timer) => {}
            }
        }
    }

    /// A server that has told its clients to move closes a little before or after they do: then there
    /// is nothing to wait for, each has its own slot already.
    fn told(&self, link: &Link, lost: Lost) -> Lost {
        let is_moving = link.move_at.is_some() || self.session.is_told_to_move();
        match lost {
            Lost::Refused(Refused::Later { .. }) | Lost::Again { .. } if is_moving => Lost::Moved,
            lost => lost,
        }
    }

    /// Does what is due by the clock or by what was read; says so if that ends the connection.
    async fn due(&mut self, link: &mut Link, now: Instant) -> Option<Lost> {
        self.session.tick(now);
        while let Some(effect) = self.session.next_effect() {
            match effect {
                Effect::Resting(target, sink) => self.resting.push(room(target, sink)),
                Effect::Move(after) => link.move_at = Some(now + after),
                Effect::Abandon => {
                    let why = "a publish was given up".to_owned();
                    return Some(Lost::Again { why, after: Some(Duration::ZERO) });
                }
            }
        }
        if link.move_at.is_some_and(|at| at <= now) {
            return Some(Lost::Moved);
        }
        if link.heard + SILENCE_MAX <= now {
            let why = format!("nothing heard for {SILENCE_MAX:?}");
            return Some(Lost::Again { why, after: None });
        }
        if link.refresh_at.is_some_and(|at| at <= now) {
            link.refresh_at = self.refresh(link, now).await;
        }
        if !link.pinged && link.heard + link.ping_after <= now {
            link.pinged = true;
            self.session.ping();
        }
        None
    }

    /// Puts requests into the writer's queue while it has room and there are any; `false` if it is the
    /// room that ended.
    fn fill(&mut self, ahead: &mpsc::Sender<Message>, codec: Codec, now: Instant) -> bool {
        loop {
            let Ok(slot) = ahead.try_reserve() else { return false };
            match codec::batch(codec, &mut self.session, now) {
                Some(message) => slot.send(message),
                None => return true,
            }
        }
    }

    /// Takes one message; says so if it ended the connection.
    fn read(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Option<Lost> {
        let again = |why: String| Some(Lost::Again { why, after: None });
        let message = match message {
            Some(Ok(Message::Close(frame))) => {
                let told = self.session.last_error.as_ref();
                return Some(Lost::Refused(dial::by_close(frame.as_ref(), told)));
            }
            Some(Ok(message)) => message,
            Some(Err(error)) => return again(error.to_string()),
            None => return Some(Lost::Refused(Refused::later("the server hung up"))),
        };
        let now = Instant::now();
        match codec::read(&message) {
            Ok(messages) => {
                for message in messages {
                    self.session.incoming(message, now);
                }
                None
            }
            Err(why) => again(why),
        }
    }

    /// Asks the provider for a token and gives it to the server if it is another one; says when to
    /// look again.
    async fn refresh(&mut self, link: &mut Link, now: Instant) -> Option<Instant> {
        match timeout(self.config.connect_timeout, self.config.token.token()).await {
            Ok(Ok(fresh)) if fresh != link.token => {
                self.session.refresh(fresh.clone());
                link.token = fresh;
                // Counted from the server's time at the connect: early rather than late.
                link.next_refresh(now)
            }
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the token runs out and there is no fresh one");
                Some(now + REFRESH_RETRY)
            }
            Err(_) => {
                tracing::warn!("the token runs out and no fresh one came in time");
                Some(now + REFRESH_RETRY)
            }
        }
    }
}

/// Writes what is queued, several messages to a flush; after the last one, says goodbye.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) -> Lost {
    let lost = |error: tungstenite::Error| Lost::Again { why: error.to_string(), after: None };
    while let Some(message) = queue.recv().await {
        if let Err(error) = sink.feed(message).await {
            return lost(error);
        }
        while let Ok(message) = queue.try_recv() {
            if let Err(error) = sink.feed(message).await {
                return lost(error);
            }
        }
        if let Err(error) = sink.flush().await {
            return lost(error);
        }
    }
    let _ = timeout(CLOSE_WITHIN, sink.close()).await;
    Lost::Done
}

/// Resolves when half of a reader's queue is free, or the reader is gone.
fn room(target: Pattern, sink: mpsc::Sender<Told>) -> BoxFuture<'static, Pattern> {
    Box::pin(async move {
        let _ = sink.reserve_many(sink.max_capacity().div_ceil(2)).await;
        target
    })
}

async fn has_room(ahead: Option<&mpsc::Sender<Message>>) -> Option<()> {
    ahead?.reserve().await.ok().map(drop)
}
