//! What connections cost that only listen: memory each, how fast they come, and that each of them is
//! given what is published.

use crate::crowd::{Crowd, Plan};
use crate::dialect::{Dialect, nanos_now};
use crate::report::{Figure, Report};
use crate::socket::Socket;
use crate::usage::Watched;
use crate::{Failure, Outcome, Traffic};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The name that the figures carry
    #[arg(long)]
    bench: String,
    /// The servers, one after the other in turn; the first takes the publishes
    #[arg(long, value_delimiter = ',', required = true)]
    address: Vec<SocketAddr>,
    /// What they speak
    #[arg(long, value_enum, default_value = "stormwire")]
    dialect: Dialect,
    /// A token without limits
    #[arg(long, env = "STORMWIRE_TOKEN", default_value = "")]
    token: String,
    /// How many connections
    #[arg(long)]
    subscribers: usize,
    /// Over how many channels they are spread
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Processes of subscribers
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// The server, as NAME=PID,PID..
    #[arg(long)]
    watch: Watched,
    /// Words before the names of the figures
    #[arg(long, default_value = "")]
    label: String,
    /// Seconds before memory is read: allocators and kernels give back late, and what stays counts
    #[arg(long, default_value_t = 3.0)]
    settle: f64,
}

pub(crate) async fn run(options: &Options) -> Outcome {
    let label = &options.label;
    let settle = Duration::from_secs_f64(options.settle);
    let mut publisher = Socket::open(options.address[0], None, options.dialect).await?;
    publisher.greet(&options.token).await?;
    // What the first subscribers make a server load (tails, rings) is not a connection's.
    warm_up(options).await?;
    tokio::time::sleep(settle).await;
    let before = options.watch.resident_mib()?;
    let earlier = options.watch.read()?;
    let mut crowd = Crowd::gather(&options.plan(options.subscribers)).await?;
    let connecting = options.watch.read()?.cores_since(&earlier);
    tokio::time::sleep(settle).await;
    let after = options.watch.resident_mib()?;
    let idle = options.watch.read()?;
    tokio::time::sleep(settle).await;
    let idle = options.watch.read()?.cores_since(&idle);
    let (receivers, seconds) = publish(options, &mut publisher, &mut crowd).await?;
    let active = options.watch.resident_mib()?;
    let each = |mib: f64| (mib - before) * 1024.0 / as_float(options.subscribers);
    let mut report = Report::new(&options.bench);
    let mut add = |name: &str, unit, value| {
        report.add(Figure::new(&format!("{label}{name}"), unit, &[value]));
    };
    add("connections", "sockets", as_float(options.subscribers));
    add("memory a connection", "KiB", each(after));
    add("memory a connection after a delivery", "KiB", each(active));
    add("connected and subscribed", "connections/s", crowd.connects_per_second);
    add("server CPU while they connect", "cores", connecting);
    add("server CPU while they are idle", "cores", idle);
    add("subscribers that were given their event", "sockets", as_float(receivers));
    add("until the last was given it", "s", seconds);
    report.print();
    Ok(())
}

async fn warm_up(options: &Options) -> Outcome {
    let mut crowd = Crowd::gather(&options.plan(options.channels)).await?;
    let mut publisher = Socket::open(options.address[0], None, options.dialect).await?;
    publisher.greet(&options.token).await?;
    publish(options, &mut publisher, &mut crowd).await.map(|_| ())
}

/// One event on each channel; gives back how many subscribers got theirs and after how long the last.
async fn publish(
    options: &Options,
    publisher: &mut Socket,
    crowd: &mut Crowd,
) -> Outcome<(usize, f64)> {
    crowd.begin(false).await?;
    let traffic = Traffic { publishers: 1, channels: 1, window: 1, batch: 1, bytes: 128 };
    let started = Instant::now();
    let earlier = crowd.tell().await?.ever;
    for number in 0..options.channels {
        let channel = format!("bench:{number}");
        let mut message = options.dialect.publish(&channel, &options.token, &traffic);
        message.set(number_of(number), 1, nanos_now());
        publisher.push(&message.bytes);
    }
    publisher.flush().await?;
    crowd.all_arrived(earlier + crowd.subscribers as u64).await?;
    Ok((crowd.tell().await?.receivers, started.elapsed().as_secs_f64()))
}

fn number_of(index: usize) -> u64 {
    index as u64 + 1
}

impl Options {
    fn plan(&self, subscribers: usize) -> Plan {
        Plan {
            addresses: self.address.clone(),
            dialect: self.dialect,
            token: self.token.clone(),
            subscribers,
            channels: self.channels,
            processes: if subscribers == self.subscribers { self.processes } else { 1 },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}

/// How long a program takes from its start to its first acknowledged event.
#[derive(Debug, clap::Args)]
pub(crate) struct ColdOptions {
    /// The name that the figures carry
    #[arg(long)]
    bench: String,
    /// The program; it is killed after each start
    #[arg(long)]
    program: std::path::PathBuf,
    /// Where it listens: its environment says so
    #[arg(long)]
    address: SocketAddr,
    /// A token without limits
    #[arg(long, env = "STORMWIRE_TOKEN", default_value = "")]
    token: String,
    /// How often
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// A start takes no longer than this.
const START_DEADLINE: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(1);

pub(crate) async fn cold_start(options: &ColdOptions) -> Outcome {
    let mut times = Vec::new();
    for _ in 0..options.runs {
        let started = Instant::now();
        let mut child = tokio::process::Command::new(&options.program)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::doing(options.program.display()))?;
        let first = tokio::time::timeout(START_DEADLINE, first_event(options));
        first.await.map_err(|_| Failure::of("no first event in time"))??;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
        child.kill().await.map_err(Failure::doing("ending the program"))?;
    }
    let mut report = Report::new(&options.bench);
    report.add(Figure::new("start to first acknowledged event", "ms", &times));
    report.print();
    Ok(())
}

async fn first_event(options: &ColdOptions) -> Outcome {
    let mut socket = loop {
        match Socket::open(options.address, None, Dialect::Stormwire).await {
            Ok(socket) => break socket,
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    };
    socket.greet(&options.token).await?;
    let traffic = Traffic { publishers: 1, channels: 1, window: 1, batch: 1, bytes: 128 };
    loop {
        let mut message = Dialect::Stormwire.publish("bench:0", "", &traffic);
        message.set(1, 1, nanos_now());
        socket.push(&message.bytes);
        // A partition that is not claimed yet refuses for a moment.
        if socket.expect(Dialect::Stormwire.marks().acknowledged).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
