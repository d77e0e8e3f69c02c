//! What each checker is told to look at.

use super::install::Tools;
use crate::shell::{self, command};
use crate::{Failure, Outcome, tools, up};
use std::path::{Path, PathBuf};
use stormwire_testkit::{Program, workspace_root};

const ALERTMANAGER: &str = "dashboards/alertmanager/alertmanager.yaml";
/// Who is told of an alert of each severity.
const RECEIVERS: [(&str, &str); 5] = [
    ("P1", "page,escalation"),
    ("P2", "page,escalation"),
    ("P3", "mail"),
    ("P4", "log"),
    ("unheard-of", "log"),
];

pub(super) fn rules(tools: &Tools) -> Outcome {
    shell::read(tools.script("dashboards/make.py").arg("--check"))?;
    let rules = files("dashboards/rules", &["yaml"])?;
    shell::read(tools.program("promtool").args(["check", "rules", "--lint=all"]).args(rules))?;
    let tests = files("dashboards/tests", &["yaml"])?;
    said(tools.program("promtool").args(["test", "rules"]).args(tests))
}

pub(super) fn routes(tools: &Tools) -> Outcome {
    said(tools.program("amtool").args(["check-config", ALERTMANAGER]))?;
    for (severity, receivers) in RECEIVERS {
        let mut amtool = tools.program("amtool");
        amtool.args(["config", "routes", "test", "--config.file", ALERTMANAGER]);
        amtool.args(["--verify.receivers", receivers, &format!("severity={severity}")]);
        said(&mut amtool)?;
    }
    Ok(())
}

pub(super) fn dashboards(tools: &Tools) -> Outcome {
    said(&mut tools.script("dashboards/check.py"))
}

/// Where the profiles are rendered to.
const RENDERED: &str = "target/ops/rendered";
const SCHEMAS: &str = "target/ops/schemas";
/// What must not pass: a misspelt field of the core and of a custom resource.
const MISSPELT: [(&str, &str); 2] =
    [("containerPort:", "containerPrt:"), ("pollingInterval:", "polingInterval:")];

pub(super) fn charts(tools: &Tools) -> Outcome {
    said(tools.script("charts/check.py").arg(RENDERED))?;
    let mut schemas = tools.node_script("xtask/ops/schemas.mjs");
    said(schemas.args([tools.node_modules(), tools.core_schemas()]).arg(SCHEMAS))?;
    let rendered = files(RENDERED, &["yaml"])?;
    said(&mut kubeconform(tools, &rendered))?;
    // A checker that takes everything is none.
    let text = rendered.first().map(std::fs::read_to_string).transpose();
    let text = text.map_err(Failure::doing(RENDERED))?.unwrap_or_default();
    for (right, wrong) in MISSPELT {
        let path = workspace_root().join("target/ops/misspelt.yaml");
        std::fs::write(&path, text.replacen(right, wrong, 1))
            .map_err(Failure::doing(path.display()))?;
        if said(&mut kubeconform(tools, &[path])).is_ok() {
            return Err(Failure::of(format!("kubeconform takes {wrong}")));
        }
    }
    Ok(())
}

fn kubeconform(tools: &Tools, files: &[PathBuf]) -> std::process::Command {
    let core = format!("{SCHEMAS}/core/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json");
    let custom =
        format!("{SCHEMAS}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json");
    let mut kubeconform = tools.program("kubeconform");
    kubeconform.args(["-strict", "-summary"]);
    kubeconform.args(["-schema-location", &core, "-schema-location", &custom]).args(files);
    kubeconform
}

/// What the chart tells the processes beside their file, in short.
const ADDRESSES: [(&str, &str); 4] = [
    ("STORMWIRE_JOURNAL_URL", "nats://nats:4222"),
    ("STORMWIRE_ARCHIVE_URL", "postgres://user:password@host/database"),
    ("STORMWIRE_LIMITS_URL", "redis://redis:6379"),
    ("STORMWIRE_IDENTITY_URL", "http://identity:8080"),
];

pub(super) fn settings(tools: &Tools) -> Outcome {
    said(tools.script("charts/check.py").arg(RENDERED))?;
    let program = up::build(true)?;
    for file in files(RENDERED, &["toml"])? {
        let mut stormwire = command(&program.to_string_lossy(), &["config", "--config"]);
        said(stormwire.arg(file).envs(ADDRESSES))?;
    }
    Ok(())
}

