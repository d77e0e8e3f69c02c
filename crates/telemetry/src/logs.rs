//! Log lines: one JSON object each, or readable text.

use crate::{TelemetryConfig, TelemetryError, traces};
use serde_json::{Map, Value};
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use stormwire_core::{Clock as _, SystemClock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Longest text of one field, in bytes; what is longer is cut.
const FIELD_BYTES_MAX: usize = 8 * 1024;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line: timestamp, level, service, target, message, then the fields of the event
    /// and of the spans around it (request_id, user_id, error, duration_ms, trace_id …).
    Json,
    /// Readable text, coloured on a terminal.
    Pretty,
}

/// The layer that writes log lines to `out`.
pub(crate) fn layer<S, W>(
    config: &TelemetryConfig,
    out: W,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(&config.level)?;
    Ok(match config.format {
        LogFormat::Json => {
            Json { service: config.service.clone(), out }.with_filter(filter).boxed()
        }
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_writer(out)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
    })
}

/// A plain `debug` or `trace` means our own crates: those of the libraries drown everything.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let directives = match level {
        "debug" | "trace" => format!("info,stormwire={level}"),
        _ => level.to_owned(),
    };
    EnvFilter::builder().parse(directives).map_err(|error| TelemetryError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    })
}

/// Sends panics to the log, where they are seen, instead of plain text between JSON lines.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(
            error = message, location, thread = thread.name().unwrap_or_default(), %backtrace,
            "panic"
        );
    }));
}

struct Json<W> {
    service: String,
    out: W,
}

/// The fields of a span, kept with it.
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for Json<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Map::new();
        attributes.record(&mut Collect(&mut fields));
        span.extensions_mut().insert(Fields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(Fields(fields)) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Collect(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Inner spans write over outer ones, the event over all.
        let mut fields = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Fields(of_span)) = span.extensions().get::<Fields>() {
                fields.extend(of_span.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut Collect(&mut fields));
        if let Some(trace) = traces::entered_trace_id() {
            fields.insert("trace_id".to_owned(), Value::String(trace));
        }
        let line = self.line(event, fields);
        // A log that cannot be written has nowhere to say so.
        let _ = self.out.make_writer_for(event.metadata()).write_all(&line);
    }
}

impl<W> Json<W> {
    /// The members that everybody looks for first, then the rest.
    fn line(&self, event: &Event<'_>, mut fields: Map<String, Value>) -> Vec<u8> {
        let metadata = event.metadata();
        let message = fields.remove("message").unwrap_or_default();
        let head = [
            ("timestamp", Value::String(SystemClock.now().to_rfc3339())),
            ("level", Value::String(metadata.level().as_str().to_ascii_lowercase())),
            ("service", Value::String(self.service.clone())),
            ("target", Value::String(metadata.target().to_owned())),
            ("message", message),
        ];
        let mut line = Vec::with_capacity(256);
        line.push(b'{');
        let head = head.iter().map(|(name, value)| (*name, value));
        for (at, (name, value)) in
            head.chain(fields.iter().map(|(n, v)| (n.as_str(), v))).enumerate()
        {
            if at > 0 {
                line.push(b',');
            }
            // Writing JSON values to memory does not fail.
            let _ = serde_json::to_writer(&mut line, name);
            line.push(b':');
            let _ = serde_json::to_writer(&mut line, value);
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// Turns fields into JSON values of their own type.
struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > FIELD_BYTES_MAX {
            text.truncate(text.floor_char_boundary(FIELD_BYTES_MAX));
            text.push('…');
        }
        self.put(field, Value::String(text));
    }
}

impl Visit for Collect<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        self.put_text(field, stormwire_core::with_causes(error));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
