//! How this process and what it stands on are doing.

use crate::gateway::GatewayPorts;
use crate::ingest::{Ingest, PartitionStatus, Role};
use crate::presence::Rooms;
use crate::session::SessionContext;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a dependency may take to answer a probe.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// Probes within so long share one answer: probing costs the dependencies next to nothing.
const PROBED_FOR: Duration = Duration::from_secs(1);
/// The same while the gateway is not ready: who waits for it is told soon.
const PROBED_FOR_DOWN: Duration = Duration::from_millis(50);
/// APPENDER B4: a gateway further off the journal's clock than this is not ready.
const CLOCK_SKEW_MAX_MS: u64 = 2000;

const DOWN: &str = "down";

/// What is asked after.
#[derive(Clone)]
pub(crate) struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    ports: GatewayPorts,
    ingest: Ingest,
    rooms: Rooms,
    draining: CancellationToken,
    last: Mutex<Option<(Instant, Report)>>,
    /// Every partition has had an owner since this process began.
    settled: AtomicBool,
}

/// The state of each dependency: `ok`, or what is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Report {
    /// `ok`; `degraded` while something is missing that the gateway can do without; `down`.
    status: &'static str,
    /// Seconds since the process began to serve.
    uptime: u64,
    /// The program's version.
    version: &'static str,
    /// By name: `database` (the archive), `redis` (shared limits), `nats` (the journal), `presence` (members and
    /// signals), `tokens` (signing keys), `owners`, `partitions`, `clock`, `draining`. An embedded engine stands behind the same names.
    #[serde(flatten)]
    checks: BTreeMap<&'static str, String>,
}

impl Health {
    pub(crate) fn new(
        ports: &GatewayPorts,
        context: &SessionContext,
        draining: CancellationToken,
    ) -> Self {
        let (started, last) = (Instant::now(), Mutex::new(None));
        let ports = ports.clone();
        Self {
            shared: Arc::new(Shared {
                started,
                ports,
                ingest: context.ingest.clone(),
                rooms: context.rooms.clone(),
                draining,
                last,
                settled: AtomicBool::new(false),
            }),
        }
    }

    async fn report(&self) -> Report {
        let mut last = self.shared.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < (if report.status == DOWN { PROBED_FOR_DOWN } else { PROBED_FOR })
        {
            return report.clone();
        }
        let report = self.shared.probe().await;
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

impl Shared {
    async fn probe(&self) -> Report {
        let (journal, archive) = tokio::join!(
            tokio::time::timeout(PROBE_WITHIN, self.ports.journal.ping()),
            tokio::time::timeout(PROBE_WITHIN, self.ports.archive.ping()),
        );
        let mut checks = BTreeMap::new();
        let mut down = false;
        let mut degraded = false;
        checks.insert("nats", said(journal, &mut down));
        checks.insert("database", said(archive, &mut degraded));
        if self.ports.limits.degraded() {
            degraded = true;
            checks.insert(
                "redis",
                "away: limits are counted by each gateway for its share".to_owned(),
            );
        } else {
            checks.insert("redis", "ok".to_owned());
        }
        let presence = self.rooms.problem();
        degraded |= presence.is_some();
        checks.insert("presence", presence.unwrap_or_else(|| "ok".to_owned()));
        let mut vital = |name, problem: Option<String>| {
            down |= problem.is_some();
            checks.insert(name, problem.unwrap_or_else(|| "ok".to_owned()));
        };
        let keys = self.ports.verifier.is_ready();
        vital("tokens", (!keys).then(|| "no signing keys could be read yet".to_owned()));
        vital("clock", self.clock_problem());
        if self.draining.is_cancelled() {
            vital("draining", Some("this process is going away".to_owned()));
        }
        vital("owners", self.ownerless());
        let stopped = self.stopped_partitions();
        degraded |= stopped.is_some();
        checks.insert("partitions", stopped.unwrap_or_else(|| "ok".to_owned()));
        let status = if down {
            "down"
        } else if degraded {
            "degraded"
        } else {
            "ok"
        };
        let uptime = self.started.elapsed().as_secs();
        Report { status, uptime, version: env!("CARGO_PKG_VERSION"), checks }
    }

    fn clock_problem(&self) -> Option<String> {
        let status = self.ingest.status();
        let worst =
            status.iter().filter_map(|p| p.clock_skew_ms).max_by_key(|ms| ms.unsigned_abs())?;
        (worst.unsigned_abs() > CLOCK_SKEW_MAX_MS)
            .then(|| format!("this machine's clock is {worst} ms off the journal's"))
    }

    /// Until every partition has been seen with an owner once, publishes would wait. Later a partition may
    /// change hands without a word here.
    fn ownerless(&self) -> Option<String> {
        if self.settled.load(Ordering::Relaxed) {
            return None;
        }
        let status = self.ingest.status();
        // One whose journal has gone back has none before an operator acts; the others are served.
        let is_missing =
            |p: &&PartitionStatus| p.owner.is_none() && p.role != Role::Owner && !p.rewound;
        let missing = status.iter().filter(is_missing).count();
        if missing == 0 {
            self.settled.store(true, Ordering::Relaxed);
            return None;
        }
        Some(format!("{missing} of {} partitions have no owner yet", status.len()))
    }

    fn stopped_partitions(&self) -> Option<String> {
        let problems: Vec<String> = self
            .ingest
            .status()
            .into_iter()
            .filter_map(|p| p.problem.map(|problem| format!("{}: {problem}", p.partition)))
            .collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

fn said<E: std::fmt::Display>(
    answer: Result<Result<(), E>, tokio::time::error::Elapsed>,
    bad: &mut bool,
) -> String {
    let problem = match answer {
        Ok(Ok(())) => return "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PROBE_WITHIN.as_secs()),
    };
    *bad = true;
    problem
}

/// The routes of probes and operators.
pub(crate) fn router(health: Health) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(ping))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(report))
        .routes(routes!(metrics))
        .with_state(health)
}

pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::<Health>::new()
        .routes(routes!(ping))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(report))
        .routes(routes!(metrics))
        .into_openapi()
}

/// Is anybody there?
#[utoipa::path(get, path = "/ping", tag = "operate", responses((status = 200, body = String)))]
async fn ping() -> &'static str {
    "pong"
}

/// Liveness: the process serves requests, whatever it stands on
#[utoipa::path(get, path = "/healthz", tag = "operate", responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok"
}

/// Readiness: whether clients should be sent here; says what is missing
#[utoipa::path(
    get, path = "/readyz", tag = "operate",
    responses((status = 200, body = Report), (status = 503, body = Report))
)]
async fn readyz(State(health): State<Health>) -> Response {
    let report = health.report().await;
    let ready = report.status != DOWN;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(report)).into_response()
}

/// The state of each dependency
#[utoipa::path(get, path = "/health", tag = "operate", responses((status = 200, body = Report)))]
async fn report(State(health): State<Health>) -> Response {
    axum::Json(health.report().await).into_response()
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operate", responses((status = 200, body = String)))]
async fn metrics() -> Response {
    match stormwire_telemetry::metrics_handle() {
        Ok(handle) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (headers, handle.render()).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "another recorder holds the metrics").into_response()
        }
    }
}
