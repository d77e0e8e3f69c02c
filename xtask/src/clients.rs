//! `cargo xtask clients`: the TypeScript packages in `clients/`: built, checked, and tested against the real
//! server and in a real browser.
//!
//! Node and Chromium are used where they are; otherwise Node comes as a pinned Python wheel and Chromium as a
//! Debian package.

use crate::shell::{self, command};
use crate::{Failure, Outcome, tools};
use std::path::{Path, PathBuf};
use std::process::Command;
use stormwire_testkit::workspace_root;

/// What to do with the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// Build the web app, which the next build of the program takes in
    App,
    /// Check types and style, and run every test
    Test,
    /// Measure what the app weighs and costs, and write clients/web/FIGURES.md
    Report,
    /// Build the SDK's reference in clients/js/docs
    Docs,
}

/// Does one step, or with none the app and the tests.
pub(crate) fn run(step: Option<Step>) -> Outcome {
    let packages = Packages::provide()?;
    match step {
        Some(Step::App) => packages.build_app(),
        Some(Step::Test) => packages.test().map(|_| ()),
        Some(Step::Report) => packages.report(),
        Some(Step::Docs) => packages.npm(&["run", "docs", "--workspace", "@stormwire/client"]),
        None => {
            packages.build_app()?;
            packages.test().map(|passed| println!("\n{passed} passed"))
        }
    }
}

/// The packages with all that they need, and the Node that runs them.
pub(crate) struct Packages {
    folder: PathBuf,
    /// Where `node` and `npm` are, if not on the search path.
    node: Option<PathBuf>,
}

impl Packages {
    /// Installs what the lock file names, if it is not there yet.
    pub(crate) fn provide() -> Outcome<Self> {
        let packages =
            Self { folder: workspace_root().join("clients"), node: tools::provide_node()? };
        let wanted = read(&packages.folder.join("package-lock.json"))?;
        let mark = packages.folder.join("node_modules/.stormwire-lock");
        if std::fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
            shell::progress("installing the npm packages ...");
            packages.npm(&["ci", "--no-fund", "--no-audit", "--loglevel=error"])?;
            std::fs::write(&mark, wanted).map_err(Failure::doing(mark.display()))?;
        }
        Ok(packages)
    }

    /// Builds the SDK and the app that the program serves.
    pub(crate) fn build_app(&self) -> Outcome {
        self.npm(&["run", "build", "--workspace", "@stormwire/client"])?;
        self.npm(&["run", "build", "--workspace", "@stormwire/web"])
    }

    /// Types, style, tests; how many passed. The program must be built.
    pub(crate) fn test(&self) -> Outcome<u64> {
        self.npm(&["run", "lint"])?;
        self.npm(&["run", "check", "--workspaces"])?;
        self.npm(&["run", "size", "--workspace", "@stormwire/client"])?;
        shell::run(&mut command("cargo", &["build", "--locked", "-p", "stormwire"]))?;
        let mut passed = self.counted("@stormwire/client")?;
        let chromium = tools::provide_chromium()?;
        // Tests of the app start a cluster, as `cargo xtask up` does.
        let own = std::env::current_exe().map_err(Failure::doing("the path of xtask"))?;
        let programs = [("CHROMIUM", chromium.as_path()), ("XTASK", own.as_path())];
        passed += self.counted_with("@stormwire/web", &programs)?;
        Ok(passed)
    }

    /// Measures the app in a browser; best on a machine that does nothing else.
    fn report(&self) -> Outcome {
        self.build_app()?;
        shell::run(&mut command("cargo", &["build", "--locked", "-p", "stormwire"]))?;
        let chromium = tools::provide_chromium()?;
        let mut npm = self.command(&["run", "report", "--workspace", "@stormwire/web"]);
        shell::run(npm.env("CHROMIUM", &chromium))?;
        self.npm(&["exec", "--", "prettier", "--write", "web/FIGURES.md"])
    }

    fn counted(&self, package: &str) -> Outcome<u64> {
        self.counted_with(package, &[])
    }

    /// Runs a package's tests, which leave their report in `target`.
    fn counted_with(&self, package: &str, environment: &[(&str, &Path)]) -> Outcome<u64> {
        let name = package.rsplit('/').next().unwrap_or(package);
        let report = workspace_root().join(format!("target/clients-{name}.json"));
        let output = format!("--outputFile.json={}", report.display());
        let mut npm = self.command(&["run", "test", "--workspace", package, "--"]);
        npm.args(["--reporter=default", "--reporter=json", &output]);
        shell::run(npm.envs(environment.iter().map(|(name, value)| (name, value.as_os_str()))))?;
        passed(&read(&report)?)
    }

    fn npm(&self, arguments: &[&str]) -> Outcome {
        shell::run(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut npm = command("npm", arguments);
        npm.current_dir(&self.folder).env("NO_COLOR", "1");
        if let Some(node) = &self.node {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(node.clone()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(folders) {
                npm = command(&node.join("npm").to_string_lossy(), arguments);
                npm.current_dir(&self.folder).env("NO_COLOR", "1").env("PATH", path);
            }
        }
        npm
    }
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(Failure::doing(path.display()))
}

/// How many tests passed, by the report; no test is a failure.
fn passed(report: &str) -> Outcome<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Report {
        num_passed_tests: u64,
        num_failed_tests: u64,
    }
    let Report { num_passed_tests, num_failed_tests } =
        serde_json::from_str(report).map_err(Failure::doing("the report of the tests"))?;
    match (num_passed_tests, num_failed_tests) {
        (1.., 0) => Ok(num_passed_tests),
        (passed, failed) => Err(Failure::of(format!("{passed} passed, {failed} failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_a_test_or_with_a_failure_is_one() {
        let report = |good: u64, bad: u64| {
            format!(r#"{{"numPassedTests":{good},"numFailedTests":{bad},"success":true}}"#)
        };
        assert_eq!(passed(&report(7, 0)).unwrap(), 7);
        assert!(super::passed(&report(0, 0)).is_err());
        assert!(super::passed(&report(7, 1)).is_err());
        assert!(super::passed("").is_err());
    }
}
