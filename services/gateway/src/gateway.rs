//! Puts the gateway together and runs it: tails, ingest, routes, listeners, drain.

use crate::connections::Connections;
use crate::declared::DeclaredNamespaces;
use crate::health::Health;
use crate::hub::Hub;
use crate::ingest::{Ingest, IngestConfig};
use crate::listener::{ClientListener, PeerAddress};
use crate::presence::Rooms;
use crate::reader::{HistoryBounds, Reader};
use crate::receipts::Receipts;
use crate::render;
use crate::schema::Schemas;
use crate::session::SessionContext;
use crate::witness::Records;
use crate::{tail, ws};
use axum::Router;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, Settings};
use stormwire_core::{Clock, CloseCode, PartitionCount};
use stormwire_journal::{Journal, Peers};
use stormwire_limits::Limits;
use stormwire_presence::{Presence, Signals};
use stormwire_telemetry::{Tasks, metrics as names};
use stormwire_tokens::{Namespaces, Verifier};
use stormwire_web::{TrustedProxies, WebConfig};
use stormwire_wire::protocol::ServerMessage;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

/// How long the drain may take beyond its spread: the publish deadline.
const DRAIN_MAX: Duration = Duration::from_secs(15);
/// How much of that may pass before the connections are told to move: partitions that nobody takes and
/// lanes that no journal empties must not hold them up.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the gateway's own tasks at the end.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);

/// How a gateway is to behave. Where a field has a unit it is in its name.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// This gateway's name among the others, unique in the cluster and for this life of the process.
    pub name: String,
    /// Partitions of the cluster.
    pub partitions: PartitionCount,
    /// Largest WebSocket message taken from a client.
    pub message_bytes_max: usize,
    /// Largest data of one event.
    pub event_bytes_max: usize,
    /// Live events queued for one connection before its subscriptions are parked.
    pub queue_bytes: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Publishes of one connection that may wait for their acknowledgement; at most 256, the
    /// repeats that the appender remembers of a producer.
    pub unacked_max: usize,
    /// Connections of this process.
    pub connections_max: usize,
    /// Bytes of each partition's last frames kept in memory for short absences.
    pub recent_bytes: usize,
    /// How much history is read at a time; live events are never behind it.
    pub history: HistoryBounds,
    /// How long an idle appender waits for more events; zero sends at once.
    pub linger: Duration,
    /// Over how long connections are told to move when the process ends.
    pub drain_spread: Duration,
    /// Whose word about a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// What is around every HTTP request.
    pub web: WebConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            name: "gateway".to_owned(),
            partitions: PartitionCount::DEFAULT,
            message_bytes_max: 1024 * 1024,
            event_bytes_max: 64 * 1024,
            queue_bytes: 256 * 1024,
            subscriptions_max: 1_000,
            unacked_max: 256,
            connections_max: 19_000,
            recent_bytes: 4 * 1024 * 1024,
            history: HistoryBounds::default(),
            linger: Duration::ZERO,
            drain_spread: Duration::from_secs(5),
            trusted_proxies: TrustedProxies::default(),
            web: WebConfig::default(),
        }
    }
}

/// What a gateway stands on, chosen where the process is put together.
#[derive(Clone)]
pub struct GatewayPorts {
    /// The short durable log.
    pub journal: Arc<dyn Journal>,
    /// The way to the other gateways.
    pub peers: Arc<dyn Peers>,
    /// The long store, for history.
    pub archive: Arc<dyn Archive>,
    /// Who is there.
    pub presence: Arc<dyn Presence>,
    /// The way of signals between gateways.
    pub signals: Arc<dyn Signals>,
    /// How much one may.
    pub limits: Arc<Limits>,
    /// Who one is.
    pub verifier: Arc<Verifier>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One gateway of a cluster, or the only one of an embedded server.
pub struct Gateway {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) ports: GatewayPorts,
    tasks: Tasks,
    draining: CancellationToken,
    health: Health,
    also: Option<(Router, OpenApi)>,
    pages: Router,
    declared: Option<DeclaredNamespaces>,
}

