//! Echoes every message on the gateway's own socket layer, for WebSocket conformance suites:
//! `cargo run -p stormwire-gateway --example ws_echo -- 127.0.0.1:9001`.

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use stormwire_gateway::socket::{self, Happening, Socket};

/// Largest message that conformance suites send.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    #[expect(clippy::print_stdout, reason = "an example that says where it listens")]
    {
        println!("ws://{}/", listener.local_addr()?);
    }
    axum::serve(listener, Router::new().fallback(any(upgrade))).await
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    socket::configure(upgrade, MESSAGE_BYTES_MAX).on_upgrade(echo)
}

async fn echo(ws: WebSocket) {
    let mut socket = Socket::new(ws, MESSAGE_BYTES_MAX);
    loop {
        match socket.next(true).await {
            Some(Happening::Text(text)) => socket.send(Message::Text(text)),
            Some(Happening::Binary(bytes)) => socket.send(Message::Binary(bytes)),
            Some(Happening::Ended) => return,
            Some(Happening::Timer) | None => {}
        }
    }
}
