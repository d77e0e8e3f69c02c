//! One span a batch, linked to the publishes it stores.

use stormwire_telemetry::SpanRef;
use tracing::Span;

use crate::plan::Prepared;

/// Most links of a span: enough to find a batch from a sampled publish, without a cost that grows with it.
const LINKS_MAX: usize = 32;
const SAMPLED: u8 = 1;

/// The span of a batch. Only traces that were sampled where they began are linked; the others cost a
/// look at a flag.
pub(crate) fn span(partition: u16, prepared: &Prepared) -> Span {
    let span = tracing::debug_span!(
        "persist",
        partition,
        events = prepared.events,
        frames = prepared.batch.frames.len(),
        through = prepared.batch.through
    );
    if span.is_disabled() {
        return span;
    }
    let traces = prepared
        .batch
        .frames
        .iter()
        .filter_map(|(_, _, frame)| frame.events())
        .flat_map(|events| events.runs().filter_map(|run| run.trace))
        .filter(|trace| trace.flags & SAMPLED != 0);
    for trace in traces.take(LINKS_MAX) {
        SpanRef { trace: trace.trace, span: trace.span, flags: trace.flags }.link(&span);
    }
    span
}