impl Gateway {
    /// Starts the tails and the lanes; serves nobody yet.
    #[must_use]
    pub fn new(config: GatewayConfig, ports: GatewayPorts) -> Self {
        let tasks = Tasks::new();
        metrics::gauge!(names::PARTITIONS).set(f64::from(config.partitions.get()));
        let hub = Arc::new(Hub::new(config.partitions, config.recent_bytes));
        hub.measure(Arc::clone(&ports.clock));
        for feed in hub.feeds() {
            let (feed, journal) = (Arc::clone(feed), Arc::clone(&ports.journal));
            tasks.spawn_essential("tail", tail::run(feed, journal, tasks.token()));
        }
        let ingest = Ingest::start(
            Arc::clone(&ports.journal),
            Arc::clone(&ports.peers),
            Arc::new(Records { hub: Arc::clone(&hub), archive: Arc::clone(&ports.archive) }),
            Arc::clone(&ports.clock),
            IngestConfig {
                linger: config.linger,
                ..IngestConfig::new(config.name.clone(), config.partitions)
            },
            &tasks,
        );
        let connections = Arc::<Connections>::default();
        ingest.watch_producers(Arc::clone(&connections) as _);
        let rooms = Rooms::start(
            Arc::clone(&ports.presence),
            Arc::clone(&ports.signals),
            config.name.clone(),
            config.partitions,
            ports.peers.is_alone(),
            &tasks,
        );
        let living = ingest.clone();
        ports.limits.watch(&tasks, move || living.gateways());
        shut_out(&ports.verifier, &connections, &tasks);
        let (journal, archive) = (Arc::clone(&ports.journal), Arc::clone(&ports.archive));
        let receipts = Receipts::new(Arc::clone(&archive), config.partitions, tasks.clone());
        let context = Arc::new(SessionContext {
            reader: Arc::new(Reader::new(Arc::clone(&hub), journal, archive, config.history)),
            hub,
            ingest,
            rooms,
            schemas: Schemas::default(),
            receipts: Arc::new(receipts),
            connections,
            limits: Arc::clone(&ports.limits),
            verifier: Arc::clone(&ports.verifier),
            clock: Arc::clone(&ports.clock),
            tasks: tasks.clone(),
            config,
        });
        let draining = CancellationToken::new();
        let health = Health::new(&ports, &context, draining.clone());
        let pages = Router::new();
        Self { context, ports, tasks, draining, health, also: None, pages, declared: None }
    }

    /// Serves `routes` as well, which another service answers or [`crate::forward`] passes on, and
    /// describes them in `/v1/openapi.json`.
    #[must_use]
    pub fn also(mut self, routes: Router, described: OpenApi) -> Self {
        self.also = Some((routes, described));
        self
    }

    /// Serves pages for people beside its own routes.
    #[must_use]
    pub fn pages(mut self, routes: Router) -> Self {
        self.pages = routes;
        self
    }

    pub(crate) fn served_pages(&self) -> Router {
        self.pages.clone()
    }

    /// Follows what operators set, and serves the routes with which they do.
    #[must_use]
    pub fn with_settings(mut self, settings: Arc<dyn Settings>, namespaces: Namespaces) -> Self {
        let schemas = self.context.schemas.clone();
        self.declared = Some(DeclaredNamespaces::start(settings, namespaces, schemas, &self.tasks));
        self
    }

    /// What operators set, if this gateway follows it.
    pub(crate) fn declared(&self) -> Option<DeclaredNamespaces> {
        self.declared.clone()
    }

    /// What is served as well.
    pub(crate) fn served_as_well(&self) -> (Router, OpenApi) {
        self.also.clone().unwrap_or_default()
    }

