//! One connection to NATS: it keeps trying, says where it stands, and tells when something may have been
//! lost.

use crate::config::{NatsConfig, NatsError};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use futures::FutureExt as _;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stormwire_telemetry::metrics as names;
use tokio::sync::watch;
use tokio::time::Instant;

/// Silence after which the client pings the server; two unanswered pings end the connection. The
/// library's minute would leave a frozen server unnoticed for three.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Longest time for one attempt to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long requests may go unanswered before another server is tried. Longer than the election of a
/// stream's leader usually takes, and harmless if it takes longer.
const USELESS_AFTER: Duration = Duration::from_secs(6);
/// How long a start waits for servers that are there.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);
/// Longest pause between attempts.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Whether it stands now.
    pub(crate) connected: bool,
    /// How often it was lost. What was asked before is not answered any more.
    pub(crate) losses: u64,
    /// How often messages may have been lost: after each reconnect, and when a subscription overflowed.
    pub(crate) disturbances: u64,
    /// Why it does not stand.
    pub(crate) reason: String,
}

/// A connection for one purpose. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Link {
    client: Client,
    state: watch::Receiver<LinkState>,
    doubt: Arc<Mutex<Doubt>>,
}

/// Whether the server at the other end is of any use: it may answer pings and yet be cut off from the
/// rest of its cluster.
#[derive(Default)]
struct Doubt {
    since: Option<Instant>,
}

