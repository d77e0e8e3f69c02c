//! Puts servers together: engines behind ports, services on ports, listeners, signals, drain.

mod identity;
mod management;
mod start;
mod stats;

pub(crate) use identity::{config as identity_config, run as identity};

use crate::app;
use crate::config::{Config, IdentityUrl, Profile, show_span};
use crate::connect::{self, DEVELOPER};
use crate::failure::Failure;
use crate::output;
use serde_json::Value;
pub(crate) use start::Process;
use start::{address, bind, data_dir, gateway_name};
use stats::Teller;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Clock, SystemClock};
use stormwire_engine::{Engines, Ports, Signals};
use stormwire_gateway::{Gateway, GatewayConfig, GatewayPorts, HistoryBounds, forward};
use stormwire_identity::{DevelopmentKey, TokenRequest, openapi_document};
use stormwire_limits::{Limiter, Limits, LimitsConfig, Rule};
use stormwire_messages::{MessagesConfig, Worker};
use stormwire_telemetry::{CancellationToken, Tasks};
use stormwire_tokens::{
    ClaimMapping, KeySource, Namespaces, RevocationFeed, RevocationUrl, Verifier, VerifierConfig,
};
use stormwire_web::{CallerState, WebConfig};

/// How the URL of a provider's metadata ends (OpenID Connect Discovery).
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// How long the token is valid that the embedded server prints.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest wait for a service to end after its drain.
const END_WITHIN: Duration = Duration::from_secs(15);

