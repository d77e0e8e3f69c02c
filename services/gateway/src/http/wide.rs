//! Pages, long polls and streams of all channels that a pattern matches.

use super::events::PAGE_BYTES;
use super::query::{Parameters, parse_cursor};
use super::source::{Batch, Placed, Source};
use super::{HttpState, stream};
use crate::connections::RegisteredStream;
use crate::reader::Told;
use axum::response::Response;
use bytes::Bytes;
use std::time::Duration;
use stormwire_core::{Epoch, Partition, Pattern, Refusal};
use stormwire_tokens::{Action, Target};
use stormwire_web::{Caller, json};
use stormwire_wire::protocol::{Codec, EventsEncoder};
use tokio::time::Instant;

/// What is asked for beside the pattern.
pub(super) struct Request<'a> {
    pub(super) is_stream: bool,
    /// The place of the last event that a browser saw.
    pub(super) last_seen: Option<&'a str>,
    pub(super) parameters: &'a Parameters,
}

/// Answers it.
pub(super) async fn events(
    state: &HttpState,
    caller: &Caller,
    held: RegisteredStream,
    pattern: &Pattern,
    request: &Request<'_>,
) -> Result<Response, Refusal> {
    let after = match request.last_seen {
        Some(text) => Some(("Last-Event-ID", parse_cursor("Last-Event-ID", text)?)),
        None => request.parameters.cursor("after")?.map(|cursor| ("after", cursor)),
    };
    let action = if request.is_stream { Action::Subscribe } else { Action::History };
    caller.claims.require(action, Target::Pattern(pattern))?;
    if request.is_stream {
        let source = Source::pattern(state, pattern, after).await?;
        return Ok(stream::events(state, caller, held, source));
    }
    if request.parameters.text("before").is_some() {
        let problem = "belongs to a channel; a pattern is read after a cursor";
        return Err(Refusal::invalid_field("before", problem));
    }
    let limit = request.parameters.limit()?;
    let wait = request.parameters.wait()?.unwrap_or(Duration::ZERO);
    let mut source = Source::pattern(state, pattern, after).await?;
    let batch = poll(state, &mut source, limit, Instant::now() + wait).await?;
    Ok(json(encode(&source, &pattern.to_string(), &batch)))
}

/// Something to tell, waiting for it until `deadline`.
async fn poll(
    state: &HttpState,
    source: &mut Source,
    limit: usize,
    deadline: Instant,
) -> Result<Batch, Refusal> {
    loop {
        source.mark();
        let batch = source.read(&state.reader, limit, PAGE_BYTES).await?;
        if !batch.told.is_empty() || (!batch.more && !source.moved(deadline, state).await) {
            return Ok(batch);
        }
    }
}

fn encode(source: &Source, pattern: &str, batch: &Batch) -> Bytes {
    let mut encoder = EventsEncoder::new(Codec::Json, Partition(0), Epoch::FIRST);
    let mut gaps = Vec::new();
    for Placed { told, partition, .. } in &batch.told {
        match told {
            Told::Event(event) => source.push(&mut encoder, event),
            Told::Gap(from, to) => gaps.push((*partition, *from, *to)),
        }
    }
    encoder.pattern_page(pattern, batch.more, source.cursor(), &gaps)
}
