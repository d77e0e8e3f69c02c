//! The recorder of metrics and the text that Prometheus reads.

use crate::{TelemetryError, metrics as names};
use ::metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use std::fmt;
use std::time::Duration;

/// How often buffered samples are folded into their buckets; keeps memory bounded if nobody scrapes.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The process's metrics. Clones are the same.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsHandle")
    }
}

impl MetricsHandle {
    /// All metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds buffered samples and measures the runtime it is called in.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let runtime = runtime.metrics();
            for (name, value) in [
                (names::RUNTIME_WORKERS, runtime.num_workers()),
                (names::RUNTIME_TASKS_ALIVE, runtime.num_alive_tasks()),
                (names::RUNTIME_QUEUE_DEPTH, runtime.global_queue_depth()),
            ] {
                gauge!(name).set(value as f64);
            }
        }
    }
}

/// Installs the recorder, or returns the one that this function installed before.
///
/// # Errors
/// [`TelemetryError::Metrics`] if the process has a recorder from elsewhere.
pub fn metrics_handle() -> Result<MetricsHandle, TelemetryError> {
    static INSTALLED: Mutex<Option<MetricsHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock();
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let refused = |error: &dyn fmt::Display| TelemetryError::Metrics(error.to_string());
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL.iter().filter(|metric| metric.kind == names::Kind::Histogram) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets())
            .map_err(|error| refused(&error))?;
    }
    let handle = MetricsHandle(builder.install_recorder().map_err(|error| refused(&error))?);
    names::describe_all();
    Ok(installed.insert(handle).clone())
}