/// Everything in one process.
pub(crate) async fn embedded(config: &Config) -> Result<(), Failure> {
    if config.is_cluster() {
        return Err(Failure::usage(
            "journal.url (NATS_URL) names a shared journal, and the embedded server works alone: start `stormwire gateway` and `stormwire messages`, or unset it",
        ));
    }
    let process = Process::start(config, "stormwire")?;
    let listener = bind("listen", config.listen)?;
    data_dir(config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut engines = Engines::new(config.engine.clone(), Arc::clone(&clock));
    let ports = engines.ports().await.map_err(Failure::unavailable)?;
    let key = development_key(config)?;
    let identity = identity::embedded(config, key.as_ref(), &clock, &process.tasks)?;
    let keys = match &identity {
        Some(identity) => KeySource::Watched(identity.jwks()),
        None => keys(config, key.as_ref())?,
    };
    let feed = identity.clone().map(|identity| Arc::new(identity) as Arc<dyn RevocationFeed>);
    let limiter = Arc::clone(&ports.limiter);
    let namespaces = Namespaces::default();
    let trust = (keys, feed, namespaces.clone());
    let callers = callers(config, limiter, trust, &process.tasks, &clock).await?;
    let mut gateway = new_gateway(config, ports.clone(), callers.clone(), &clock);
    gateway = match &identity {
        Some(identity) => gateway.also(identity.routes(callers), openapi_document()),
        None => forwarding(config, gateway)?,
    };
    let gateway = gateway.with_settings(Arc::clone(&ports.settings), namespaces);
    let gateway = Arc::new(with_app(config, gateway));
    tell_gateway("stormwire", &gateway, config, &ports.signals, &clock, &process.tasks);
    management::serve_if_set(config, &process.tasks, gateway.management_routes()).await?;
    let stop_worker = CancellationToken::new();
    let worker = Worker::new(ports.journal, ports.archive, messages_config(config), clock);
    let worker = tokio::spawn(worker.run(stop_worker.clone()));
    greet(&address(&listener)?, key.as_ref())?;
    let served = gateway.serve(listener, process.tasks.token()).await;
    // The last events are in the journal: the worker goes last, and stores what it has read.
    stop_worker.cancel();
    let _ = tokio::time::timeout(END_WITHIN, worker).await;
    drop(gateway);
    engines.close().await;
    process.end().await;
    served.map_err(|error| Failure::failed(format!("the gateway had to leave: {error}")))
}

/// A gateway of a cluster.
pub(crate) async fn gateway(config: &Config) -> Result<(), Failure> {
    needs_cluster(config, "gateway")?;
    let process = Process::start(config, "gateway")?;
    let listener = bind("listen", config.listen)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut engines = Engines::new(config.engine.clone(), Arc::clone(&clock));
    let ports = engines.ports().await.map_err(Failure::unavailable)?;
    let key = development_key(config)?;
    let keys = keys(config, key.as_ref())?;
    let (limiter, feed) = (Arc::clone(&ports.limiter), revocations(config)?);
    let namespaces = Namespaces::default();
    let trust = (keys, feed, namespaces.clone());
    let callers = callers(config, limiter, trust, &process.tasks, &clock).await?;
    let signals = Arc::clone(&ports.signals);
    let settings = Arc::clone(&ports.settings);
    let gateway = forwarding(config, new_gateway(config, ports, callers, &clock))?;
    let gateway = gateway.with_settings(settings, namespaces);
    let gateway = Arc::new(with_app(config, gateway));
    tell_gateway("gateway", &gateway, config, &signals, &clock, &process.tasks);
    management::serve_if_set(config, &process.tasks, gateway.management_routes()).await?;
    output::line(format!("stormwire gateway listens on http://{}", address(&listener)?))?;
    let served = gateway.serve(listener, process.tasks.token()).await;
    engines.close().await;
    process.end().await;
    served.map_err(|error| Failure::failed(format!("the gateway had to leave: {error}")))
}

/// Serves the metrics of a command that does not end by itself, where the configuration says so.
pub(crate) async fn serve_metrics(config: &Config, process: &Process) -> Result<(), Failure> {
    let routes = management::with_metrics(management::alive());
    management::serve_if_set(config, &process.tasks, routes).await.map(|_| ())
}

/// A worker of a cluster.
pub(crate) async fn messages(config: &Config) -> Result<(), Failure> {
    needs_cluster(config, "messages")?;
    let process = Process::start(config, "messages")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut engines = Engines::new(config.engine.clone(), Arc::clone(&clock));
    let journal = engines.journal().await.map_err(Failure::unavailable)?;
    let archive = engines.archive().await.map_err(Failure::unavailable)?;
    let routes = management::worker_routes(
        Arc::clone(&journal),
        Arc::clone(&archive),
        process.tasks.token(),
    );
    let listen = config.management_listen.unwrap_or(management::WORKER_LISTEN);
    let management = management::serve(listen, &process.tasks, routes).await?;
    let teller = Teller {
        process: gateway_name(config),
        role: "messages",
        partitions: config.partitions,
        signals: engines.signals().await.map_err(Failure::unavailable)?,
        clock: Arc::clone(&clock),
    };
    teller.start(&process.tasks, || Value::Null);
    output::line(format!("stormwire messages serves probes and metrics on http://{management}"))?;
    let worker = Worker::new(journal, archive, messages_config(config), clock);
    worker.run(process.tasks.token()).await;
    engines.close().await;
    process.end().await;
    Ok(())
}

/// Lets a gateway tell its figures. Held weakly: the gateway goes when its role is over.
fn tell_gateway(
    role: &'static str,
    gateway: &Arc<Gateway>,
    config: &Config,
    signals: &Arc<dyn Signals>,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) {
    let teller = Teller {
        process: gateway.name().to_owned(),
        role,
        partitions: config.partitions,
        signals: Arc::clone(signals),
        clock: Arc::clone(clock),
    };
    let gateway = Arc::downgrade(gateway);
    teller.start(tasks, move || {
        let stats = gateway.upgrade().map(|gateway| gateway.stats());
        stats.and_then(|stats| serde_json::to_value(stats).ok()).unwrap_or_default()
    });
}

fn needs_cluster(config: &Config, role: &str) -> Result<(), Failure> {
    if config.is_cluster() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "stormwire {role} needs a journal that processes share: expected journal.url = \"nats://…\" (NATS_URL) and archive.url = \"postgres://…\" (DATABASE_URL); for one process with nothing else installed run `stormwire` alone"
    )))
}

