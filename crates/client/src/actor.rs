//! The task behind a client: connects, reads, writes, and connects again.

use crate::backoff::Backoff;
use crate::dial::{self, Dialer, Refused};
use crate::session::{Command, Session};
use crate::socket::Socket;
use crate::{ClientConfig, End, Status, Transport, Transports};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Uri;
use rand::Rng as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::Pattern;
use stormwire_wire::protocol::Connected;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Commands taken in one go.
pub(crate) const COMMANDS_AT_ONCE: usize = 256;
/// A connection that held for so long makes the next pause short again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Tokens refused in a row, after a connection that was accepted, before the client stays away.
const TOKENS_REFUSED_MAX: u32 = 2;
/// Attempts that found no way for a WebSocket before HTTP is tried, every other time.
const UNREACHABLE_BEFORE_HTTP: u32 = 2;
/// How far the pauses before a WebSocket is tried again grow.
const UPGRADE_GROWTH: u32 = 20;
/// Longest time for a token and an attempt together.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// The task's own state.
pub(crate) struct Actor {
    pub(crate) config: ClientConfig,
    urls: Vec<Uri>,
    next_url: usize,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) session: Session,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Hears of the first connection, or that there will be none.
    first: Option<oneshot::Sender<Result<(), End>>>,
    connections: Arc<AtomicU64>,
    status: watch::Sender<Status>,
    backoff: Backoff,
    upgrades: Backoff,
    /// Attempts, one after the other, that found no way for a WebSocket.
    unreachable: u32,
    /// Tokens refused one after the other.
    tokens_refused: u32,
    closing: Option<oneshot::Sender<()>>,
    give_up_at: Option<Instant>,
    pub(crate) resting: FuturesUnordered<BoxFuture<'static, Pattern>>,
}

/// A connection that was signed in to, with its token.
pub(crate) type Open = (Socket, Connected, String);

/// How a connection ended.
pub(crate) enum Lost {
    /// It was over HTTP, and there is a WebSocket now.
    Upgraded(Box<Open>),
    /// Connect again after the usual pause, or after this one.
    Again { why: String, after: Option<Duration> },
    /// Connect elsewhere at once.
    Moved,
    /// As a refused attempt.
    Refused(Refused),
    /// The caller has closed the client, or has no handle left.
    Done,
}

