//! TELEMETRY: how a process shows what it does.

pub mod metrics;