/// The key that signs and verifies where no identity provider is named.
fn development_key(config: &Config) -> Result<Option<DevelopmentKey>, Failure> {
    if config.auth.jwks.is_some() || config.profile == Profile::Production {
        return Ok(None);
    }
    DevelopmentKey::load_or_create(&config.data_dir).map(Some).map_err(Failure::failed)
}

/// Where the keys are that verify tokens, where this process does not sign them itself.
fn keys(config: &Config, key: Option<&DevelopmentKey>) -> Result<KeySource, Failure> {
    match (config.auth.jwks.as_deref(), &config.identity.url, key) {
        (Some(url), ..) if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(match url.ends_with(DISCOVERY) {
                true => KeySource::Discovered {
                    url: url.to_owned(),
                    issuer: config.auth.issuer.clone(),
                },
                false => KeySource::Url(url.to_owned()),
            })
        }
        (Some(path), ..) => Ok(KeySource::File(path.into())),
        (None, IdentityUrl::At(url), _) => {
            Ok(KeySource::Url(format!("{}/.well-known/jwks.json", url.trim_end_matches('/'))))
        }
        (None, _, Some(key)) => Ok(KeySource::Inline(key.jwks())),
        (None, ..) => Err(Failure::usage(
            "no keys to verify tokens with: expected auth.jwks, or identity.url = \"http://…\" where `stormwire identity` listens",
        )),
    }
}

/// Where a gateway is told which tokens are revoked: by the service that keeps the accounts.
fn revocations(config: &Config) -> Result<Option<Arc<dyn RevocationFeed>>, Failure> {
    let IdentityUrl::At(url) = &config.identity.url else { return Ok(None) };
    let feed = RevocationUrl::new(url);
    let feed = feed.map_err(|error| Failure::usage(format!("identity.url: {error}")))?;
    Ok(Some(Arc::new(feed)))
}

/// What the channel tokens of the application's backend look like.
fn channel_tokens(config: &Config) -> Option<VerifierConfig> {
    let keys = config.auth.channel_jwks.as_deref()?;
    let keys = match keys {
        url if url.starts_with("http://") || url.starts_with("https://") => {
            KeySource::Url(url.to_owned())
        }
        path => KeySource::File(path.into()),
    };
    Some(VerifierConfig {
        issuers: vec![config.auth.channel_issuer.clone()],
        audiences: vec![format!("{}:channel", config.auth.audience)],
        ..VerifierConfig::new(keys)
    })
}

/// Who may call, and how often.
async fn callers(
    config: &Config,
    limiter: Arc<dyn Limiter>,
    (keys, revocations, namespaces): (KeySource, Option<Arc<dyn RevocationFeed>>, Namespaces),
    tasks: &Tasks,
    clock: &Arc<dyn Clock>,
) -> Result<CallerState, Failure> {
    let verifier = VerifierConfig {
        issuers: vec![config.auth.issuer.clone()],
        audiences: vec![config.auth.audience.clone()],
        revocations,
        namespaces,
        channel_tokens: channel_tokens(config).map(Box::new),
        mapping: ClaimMapping {
            user: config.auth.user_claim.clone(),
            roles: config.auth.roles_claim.clone(),
            role_rights: config.auth.role_rights.clone(),
            ..ClaimMapping::default()
        },
        ..VerifierConfig::new(keys)
    };
    let verifier = Verifier::start(verifier, Arc::clone(clock), tasks).await;
    let verifier = verifier.map_err(|error| Failure::usage(format!("auth.jwks: {error}")))?;
    let limits = Limits::new(limiter, limits_config(config));
    Ok(CallerState { verifier: Arc::new(verifier), limits: Arc::new(limits) })
}

fn new_gateway(
    config: &Config,
    ports: Ports,
    callers: CallerState,
    clock: &Arc<dyn Clock>,
) -> Gateway {
    let ports = GatewayPorts {
        journal: ports.journal,
        peers: ports.peers,
        archive: ports.archive,
        presence: ports.presence,
        signals: ports.signals,
        limits: callers.limits,
        verifier: callers.verifier,
        clock: Arc::clone(clock),
    };
    Gateway::new(gateway_config(config), ports)
}

