//! A WebSocket of its own: just enough of RFC 6455 to publish and to read answers.
//!
//! Frames go out masked with zero, which leaves the text as it is, so that a message is made once and
//! only its numbers change.

use crate::{Failure, Outcome};
use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
pub(crate) const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// An answer longer than this is none of ours.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Socket {
    /// Opens `ws://address/v1/ws`.
    pub(crate) async fn open(address: &str) -> Outcome<Self> {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(Failure::doing(format!("connecting to {address}")))?;
        stream.set_nodelay(true).map_err(Failure::doing("setting TCP_NODELAY"))?;
        let question = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3Rvcm13aXJlLWxvYWQtMQ==\r\n\
             Sec-WebSocket-Protocol: stormwire.v1.json\r\n\r\n"
        );
        stream.write_all(question.as_bytes()).await.map_err(Failure::doing("the handshake"))?;
        let mut incoming = BytesMut::with_capacity(64 * 1024);
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
        Ok(Self { stream, incoming, outgoing: BytesMut::with_capacity(256 * 1024) })
    }

    /// Adds a text message to what goes out with the next [`Self::flush`].
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum();
        header(&mut self.outgoing, TEXT, length);
        for part in parts {
            self.outgoing.extend_from_slice(part);
        }
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
        match self.stream.read_buf(&mut self.incoming).await {
            Ok(0) => Err(Failure::of("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::doing("reading from the server")(error)),
        }
    }

    /// Hands over the next whole text message, if there is one; pings are answered on the way.
    pub(crate) fn next_text(&mut self) -> Outcome<Option<BytesMut>> {
        while let Some((kind, head, length)) = parse(&self.incoming)? {
            if self.incoming.len() < head + length {
                break;
            }
            self.incoming.advance(head);
            let payload = self.incoming.split_to(length);
            match kind {
                TEXT => return Ok(Some(payload)),
                PING => {
                    header(&mut self.outgoing, PONG, payload.len());
                    self.outgoing.extend_from_slice(&payload);
                }
                CLOSE => {
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    return Err(Failure::of(format!("the server closed: {reason}")));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A frame's header in its shortest form.
fn header(out: &mut BytesMut, kind: u8, length: usize) {
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
fn parse(bytes: &[u8]) -> Outcome<Option<(u8, usize, usize)>> {
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
}
