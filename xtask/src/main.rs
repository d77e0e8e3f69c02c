//! `cargo xtask`: everything this repository does beside building, with nothing to install first.
//!
//! Each command is a module of that name; what continuous integration runs is `cargo xtask test`,
//! so there are no rules that a developer can't check at home.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
mod chaos;
mod clients;
mod k6;
mod keycloak;
mod ops;
mod shell;
mod test;
mod tidy;
mod tools;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Something went wrong that the person at the terminal should read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    fn of(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// For `map_err`: what was being done, then why it failed.
    fn doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What this repository does beside building")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Provide nats-server, PostgreSQL and Redis, and say where they are
    Tools,
    /// Start a cluster on this machine and keep it up until Ctrl-C
    Up(up::Options),
    /// Measure, print the figures and keep them in load/RESULTS.md
    Bench(bench::Options),
    /// Build and test the TypeScript packages in clients/
    Clients {
        /// One step alone
        step: Option<clients::Step>,
    },
    /// Try a local cluster under faults and judge it; see --list
    Chaos(chaos::Options),
    /// Run the scripts of load/k6 against a local cluster, within the objectives
    K6(k6::Options),
    /// Test with a real Keycloak, installing it below target/tools
    Keycloak,
    /// Check charts, dashboards, alerts, workflows and API descriptions with the tools that use them
    OpsCheck(ops::Options),
    /// Check the chart before a real Kubernetes API server, and scale it by KEDA on a local cluster's load
    Kube(ops::kube::Options),
    /// Run every test with real servers, installing what is needed
    Test {
        /// Count the lines that ran; fail where a crate or all have too few
        #[arg(long)]
        coverage: bool,
    },
    /// Check the rules of the house that no compiler knows
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tools => tools::run(),
        Command::Up(options) => up::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Clients { step } => clients::run(step),
        Command::Chaos(options) => chaos::run(&options),
        Command::K6(options) => k6::run(&options),
        Command::Keycloak => keycloak::run(),
        Command::OpsCheck(options) => ops::run(&options),
        Command::Kube(options) => ops::kube::run(&options),
        Command::Test { coverage } => test::run(coverage),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
