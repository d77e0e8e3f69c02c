//! TELEMETRY: how a process shows what it does, so that an operator need not guess.
//!
//! [`install`] sets up the three at once: logs (JSON lines or readable text, on standard error),
//! metrics (the list in [`metrics`], read by Prometheus) and traces (OTLP, if an endpoint is given).
//! [`SpanRef`] carries a trace across the journal, [`Tasks`] runs whatever lives longer than a call
//! and counts it, [`Quiet`] keeps a hot path from flooding the log.

pub mod metrics;

mod figures;
mod logs;
mod prometheus;
mod quiet;
mod tasks;
mod traces;

pub use figures::{Figures, Taken};
pub use logs::LogFormat;
pub use prometheus::{MetricsHandle, metrics_handle};
pub use quiet::Quiet;
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;
pub use traces::{OtlpConfig, SpanRef, SpanRefError};

use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a process logs and where its traces go.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// The name in log lines and traces: `gateway`, `messages`, `stormwire`.
    pub service: String,
    /// Which of several processes this is; appears in traces.
    pub instance: String,
    /// How log lines are written.
    pub format: LogFormat,
    /// Least severe level logged (`debug`), or directives (`info,stormwire_gateway=debug`).
    pub level: String,
    /// Where traces go; `None` traces nothing.
    pub otlp: Option<OtlpConfig>,
}

impl TelemetryConfig {
    /// Readable text from `debug` on.
    pub fn development(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            instance: String::new(),
            format: LogFormat::Pretty,
            level: "debug".to_owned(),
            otlp: None,
        }
    }

    /// JSON from `info` on.
    pub fn staging(service: impl Into<String>) -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned(), ..Self::development(service) }
    }

    /// JSON from `warn` on.
    pub fn production(service: impl Into<String>) -> Self {
        Self { level: "warn".to_owned(), ..Self::staging(service) }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `level` is neither a level nor a list of directives.
    #[error(
        "log level {level:?} is not error, warn, info, debug, trace, or directives such as info,stormwire=debug: {reason}"
    )]
    Level {
        /// What was given.
        level: String,
        /// What the parser says.
        reason: String,
    },
    /// The OTLP endpoint cannot be used.
    #[error("traces cannot be sent to {endpoint:?}: {reason}")]
    Otlp {
        /// What was given.
        endpoint: String,
        /// What the exporter says.
        reason: String,
    },
    /// Another recorder of metrics is installed in this process.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    /// Another subscriber of logs is installed in this process.
    #[error("logs are already installed: {0}")]
    Logs(String),
}

/// What [`install`] set up. [`Telemetry::shutdown`] sends what is still buffered.
#[derive(Debug)]
pub struct Telemetry {
    metrics: MetricsHandle,
    traces: Option<traces::Provider>,
}

/// Installs logs, metrics and traces for this process, once. With OTLP it must be called inside the
/// runtime that the process runs on.
///
/// # Errors
/// [`TelemetryError`] naming what cannot be used.
pub fn install(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let metrics = metrics_handle()?;
    let traces =
        config.otlp.as_ref().map(|otlp| traces::Provider::connect(config, otlp)).transpose()?;
    tracing_subscriber::registry()
        .with(logs::layer(config, std::io::stderr)?)
        .with(traces.as_ref().map(traces::Provider::layer))
        .try_init()
        .map_err(|error| TelemetryError::Logs(error.to_string()))?;
    logs::log_panics();
    Ok(Telemetry { metrics, traces })
}

impl Telemetry {
    /// The metrics, to be served to Prometheus.
    #[must_use]
    pub fn metrics(&self) -> MetricsHandle {
        self.metrics.clone()
    }

    /// All metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.metrics.render()
    }

    /// Keeps histograms tidy and measures the runtime every few seconds, until `tasks` shuts down.
    pub fn watch(&self, tasks: &Tasks) {
        let metrics = self.metrics.clone();
        let stop = tasks.token();
        tasks.spawn("telemetry", async move {
            let mut every = tokio::time::interval(prometheus::UPKEEP_EVERY);
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                metrics.upkeep();
            }
        });
    }

    /// Sends the spans that are still buffered, for at most `deadline`.
    pub async fn shutdown(mut self, deadline: Duration) {
        if let Some(traces) = self.traces.take() {
            traces.shutdown(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests;
