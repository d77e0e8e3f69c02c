//! `cargo xtask chaos`: a local cluster under load and faults, judged by the checker.
//!
//! Without a name it is `mixed`; `drill` backs a cluster up under load, destroys it and judges what a
//! restore brings back. `all` runs every scenario and keeps its table in `docs/chaos.md`,
//! `short` three seeds of `mixed` for continuous integration, `nightly` twenty; `faults` runs each
//! build with a safety rule left out and expects the checker to be red.

use crate::bench::results::machine;
use crate::shell::{self, command};
use crate::up::build_package;
use crate::{Failure, Outcome, tools};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use stormwire_testkit::workspace_root;

/// Runs that a fault has to be found in.
const SEEDS_OF_A_FAULT: u64 = 3;
/// Longest time of a short run's faults, so that three fit into continuous integration.
const SHORT_SECONDS: u64 = 10;
const SHORT_SEEDS: u64 = 3;
const NIGHTLY_SECONDS: u64 = 30;
const NIGHTLY_SEEDS: u64 = 20;
/// How the runner says that a guarantee was broken.
const BROKEN: i32 = 1;

/// Which scenario, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A scenario, or all, short, nightly, faults, drill
    scenario: Option<String>,
    /// How long faults come; 60 by default
    #[arg(long)]
    seconds: Option<u64>,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Name the scenarios and what each shows
    #[arg(long)]
    list: bool,
    /// Leave out the safety rule of that name
    #[arg(long)]
    fault: Option<String>,
    /// Build with optimising
    #[arg(long)]
    release: bool,
}

/// What a run leaves in `result.json`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
struct Figures {
    asked: u64,
    confirmed: u64,
    acknowledged: u64,
    lost: u64,
    doubled: u64,
    longest_stop_ms: u64,
    recovery_ms: u64,
    violations: Vec<String>,
    shortfalls: Vec<String>,
}

/// The programs.
struct Chaos {
    runner: PathBuf,
    stormwire: PathBuf,
    release: bool,
}

/// How a run ended.
struct Ended {
    code: Option<i32>,
    figures: Option<Figures>,
}

/// Runs what was asked for.
pub(crate) fn run(options: &Options) -> Outcome {
    let runner = build_package("stormwire-chaos", true)?;
    if options.list {
        return shell::run(&mut command(&runner.to_string_lossy(), &["--list"]));
    }
    tools::provide()?;
    tools::provide_faketime();
    let name = options.scenario.as_deref();
    let faults = name == Some("faults") || options.fault.is_some();
    let stormwire =
        if faults { with_faults()? } else { build_package("stormwire", !options.release)? };
    let chaos = Chaos { runner, stormwire, release: options.release };
    let seconds = |default| options.seconds.unwrap_or(default);
    match name {
        Some("all") => chaos.all(seconds(60), options.seed),
        Some("short") => chaos.seeds(SHORT_SEEDS, seconds(SHORT_SECONDS), options.seed),
        Some("nightly") => chaos.seeds(NIGHTLY_SEEDS, seconds(NIGHTLY_SECONDS), options.seed),
        Some("faults") => chaos.faults(seconds(30), options.seed),
        Some("drill") => chaos.drill(options.seed),
        _ => {
            let ended = chaos.one(name, options.fault.as_deref(), seconds(60), options.seed)?;
            ended.must_be_green()
        }
    }
}

/// Builds the executable that carries the faults, and keeps it apart from the one that does not.
fn with_faults() -> Outcome<PathBuf> {
    let built = build_package("stormwire", true)?;
    shell::progress("building stormwire with faults ...");
    let arguments = ["build", "--locked", "--package", "stormwire", "--features", "faults"];
    shell::run(&mut command("cargo", &arguments))?;
    let apart = workspace_root().join("target/chaos/stormwire-faults");
    std::fs::create_dir_all(workspace_root().join("target/chaos"))
        .and_then(|()| std::fs::copy(&built, &apart))
        .map_err(Failure::doing(apart.display()))?;
    // The executable of everyday use carries none.
    build_package("stormwire", true)?;
    Ok(apart)
}

impl Chaos {
    fn drill(&self, seed: u64) -> Outcome {
        let folder = workspace_root().join(format!("target/chaos/drill-{seed}"));
        let mut runner = Command::new(&self.runner);
        runner.args(["drill", "--seed", &seed.to_string()]);
        runner.arg("--program").arg(&self.stormwire).arg("--folder").arg(&folder);
        shell::run(&mut runner)
    }

