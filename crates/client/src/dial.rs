//! One attempt to connect: TCP, TLS, the upgrade, and the first answer of the server.

use crate::socket::Socket;
use crate::status::{Transport, Transports};
use crate::{ClientConfig, End, codec, over_http};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Uri, header};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{CloseCode, ErrorCode};
use stormwire_wire::protocol::{
    Codec, Connect, Connected, ErrorMessage, Operation, Request, RequestId, ServerMessage,
};
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

/// Most bytes of a message that a server may send.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read at once; events come in bulk.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Characters of a server's text that go into an error.
const EXCERPT: usize = 200;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Trying again will not help.
    #[error("{0}")]
    Final(End),
    /// The token was not accepted: a fresh one may help.
    #[error("{0}")]
    Token(End),
    /// Try again, after this time if one was named.
    #[error("{why}")]
    Later { why: String, after: Option<Duration> },
    /// As if this way did not pass.
    #[error("{0}")]
    Unreachable(String),
}

impl Refused {
    pub(crate) fn later(why: impl ToString) -> Self {
        Self::Later { why: why.to_string(), after: None }
    }
}

/// What every attempt needs.
pub(crate) struct Dialer {
    tls: Arc<rustls::ClientConfig>,
    producer: Arc<str>,
    timeout: Duration,
    codec: Codec,
    transports: Transports,
}

impl Dialer {
    /// Trusts the usual authorities and the configuration's.
    pub(crate) fn new(config: &ClientConfig, producer: Arc<str>) -> Result<Self, End> {
        let wrong = |error: rustls::Error| End::Configuration(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for root in &config.extra_roots {
            roots.add(root.clone()).map_err(wrong)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (timeout, transports) = (config.connect_timeout, config.transports);
        Ok(Self { tls: Arc::new(tls), producer, timeout, codec: config.codec, transports })
    }

    /// How messages are written on this way.
    pub(crate) const fn codec(&self, transport: Transport) -> Codec {
        match transport {
            Transport::WebSocket => self.codec,
            Transport::Http => Codec::Json,
        }
    }

    /// Connects to `url` by `transport` and signs in with `token`.
    pub(crate) async fn dial(
        &self,
        url: &Uri,
        token: String,
        transport: Transport,
    ) -> Result<(Socket, Connected), Refused> {
        let attempt = async {
            if transport == Transport::Http {
                let (tls, producer) = ((*self.tls).clone(), Arc::clone(&self.producer));
                let (link, connected) =
                    over_http::open(url, tls, token, producer, self.timeout).await?;
                return Ok((Socket::Http(link), connected));
            }
            let mut socket = self.upgrade(url).await?;
            let connected = self.sign_in(&mut socket, token).await?;
            Ok((socket, connected))
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
            Err(Refused::Unreachable(format!("no answer within {:?}", self.timeout)))
        })
    }

    async fn upgrade(&self, url: &Uri) -> Result<Socket, Refused> {
        let mut request = url.clone().into_client_request().map_err(Refused::later)?;
        let protocol = HeaderValue::from_static(self.codec.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = Connector::Rustls(Arc::clone(&self.tls));
        let open = tokio_tungstenite::connect_async_tls_with_config(
            request,
            Some(config),
            true,
            Some(connector),
        );
        match Box::pin(open).await {
            Ok((socket, _)) => Ok(Socket::WebSocket(Box::new(socket))),
            Err(tungstenite::Error::Http(response)) => Err(match by_status(url, &response) {
                // What stands in between and knows no WebSocket says so in many ways.
                Refused::Final(end) if self.transports == Transports::Any => {
                    Refused::Unreachable(end.to_string())
                }
                refused => refused,
            }),
            Err(error) => Err(Refused::Unreachable(error.to_string())),
        }
    }

    async fn sign_in(&self, socket: &mut Socket, token: String) -> Result<Connected, Refused> {
        let connect =
            Connect { token: Some(token.into()), producer: Some(Arc::clone(&self.producer)) };
        let request = Request { id: Some(RequestId::Number(0)), op: Operation::Connect(connect) };
        socket.send(codec::message(self.codec, &request)).await.map_err(Refused::later)?;
        let mut told = None;
        loop {
            let message = match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return Err(by_close(frame.as_ref(), told.as_ref()));
                }
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(Refused::later(error)),
                None => return Err(Refused::later("the server hung up")),
            };
            for message in codec::read(&message).map_err(Refused::later)? {
                match message {
                    ServerMessage::Connected(connected) => return Ok(connected),
                    ServerMessage::Error(error) => told = Some(error),
                    _ => {}
                }
            }
        }
    }
}

