//! Server-Sent Events: a reader that asks for page after page, at its own pace.
//!
//! A stream holds one page at most, so a client that does not read costs a position and a page. It ends
//! when its token does, expired or revoked, or when the gateway goes away; the client comes back with `Last-Event-ID`.

use super::HttpState;
use super::events::PAGE_BYTES;
use super::source::{Batch, Placed, Source};
use crate::connections::RegisteredStream;
use crate::reader::Told;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::header;
use std::convert::Infallible;
use std::time::Duration;
use stormwire_core::Refusal;
use stormwire_web::Caller;
use stormwire_wire::problem::problem;
use stormwire_wire::protocol::{Codec, EventsEncoder};
use tokio::time::Instant;

/// Events of one page.
const PAGE_EVENTS: usize = 500;
/// A comment is sent when nothing else was for so long, so that the way stays open.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a browser waits before it connects again, in milliseconds.
const RECONNECT_MS: u32 = 2000;

struct Reading {
    state: HttpState,
    source: Source,
    /// When the token ends.
    until: Instant,
    begun: bool,
    _held: RegisteredStream,
}

/// The stream of what `source` gives from where it stands.
pub(super) fn events(
    state: &HttpState,
    caller: &Caller,
    held: RegisteredStream,
    source: Source,
) -> Response {
    let left = caller.claims.first_end().since(state.clock.now());
    let until = Instant::now() + left;
    let reading = Reading { state: state.clone(), source, until, begun: false, _held: held };
    let chunks = stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        let (chunk, goes_on) = reading.next().await;
        Some((Ok::<_, Infallible>(chunk), goes_on.then_some(reading)))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(chunks)).into_response()
}

impl Reading {
    /// What is sent next, and whether something follows.
    async fn next(&mut self) -> (Bytes, bool) {
        if !self.begun {
            self.begun = true;
            let place = self.source.place();
            return (Bytes::from(format!("retry: {RECONNECT_MS}\n: {place}\n\n")), true);
        }
        let quiet = Instant::now() + SILENCE_MAX;
        loop {
            if self.state.draining.is_cancelled() || Instant::now() >= self.until {
                return (Bytes::from_static(b": the stream ends here; connect again\n\n"), false);
            }
            self.source.mark();
            let batch = match self.source.read(&self.state.reader, PAGE_EVENTS, PAGE_BYTES).await {
                Ok(batch) => batch,
                Err(refusal) => return (failed(&refusal), false),
            };
            if !batch.told.is_empty() {
                return (self.render(&batch), true);
            }
            let until = quiet.min(self.until);
            if !batch.more
                && !self.source.moved(until, &self.state).await
                && Instant::now() >= quiet
            {
                return (Bytes::from_static(b":\n\n"), true);
            }
        }
    }

    fn render(&self, batch: &Batch) -> Bytes {
        let mut out = BytesMut::new();
        for Placed { told, partition, place } in &batch.told {
            match told {
                Told::Gap(from, to) => {
                    let partition = match self.source.is_pattern() {
                        true => format!("\"partition\":{},", partition.0),
                        false => String::new(),
                    };
                    let data = format!("{{{partition}\"from\":\"{from}\",\"to\":\"{to}\"}}");
                    field(&mut out, Some(place), Some("gap"), data.as_bytes());
                }
                Told::Event(event) => {
                    let partition = event.channel.partition(self.state.partitions);
                    let epoch = event.position.epoch;
                    let mut encoder = EventsEncoder::new(Codec::Json, partition, epoch);
                    self.source.push(&mut encoder, event);
                    field(&mut out, Some(place), None, &encoder.fragments());
                }
            }
        }
        out.freeze()
    }
}

fn failed(refusal: &Refusal) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, None, Some("error"), &problem(refusal, ""));
    out.freeze()
}

/// One event of the stream. A line break within the data, which JSON may have between its tokens, begins
/// another `data:` line; the client puts them together again.
fn field(out: &mut BytesMut, id: Option<&str>, name: Option<&str>, data: &[u8]) {
    if let Some(id) = id {
        out.put_slice(format!("id: {id}\n").as_bytes());
    }
    if let Some(name) = name {
        out.put_slice(format!("event: {name}\n").as_bytes());
    }
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
}
