//! A WebSocket of a client that shares no code with the project's own, and can be cut in mid-frame.

use crate::{Failure, Outcome};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// For connecting and for the answer to `connect`.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// For handing a message to the system; a peer that takes none for so long is given up.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// A connection after its `connect`.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The server's clock at `connected`, Unix milliseconds.
    pub(crate) server_time: u64,
}

impl Socket {
    /// Connects to `127.0.0.1:port` and signs in.
    pub(crate) async fn open(port: u16, token: &str, producer: Option<&str>) -> Outcome<Self> {
        let opening = Box::pin(Self::try_open(port, token, producer));
        tokio::time::timeout(OPEN_WITHIN, opening)
            .await
            .map_err(|_| Failure::of("no connection within 10 s"))?
    }

    async fn try_open(port: u16, token: &str, producer: Option<&str>) -> Outcome<Self> {
        let tcp =
            TcpStream::connect(("127.0.0.1", port)).await.map_err(Failure::doing("dialling"))?;
        let _ = tcp.set_nodelay(true);
        let mut request = format!("ws://127.0.0.1:{port}/v1/ws")
            .into_client_request()
            .map_err(Failure::doing("the request"))?;
        let protocol = tokio_tungstenite::tungstenite::http::HeaderValue::from_static;
        request.headers_mut().insert("sec-websocket-protocol", protocol("stormwire.v1.json"));
        let (stream, _) = tokio_tungstenite::client_async(request, tcp)
            .await
            .map_err(Failure::doing("the handshake"))?;
        let mut socket = Self { stream, server_time: 0 };
        let mut connect = json!({"op": "connect", "id": 0, "token": token});
        if let Some(producer) = producer {
            connect["producer"] = producer.into();
        }
        socket.send(connect.to_string()).await?;
        let answer = socket.next().await?.into_iter().next().unwrap_or_default();
        if answer["op"] != "connected" {
            return Err(Failure::of(format!("instead of connected: {answer}")));
        }
        socket.server_time = answer["server_time"].as_u64().unwrap_or_default();
        Ok(socket)
    }

    pub(crate) async fn send(&mut self, text: String) -> Outcome {
        tokio::time::timeout(SEND_WITHIN, self.stream.send(Message::text(text)))
            .await
            .map_err(|_| Failure::of("the server does not read"))?
            .map_err(Failure::doing("sending"))
    }

    /// The operations of the next message; safe to cancel. An end of the connection is a failure.
    pub(crate) async fn next(&mut self) -> Outcome<Vec<Value>> {
        loop {
            let message = match self.stream.next().await {
                Some(message) => message.map_err(Failure::doing("receiving"))?,
                None => return Err(Failure::of("the connection was closed")),
            };
            match message {
                Message::Text(text) => {
                    let parsed =
                        serde_json::from_str(&text).map_err(Failure::doing("a message"))?;
                    return Ok(match parsed {
                        Value::Array(messages) => messages,
                        one => vec![one],
                    });
                }
                Message::Close(frame) => {
                    return Err(Failure::of(format!("closed: {frame:?}")));
                }
                _ => {}
            }
        }
    }

    /// Writes the first half of a text message's frame and resets the connection.
    pub(crate) async fn cut_in(mut self, text: &str) {
        const TEXT_FINAL: u8 = 0x81;
        const MASKED_16_BIT_LENGTH: u8 = 0x80 | 126;
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut frame = vec![TEXT_FINAL, MASKED_16_BIT_LENGTH, length[0], length[1], 0, 0, 0, 0];
        frame.extend_from_slice(&text.as_bytes()[..text.len() / 2]);
        let tcp = self.stream.get_mut();
        let _ = tokio::time::timeout(SEND_WITHIN, tcp.write_all(&frame)).await;
        self.reset();
    }

    /// Ends the connection as a broken network does.
    pub(crate) fn reset(mut self) {
        let _ = self.stream.get_mut().set_zero_linger();
    }
}
