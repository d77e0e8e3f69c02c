//! Connections of its own: just enough of RFC 6455 and of HTTP to publish and to read answers.
//!
//! Frames go out masked with zero, which leaves the text as it is, so that a message is made once and
//! only its numbers change.

use crate::dialect::Dialect;
use crate::{Failure, Outcome};
use bytes::{Buf as _, BufMut as _, BytesMut};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const FINAL: u8 = 0x80;
pub(crate) const MASKED: u8 = 0x80;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// An answer longer than this is none of ours.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    dialect: Dialect,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Socket {
    /// Connects, from `source` if one is given, and shakes hands.
    pub(crate) async fn open(
        address: SocketAddr,
        source: Option<Ipv4Addr>,
        dialect: Dialect,
    ) -> Outcome<Self> {
        let connecting = || format!("connecting to {address}");
        let socket = TcpSocket::new_v4().map_err(Failure::doing(connecting()))?;
        if let Some(source) = source {
            socket
                .bind(SocketAddr::from((source, 0)))
                .map_err(Failure::doing(format!("binding to {source}")))?;
        }
        let mut stream = socket.connect(address).await.map_err(Failure::doing(connecting()))?;
        stream.set_nodelay(true).map_err(Failure::doing("setting TCP_NODELAY"))?;
        let incoming = match dialect.upgrade() {
            Some((path, subprotocol)) => upgrade(&mut stream, address, path, subprotocol).await?,
            None => BytesMut::new(),
        };
        Ok(Self { stream, dialect, incoming, outgoing: BytesMut::new() })
    }

    /// Greets and waits to be greeted.
    pub(crate) async fn greet(&mut self, token: &str) -> Outcome {
        let hello = self.dialect.hello(token);
        if hello.is_empty() {
            return Ok(());
        }
        self.push(hello.as_bytes());
        self.expect(self.dialect.marks().connected).await
    }

    /// Subscribes and waits for the answer.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Outcome {
        let subscribe = self.dialect.subscribe(channel);
        self.push(subscribe.as_bytes());
        self.expect(self.dialect.marks().subscribed).await
    }

    /// Writes what was pushed and waits for a message with `mark`.
    pub(crate) async fn expect(&mut self, mark: &str) -> Outcome {
        let refused = self.dialect.marks().refused;
        self.flush().await?;
        loop {
            while let Some(text) = self.next_message()? {
                if memchr::memmem::find(&text, refused.as_bytes()).is_some() {
                    let answer = String::from_utf8_lossy(&text).into_owned();
                    return Err(Failure::of(format!("the server refused: {answer}")));
                }
                if memchr::memmem::find(&text, mark.as_bytes()).is_some() {
                    return Ok(());
                }
            }
            // An answer to a question of the server's may have been queued meanwhile.
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// The stream, and what has come on it and was not read.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.incoming)
    }

    /// Adds a message to what goes out with the next [`Self::flush`].
    pub(crate) fn push(&mut self, message: &[u8]) {
        if self.dialect.upgrade().is_some() {
            let kind = if self.dialect.is_text() { TEXT } else { BINARY };
            header(&mut self.outgoing, kind, message.len());
        }
        self.outgoing.extend_from_slice(message);
    }

    /// Writes what was pushed.
    pub(crate) async fn flush(&mut self) -> Outcome {
        while !self.outgoing.is_empty() {
            self.stream
                .write_buf(&mut self.outgoing)
                .await
                .map_err(Failure::doing("writing to the server"))?;
        }
        Ok(())
    }

    /// Whether something waits to be written.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what has come; safe to cancel.
    pub(crate) async fn fill(&mut self) -> Outcome {
        if self.incoming.capacity() - self.incoming.len() < 4096 {
            self.incoming.reserve(64 * 1024);
        }
        match self.stream.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Failure::of("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::doing("reading from the server")(error)),
        }
    }

    /// Hands over the next whole message, if there is one; questions whether we live are answered on
    /// the way. Such a message is handed over too: NATS puts events behind its question.
    pub(crate) fn next_message(&mut self) -> Outcome<Option<BytesMut>> {
        if self.dialect.upgrade().is_none() {
            return Ok(answer(&self.incoming)?.map(|length| self.incoming.split_to(length)));
        }
        while let Some((kind, head, length)) = parse(&self.incoming)? {
            if self.incoming.len() < head + length {
                break;
            }
            self.incoming.advance(head);
            let payload = self.incoming.split_to(length);
            match kind {
                TEXT | BINARY => {
                    if let Some(answer) = self.dialect.alive(&payload) {
                        self.push(answer);
                    }
                    return Ok(Some(payload));
                }
                PING => {
                    header(&mut self.outgoing, PONG, payload.len());
                    self.outgoing.extend_from_slice(&payload);
                }
                CLOSE => return Err(closed(&payload)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The server's reason in a close frame.
pub(crate) fn closed(payload: &[u8]) -> Failure {
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    Failure::of(format!("the server closed: {reason}"))
}

async fn upgrade(
    stream: &mut TcpStream,
    address: SocketAddr,
    path: &str,
    subprotocol: Option<&str>,
) -> Outcome<BytesMut> {
    let subprotocol =
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    let question = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3Rvcm13aXJlLWxvYWQtMQ==\r\n\
         {subprotocol}\r\n"
    );
    stream.write_all(question.as_bytes()).await.map_err(Failure::doing("the handshake"))?;
    let mut incoming = BytesMut::with_capacity(1024);
    let end = loop {
        if stream.read_buf(&mut incoming).await.map_err(Failure::doing("the handshake"))? == 0 {
            return Err(Failure::of("the server closed the connection in the handshake"));
        }
        if let Some(at) = memchr::memmem::find(&incoming, b"\r\n\r\n") {
            break at + 4;
        }
    };
    if !incoming.starts_with(b"HTTP/1.1 101") {
        let answer = String::from_utf8_lossy(&incoming).into_owned();
        return Err(Failure::of(format!("the server refused the handshake: {answer}")));
    }
    incoming.advance(end);
    Ok(incoming)
}

/// Length of the first HTTP answer, once it is whole.
fn answer(bytes: &[u8]) -> Outcome<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Failure::of(format!("an answer without a length: {head}")))?;
    let whole = end + 4 + length;
    Ok((bytes.len() >= whole).then_some(whole))
}

/// A frame's header in its shortest form.
pub(crate) fn header(out: &mut BytesMut, kind: u8, length: usize) {
    out.put_u8(FINAL | kind);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.put_u8(MASKED | short),
        (_, Ok(medium)) => {
            out.put_u8(MASKED | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(MASKED | 127);
            out.put_u64(length as u64);
        }
    }
    out.put_u32(0);
}

/// Kind, length of the header and length of the payload of a server's frame.
pub(crate) fn parse(bytes: &[u8]) -> Outcome<Option<(u8, usize, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & FINAL == 0 || second & MASKED != 0 {
        return Err(Failure::of("a fragmented or masked frame came from the server"));
    }
    let (head, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (10, usize::try_from(length).unwrap_or(usize::MAX))
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, usize::from(*short)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(Failure::of(format!("the server announced a message of {length} bytes")));
    }
    Ok(Some((first & 0x0f, head, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_behind_a_question_whether_we_live_are_not_lost() {
        let server = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let message = b"PING\r\nMSG bench:0 1 2\r\nxx\r\n";
        let length = u8::try_from(message.len()).unwrap();
        let mut incoming = BytesMut::from(&[FINAL | BINARY, length][..]);
        incoming.extend_from_slice(message);
        let dialect = Dialect::Nats;
        let mut socket = Socket { stream, dialect, incoming, outgoing: BytesMut::new() };
        assert_eq!(socket.next_message().unwrap().unwrap(), message[..]);
        assert!(socket.outgoing.ends_with(b"PONG\r\n"), "the question is answered");
    }

    #[test]
    fn a_header_has_its_shortest_form() {
        for (length, expected) in [(5, 2 + 4), (125, 2 + 4), (126, 4 + 4), (65_536, 10 + 4)] {
            let mut out = BytesMut::new();
            header(&mut out, TEXT, length);
            assert_eq!(out.len(), expected, "{length}");
        }
    }

    #[test]
    fn a_header_is_read_when_it_is_whole() {
        assert_eq!(parse(&[0x81]).unwrap(), None);
        assert_eq!(parse(&[0x81, 3]).unwrap(), Some((TEXT, 2, 3)));
        assert_eq!(parse(&[0x81, 126, 1]).unwrap(), None);
        assert_eq!(parse(&[0x81, 126, 1, 0]).unwrap(), Some((TEXT, 4, 256)));
        assert_eq!(parse(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap(), Some((2, 10, 65_536)));
        assert!(parse(&[0x01, 3]).is_err(), "a fragment");
        assert!(parse(&[0x81, 0x83]).is_err(), "a mask");
        assert!(parse(&[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]).is_err(), "too long");
    }

    #[test]
    fn an_http_answer_ends_with_its_body() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP";
        assert_eq!(answer(text).unwrap(), Some(text.len() - 4));
        assert_eq!(answer(&text[..20]).unwrap(), None);
        assert_eq!(answer(&text[..text.len() - 5]).unwrap(), None);
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