    fn one(
        &self,
        scenario: Option<&str>,
        fault: Option<&str>,
        seconds: u64,
        seed: u64,
    ) -> Outcome<Ended> {
        let name = fault.or(scenario).unwrap_or("mixed");
        let folder = workspace_root().join(format!("target/chaos/{name}-{seed}"));
        let _ = std::fs::remove_file(folder.join("result.json"));
        let mut runner = Command::new(&self.runner);
        runner.args(scenario);
        runner.args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()]);
        runner.arg("--program").arg(&self.stormwire).arg("--folder").arg(&folder);
        if let Some(fault) = fault {
            runner.args(["--fault", fault]);
        }
        let status = runner.status().map_err(Failure::doing("the runner"))?;
        let figures = std::fs::read_to_string(folder.join("result.json")).ok();
        let figures = figures.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Ended { code: status.code(), figures })
    }

    /// Every scenario alone; its table is kept.
    fn all(&self, seconds: u64, seed: u64) -> Outcome {
        let list = shell::read(&mut command(&self.runner.to_string_lossy(), &["--list"]))?;
        // Asked before the table is written, which is a change itself.
        let commit = shell::read(&mut command("git", &["describe", "--always", "--dirty"]))?;
        let (mut rows, mut red) = (String::new(), Vec::new());
        for line in list.lines() {
            let (name, shows) = line.split_once('\t').unwrap_or((line, ""));
            let ended = self.one(Some(name), None, seconds, seed)?;
            let _ = writeln!(rows, "{}", ended.row(name, shows));
            if ended.code != Some(0) {
                red.push(name.to_owned());
            }
            // What was measured until then is worth keeping.
            self.keep(&commit, seconds, seed, &rows)?;
        }
        println!("{rows}");
        green(&red)
    }

    /// `mixed`, seed after seed.
    fn seeds(&self, seeds: u64, seconds: u64, first: u64) -> Outcome {
        let mut red = Vec::new();
        for seed in first..first + seeds {
            let ended = self.one(None, None, seconds, seed)?;
            if ended.code != Some(0) {
                red.push(format!("seed {seed}"));
            }
        }
        green(&red)
    }

    /// Every fault that can be compiled in: the checker must find it. A rule that is left out does harm only
    /// when what it is for happens within the seconds of a run, so that there are a few of them.
    fn faults(&self, seconds: u64, seed: u64) -> Outcome {
        let list = shell::read(&mut command(&self.runner.to_string_lossy(), &["--list-faults"]))?;
        let (mut table, mut unseen) = (String::new(), Vec::new());
        for line in list.lines() {
            let (fault, scenario) = line.split_once('\t').unwrap_or((line, ""));
            let mut found = None;
            for seed in seed..seed + SEEDS_OF_A_FAULT {
                let ended = self.one(None, Some(fault), seconds, seed)?;
                if ended.code == Some(BROKEN) {
                    let violations = ended.figures.map(|figures| figures.violations.join(", "));
                    found = Some((seed, violations.unwrap_or_default()));
                    break;
                }
            }
            match found {
                Some((seed, found)) => {
                    let _ = writeln!(table, "| {fault} | {scenario} | {seed} | {found} |");
                }
                None => unseen.push(fault.to_owned()),
            }
        }
        println!(
            "| rule left out | scenario | seed | found |\n| --- | --- | ---: | --- |\n{table}"
        );
        if unseen.is_empty() {
            return Ok(());
        }
        Err(Failure::of(format!("not found by the checker: {}", unseen.join(", "))))
    }

    fn keep(&self, commit: &str, seconds: u64, seed: u64, rows: &str) -> Outcome {
        let profile = if self.release { "release" } else { "dev" };
        let path = workspace_root().join("docs/chaos.md");
        let old = std::fs::read_to_string(&path).map_err(Failure::doing(path.display()))?;
        let head = old.split(TABLE).next().unwrap_or_default();
        let text = format!(
            "{head}{TABLE}\n\n`cargo xtask chaos all --seconds {seconds} --seed {seed}` ({profile} profile) at {commit}, on {}.\n\n{COLUMNS}{rows}",
            machine()
        );
        std::fs::write(&path, text).map_err(Failure::doing(path.display()))
    }
}

const TABLE: &str = "## The last run of all scenarios";
const COLUMNS: &str = "\
| scenario | shows | faults asked / confirmed | acknowledged | lost | doubled | longest stop | recovery | verdict |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
";

impl Ended {
    fn must_be_green(&self) -> Outcome {
        match self.code {
            Some(0) => Ok(()),
            Some(BROKEN) => Err(Failure::of("a guarantee was broken")),
            _ => Err(Failure::of("the run proves nothing")),
        }
    }

    fn row(&self, name: &str, shows: &str) -> String {
        let Some(figures) = &self.figures else {
            let why = if self.code == Some(0) { "can't run here" } else { "no verdict" };
            return format!("| {name} | {shows} | | | | | | | {why} |");
        };
        let verdict = match (figures.violations.is_empty(), figures.shortfalls.is_empty()) {
            (false, _) => format!("broken: {}", figures.violations.join(", ")),
            (true, false) => format!("proves nothing: {}", figures.shortfalls.join("; ")),
            (true, true) => "held".to_owned(),
        };
        format!(
            "| {name} | {shows} | {} / {} | {} | {} | {} | {} ms | {} ms | {verdict} |",
            figures.asked,
            figures.confirmed,
            figures.acknowledged,
            figures.lost,
            figures.doubled,
            figures.longest_stop_ms,
            figures.recovery_ms
        )
    }
}

fn green(red: &[String]) -> Outcome {
    if red.is_empty() {
        println!("every run was green");
        return Ok(());
    }
    Err(Failure::of(format!("not green: {}", red.join(", "))))
}