pub(super) fn nats(tools: &Tools) -> Outcome {
    tools::provide()?;
    let server = Program::Nats.find().ok_or_else(|| Failure::of("nats-server is not there"))?;
    said(tools.script("charts/check.py").arg(RENDERED))?;
    let rendered = format!("{RENDERED}/production.yaml");
    said(tools.script("charts/boot_nats.py").arg(rendered).arg(server))
}

pub(super) fn mesh(tools: &Tools) -> Outcome {
    let program = tools.go_module("chaos/mesh/check", "meshcheck")?;
    let mut check = command(&program.to_string_lossy(), &[] as &[&str]);
    said(check.args(files("chaos/mesh", &["yaml"])?))?;
    let read = |path: &str| {
        std::fs::read_to_string(workspace_root().join(path)).map_err(Failure::doing(path))
    };
    let missing = without_twin(&read("chaos/mesh/README.md")?, &read("chaos/src/scenario.rs")?);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::of(format!("no local scenario of the name: {}", missing.join(", "))))
}

/// The scenarios that the table of twins names and `cargo xtask chaos` does not have.
fn without_twin(table: &str, scenarios: &str) -> Vec<String> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.split('|').nth(2))
        .flat_map(|twins| twins.split('`').skip(1).step_by(2))
        .filter(|twin| !scenarios.contains(&format!("\"{twin}\"")))
        .map(str::to_owned)
        .collect()
}

pub(super) fn image(tools: &Tools) -> Outcome {
    said(tools.program("hadolint").arg("deploy/Dockerfile"))?;
    let compose = ["--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"];
    said(tools.program("check-jsonschema").args(compose))?;
    let prometheus = ["check", "config", "--syntax-only", "deploy/prometheus.yaml"];
    said(tools.program("promtool").args(prometheus))
}

pub(super) fn workflows(tools: &Tools) -> Outcome {
    said(&mut tools.program("actionlint"))?;
    said(tools.program("zizmor").args(["--offline", "--no-progress", ".github"]))?;
    let dependabot = ["--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"];
    said(tools.program("check-jsonschema").args(dependabot))
}

pub(super) fn scripts(tools: &Tools) -> Outcome {
    said(tools.program("shellcheck").args([".ci/run"]).args(files("deploy", &["sh"])?))
}

pub(super) fn api(tools: &Tools) -> Outcome {
    let openapi = ["docs/openapi.json", "docs/openapi-identity.json"];
    let mut spectral = tools.program("spectral");
    spectral.args([
        "lint",
        "--quiet",
        "--fail-severity=warn",
        "--ruleset",
        "xtask/ops/spectral.yaml",
    ]);
    said(spectral.args(openapi))?;
    said(tools.node_script("xtask/ops/asyncapi.cjs").arg("docs/asyncapi.yaml"))
}

/// Runs it; a failure carries all that it wrote, since each checker complains where it likes.
pub(super) fn said(command: &mut std::process::Command) -> Outcome {
    let output = command.output().map_err(Failure::doing(format!("{command:?}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Failure::of(String::from_utf8_lossy(&text).trim().to_owned()))
}

/// The files of a folder with one of these endings, sorted; none where there is no such folder.
pub(super) fn files(folder: &str, endings: &[&str]) -> Outcome<Vec<PathBuf>> {
    let path = workspace_root().join(folder);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&path).map_err(Failure::doing(path.display()))?;
    let is_one = |path: &Path| path.extension().is_some_and(|e| endings.iter().any(|x| e == *x));
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_one(path)).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_that_does_not_exist_is_seen() {
        let table = "| experiment | twin | x |\n| `a` | `nats-kill`, `gone` | y |\n| `b` | none: why | z |\n";
        assert_eq!(without_twin(table, "scenario(\"nats-kill\")"), ["gone"]);
    }

    #[test]
    fn each_experiment_has_a_row_in_the_table() {
        let table = workspace_root().join("chaos/mesh/README.md");
        let table = std::fs::read_to_string(table).unwrap();
        for path in files("chaos/mesh", &["yaml"]).unwrap() {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_many = name == "schedule" || name == "storm-day";
            assert!(is_many || table.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
