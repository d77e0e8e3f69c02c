//! Just enough of PostgreSQL's protocol to run one statement: no client library, no client program.
//!
//! Source: PostgreSQL documentation, "Message Formats" (protocol 3.0, simple query).

use std::io::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PROTOCOL_3: i32 = 3 << 16;
/// No answer to what is asked here is longer.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Runs one statement as `postgres` in the database `postgres` and forgets its rows.
pub(super) async fn execute(port: u16, statement: &str) -> Result<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut hello = PROTOCOL_3.to_be_bytes().to_vec();
    hello.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
    send(&mut socket, None, &hello).await?;
    until_ready(&mut socket).await?;
    let query = [statement.as_bytes(), b"\0"].concat();
    send(&mut socket, Some(b'Q'), &query).await?;
    until_ready(&mut socket).await
}

async fn send(socket: &mut TcpStream, kind: Option<u8>, body: &[u8]) -> Result<()> {
    let length = i32::try_from(body.len() + 4).map_err(Error::other)?;
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    socket.write_all(&message).await
}

/// Reads on to `ReadyForQuery`; an error on the way is the outcome.
async fn until_ready(socket: &mut TcpStream) -> Result<()> {
    loop {
        let kind = socket.read_u8().await?;
        let length = usize::try_from(socket.read_i32().await?).map_err(Error::other)?;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(Error::other("not a PostgreSQL server"));
        }
        let mut body = vec![0; length - 4];
        socket.read_exact(&mut body).await?;
        match kind {
            b'Z' => return Ok(()),
            b'E' => return Err(Error::other(message_of(&body))),
            // Trust is the only way in; another would wait for a password for ever.
            b'R' if body != [0; 4] => return Err(Error::other("a password is asked for")),
            _ => {}
        }
    }
}

/// The field `M` of an `ErrorResponse`.
fn message_of(body: &[u8]) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map_or_else(|| "no message".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_an_error_is_its_field_m() {
        assert_eq!(message_of(b"SERROR\0C42P04\0Mis there\0\0"), "is there");
        assert_eq!(message_of(b"SERROR\0\0"), "no message");
    }
}