impl Doubt {
    /// Notes whether a request was answered; true when none has been for too long.
    fn note(&mut self, answered: bool, now: Instant) -> bool {
        if answered {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let too_long = now.duration_since(since) >= USELESS_AFTER;
        if too_long {
            self.since = None;
        }
        too_long
    }
}

impl Link {
    /// Starts to connect and returns at once: the servers may be absent as yet.
    pub(crate) async fn connect(
        config: &NatsConfig,
        purpose: &'static str,
        subscription_capacity: usize,
    ) -> Result<Self, NatsError> {
        let servers = servers(&config.urls)?;
        let (sender, state) = watch::channel(LinkState {
            connected: false,
            losses: 0,
            disturbances: 0,
            reason: "not connected yet".to_owned(),
        });
        gauge!(names::NATS_CONNECTED, "connection" => purpose).set(0);
        let options = options(config, &servers)?
            .name(format!("{} {purpose}", config.name))
            .subscription_capacity(subscription_capacity)
            .retry_on_initial_connect()
            .connection_timeout(CONNECT_DEADLINE)
            .ping_interval(PING_EVERY)
            .reconnect_delay_callback(reconnect_pause)
            // Subjects are made by `names` alone.
            .skip_subject_validation(true)
            .event_callback(move |event| {
                note(&sender, purpose, &event);
                std::future::ready(())
            });
        let client =
            options.connect(servers).await.map_err(|error| NatsError::Start(error.to_string()))?;
        Ok(Self { client, state, doubt: Arc::default() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Where it stands, for those who watch it.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// `Err` with the reason while there is no connection.
    pub(crate) fn check(&self) -> Result<(), String> {
        let state = self.state.borrow();
        if state.connected { Ok(()) } else { Err(state.reason.clone()) }
    }

    /// Notes whether JetStream answered a request made over it. When none was answered for seconds, it
    /// connects anew, to another server if there are several.
    pub(crate) fn note(&self, answered: bool) {
        if self.doubt.lock().note(answered, Instant::now()) {
            tracing::warn!("NATS answers no request; connecting to another of its servers");
            // Full: what is queued will not be answered either, and doubt comes again.
            self.client.force_reconnect().now_or_never();
        }
    }

    /// Waits until there is a connection, but not for long: a process must come up without it.
    pub(crate) async fn settle(&self) {
        let mut state = self.state.clone();
        let connected = state.wait_for(|state| state.connected);
        tokio::time::timeout(SETTLE_WITHIN, connected).await.ok();
    }
}

fn servers(urls: &[String]) -> Result<Vec<ServerAddr>, NatsError> {
    if urls.is_empty() {
        return Err(NatsError::NoUrl);
    }
    let parse = |url: &String| {
        url.parse::<ServerAddr>()
            .map_err(|error| NatsError::Url { url: without_user(url), reason: error.to_string() })
    };
    urls.iter().map(parse).collect()
}

/// A URL as it may be shown.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

fn options(config: &NatsConfig, servers: &[ServerAddr]) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new();
    // The library leaves what a URL says before the `@` aside.
    let named = servers.iter().find_map(|server| Some((server.username()?, server.password())));
    match named {
        Some((user, Some(password))) => {
            options = options.user_and_password(decoded(user), decoded(password));
        }
        Some((token, None)) => options = options.token(decoded(token)),
        None => {}
    }
    if let Some(user) = &config.user {
        options =
            options.user_and_password(user.clone(), config.password.clone().unwrap_or_default());
    }
    if let Some(path) = &config.credentials {
        let unusable = |reason: String| NatsError::Credentials { path: path.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        options = options.credentials(&text).map_err(|error| unusable(error.to_string()))?;
    }
    if let Some(path) = &config.tls_ca {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &config.tls_identity {
        options =
            options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Text of a URL with each `%` and two hexadecimal digits made a byte again.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// At once the first time, then 20 ms doubled up to a second.
fn reconnect_pause(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(16);
    Duration::from_millis(20).saturating_mul(1 << doublings).min(RECONNECT_PAUSE_MAX)
}

/// Keeps the state, the counts and the log in step with what the client tells.
fn note(state: &watch::Sender<LinkState>, purpose: &'static str, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!(connection = purpose, "NATS is connected");
            gauge!(names::NATS_CONNECTED, "connection" => purpose).set(1);
            state.send_modify(|state| {
                state.connected = true;
                state.disturbances += 1;
            });
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!(connection = purpose, "NATS is disconnected; trying again");
            gauge!(names::NATS_CONNECTED, "connection" => purpose).set(0);
            counter!(names::NATS_DISCONNECTS, "connection" => purpose).increment(1);
            state.send_modify(|state| {
                state.connected = false;
                state.losses += 1;
                "the connection was lost".clone_into(&mut state.reason);
            });
        }
        Event::SlowConsumer(_) => {
            counter!(names::NATS_SLOW_CONSUMERS, "connection" => purpose).increment(1);
            state.send_modify(|state| state.disturbances += 1);
        }
        Event::ServerError(error) => failed(state, purpose, error.to_string()),
        Event::ClientError(error) => failed(state, purpose, error.to_string()),
        Event::LameDuckMode | Event::Draining => {
            tracing::info!(connection = purpose, %event, "a NATS server is about to stop");
        }
    }
}

/// Notes why there is no connection; says it in the log only when it is a new reason, for attempts
/// come many times a second.
fn failed(state: &watch::Sender<LinkState>, purpose: &'static str, reason: String) {
    state.send_if_modified(|state| {
        let new = state.reason != reason;
        if new {
            tracing::warn!(connection = purpose, error = %reason, "NATS reports an error");
            state.reason = reason;
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let Err(error) = servers(&["nats://ann:secret@bad host:1".to_owned()]) else {
            panic!("a blank in a host name");
        };
        assert!(error.to_string().contains("nats://bad host:1"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(servers(&[]).unwrap_err(), NatsError::NoUrl);
    }

    #[test]
    fn passwords_in_a_url_may_hold_any_character() {
        assert_eq!(decoded("p%40ss%2Fw%C3%B6rd"), "p@ss/w\u{f6}rd");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%e"), "%zz%e");
    }

    #[test]
    fn an_absent_credentials_file_is_named() {
        let config =
            NatsConfig { credentials: Some("/nowhere/x.creds".into()), ..NatsConfig::default() };
        let error = options(&config, &[]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/x.creds"), "{error}");
    }

    #[test]
    fn reconnects_begin_at_once_and_stay_within_a_second() {
        assert_eq!(reconnect_pause(1), Duration::ZERO);
        assert_eq!(reconnect_pause(3), Duration::from_millis(40));
        assert_eq!(reconnect_pause(usize::MAX), Duration::from_secs(1));
    }

    #[test]
    fn a_server_is_useless_when_nothing_was_answered_for_seconds() {
        let (mut doubt, start) = (Doubt::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!doubt.note(false, at(0)));
        assert!(!doubt.note(false, at(5)));
        assert!(!doubt.note(true, at(5)), "an answer begins it anew");
        assert!(!doubt.note(false, at(7)));
        assert!(!doubt.note(false, at(12)));
        assert!(doubt.note(false, at(13)));
        assert!(!doubt.note(false, at(14)), "the next server has its time as well");
    }

    #[test]
    fn a_loss_a_reconnect_and_an_overflow_are_told_apart() {
        let (sender, mut state) = watch::channel(LinkState {
            connected: false,
            losses: 0,
            disturbances: 0,
            reason: String::new(),
        });
        note(&sender, "test", &Event::Connected);
        note(&sender, "test", &Event::SlowConsumer(7));
        note(&sender, "test", &Event::Disconnected);
        let now = state.borrow_and_update().clone();
        assert_eq!((now.connected, now.losses, now.disturbances), (false, 1, 2));
        failed(&sender, "test", "refused".to_owned());
        assert!(state.has_changed().unwrap());
        assert_eq!(state.borrow_and_update().reason, "refused");
        failed(&sender, "test", "refused".to_owned());
        assert!(!state.has_changed().unwrap(), "the same reason is no news");
    }
}
