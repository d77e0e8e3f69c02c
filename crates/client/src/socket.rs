//! An open connection of either kind: messages of the protocol in and out.

use crate::over_http::HttpLink;
use crate::status::Transport;
use futures::{Sink, Stream};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// An open connection.
pub(crate) enum Socket {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Http(HttpLink),
}

impl Socket {
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Http(_) => Transport::Http,
        }
    }
}

impl Stream for Socket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self {
            Self::WebSocket(socket) => Pin::new(socket).poll_next(context),
            Self::Http(link) => Pin::new(&mut link.messages).poll_next(context),
        }
    }
}

impl Sink<Message> for Socket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut *self {
            Self::WebSocket(socket) => Pin::new(socket).poll_ready(context),
            Self::Http(link) => Pin::new(&mut link.requests).poll_ready(context).map_err(over),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match &mut *self {
            Self::WebSocket(socket) => Pin::new(socket).start_send(message),
            Self::Http(link) => Pin::new(&mut link.requests).start_send(message).map_err(over),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut *self {
            Self::WebSocket(socket) => Pin::new(socket).poll_flush(context),
            Self::Http(link) => Pin::new(&mut link.requests).poll_flush(context).map_err(over),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut *self {
            Self::WebSocket(socket) => Pin::new(socket).poll_close(context),
            Self::Http(link) => Pin::new(&mut link.requests).poll_close(context).map_err(over),
        }
    }
}

/// The other half has gone: why, it has said among the messages.
fn over(_: futures::channel::mpsc::SendError) -> Error {
    Error::AlreadyClosed
}
