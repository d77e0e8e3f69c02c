//! The REST surface: publish, pages, streams, channels, and what operators ask for.
//!
//! Every handler takes the part of [`HttpState`] that it needs, answers refusals by `?` as problems, and
//! is described beside its code for `/v1/openapi.json`.

use crate::connections::{Connections, RegisteredStream};
use crate::gateway::Gateway;
use crate::health::{self, Health};
use crate::hub::Hub;
use crate::ingest::Ingest;
use crate::listener::PeerAddress;
use crate::presence::Rooms;
use crate::reader::{Reader, Who};
use crate::receipts::Receipts;
use crate::schema::Schemas;
use crate::session::SessionContext;
use admin::AdminState;
use axum::Router;
use axum::extract::{ConnectInfo, FromRef, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_archive::Archive;
use stormwire_core::{Clock, PartitionCount, Refusal};
use stormwire_web::{Caller, CallerState, ClientAddress, TrustedProxies, WebConfig};
use stormwire_wire::protocol::MessageLimits;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

mod admin;
mod aggregate;
mod channels;
mod events;
mod latest;
mod openapi;
mod position;
mod presence;
mod publish;
mod query;
mod source;
mod stream;
mod watch;
mod wide;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) caller: CallerState,
    pub(crate) ingest: Ingest,
    pub(crate) hub: Arc<Hub>,
    pub(crate) rooms: Rooms,
    pub(crate) schemas: Schemas,
    pub(crate) reader: Arc<Reader>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) partitions: PartitionCount,
    pub(crate) message: MessageLimits,
    pub(crate) connections: Arc<Connections>,
    /// Ends streams when the gateway goes away or, in what [`HttpState::lasting`] gives, when the caller
    /// is shut out.
    pub(crate) draining: CancellationToken,
    /// Numbers REST publishes among the connections of the lanes; sockets count from below.
    publishes: Arc<AtomicU64>,
}

impl HttpState {
    pub(crate) fn new(
        context: &SessionContext,
        archive: Arc<dyn Archive>,
        draining: CancellationToken,
    ) -> Self {
        let config = &context.config;
        Self {
            caller: CallerState {
                verifier: Arc::clone(&context.verifier),
                limits: Arc::clone(&context.limits),
            },
            ingest: context.ingest.clone(),
            hub: Arc::clone(&context.hub),
            rooms: context.rooms.clone(),
            schemas: context.schemas.clone(),
            reader: Arc::clone(&context.reader),
            receipts: Arc::clone(&context.receipts),
            archive,
            clock: Arc::clone(&context.clock),
            partitions: config.partitions,
            message: MessageLimits {
                message_bytes: config.message_bytes_max,
                event_bytes: config.event_bytes_max,
                ..MessageLimits::default()
            },
            connections: Arc::clone(&context.connections),
            draining,
            publishes: Arc::new(AtomicU64::new(1 << 63)),
        }
    }

    /// The state for a request that lasts: it is ended when the caller's token is revoked. Hold what comes
    /// with it for as long.
    ///
    /// # Errors
    /// `unauthenticated` if that has just happened.
    pub(crate) fn lasting(&self, caller: &Caller) -> Result<(Self, RegisteredStream), Refusal> {
        let until = self.draining.child_token();
        let held = self.connections.enter_stream(&caller.claims, until.clone());
        self.caller.verifier.check_revoked(&caller.claims)?;
        Ok((Self { draining: until, ..self.clone() }, held))
    }

    /// The same, with history read in the caller's line.
    fn read_by(mut self, caller: &Caller) -> Self {
        self.reader = self.reader.of(Who::user(&caller.claims.user));
        self
    }

    fn next_publish(&self) -> u64 {
        self.publishes.fetch_add(1, Ordering::Relaxed)
    }
}

impl FromRef<HttpState> for CallerState {
    fn from_ref(state: &HttpState) -> Self {
        state.caller.clone()
    }
}

/// Everything that clients and probes ask for over HTTP, except the WebSocket.
pub(crate) fn router(gateway: &Gateway) -> Router {
    let state =
        HttpState::new(&gateway.context, Arc::clone(&gateway.ports.archive), gateway.draining());
    let web = WebConfig {
        body_bytes_max: state.message.message_bytes,
        ..gateway.context.config.web.clone()
    };
    let (reads, read_api) = reads(state.clone()).split_for_parts();
    let (writes, write_api) = OpenApiRouter::new()
        .routes(routes!(publish::to_channel))
        .routes(routes!(publish::to_channels))
        .routes(routes!(presence::signal))
        .routes(routes!(position::put))
        .with_state(state.clone())
        .split_for_parts();
    let aggregate = aggregate::router(state.clone(), reads.clone());
    let (aggregate, aggregate_api) = aggregate.split_for_parts();
    let (probes, probe_api) = health::router(gateway.health()).split_for_parts();
    let (also, also_api) = gateway.served_as_well();
    let (admin, admin_api) = match gateway.declared() {
        Some(declared) => {
            let gateway = gateway.name().to_owned();
            admin::routes().with_state(AdminState { http: state, declared, gateway })
        }
        None => OpenApiRouter::new(),
    }
    .split_for_parts();
    let document =
        openapi::document([read_api, write_api, aggregate_api, probe_api, admin_api, also_api]);
    let routes = reads.merge(writes).merge(aggregate).merge(probes).merge(admin).merge(also);
    let routes = routes.merge(openapi::router(document)).merge(gateway.served_pages());
    let trusted = Arc::new(gateway.context.config.trusted_proxies.clone());
    stormwire_web::finish(routes, &web)
        .layer(from_fn(move |request, next| address(Arc::clone(&trusted), request, next)))
}

/// What operators and probes ask for, on a port of its own.
pub(crate) fn management_router(gateway: &Gateway) -> Router {
    let health: Health = gateway.health();
    let (probes, _) = health::router(health).split_for_parts();
    stormwire_web::finish(probes, &WebConfig::default())
}

/// The routes that only read.
fn reads(state: HttpState) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(events::page))
        .routes(routes!(latest::latest))
        .routes(routes!(channels::list))
        .routes(routes!(channels::one))
        .routes(routes!(presence::members))
        .routes(routes!(position::get))
        .with_state(state)
}

/// The whole description of the REST surface.
#[must_use]
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    openapi::document([
        OpenApiRouter::new()
            .routes(routes!(events::page))
            .routes(routes!(latest::latest))
            .routes(routes!(channels::list))
            .routes(routes!(channels::one))
            .routes(routes!(presence::members))
            .routes(routes!(position::get))
            .into_openapi(),
        OpenApiRouter::new()
            .routes(routes!(publish::to_channel))
            .routes(routes!(publish::to_channels))
            .routes(routes!(presence::signal))
            .routes(routes!(position::put))
            .into_openapi(),
        aggregate::openapi(),
        admin::routes().into_openapi(),
        health::openapi(),
    ])
}

/// Tells the handlers where a request came from.
async fn address(trusted: Arc<TrustedProxies>, mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(PeerAddress(peer))) = request.extensions().get().copied() {
        let client = trusted.client(peer.ip(), request.headers());
        request.extensions_mut().insert(ClientAddress(client));
    }
    next.run(request).await
}
