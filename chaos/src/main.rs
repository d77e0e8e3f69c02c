//! The fault runner: a local cluster under load, with faults in it, judged by the checker.
//!
//! `cargo xtask chaos` builds and starts it. A run ends with a verdict and a table; its histories stay
//! in the folder, in the format of `docs/histories.md`. Exit codes: 0 every guarantee held (or the
//! scenario can't be run here, which is said), 1 one was broken, 2 the run proves nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod archive;
mod clock;
mod cluster;
mod control;
mod disk;
mod drill;
mod faults;
mod journal;
mod packets;
mod producer;
mod recorder;
mod report;
mod run;
mod scenario;
mod socket;
mod subscriber;

use clap::Parser;
use rand::Rng as _;
use rand::rngs::StdRng;
use run::Plan;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use stormwire_core::PartitionCount;
use tokio::signal::unix::{SignalKind, signal};

/// Few, so that each is busy and a slow machine elects few leaders.
pub(crate) const PARTITIONS: u16 = 4;
/// What the subscriber of a pattern asks for.
pub(crate) const PATTERN: &str = "chaos:*";

/// No scenario: a backup, an end of everything, and a restore.
const DRILL: &str = "drill";
const BROKEN: u8 = 1;
const PROVES_NOTHING: u8 = 2;

/// Why a run came to no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something went wrong.
    #[error("{0}")]
    Failed(String),
    /// This machine lacks what the scenario needs.
    #[error("{0}")]
    Skipped(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn of(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// For `map_err`: what was being done, then why it failed.
    pub(crate) fn doing<E: std::fmt::Display>(
        what: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed(format!("{what}: {error}"))
    }
}

/// What clients are told.
#[derive(Debug)]
pub(crate) struct Target {
    ports: Vec<u16>,
    token: String,
    channels: Vec<String>,
    partitions: PartitionCount,
    interval: Duration,
    event_bytes: usize,
}

impl Target {
    /// One of the gateways.
    fn port(&self, random: &mut StdRng) -> u16 {
        self.ports[random.random_range(0..self.ports.len())]
    }

    /// Where a channel lives.
    fn partition(&self, channel: &str) -> u16 {
        self.partitions.of(channel.as_bytes()).0
    }
}

/// A local cluster under load and faults, judged by the checker
#[derive(Debug, Parser)]
struct Arguments {
    /// Which scenario, or drill
    scenario: Option<String>,
    /// Name the scenarios and what each shows
    #[arg(long)]
    list: bool,
    /// Name the compiled-in faults
    #[arg(long)]
    list_faults: bool,
    /// How long faults come
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave out the safety rule of that name; the executable must carry it
    #[arg(long)]
    fault: Option<String>,
    /// The executable of stormwire
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where histories, data and logs go
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Tells how far it is; standard output is for results.
pub(crate) fn say(what: &str) {
    eprintln!("chaos: {what}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list || arguments.list_faults {
        list(arguments.list_faults);
        return ExitCode::SUCCESS;
    }
    if arguments.scenario.as_deref() == Some(DRILL) {
        return drill(arguments).await;
    }
    let plan = match plan(arguments) {
        Ok(plan) => plan,
        Err(failure) => {
            say(&failure.to_string());
            return ExitCode::from(64);
        }
    };
    let outcome = tokio::select! {
        outcome = Box::pin(run::run(&plan)) => outcome,
        // The servers end with what was dropped here.
        () = asked_to_end() => Err(Failure::of("interrupted")),
    };
    match outcome {
        Ok(report) => {
            println!("{}", report.table());
            println!("histories: {}", plan.folder.display());
            match (report.is_broken(), report.shortfalls.is_empty()) {
                (true, _) => ExitCode::from(BROKEN),
                (false, false) => ExitCode::from(PROVES_NOTHING),
                (false, true) => ExitCode::SUCCESS,
            }
        }
        Err(Failure::Skipped(why)) => {
            println!("skipped {}: {why}", plan.scenario.name);
            ExitCode::SUCCESS
        }
        Err(Failure::Failed(why)) => {
            println!("no verdict on {}, seed {}: {why}", plan.scenario.name, plan.seed);
            println!("logs and histories: {}", plan.folder.display());
            ExitCode::from(PROVES_NOTHING)
        }
    }
}

async fn drill(arguments: Arguments) -> ExitCode {
    let (Some(program), Some(folder)) = (arguments.program, arguments.folder) else {
        say("--program or --folder is not given");
        return ExitCode::from(64);
    };
    let drill = drill::Drill { program, folder, seed: arguments.seed };
    let outcome = tokio::select! {
        outcome = Box::pin(drill::run(&drill)) => outcome,
        () = asked_to_end() => Err(Failure::of("interrupted")),
    };
    println!("histories: {}", drill.folder.display());
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(failure) => {
            println!("no verdict on the drill: {failure}");
            ExitCode::from(PROVES_NOTHING)
        }
    }
}

fn list(faults: bool) {
    if faults {
        for (fault, scenario) in scenario::COMPILED_IN {
            println!("{fault}\t{scenario}");
        }
        return;
    }
    for scenario in scenario::SCENARIOS {
        println!("{}\t{}", scenario.name, scenario.shows);
    }
}

fn plan(arguments: Arguments) -> Outcome<Plan> {
    let shown_by = |fault: &String| {
        let known = scenario::COMPILED_IN.iter().find(|(name, _)| name == fault);
        known.map(|(_, scenario)| (*scenario).to_owned())
    };
    let name = match (&arguments.scenario, &arguments.fault) {
        (Some(name), _) => name.clone(),
        (None, Some(fault)) => shown_by(fault)
            .ok_or_else(|| Failure::of(format!("{fault} is no fault; see --list-faults")))?,
        (None, None) => "mixed".to_owned(),
    };
    let scenario = scenario::named(&name)
        .ok_or_else(|| Failure::of(format!("{name} is no scenario; see --list")))?;
    let program = arguments.program.ok_or_else(|| Failure::of("--program is not given"))?;
    let folder = arguments.folder.ok_or_else(|| Failure::of("--folder is not given"))?;
    let (seconds, seed, fault) = (arguments.seconds, arguments.seed, arguments.fault);
    Ok(Plan { scenario, seconds, seed, program, folder, fault })
}

async fn asked_to_end() {
    let (Ok(mut interrupted), Ok(mut terminated)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
}