    /// Its name among the others, new in each life.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.config.name
    }

    /// Whether this gateway is on its way out: not ready for new clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Cancelled when the gateway begins to drain.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// How this gateway and what it stands on are doing.
    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves clients on `listener` until `shutdown`, then drains: not ready, partitions handed over,
    /// connections told to move over [`GatewayConfig::drain_spread`], lanes flushed again. What has not
    /// ended 15 s after the spread is cut off.
    ///
    /// # Errors
    /// What the listener reports; that a task without which a partition stands still has ended.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let stop_accepting = CancellationToken::new();
        let stopped = stop_accepting.clone().cancelled_owned();
        let service = self.routes().into_make_service_with_connect_info::<PeerAddress>();
        let server = axum::serve(ClientListener(listener), service).with_graceful_shutdown(stopped);
        let server = std::future::IntoFuture::into_future(server);
        let mut server = std::pin::pin!(server);
        let failing = self.tasks.failing();
        tokio::select! {
            result = &mut server => return result,
            () = shutdown.cancelled() => {}
            // A tail or an appender is gone: its partition would stand still here without a word. The
            // others hand over what they have.
            () = failing.cancelled() => {}
        }
        self.draining.cancel();
        let deadline = Instant::now() + self.context.config.drain_spread + DRAIN_MAX;
        let drain = async {
            self.drain().await;
            stop_accepting.cancel();
        };
        let ended = timeout_at(deadline, async { tokio::join!(server, drain) }).await;
        let result = ended.map_or_else(
            |_| {
                let connections = self.context.connections.len();
                tracing::warn!(connections, "the drain took too long; what is left is cut off");
                Ok(())
            },
            |(result, ())| result,
        );
        self.tasks.shutdown();
        if let Err(left) = self.tasks.drain(TASKS_END_WITHIN).await {
            tracing::warn!(tasks = ?left, "tasks were still running at the end of the drain");
        }
        match self.tasks.failed() {
            Some(task) => Err(std::io::Error::other(format!("the task {task} has ended"))),
            None => result,
        }
    }

    /// Everything a client can ask for.
    pub fn routes(&self) -> Router {
        ws::router(Arc::clone(&self.context), self.draining.clone())
            .merge(crate::http::router(self))
    }

    /// What operators and probes ask for, on a port of its own.
    pub fn management_routes(&self) -> Router {
        crate::http::management_router(self)
    }

    async fn drain(&self) {
        let connections = &self.context.connections;
        tracing::info!(connections = connections.len(), "draining");
        let _ = timeout(HAND_OVER_MAX, self.context.ingest.drain()).await;
        let outboxes = connections.outboxes();
        let spread = self.context.config.drain_spread;
        let slots = u32::try_from(outboxes.len()).unwrap_or(u32::MAX).max(1);
        let slot = |i: usize| spread * u32::try_from(i).unwrap_or(u32::MAX) / slots;
        for (i, outbox) in outboxes.iter().enumerate() {
            let moving = ServerMessage::Moving { reconnect_after: slot(i) };
            outbox.answer(render::message(outbox.codec(), &moving));
        }
        let start = Instant::now();
        for (i, outbox) in outboxes.iter().enumerate() {
            tokio::time::sleep_until(start + slot(i)).await;
            outbox.close(CloseCode::Moving, "this server is going away; connect again");
        }
        // Connections that came while we drained.
        for outbox in connections.outboxes() {
            outbox.close(CloseCode::Moving, "this server is going away; connect again");
        }
        connections.empty().await;
        self.context.ingest.drain().await;
    }
}

/// Ends connections whose token was revoked, as soon as this process is told.
fn shut_out(verifier: &Arc<Verifier>, connections: &Arc<Connections>, tasks: &Tasks) {
    let (verifier, connections) = (Arc::clone(verifier), Arc::clone(connections));
    let (mut revocations, stop) = (verifier.revocations(), tasks.token());
    tasks.spawn("shut_out", async move {
        let work = async {
            while revocations.changed().await.is_ok() {
                connections.shut_out(|claims| verifier.check_revoked(claims).is_ok());
            }
        };
        stop.run_until_cancelled(work).await;
    });
}
