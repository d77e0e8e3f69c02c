//! The identity service: inside the embedded server, or a role of a cluster.

use super::start::{Process, address, bind, data_dir, gateway_name};
use super::stats::Teller;
use super::{callers, development_key, management};
use crate::config::{Config, IdentityUrl, Profile};
use crate::failure::Failure;
use crate::output;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use stormwire_core::{Clock, SystemClock};
use stormwire_engine::{ArchiveUrl, Engines};
use stormwire_identity::{Database, DevelopmentKey, Identity, IdentityConfig, LogMailer, Mailer};
use stormwire_telemetry::Tasks;
use stormwire_tokens::{KeySource, Namespaces, RevocationFeed};
use stormwire_web::{ClientAddress, WebConfig, finish};

/// The file of the accounts beside the embedded engine's.
const FILE: &str = "identity.db";
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What the service is to know; `key` is published beside its own.
pub(crate) fn config(config: &Config, key: Option<&DevelopmentKey>) -> IdentityConfig {
    let database = match &config.engine.archive {
        ArchiveUrl::Sqlite => Database::Sqlite(config.data_dir.join(FILE)),
        ArchiveUrl::Postgres(url) => Database::Postgres(url.clone()),
    };
    let values = config.identity.clone();
    let mailer = || Arc::new(LogMailer) as Arc<dyn Mailer>;
    IdentityConfig {
        key_ring: values.key_ring,
        issuer: config.auth.issuer.clone(),
        audience: config.auth.audience.clone(),
        public_url: values.public_url,
        algorithm: values.algorithm,
        rotate_every: values.rotate_every,
        access_ttl: values.access_ttl,
        refresh_ttl: values.refresh_ttl,
        hash_places: values.hash_places,
        registration: values.registration,
        publish: values.publish,
        subscribe: values.subscribe,
        providers: values.providers,
        return_urls: values.return_urls,
        also_published: key.map(DevelopmentKey::jwks),
        mailer: values.mail_to_log.then(mailer),
        ..IdentityConfig::new(database, config.data_dir.clone())
    }
}

/// The service inside the embedded server, unless accounts are somebody else's.
pub(super) fn embedded(
    values: &Config,
    key: Option<&DevelopmentKey>,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<Option<Identity>, Failure> {
    if values.identity.url != IdentityUrl::Own || values.auth.jwks.is_some() {
        return Ok(None);
    }
    Identity::start(config(values, key), Arc::clone(clock), tasks)
        .map(Some)
        .map_err(Failure::unavailable)
}

/// The role of a cluster.
pub(crate) async fn run(values: &Config) -> Result<(), Failure> {
    if values.engine.archive == ArchiveUrl::Sqlite {
        return Err(Failure::usage(
            "stormwire identity needs a database that processes share: expected archive.url = \"postgres://…\" (DATABASE_URL); in one process `stormwire` alone keeps accounts as well",
        ));
    }
    if values.profile == Profile::Production && values.identity.key_ring.is_none() {
        return Err(Failure::usage(
            "identity.key_ring is empty: production expects the file with the keys that every identity process shares (docs/identity.md)",
        ));
    }
    let process = Process::start(values, "identity")?;
    let listener = bind("listen", values.listen)?;
    data_dir(values)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let key = development_key(values)?;
    let identity =
        Identity::start(config(values, key.as_ref()), Arc::clone(&clock), &process.tasks);
    let identity = identity.map_err(Failure::unavailable)?;
    let mut engines = Engines::new(values.engine.clone(), Arc::clone(&clock));
    let limiter = engines.limiter().await.map_err(Failure::unavailable)?;
    let keys = KeySource::Watched(identity.jwks());
    let feed = Arc::new(identity.clone()) as Arc<dyn RevocationFeed>;
    let callers =
        callers(values, limiter, (keys, Some(feed), Namespaces::default()), &process.tasks, &clock)
            .await?;
    let probes = management::identity_routes(&identity, process.tasks.token());
    let web =
        WebConfig { cors_origins: values.gateway.cors_origins.clone(), ..WebConfig::default() };
    let routes = identity.routes(callers).merge(identity.internal_routes()).merge(probes.clone());
    let routes = finish(routes, &web);
    let routes = routes.layer(from_fn(client_address));
    let own = finish(management::with_metrics(probes), &WebConfig::default());
    management::serve_if_set(values, &process.tasks, own).await?;
    let teller = Teller {
        process: gateway_name(values),
        role: "identity",
        partitions: values.partitions,
        signals: engines.signals().await.map_err(Failure::unavailable)?,
        clock,
    };
    teller.start(&process.tasks, || Value::Null);
    output::line(format!("stormwire identity listens on http://{}", address(&listener)?))?;
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let stop = process.tasks.token().cancelled_owned();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop).await;
    engines.close().await;
    process.end().await;
    served.map_err(|error| Failure::failed(format!("the listener failed: {error}")))
}

/// Tells the handlers where a request came from: what a gateway says, if it was sent from inside.
async fn client_address(mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied()
    {
        let peer = peer.ip().to_canonical();
        let said = request.headers().get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
        // The last one was added by whoever sent this request; those before it by anybody.
        let said = said.and_then(|said| said.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
        let address = if is_inside(peer) { said.unwrap_or(peer) } else { peer };
        request.extensions_mut().insert(ClientAddress(address));
    }
    next.run(request).await
}

/// Addresses that nobody has on the public network.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inside_addresses_speak_for_others() {
        for inside in ["127.0.0.1", "10.1.2.3", "172.16.0.9", "192.168.1.1", "::1", "fd00::1"] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.2.7", "172.32.0.1", "8.8.8.8", "2001:db8::1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
