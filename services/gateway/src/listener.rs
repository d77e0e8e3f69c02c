//! Connections of clients as they are accepted: what they send is read in large pieces, whatever reads
//! them holds little.
//!
//! A connection mostly waits, so that a read buffer of its own is the largest part of it. Instead all that
//! are read on one thread share a buffer, and only what was not asked for is kept until it is.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use bytes::{Buf as _, Bytes};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that are read at once, and at most kept of a connection that is not read on: a message of a
/// hundred events.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that the kernel holds of one connection before they are sent. Without a bound it is megabytes
/// of each peer that reads nothing.
const UNSENT_MAX: u32 = 128 * 1024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The address of the peer of an HTTP connection.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

impl Connected<IncomingStream<'_, ClientListener>> for PeerAddress {
    fn connect_info(stream: IncomingStream<'_, ClientListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A listener whose connections send small writes at once, and hold little that a peer does not take.
pub struct ClientListener(pub(crate) TcpListener);

impl axum::serve::Listener for ClientListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        // A socket that refuses the options still works, only slower, or with more memory.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
        (Connection { stream, rest: Bytes::new() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What has come and was not asked for yet.
    rest: Bytes,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wanted: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            if wanted.remaining() >= READ_BYTES {
                return Pin::new(&mut self.stream).poll_read(cx, wanted);
            }
            return SHARED.with_borrow_mut(|shared| {
                let mut came = ReadBuf::new(shared);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut came))?;
                let (now, later) =
                    came.filled().split_at(came.filled().len().min(wanted.remaining()));
                wanted.put_slice(now);
                if !later.is_empty() {
                    self.rest = Bytes::copy_from_slice(later);
                }
                Poll::Ready(Ok(()))
            });
        }
        let now = self.rest.len().min(wanted.remaining());
        wanted.put_slice(&self.rest[..now]);
        self.rest.advance(now);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::serve::Listener as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn whatever_is_sent_is_read_in_order_however_little_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let (expected, mut listener) = (sent.clone(), ClientListener(listener));
        let peer = tokio::spawn(async move {
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(&sent).await.unwrap();
        });
        let (mut connection, _) = listener.accept().await;
        let mut read = Vec::new();
        // Of every size around the shared buffer's, one after the other.
        for size in [1, 7, 1024, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES].iter().cycle() {
            let mut buffer = vec![0; *size];
            let count = connection.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..count]);
        }
        peer.await.unwrap();
        assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
        assert!(connection.rest.is_empty());
    }
}
