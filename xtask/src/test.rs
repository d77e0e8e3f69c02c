//! `cargo xtask test`: everything that must pass, with real servers; what continuous integration runs.
//!
//! With `--coverage` the same tests run instrumented, and lines count per crate. Left out of the
//! count are the programs that measure and serve developers alone (`load`, `xtask`) and files that
//! hold nothing but tests.

use crate::clients::Packages;
use crate::shell::{self, command};
use crate::{Failure, Outcome, tools};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use stormwire_testkit::workspace_root;

const COVERAGE_TOOL: &str = "0.9.1";
const OVERALL_PERCENT_MIN: f64 = 80.0;
const CRATE_PERCENT_MIN: f64 = 70.0;
const NOT_COUNTED: &str = r"(/load/|/xtask/|/tests/|/tests\.rs$|/examples/|/benches/)";

/// How many tests ran, by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Runs every test and ends with their number.
pub(crate) fn run(coverage: bool) -> Outcome {
    let containers = shell::answers("docker", &["info"]);
    if containers {
        println!("servers: in containers");
    } else {
        tools::provide()?;
    }
    // First, because the program that is tested takes the app in.
    let packages = Packages::provide()?;
    packages.build_app()?;
    let report = workspace_root().join("target/coverage.json");
    let mut cargo = if coverage { instrumented(&report.to_string_lossy())? } else { plain() };
    if containers {
        cargo.args(["--features", "stormwire-testkit/containers"]);
    }
    let (mut count, succeeded) = counted(&mut cargo)?;
    if succeeded {
        count.passed += packages.test()?;
    }
    if succeeded && coverage {
        let text = std::fs::read_to_string(&report).map_err(Failure::doing(report.display()))?;
        judge(&lines_by_crate(&text)?)?;
    }
    println!("\n{} passed, {} failed", count.passed, count.failed);
    match (succeeded, count.passed) {
        (true, 1..) => Ok(()),
        (true, 0) => Err(Failure::of("no test ran")),
        (false, _) => Err(Failure::of("the tests failed")),
    }
}

fn plain() -> Command {
    command("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])
}

fn instrumented(report: &str) -> Outcome<Command> {
    let has = shell::read(&mut command("cargo", &["llvm-cov", "--version"])).unwrap_or_default();
    if !has.ends_with(COVERAGE_TOOL) {
        println!("installing cargo-llvm-cov {COVERAGE_TOOL} ...");
        let install = ["install", "--locked", "cargo-llvm-cov", "--version", COVERAGE_TOOL];
        shell::run(&mut command("cargo", &install))?;
    }
    shell::run(&mut command("rustup", &["component", "add", "llvm-tools"]))?;
    let mut cargo = command("cargo", &["llvm-cov", "--workspace", "--locked", "--no-fail-fast"]);
    cargo
        .args(["--json", "--summary-only", "--output-path", report])
        .args(["--ignore-filename-regex", NOT_COUNTED]);
    Ok(cargo)
}

/// Runs cargo in view and adds up what its test programs say at their end.
fn counted(cargo: &mut Command) -> Outcome<(Count, bool)> {
    let mut child = cargo
        .env("STORMWIRE_TEST_REQUIRE", "1")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::doing("cargo"))?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(Failure::doing("reading what the tests say"))?;
            count.add(&line);
            println!("{line}");
        }
    }
    let status = child.wait().map_err(Failure::doing("cargo"))?;
    Ok((count, status.success()))
}

impl Count {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; ..`; others say nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let mut words = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            let Ok(number) = word.parse::<u64>() else { continue };
            match words.peek() {
                Some(&"passed") => self.passed += number,
                Some(&"failed") => self.failed += number,
                _ => {}
            }
        }
    }
}

/// The part of the report that is read here.
#[derive(Deserialize)]
struct Report {
    data: Vec<ReportData>,
}

#[derive(Deserialize)]
struct ReportData {
    files: Vec<ReportFile>,
}

#[derive(Deserialize)]
struct ReportFile {
    filename: String,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Lines,
}

/// Lines that could run and lines that did.
#[derive(Deserialize, Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    #[expect(clippy::cast_precision_loss, reason = "a source tree has fewer than 2^52 lines")]
    fn percent(self) -> f64 {
        if self.count == 0 { 100.0 } else { self.covered as f64 * 100.0 / self.count as f64 }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
    }
}

fn lines_by_crate(report: &str) -> Outcome<BTreeMap<String, Lines>> {
    let report: Report = serde_json::from_str(report).map_err(Failure::doing("coverage report"))?;
    let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
    for file in report.data.into_iter().flat_map(|data| data.files) {
        let folders: Vec<&str> = file.filename.split('/').collect();
        let source = folders.iter().rposition(|folder| *folder == "src").unwrap_or(0);
        let name = source.checked_sub(1).map_or("?", |index| folders[index]);
        crates.entry(name.to_owned()).or_default().add(file.summary.lines);
    }
    Ok(crates)
}

/// Prints the table and fails where a threshold is not reached.
fn judge(crates: &BTreeMap<String, Lines>) -> Outcome {
    let mut all = Lines::default();
    let mut short = Vec::new();
    println!("\n{:<20} {:>8} {:>8} {:>7}", "crate", "lines", "covered", "%");
    for (name, lines) in crates {
        println!("{name:<20} {:>8} {:>8} {:>7.1}", lines.count, lines.covered, lines.percent());
        all.add(*lines);
        if lines.percent() < CRATE_PERCENT_MIN {
            short.push(format!("{name} has less than {CRATE_PERCENT_MIN} % of its lines covered"));
        }
    }
    println!("{:<20} {:>8} {:>8} {:>7.1}", "all", all.count, all.covered, all.percent());
    if all.percent() <= OVERALL_PERCENT_MIN {
        short.push(format!("not more than {OVERALL_PERCENT_MIN} % of all lines are covered"));
    }
    if short.is_empty() { Ok(()) } else { Err(Failure::of(short.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_test_programs_are_added_up() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; finished in 0.10s");
        count.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured");
        count.add("test some::thing ... ok");
        assert_eq!(count, Count { passed: 15, failed: 2 });
    }

    const REPORT: &str = r#"{"data":[{"files":[
        {"filename":"/a/crates/core/src/lib.rs","summary":{"lines":{"count":80,"covered":72}}},
        {"filename":"/a/crates/core/src/x/y.rs","summary":{"lines":{"count":20,"covered":18}}},
        {"filename":"/a/services/gateway/src/lib.rs","summary":{"lines":{"count":10,"covered":6}}}
    ],"totals":{}}]}"#;

    #[test]
    fn lines_count_by_crate_and_a_crate_below_its_share_fails() {
        let crates = lines_by_crate(REPORT).unwrap();
        assert_eq!(crates["core"], Lines { count: 100, covered: 90 });
        let failure = judge(&crates).unwrap_err().to_string();
        assert!(failure.contains("gateway") && !failure.contains("core"), "{failure}");
    }

    #[test]
    fn enough_everywhere_is_enough() {
        let enough = BTreeMap::from([("core".to_owned(), Lines { count: 100, covered: 90 })]);
        assert!(judge(&enough).is_ok());
        let short = BTreeMap::from([("core".to_owned(), Lines { count: 100, covered: 75 })]);
        assert!(judge(&short).unwrap_err().to_string().contains("of all lines"));
    }
}
