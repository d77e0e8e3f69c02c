//! Traces: the exporter, and the reference to a span that travels with an event.

use crate::{TelemetryConfig, TelemetryError};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::registry::LookupSpan;

/// Spans of our own crates, and none of the exporter's, which would trace their own sending.
const TRACED: &str = "off,stormwire=debug";

/// Where traces go, and how many.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// An OTLP collector that speaks gRPC: `http://host:4317` or `https://host:4317`.
    pub endpoint: String,
    /// Part of the traces begun here that are kept, 0 to 1; a trace begun elsewhere keeps its mark.
    pub sample_ratio: f64,
    /// Longest time to send one batch.
    pub timeout: Duration,
}

impl OtlpConfig {
    /// One trace in a hundred, 10 s a batch.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), sample_ratio: 0.01, timeout: Duration::from_secs(10) }
    }
}

#[derive(Debug)]
pub(crate) struct Provider(SdkTracerProvider);

impl Provider {
    pub(crate) fn connect(
        config: &TelemetryConfig,
        otlp: &OtlpConfig,
    ) -> Result<Self, TelemetryError> {
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(otlp.endpoint.clone())
            .with_timeout(otlp.timeout);
        if otlp.endpoint.starts_with("https:") {
            let tls = opentelemetry_otlp::tonic_types::transport::ClientTlsConfig::new();
            exporter = exporter.with_tls_config(tls.with_webpki_roots());
        }
        let exporter = exporter.build().map_err(|error| TelemetryError::Otlp {
            endpoint: otlp.endpoint.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self(builder(config, otlp.sample_ratio).with_batch_exporter(exporter).build()))
    }

    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("stormwire"))
            .with_location(false)
            .with_threads(false)
            .with_filter(EnvFilter::new(TRACED))
    }

    /// The provider blocks while it sends, so it is shut down on a thread of its own.
    pub(crate) async fn shutdown(self, deadline: Duration) {
        let sent =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(deadline)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn builder(
    config: &TelemetryConfig,
    sample_ratio: f64,
) -> opentelemetry_sdk::trace::TracerProviderBuilder {
    let resource = Resource::builder()
        .with_service_name(format!("stormwire-{}", config.service))
        .with_attribute(KeyValue::new("service.instance.id", config.instance.clone()))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler)
}

/// A span of this or another process, as W3C Trace Context writes it: what a `traceparent` header or a
/// frame carries from the producer to whoever stores and delivers the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRef {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub span: [u8; 8],
    /// Flags; bit 0 is "sampled".
    pub flags: u8,
}

impl SpanRef {
    /// The reference to `span`; `None` if it is not traced.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| Self {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        })
    }

    /// The reference to the current span; `None` if it is not traced.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// Makes this the parent of `span`, which must not have been entered yet. Nothing happens to a span
    /// that is not traced.
    pub fn adopt(self, span: &Span) {
        // An error says that the span is filtered out: then there is nothing to connect.
        let _ = span.set_parent(Context::new().with_remote_span_context(self.context()));
    }

    /// Links `span` to this one: for work that serves many producers at once.
    pub fn link(self, span: &Span) {
        span.add_link(self.context());
    }

    fn context(self) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes(self.trace),
            SpanId::from_bytes(self.span),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        )
    }
}

/// The `traceparent` header.
impl fmt::Display for SpanRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

/// A text that is not a `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("traceparent is written 00-<32 hex>-<16 hex>-<2 hex>, with ids other than zero")]
pub struct SpanRefError;

impl FromStr for SpanRef {
    type Err = SpanRefError;

    fn from_str(text: &str) -> Result<Self, SpanRefError> {
        let parse = || {
            let lower = |b: u8| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let mut parts = text.strip_prefix("00-")?.split('-');
            let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
            let shape = (trace.len(), span.len(), flags.len(), parts.next()) == (32, 16, 2, None);
            if !shape || !text.bytes().all(lower) {
                return None;
            }
            let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
            let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
            let flags = u8::from_str_radix(flags, 16).ok()?;
            Some(Self { trace: trace.to_be_bytes(), span: span.to_be_bytes(), flags })
        };
        parse().ok_or(SpanRefError)
    }
}

/// The trace id of the span that is entered on this thread, as log lines show it.
pub(crate) fn entered_trace_id() -> Option<String> {
    let context = Context::current();
    let span = context.span();
    let context: &SpanContext = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

#[cfg(test)]
mod tests;
