//! `GET /v1/ws`: accepts a WebSocket and runs its connection.

use crate::listener::PeerAddress;
use crate::session::{Accepted, Session, SessionContext};
use crate::socket::{self, Happening, Socket};
use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::{HeaderMap, header};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_web::Problem;
use stormwire_wire::frame::TraceContext;
use stormwire_wire::protocol::Codec;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct WsState {
    context: Arc<SessionContext>,
    draining: CancellationToken,
}

pub(crate) fn router(context: Arc<SessionContext>, draining: CancellationToken) -> Router {
    Router::new().route("/v1/ws", any(upgrade)).with_state(WsState { context, draining })
}

async fn upgrade(
    State(state): State<WsState>,
    ConnectInfo(PeerAddress(peer)): ConnectInfo<PeerAddress>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let ip = state.context.config.trusted_proxies.client(peer.ip(), &headers);
    let place = has_room(&state).and_then(|()| state.context.limits.connect(ip));
    let place = match place {
        Ok(place) => place,
        Err(refusal) => return Problem::from(refusal).into_response(),
    };
    let message_bytes_max = state.context.config.message_bytes_max;
    let upgrade =
        socket::configure(upgrade, message_bytes_max).protocols(Codec::ALL.map(Codec::subprotocol));
    let chosen = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let accepted = Accepted {
        ip,
        codec: chosen.and_then(Codec::from_subprotocol).unwrap_or_default(),
        token: bearer(&headers),
        trace: header_text(&headers, "traceparent").and_then(TraceContext::parse),
        place,
    };
    upgrade.on_upgrade(move |ws| {
        // A task of its own: this one keeps the room that accepting took until it ends.
        tokio::spawn(run(ws, state.context, accepted));
        std::future::ready(())
    })
}

fn has_room(state: &WsState) -> Result<(), Refusal> {
    if state.draining.is_cancelled() {
        let message = "this server is going away; connect again, another one answers";
        return Err(
            Refusal::new(ErrorCode::ShuttingDown, message).retry_after(Duration::from_secs(1))
        );
    }
    let max = state.context.config.connections_max;
    if state.context.connections.len() >= max {
        let message = format!("this server holds {max} connections, as many as it may");
        return Err(
            Refusal::new(ErrorCode::Overloaded, message).retry_after(Duration::from_secs(5))
        );
    }
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Option<Box<str>> {
    let value = header_text(headers, header::AUTHORIZATION.as_str())?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().into())
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// One connection, from its acceptance to its end.
fn run(
    ws: WebSocket,
    context: Arc<SessionContext>,
    accepted: Accepted,
) -> impl Future<Output = ()> + Send {
    // Made before the task, which would keep room for what they are made of.
    let mut socket = Socket::new(ws, context.config.queue_bytes);
    socket.outbox().set_codec(accepted.codec);
    let mut session = Session::new(context, accepted, Arc::clone(socket.outbox()));
    async move {
        Box::pin(session.sign_in_by_header()).await;
        socket.wake_at(Some(session.deadline()));
        loop {
            match socket.next(session.may_read()).await {
                None => session.refill(socket.take_parked()),
                Some(Happening::Text(text)) => session.on_text(&text).await,
                Some(Happening::Binary(bytes)) => session.on_binary(&bytes).await,
                Some(Happening::Timer) => session.on_deadline(),
                Some(Happening::Ended) => return,
            }
            if session.take_deadline_changed() {
                socket.wake_at(Some(session.deadline()));
            }
        }
    }
}