/// Lets a gateway pass on what the identity service answers.
fn forwarding(config: &Config, gateway: Gateway) -> Result<Gateway, Failure> {
    let IdentityUrl::At(url) = &config.identity.url else { return Ok(gateway) };
    let routes = forward::routes(url);
    let routes = routes.map_err(|error| Failure::usage(format!("identity.url: {error}")))?;
    Ok(gateway.also(routes, openapi_document()))
}

/// The web app at `/`, where it is wanted.
fn with_app(config: &Config, gateway: Gateway) -> Gateway {
    if config.gateway.app { gateway.pages(app::routes()) } else { gateway }
}

fn gateway_config(config: &Config) -> GatewayConfig {
    GatewayConfig {
        name: gateway_name(config),
        partitions: config.partitions,
        event_bytes_max: config.gateway.event_bytes_max,
        connections_max: config.gateway.connections_max,
        history: HistoryBounds {
            reads: config.gateway.history_reads,
            waiting: config.gateway.history_waiting,
            threads: history_threads(config.gateway.history_reads),
        },
        linger: config.gateway.linger,
        drain_spread: config.shutdown_spread,
        trusted_proxies: config.gateway.trusted_proxies.clone(),
        web: WebConfig {
            cors_origins: config.gateway.cors_origins.clone(),
            ..WebConfig::default()
        },
        ..GatewayConfig::default()
    }
}

/// Half of the cores at most, and no more than can be used at a time.
fn history_threads(reads: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    reads.min(cores.div_ceil(2))
}

fn limits_config(config: &Config) -> LimitsConfig {
    let values = &config.limits;
    let rule = |limit, seconds| Some(Rule { limit, window: Duration::from_secs(seconds) });
    LimitsConfig {
        user_requests: rule(values.rest_requests_per_minute, 60),
        ip_requests: rule(values.rest_requests_per_minute_ip, 60),
        user_events: rule(values.events_per_second, 1),
        user_signals: rule(values.signals_per_second, 1),
        channel_signals: rule(values.signals_per_second_channel, 1),
        connection_signals: u32::try_from(values.signals_per_second_connection)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MAX),
        connections_per_ip: u32::try_from(values.connections_per_ip).unwrap_or(u32::MAX),
        ..LimitsConfig::default()
    }
}

fn messages_config(config: &Config) -> MessagesConfig {
    MessagesConfig {
        name: config.name.clone().unwrap_or_else(|| "messages".to_owned()),
        partitions: config.partitions,
        lease: config.messages.lease,
        batch_events: config.messages.batch_events,
        recovery_window: config.messages.recovery_window,
        retention: config.messages.retention.clone(),
        ..MessagesConfig::default()
    }
}

/// The address first; then what is needed for a first try.
fn greet(address: &str, key: Option<&DevelopmentKey>) -> Result<(), Failure> {
    output::line(format!("stormwire listens on http://{address}"))?;
    let Some(key) = key else { return Ok(()) };
    let request = TokenRequest { ttl: TOKEN_TTL, ..TokenRequest::new(DEVELOPER).all_rights() };
    let token = connect::sign(key, request)?;
    output::line(format!(
        "\nA token with all rights, valid for {}:\n\n  export STORMWIRE_TOKEN={token}\n\nA first event, and the channel's history:\n\n  curl http://{address}/v1/channels/room:lobby/events -H \"Authorization: Bearer $STORMWIRE_TOKEN\" \\\n    -H 'Content-Type: application/json' -d '{{\"type\":\"greeting\",\"data\":{{\"text\":\"hello\"}}}}'\n  curl http://{address}/v1/channels/room:lobby/events -H \"Authorization: Bearer $STORMWIRE_TOKEN\"\n",
        show_span(TOKEN_TTL)
    ))
}
