//! The load generator: what `cargo xtask bench` measures with.
//!
//! It shares no code with the server or its client library, so that it can't share their mistakes, and
//! does as little for an event as it can, because it runs on the same cores. Each subcommand warms up,
//! measures several times and writes one JSON line to standard output; progress goes to the
//! terminal. Every refused event ends a measurement: a figure with refusals is none.

mod ceiling;
mod control;
mod crowd;
mod dialect;
mod idle;
mod listener;
mod measure;
mod pacer;
mod persist;
mod publisher;
mod report;
mod socket;
mod usage;
mod writer;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a measurement has no result.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn of(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// For `map_err`: what was being done, then why it failed.
    pub(crate) fn doing<E: std::fmt::Display>(
        what: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

#[derive(Parser)]
#[command(name = "stormwire-load", about = "Measures a running Stormwire")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// How long and how often, the same for every bench.
#[derive(Debug, Clone, Args)]
pub(crate) struct Timing {
    /// The name that the figures carry
    #[arg(long)]
    pub(crate) bench: String,
    /// Seconds before the first measurement
    #[arg(long, default_value_t = 3.0)]
    pub(crate) warm_up: f64,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// How many measurements
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
}

impl Timing {
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    pub(crate) fn run(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What is published.
#[derive(Debug, Clone, Args)]
pub(crate) struct Traffic {
    /// How many publishers, a connection each
    #[arg(long, default_value_t = 50)]
    pub(crate) publishers: usize,
    /// How many channels; 0: one for each publisher
    #[arg(long, default_value_t = 0)]
    pub(crate) channels: usize,
    /// How many unacknowledged messages a publisher may have
    #[arg(long, default_value_t = 100)]
    pub(crate) window: usize,
    /// Events in one message
    #[arg(long, default_value_t = 100)]
    pub(crate) batch: usize,
    /// Bytes of one event's data
    #[arg(long, default_value_t = 128)]
    pub(crate) bytes: usize,
}

impl Traffic {
    pub(crate) fn channels(&self) -> usize {
        if self.channels == 0 { self.publishers } else { self.channels }
    }

    /// Its publishers' messages, one of each every `interval`.
    pub(crate) fn schedule(&self, since: Instant, interval: Duration) -> control::Schedule {
        let publishers = u32::try_from(self.publishers.max(1)).unwrap_or(u32::MAX);
        control::Schedule { since, interval, publishers }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Publish, deliver and count: rates, latencies and what the processes cost
    Measure(measure::Options),
    /// Open subscribers and count what they are given, for `measure`
    Listen(listener::Options),
    /// A WebSocket server that only writes: what no gateway can exceed in fan-out
    Writer(writer::Options),
    /// The same payload published to JetStream itself: what no gateway can exceed
    Ceiling(ceiling::Options),
    /// Publish so many events and end
    Fill(measure::FillOptions),
    /// Memory a connection, connections a second, and that each is given what is published
    Idle(idle::Options),
    /// From the start of a program to its first acknowledged event
    ColdStart(idle::ColdOptions),
    /// Wait until the archive has all that the journal has
    CaughtUp(persist::CaughtUpOptions),
    /// Rows a second from the journal to Postgres, beside a bare COPY of the same rows
    Persist(persist::Options),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // One thread: the machine's cores are for what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match command {
                Command::Measure(options) => measure::run(&options).await,
                Command::Listen(options) => listener::run(&options).await,
                Command::Writer(options) => writer::run(&options).await,
                Command::Ceiling(options) => ceiling::run(&options).await,
                Command::Fill(options) => measure::fill(&options).await,
                Command::Idle(options) => idle::run(&options).await,
                Command::ColdStart(options) => idle::cold_start(&options).await,
                Command::CaughtUp(options) => persist::caught_up(&options).await,
                Command::Persist(options) => persist::run(&options).await,
            }
        }),
        Err(error) => Err(Failure::doing("starting a runtime")(error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complain(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}
