//! What every server does first and last.

use crate::config::Config;
use crate::failure::Failure;
use std::net::SocketAddr;
use std::time::Duration;
use stormwire_telemetry::{LogFormat, OtlpConfig, Tasks, Telemetry, TelemetryConfig, install};
use tokio::net::{TcpListener, TcpSocket};

/// Longest wait for tasks and traces at the end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted; the kernel lowers it to its own bound
/// (`net.core.somaxconn`). A client that finds no room tries again after a second, so that with the
/// 1,024 of the standard library all who come back at once wait for seconds.
const ACCEPT_QUEUE: u32 = 65_535;

/// Telemetry, the tasks of the process, and the signals that end it.
pub(crate) struct Process {
    telemetry: Telemetry,
    /// Shut down by SIGTERM and SIGINT.
    pub(crate) tasks: Tasks,
}

impl Process {
    /// Installs telemetry and listens for signals.
    pub(crate) fn start(config: &Config, service: &str) -> Result<Self, Failure> {
        let otlp = config.log.otlp_endpoint.as_ref().map(|endpoint| OtlpConfig {
            sample_ratio: config.log.trace_ratio,
            ..OtlpConfig::new(endpoint.clone())
        });
        let telemetry = install(&TelemetryConfig {
            service: service.to_owned(),
            instance: config.name.clone().unwrap_or_else(host),
            format: if config.log.pretty { LogFormat::Pretty } else { LogFormat::Json },
            level: config.log.level.clone(),
            otlp,
        })
        .map_err(Failure::usage)?;
        let tasks = Tasks::new();
        telemetry.watch(&tasks);
        signals(&tasks)?;
        Ok(Self { telemetry, tasks })
    }

    /// Ends the tasks and sends the last traces.
    pub(crate) async fn end(self) {
        self.tasks.shutdown();
        if let Err(left) = self.tasks.drain(END_WITHIN).await {
            tracing::warn!(tasks = ?left, "tasks were still running at the end");
        }
        self.telemetry.shutdown(END_WITHIN).await;
    }
}

/// The first SIGTERM or SIGINT begins the drain, a second one ends the process at once.
fn signals(tasks: &Tasks) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals: {error}")));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let tasks = tasks.clone();
    // Outside the tasks that it ends.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "asked to end: draining");
        tasks.shutdown();
        next().await;
        std::process::exit(130);
    });
    Ok(())
}

/// Takes the port, or says who may have it.
pub(super) fn bind(field: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| {
        use std::io::ErrorKind;
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => format!("the port is taken; stop the process that has it (ss -ltnp 'sport = :{}'), or choose another one with --{}", address.port(), field.replace('_', "-")),
            ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine does not have that address; 0.0.0.0 is all that it has".to_owned(),
            _ => error.to_string(),
        };
        Failure::unavailable(format!("{field} = {address}: {remedy}"))
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or the port of one that has just ended is taken for minutes.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_QUEUE)
}

/// Where a listener really listens.
pub(super) fn address(listener: &TcpListener) -> Result<String, Failure> {
    let address = listener.local_addr();
    address.map(|address| address.to_string()).map_err(Failure::failed)
}

/// Makes the data directory, readable by its owner alone.
pub(super) fn data_dir(config: &Config) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = &config.data_dir;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::unavailable(format!(
            "data_dir = {}: {error}; name a folder that this user may write with --data-dir",
            path.display()
        ))
    })
}

/// This gateway's name: the configured one or the host's, and a part that is new in each life.
pub(super) fn gateway_name(config: &Config) -> String {
    let base = config.name.clone().unwrap_or_else(host);
    let base: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .take(48)
        .collect();
    let life = uuid::Uuid::new_v4().simple().to_string();
    format!("{base}-{}", &life[..8])
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "stormwire".to_owned() } else { name.to_owned() }
}