impl Actor {
    pub(crate) fn new(
        config: ClientConfig,
        producer: Arc<str>,
        commands: mpsc::Receiver<Command>,
        first: oneshot::Sender<Result<(), End>>,
        (connections, status): (Arc<AtomicU64>, watch::Sender<Status>),
    ) -> Result<Self, End> {
        let urls =
            config.urls.iter().map(|url| dial::socket_url(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(End::Configuration("no URL of a gateway is given".to_owned()));
        }
        let dialer = Arc::new(Dialer::new(&config, producer)?);
        let seed = rand::rng().random();
        let backoff = Backoff::new(config.backoff_base, config.backoff_cap, seed);
        let upgrades =
            Backoff::new(config.upgrade_base, config.upgrade_base * UPGRADE_GROWTH, seed);
        let mut session = Session::new(config.publish_timeout, config.request_timeout, seed);
        if let Some(resume) = &config.resume {
            session.resume(resume);
        }
        let give_up_at = Instant::now().checked_add(config.connect_within);
        Ok(Self {
            config,
            urls,
            next_url: 0,
            dialer,
            session,
            commands,
            first: Some(first),
            connections,
            status,
            backoff,
            upgrades,
            unreachable: 0,
            tokens_refused: 0,
            closing: None,
            give_up_at,
            resting: FuturesUnordered::new(),
        })
    }

    /// Runs until the client is closed or may not come back.
    pub(crate) async fn run(mut self) {
        let mut upgraded: Option<Box<Open>> = None;
        let end = loop {
            let open = match upgraded.take() {
                Some(open) => *open,
                None => match self.connect().await {
                    Ok(open) => open,
                    Err(end) => break end,
                },
            };
            let (socket, connected, token) = open;
            let since = Instant::now();
            self.connections.fetch_add(1, Ordering::Relaxed);
            self.status.send_replace(Status::Connected(socket.transport()));
            if socket.transport() == Transport::WebSocket {
                (self.unreachable, self.tokens_refused) = (0, 0);
                self.upgrades.reset();
            }
            let lost = self.serve(socket, &connected, token).await;
            self.session.disconnected();
            if self.is_done() {
                break End::Closed;
            }
            if since.elapsed() >= STABLE_AFTER {
                self.backoff.reset();
                self.tokens_refused = 0;
            }
            let (why, pause) = match lost {
                Lost::Done => break End::Closed,
                Lost::Upgraded(open) => {
                    upgraded = Some(open);
                    continue;
                }
                Lost::Moved => {
                    self.next_url += 1;
                    ("the server moves its connections".to_owned(), Duration::ZERO)
                }
                Lost::Again { why, after } => {
                    let pause = after.unwrap_or_else(|| self.backoff.next_pause());
                    (why, pause)
                }
                Lost::Refused(refused) => {
                    let why = refused.to_string();
                    match self.after(refused) {
                        Ok(pause) => (why, pause),
                        Err(end) => break end,
                    }
                }
            };
            tracing::debug!(%why, "the connection is lost");
            self.status.send_replace(Status::Reconnecting {
                why,
                next_attempt: (Instant::now() + pause).into_std(),
            });
            if let Err(end) = self.idle_until(Instant::now() + pause).await {
                break end;
            }
        };
        self.status.send_replace(Status::Ended(end.clone()));
        self.session.end(&end);
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(end));
        }
    }

    /// Tries URL after URL until one takes the connection.
    async fn connect(&mut self) -> Result<Open, End> {
        loop {
            let (url, transport) = (self.url(), self.transport());
            let attempt = Box::pin(self.attempt(transport));
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                end = self.idle_until(Instant::now() + ATTEMPT_MAX) => {
                    end?;
                    Err(Refused::later("the attempt takes too long"))
                }
            };
            let refused = match outcome {
                Ok(open) => {
                    self.give_up_at = None;
                    if let Some(first) = self.first.take() {
                        let _ = first.send(Ok(()));
                    }
                    return Ok(open);
                }
                Err(refused) => refused,
            };
            self.next_url += 1;
            let why = refused.to_string();
            if let Refused::Later { .. } | Refused::Unreachable(_) = &refused {
                tracing::debug!(%url, %why, "no connection");
                if self.give_up_at.is_some_and(|at| at <= Instant::now()) {
                    let (url, within) = (url.to_string(), self.config.connect_within);
                    return Err(End::Unreachable { url, within, last: why });
                }
            }
            match &refused {
                Refused::Unreachable(_) => self.unreachable += 1,
                _ => self.unreachable = 0,
            }
            // Where a WebSocket does not pass, there is nothing to wait for.
            let is_http_turn =
                self.unreachable == UNREACHABLE_BEFORE_HTTP && self.transport() == Transport::Http;
            let pause = self.after(refused)?;
            let pause = if is_http_turn { Duration::ZERO } else { pause };
            let until = Instant::now() + pause;
            if self.first.is_none() {
                let next_attempt = until.into_std();
                self.status.send_replace(Status::Reconnecting { why, next_attempt });
            }
            let until = self.give_up_at.map_or(until, |at| until.min(at));
            self.idle_until(until).await?;
        }
    }

    fn url(&self) -> Uri {
        self.urls[self.next_url % self.urls.len()].clone()
    }

    /// The way that the next attempt takes.
    fn transport(&self) -> Transport {
        let is_http_turn = self.unreachable >= UNREACHABLE_BEFORE_HTTP
            && self.unreachable.is_multiple_of(UNREACHABLE_BEFORE_HTTP);
        match self.config.transports {
            Transports::Http => Transport::Http,
            Transports::Any if is_http_turn => Transport::Http,
            Transports::Any | Transports::WebSocket => Transport::WebSocket,
        }
    }

    /// An attempt with a token of its own.
    pub(crate) fn attempt(
        &self,
        transport: Transport,
    ) -> impl Future<Output = Result<Open, Refused>> + Send + use<> {
        let (dialer, provider) = (Arc::clone(&self.dialer), Arc::clone(&self.config.token));
        let url = self.url();
        async move {
            let token = provider.token().await.map_err(Refused::later)?;
            let (socket, connected) = dialer.dial(&url, token.clone(), transport).await?;
            Ok((socket, connected, token))
        }
    }

    /// When a connection over HTTP should try for a WebSocket.
    pub(crate) fn next_upgrade(&mut self, transport: Transport) -> Option<Instant> {
        let is_wanted = transport == Transport::Http && self.config.transports == Transports::Any;
        is_wanted.then(|| Instant::now() + self.upgrades.next_pause())
    }

    /// The pause that a refusal asks for, or the end.
    fn after(&mut self, refused: Refused) -> Result<Duration, End> {
        match refused {
            Refused::Final(end) => Err(end),
            // A token may have run out on the way, and a provider may have kept it for too long.
            Refused::Token(end) => {
                self.tokens_refused += 1;
                if self.first.is_some() || self.tokens_refused > TOKENS_REFUSED_MAX {
                    return Err(end);
                }
                Ok(self.backoff.next_pause())
            }
            Refused::Later { after, .. } => {
                let pause = self.backoff.next_pause();
                Ok(after.map_or(pause, |named| named.max(pause)))
            }
            Refused::Unreachable(_) => Ok(self.backoff.next_pause()),
        }
    }

    /// Waits without a connection; commands and deadlines go on.
    async fn idle_until(&mut self, until: Instant) -> Result<(), End> {
        let mut buffer = Vec::new();
        loop {
            self.session.tick(Instant::now());
            if self.is_done() {
                return Err(End::Closed);
            }
            let timer = self.session.next_timer().map_or(until, |timer| timer.min(until));
            tokio::select! {
                biased;
                () = sleep_until(timer) => {
                    if timer == until {
                        return Ok(());
                    }
                }
                _ = self.commands.recv_many(&mut buffer, COMMANDS_AT_ONCE), if !self.has_all_commands() => {
                    self.take_commands(&mut buffer);
                }
            }
        }
    }

    /// Whether no handle is left and the last command is taken.
    pub(crate) fn has_all_commands(&self) -> bool {
        self.commands.is_closed() && self.commands.is_empty()
    }

    pub(crate) fn take_commands(&mut self, buffer: &mut Vec<Command>) {
        let now = Instant::now();
        for command in buffer.drain(..) {
            match command {
                Command::Close(done) => self.closing = Some(done),
                other => self.session.command(other, now),
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let wanted = self.closing.is_some() || self.commands.is_closed();
        wanted && self.commands.is_empty() && self.session.is_idle()
    }
}
