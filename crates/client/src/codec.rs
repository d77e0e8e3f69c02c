//! Between WebSocket messages and the protocol's types.

use crate::session::Session;
use stormwire_wire::protocol::{Codec, MessageBatch, Request, ServerMessage, json, proto, request};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// A message is closed when it has so many bytes; far below what a server takes.
const BATCH_BYTES: usize = 64 * 1024;
/// A message is closed when it has so many requests.
const BATCH_REQUESTS: usize = 256;

/// One request alone.
pub(crate) fn message(codec: Codec, one: &Request<'_>) -> Message {
    let mut batch = MessageBatch::new(codec);
    request(codec, batch.slot(), one);
    finish(codec, batch)
}

/// The session's next requests, as many as go well into one message.
pub(crate) fn batch(codec: Codec, session: &mut Session, now: Instant) -> Option<Message> {
    let mut batch = MessageBatch::new(codec);
    while batch.bytes() < BATCH_BYTES && batch.len() < BATCH_REQUESTS {
        let Some(next) = session.next_request(now) else { break };
        request(codec, batch.slot(), &next);
    }
    (!batch.is_empty()).then(|| finish(codec, batch))
}

/// The server's messages in a WebSocket message; none in one of the transport's own.
pub(crate) fn read(message: &Message) -> Result<Vec<ServerMessage<'_>>, String> {
    match message {
        Message::Text(text) => json::server_messages(text).map_err(|error| error.to_string()),
        Message::Binary(bytes) => proto::server_messages(bytes).map_err(|error| error.to_string()),
        _ => Ok(Vec::new()),
    }
}

fn finish(codec: Codec, mut batch: MessageBatch) -> Message {
    let bytes = batch.finish();
    match codec {
        Codec::Protobuf => Message::Binary(bytes),
        Codec::Json => Utf8Bytes::try_from(bytes.clone())
            .map_or_else(|_| Message::Binary(bytes), Message::Text),
    }
}
