//! `cargo xtask ops-check`: what a platform team takes over, checked by the tools that it uses.
//!
//! Every checker is installed below `target/tools/ops` (Prometheus' and Alertmanager's as Debian
//! packages); one that cannot be had is red, not left out. A checker is a line of [`CHECKS`].

mod checks;
pub(crate) mod install;
pub(crate) mod kube;

use crate::{Failure, Outcome};
use install::Tools;
use std::time::Instant;

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only the checks of these names
    names: Vec<String>,
    /// Install the checkers, and end
    #[arg(long)]
    install: bool,
    /// Name the checks
    #[arg(long)]
    list: bool,
}

/// A checker and what it is about.
struct Check {
    name: &'static str,
    about: &'static str,
    run: fn(&Tools) -> Outcome,
}

const CHECKS: &[Check] = &[
    Check {
        name: "rules",
        about: "promtool: recording rules and alerts, each silent, firing and resolved",
        run: checks::rules,
    },
    Check { name: "routes", about: "amtool: who is told of which severity", run: checks::routes },
    Check {
        name: "dashboards",
        about: "every query names metrics, labels and values that the program exposes",
        run: checks::dashboards,
    },
    Check {
        name: "charts",
        about: "Helm: lint strictly, render each profile; kubeconform, strict, with custom resources",
        run: checks::charts,
    },
    Check {
        name: "settings",
        about: "the program takes the settings that each profile of the chart writes",
        run: checks::settings,
    },
    Check {
        name: "nats",
        about: "the rendered NATS configuration boots as a cluster of three",
        run: checks::nats,
    },
    Check {
        name: "mesh",
        about: "experiments by the types and admission rules of Chaos Mesh; their local twins exist",
        run: checks::mesh,
    },
    Check {
        name: "image",
        about: "hadolint, the schema of compose files, Prometheus' configuration",
        run: checks::image,
    },
    Check {
        name: "workflows",
        about: "actionlint with shellcheck, zizmor",
        run: checks::workflows,
    },
    Check { name: "scripts", about: "shellcheck", run: checks::scripts },
    Check { name: "api", about: "spectral on OpenAPI, the AsyncAPI parser", run: checks::api },
];

/// Installs what is needed and runs every check, or those that are named.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.list {
        for check in CHECKS {
            println!("{:<12} {}", check.name, check.about);
        }
        return Ok(());
    }
    let unknown = options.names.iter().find(|name| !CHECKS.iter().any(|c| c.name == **name));
    if let Some(name) = unknown {
        return Err(Failure::of(format!("there is no check {name}; --list names them")));
    }
    let began = Instant::now();
    let tools = Tools::provide()?;
    println!("tools: {:.0} s", began.elapsed().as_secs_f64());
    if options.install {
        return Ok(());
    }
    let mut red = Vec::new();
    for check in CHECKS {
        if !options.names.is_empty() && !options.names.iter().any(|name| name == check.name) {
            continue;
        }
        let began = Instant::now();
        let outcome = (check.run)(&tools);
        let verdict = if outcome.is_ok() { "ok" } else { "RED" };
        println!(
            "{:<12} {verdict:<4} {:>5.1} s  {}",
            check.name,
            began.elapsed().as_secs_f64(),
            check.about
        );
        if let Err(failure) = outcome {
            println!("{failure}\n");
            red.push(check.name);
        }
    }
    if red.is_empty() { Ok(()) } else { Err(Failure::of(format!("red: {}", red.join(", ")))) }
}
