//! The management port: probes and metrics, out of reach of clients.

use super::start::bind;
use crate::config::Config;
use crate::failure::Failure;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stormwire_archive::Archive;
use stormwire_identity::Identity;
use stormwire_journal::Journal;
use stormwire_telemetry::{CancellationToken, Tasks, metrics_handle};
use stormwire_web::{WebConfig, finish};
use tokio::time::timeout;

/// Where a worker serves them if nothing is configured.
pub(super) const WORKER_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// How long a dependency may take to answer a probe.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// Serves `routes` where the configuration says so; says where that is.
pub(super) async fn serve_if_set(
    config: &Config,
    tasks: &Tasks,
    routes: Router,
) -> Result<Option<SocketAddr>, Failure> {
    match config.management_listen {
        Some(address) => serve(address, tasks, routes).await.map(Some),
        None => Ok(None),
    }
}

/// Serves `routes` on `address` until the process ends; says where that really is.
pub(super) async fn serve(
    address: SocketAddr,
    tasks: &Tasks,
    routes: Router,
) -> Result<SocketAddr, Failure> {
    let listener = bind("management_listen", address)?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let stop = tasks.token();
    tasks.spawn("management", async move {
        let served = std::future::IntoFuture::into_future(axum::serve(listener, routes));
        if let Some(Err(error)) = stop.run_until_cancelled(served).await {
            tracing::error!(%error, "the management port failed");
        }
    });
    Ok(address)
}

/// What a worker tells about itself.
pub(super) fn worker_routes(
    journal: Arc<dyn Journal>,
    archive: Arc<dyn Archive>,
    draining: CancellationToken,
) -> Router {
    let started = Instant::now();
    let health = move || {
        let (journal, archive, draining) =
            (Arc::clone(&journal), Arc::clone(&archive), draining.clone());
        async move {
            let (nats, database) = tokio::join!(
                timeout(PROBE_WITHIN, journal.ping()),
                timeout(PROBE_WITHIN, archive.ping())
            );
            let checks = [("nats", said(nats)), ("database", said(database))];
            let ok = checks.iter().all(|(_, said)| said == "ok") && !draining.is_cancelled();
            let mut report = json!({
                "status": if ok { "ok" } else { "down" },
                "uptime": started.elapsed().as_secs(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            for (name, said) in checks {
                report[name] = Value::String(said);
            }
            (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, axum::Json(report))
        }
    };
    let routes = Router::new()
        .route("/ping", get(async || "pong"))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(health.clone()))
        .route("/health", get(health))
        .route("/metrics", get(metrics));
    finish(routes, &WebConfig::default())
}

/// What the identity service tells about itself.
pub(super) fn identity_routes(identity: &Identity, draining: CancellationToken) -> Router {
    let started = Instant::now();
    let identity = identity.clone();
    let health = move || {
        let (identity, draining) = (identity.clone(), draining.clone());
        async move {
            let database = said(timeout(PROBE_WITHIN, identity.ping()).await);
            let ok = database == "ok" && identity.is_ready() && !draining.is_cancelled();
            let report = json!({
                "status": if ok { "ok" } else { "down" },
                "uptime": started.elapsed().as_secs(),
                "version": env!("CARGO_PKG_VERSION"),
                "database": database,
                "signing_key": if identity.is_ready() { "ok" } else { "not there yet" },
            });
            (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, axum::Json(report))
        }
    };
    Router::new()
        .route("/ping", get(async || "pong"))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(health.clone()))
        .route("/health", get(health))
}

/// What a process tells that depends on nothing.
pub(super) fn alive() -> Router {
    Router::new()
        .route("/ping", get(async || "pong"))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async || "ok"))
}

/// The same, and the metrics.
pub(super) fn with_metrics(probes: Router) -> Router {
    probes.route("/metrics", get(metrics))
}

async fn metrics() -> Response {
    match metrics_handle() {
        Ok(handle) => handle.render().into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn said<E: std::fmt::Display>(
    answer: Result<Result<(), E>, tokio::time::error::Elapsed>,
) -> String {
    match answer {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {PROBE_WITHIN:?}"),
    }
}