/// The URL of the socket behind what a person wrote.
pub(crate) fn socket_url(text: &str) -> Result<Uri, End> {
    let wrong = |why: &str| {
        End::Configuration(format!(
            "{text:?} is not a URL of a gateway, such as wss://events.example or http://127.0.0.1:8080: {why}"
        ))
    };
    let uri: Uri =
        text.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
    let mut parts = uri.into_parts();
    let scheme = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
        Some("ws" | "http") => "ws",
        Some("wss" | "https") => "wss",
        _ => return Err(wrong("it begins with ws://, wss://, http:// or https://")),
    };
    parts.scheme = scheme.parse().ok();
    if parts.path_and_query.as_ref().is_none_or(|path| path.path() == "/") {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/v1/ws"));
    }
    Uri::from_parts(parts).map_err(|error| wrong(&error.to_string()))
}

fn by_status(url: &Uri, response: &http::Response<Option<Vec<u8>>>) -> Refused {
    let status = response.status().as_u16();
    let body = response.body().as_deref().unwrap_or_default();
    let body: String = String::from_utf8_lossy(body).chars().take(EXCERPT).collect();
    let end = End::Http { url: url.to_string(), status, body };
    match status {
        401 => Refused::Token(end),
        408 | 425 | 429 | 500.. => {
            let seconds = response.headers().get(header::RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
            Refused::Later { why: end.to_string(), after: seconds.map(Duration::from_secs) }
        }
        _ => Refused::Final(end),
    }
}

/// What a close means for coming back; `told` is the error that the server sent before it.
pub(crate) fn by_close(frame: Option<&CloseFrame>, told: Option<&ErrorMessage>) -> Refused {
    let Some(frame) = frame else { return Refused::later("the server hung up") };
    let code = u16::from(frame.code);
    let reason = match told {
        Some(error) => format!("{}: {}", error.code, error.message),
        None => frame.reason.as_str().to_owned(),
    };
    let end = End::Server { code, reason };
    let expired = told.and_then(ErrorMessage::known) == Some(ErrorCode::TokenExpired);
    match CloseCode::from_number(code) {
        Some(CloseCode::Unauthenticated) => Refused::Token(end),
        _ if expired => Refused::Token(end),
        Some(code) if !code.come_back() && code != CloseCode::Normal => Refused::Final(end),
        // A number that this program does not know, and a server that ended normally, are no reason
        // to stay away.
        _ => {
            Refused::Later { why: end.to_string(), after: told.and_then(|error| error.retry_after) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_the_sockets_path_and_scheme() {
        for (written, meant) in [
            ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/ws"),
            ("https://events.example/", "wss://events.example/v1/ws"),
            ("wss://events.example/edge/ws", "wss://events.example/edge/ws"),
        ] {
            assert_eq!(socket_url(written).unwrap().to_string(), meant);
        }
        for bad in ["", "127.0.0.1:8080", "nats://a", "http://", "ws://a b"] {
            assert!(matches!(socket_url(bad), Err(End::Configuration(_))), "{bad}");
        }
    }

    #[test]
    fn only_what_may_change_by_itself_is_tried_again() {
        let close = |code: u16| CloseFrame { code: code.into(), reason: "why".into() };
        for code in [1001, 1011, 1013, 4408, 4429, 4499] {
            assert!(matches!(by_close(Some(&close(code)), None), Refused::Later { .. }), "{code}");
        }
        for code in [4400, 4403, 4409, 4413] {
            assert!(matches!(by_close(Some(&close(code)), None), Refused::Final(_)), "{code}");
        }
        assert!(matches!(by_close(Some(&close(4401)), None), Refused::Token(_)));
        assert!(matches!(by_close(None, None), Refused::Later { .. }));
        let url = Uri::from_static("ws://a/v1/ws");
        let answer = |status: u16| {
            let answer = http::Response::builder().status(status).header("retry-after", "7");
            by_status(&url, &answer.body(None).unwrap())
        };
        assert!(
            matches!(answer(503), Refused::Later { after: Some(after), .. } if after.as_secs() == 7)
        );
        assert!(matches!(answer(401), Refused::Token(_)));
        assert!(matches!(answer(404), Refused::Final(_)));
    }
}
