//! The task behind a client: connects, reads, writes, and connects again.

use crate::backoff::Backoff;
use crate::dial::{self, Dialer, Refused, Socket};
use crate::session::{Command, Session};
use crate::{ClientConfig, End, TokenProvider};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Uri;
use rand::Rng as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_core::Pattern;
use stormwire_wire::protocol::Connected;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Commands taken in one go.
pub(crate) const COMMANDS_AT_ONCE: usize = 256;
/// A connection that held for so long makes the next pause short again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Tokens refused in a row, after a connection that was accepted, before the client stays away.
const TOKENS_REFUSED_MAX: u32 = 2;
/// Longest time for a token and an attempt together.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// The task's own state.
pub(crate) struct Actor {
    pub(crate) config: ClientConfig,
    urls: Vec<Uri>,
    next_url: usize,
    dialer: Arc<Dialer>,
    pub(crate) session: Session,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Hears of the first connection, or that there will be none.
    first: Option<oneshot::Sender<Result<(), End>>>,
    connections: Arc<AtomicU64>,
    backoff: Backoff,
    /// Tokens refused one after the other.
    tokens_refused: u32,
    closing: Option<oneshot::Sender<()>>,
    give_up_at: Option<Instant>,
    pub(crate) resting: FuturesUnordered<BoxFuture<'static, Pattern>>,
}

/// How a connection ended.
pub(crate) enum Lost {
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
        connections: Arc<AtomicU64>,
    ) -> Result<Self, End> {
        let urls =
            config.urls.iter().map(|url| dial::socket_url(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(End::Configuration("no URL of a gateway is given".to_owned()));
        }
        let dialer = Arc::new(Dialer::new(&config, producer)?);
        let seed = rand::rng().random();
        let backoff = Backoff::new(config.backoff_base, config.backoff_cap, seed);
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
            backoff,
            tokens_refused: 0,
            closing: None,
            give_up_at,
            resting: FuturesUnordered::new(),
        })
    }

    /// Runs until the client is closed or may not come back.
    pub(crate) async fn run(mut self) {
        let end = loop {
            let (socket, connected, token) = match self.connect().await {
                Ok(open) => open,
                Err(end) => break end,
            };
            let since = Instant::now();
            self.connections.fetch_add(1, Ordering::Relaxed);
            let lost = self.serve(socket, &connected, token).await;
            self.session.disconnected();
            if self.is_done() {
                break End::Closed;
            }
            if since.elapsed() >= STABLE_AFTER {
                self.backoff.reset();
            }
            let pause = match lost {
                Lost::Done => break End::Closed,
                Lost::Moved => {
                    self.next_url += 1;
                    Duration::ZERO
                }
                Lost::Again { why, after } => {
                    tracing::debug!(%why, "the connection is lost");
                    after.unwrap_or_else(|| self.backoff.next_pause())
                }
                Lost::Refused(refused) => match self.after(refused) {
                    Ok(pause) => pause,
                    Err(end) => break end,
                },
            };
            if let Err(end) = self.idle_until(Instant::now() + pause).await {
                break end;
            }
        };
        self.session.end(&end);
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(end));
        }
    }

    /// Tries URL after URL until one takes the connection.
    async fn connect(&mut self) -> Result<(Socket, Connected, String), End> {
        loop {
            let url = self.urls[self.next_url % self.urls.len()].clone();
            let attempt = Box::pin(attempt(
                Arc::clone(&self.dialer),
                Arc::clone(&self.config.token),
                url.clone(),
            ));
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                end = self.idle_until(Instant::now() + ATTEMPT_MAX) => {
                    end?;
                    Err(Refused::later("the attempt takes too long"))
                }
            };
            let refused = match outcome {
                Ok(open) => {
                    self.tokens_refused = 0;
                    self.give_up_at = None;
                    if let Some(first) = self.first.take() {
                        let _ = first.send(Ok(()));
                    }
                    return Ok(open);
                }
                Err(refused) => refused,
            };
            self.next_url += 1;
            if let Refused::Later { why, .. } = &refused {
                tracing::debug!(%url, %why, "no connection");
                if self.give_up_at.is_some_and(|at| at <= Instant::now()) {
                    let within = self.config.connect_within;
                    return Err(End::Unreachable {
                        url: url.to_string(),
                        within,
                        last: why.clone(),
                    });
                }
            }
            let pause = self.after(refused)?;
            let until = Instant::now() + pause;
            let until = self.give_up_at.map_or(until, |at| until.min(at));
            self.idle_until(until).await?;
        }
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

/// One attempt, with a token of its own.
async fn attempt(
    dialer: Arc<Dialer>,
    provider: Arc<dyn TokenProvider>,
    url: Uri,
) -> Result<(Socket, Connected, String), Refused> {
    let token = provider.token().await.map_err(Refused::later)?;
    let (socket, connected) = dialer.dial(&url, token.clone()).await?;
    Ok((socket, connected, token))
}
