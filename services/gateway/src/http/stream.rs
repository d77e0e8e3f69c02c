//! Server-Sent Events: a reader that asks for page after page, at its own pace.
//!
//! A stream holds one page at most, so a client that does not read costs a position and a page. It ends
//! when its token does or when the gateway goes away; the client comes back with `Last-Event-ID`.

use super::HttpState;
use super::events::PAGE_BYTES;
use super::watch::Watch;
use crate::reader::Page;
use crate::render;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::header;
use std::convert::Infallible;
use std::time::Duration;
use stormwire_core::{Channel, Position, Refusal};
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
    channel: Channel,
    at: Position,
    watch: Watch,
    /// When the token ends.
    until: Instant,
    begun: bool,
}

/// The stream of `channel`'s events after `after`, or from now on.
pub(super) async fn events(
    state: &HttpState,
    caller: &Caller,
    channel: Channel,
    after: Option<Position>,
) -> Result<Response, Refusal> {
    let at = match after {
        Some(after) => after,
        None => state.reader.tip(&channel).await?,
    };
    let left = caller.claims.expires.since(state.clock.now());
    let watch = Watch::new(state.hub.feed(&channel));
    let reading = Reading {
        state: state.clone(),
        channel,
        at,
        watch,
        until: Instant::now() + left,
        begun: false,
    };
    let chunks = stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        let (chunk, goes_on) = reading.next().await;
        Some((Ok::<_, Infallible>(chunk), goes_on.then_some(reading)))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

impl Reading {
    /// What is sent next, and whether something follows.
    async fn next(&mut self) -> (Bytes, bool) {
        if !self.begun {
            self.begun = true;
            return (Bytes::from(format!("retry: {RECONNECT_MS}\n: {}\n\n", self.at)), true);
        }
        let quiet = Instant::now() + SILENCE_MAX;
        loop {
            if self.state.draining.is_cancelled() || Instant::now() >= self.until {
                return (Bytes::from_static(b": the stream ends here; connect again\n\n"), false);
            }
            self.watch.mark();
            let page =
                self.state.reader.after(&self.channel, self.at, PAGE_EVENTS, PAGE_BYTES).await;
            let page = match page {
                Ok(page) => page,
                Err(refusal) => return (failed(&refusal), false),
            };
            let more = page.more;
            let chunk = self.render(page);
            if !chunk.is_empty() {
                return (chunk, true);
            }
            let until = quiet.min(self.until);
            if !more
                && !self.watch.moved(until, &self.state.draining).await
                && Instant::now() >= quiet
            {
                return (Bytes::from_static(b":\n\n"), true);
            }
        }
    }

    fn render(&mut self, page: Page) -> Bytes {
        let partition = self.channel.partition(self.state.partitions);
        let mut out = BytesMut::new();
        for (from, to) in &page.gaps {
            let data = format!("{{\"from\":\"{from}\",\"to\":\"{to}\"}}");
            field(&mut out, Some(*to), Some("gap"), data.as_bytes());
        }
        for event in &page.events {
            let mut encoder = EventsEncoder::new(Codec::Json, partition, event.position.epoch);
            encoder.push(&render::out_event(event));
            field(&mut out, Some(event.position), None, &encoder.fragments());
        }
        let last = page.events.last().map(|event| event.position);
        self.at = self.at.max(page.next.or(last).unwrap_or(self.at));
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
fn field(out: &mut BytesMut, id: Option<Position>, name: Option<&str>, data: &[u8]) {
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
