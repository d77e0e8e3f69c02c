//! Figures as they are read, kept and shown.

use super::{Name, budgets};
use crate::shell::{self, command};
use crate::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::PathBuf;
use stormwire_testkit::workspace_root;

const HEAD: &str = "\
# Measured

Made by `cargo xtask bench` from the last line of each file in `load/results/`, and the notes beside it;
do not edit. Figures are medians of several runs, with the lowest and the highest. The load generator, the
servers and whatever else runs share the machine: \"load\" is the number of tasks that wanted a core before
and after (1 min average, so the bench itself counts in the second), and a figure from a busy machine says
less than one from an idle machine. Ratios were measured in turn in the same run and suffer less.
";

/// One figure: several measurements of one thing.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(super) struct Figure {
    pub(super) figure: String,
    pub(super) unit: String,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) runs: Vec<f64>,
}

/// What one run of the load generator says.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) figures: Vec<Figure>,
}

impl Line {
    pub(super) fn parse(line: &str) -> Outcome<Self> {
        serde_json::from_str(line).map_err(Failure::doing(format!("the figures {line:?}")))
    }
}

/// A bench as it is kept: one line.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(super) struct Kept {
    pub(super) bench: String,
    pub(super) commit: String,
    pub(super) at: String,
    pub(super) machine: String,
    /// Load average of one minute, before and after.
    pub(super) load: [f64; 2],
    pub(super) figures: Vec<Figure>,
}

impl Kept {
    /// Measures, and notes where and when that was.
    pub(super) fn measured(
        bench: &str,
        measure: impl FnOnce() -> Outcome<Vec<Figure>>,
    ) -> Outcome<Self> {
        let before = load_average();
        let figures = measure()?;
        Ok(Self {
            bench: bench.to_owned(),
            commit: commit()?,
            at: shell::read(&mut command("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?,
            machine: machine(),
            load: [before, load_average()],
            figures,
        })
    }

    pub(super) fn json(&self) -> Outcome<String> {
        serde_json::to_string(self).map_err(Failure::doing("writing figures"))
    }

    /// The figure of that name.
    pub(super) fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.figure == name)
    }

    /// A table for people, and what was at its limit.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "| figure | median | lowest to highest | unit |\n| --- | ---: | --- | --- |\n",
        );
        for Figure { figure, unit, median, min, max, .. } in &self.figures {
            let (median, min, max) = (number(*median), number(*min), number(*max));
            let _ = writeln!(text, "| {figure} | {median} | {min} to {max} | {unit} |");
        }
        for limit in self.limits() {
            let _ = write!(text, "\n{limit}\n");
        }
        text
    }

    /// Of each saturated measurement: who used the cores.
    fn limits(&self) -> Vec<String> {
        let cores: f64 =
            self.machine.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(1.0);
        let suffix = "saturated: machine CPU";
        let machines = self.figures.iter().filter(|figure| figure.figure.ends_with(suffix));
        machines.map(|machine| self.limit(machine, cores)).collect()
    }

    fn limit(&self, machine: &Figure, cores: f64) -> String {
        let prefix = machine.figure.trim_end_matches("machine CPU");
        let mut parts: Vec<(&str, f64)> = self
            .figures
            .iter()
            .filter_map(|figure| Some((figure.figure.strip_prefix(prefix)?, figure.median)))
            .filter_map(|(name, median)| Some((name.strip_suffix(" CPU")?, median)))
            .filter(|(name, _)| *name != "machine")
            .collect();
        if let Some(else_) = self.figure(&format!("{prefix}CPU of all else")) {
            parts.push(("all else", else_.median));
        }
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let parts: Vec<String> =
            parts.iter().map(|(name, used)| format!("{name} {used:.2}")).collect();
        let verdict = if machine.median >= 0.9 * cores {
            "the machine's cores are at their limit"
        } else {
            "the cores are not at their limit: waiting is"
        };
        let busy = machine.median;
        format!("{prefix}{verdict}, {busy:.2} of {cores} ({})", parts.join(", "))
    }
}

/// What is measured: the last commit, marked where something else than figures has changed since.
fn commit() -> Outcome<String> {
    let mut commit = shell::read(&mut command("git", &["rev-parse", "--short", "HEAD"]))?;
    let figures = [":!load/results", ":!load/RESULTS.md"];
    let mut changes = command("git", &["status", "--porcelain", "--untracked-files=no", "--", "."]);
    if !shell::read(changes.args(figures))?.is_empty() {
        commit.push_str("-dirty");
    }
    Ok(commit)
}

/// Adds the runs of figures to those of the same name.
pub(super) fn merge(figures: &mut Vec<Figure>, more: Vec<Figure>) {
    for figure in more {
        match figures.iter_mut().find(|known| known.figure == figure.figure) {
            Some(known) => known.add(&figure.runs),
            None => figures.push(figure),
        }
    }
}

/// One figure's median as a part of another's, if both are there; its spread is that of the pairs.
pub(super) fn ratio(figures: &[Figure], name: &str, part: &str, whole: &str) -> Option<Figure> {
    let find = |name: &str| figures.iter().find(|figure| figure.figure == name);
    let (part, whole) = (find(part)?, find(whole)?);
    let pairs = part.runs.iter().zip(&whole.runs);
    let mut ratio = Figure {
        figure: name.to_owned(),
        unit: "ratio".to_owned(),
        median: 0.0,
        min: 0.0,
        max: 0.0,
        runs: Vec::new(),
    };
    let runs: Vec<f64> = pairs.map(|(part, whole)| rounded(part / whole)).collect();
    ratio.add(&runs);
    ratio.median = rounded(part.median / whole.median);
    Some(ratio)
}

fn rounded(ratio: f64) -> f64 {
    (ratio * 1_000.0).round() / 1_000.0
}

impl Figure {
    fn add(&mut self, runs: &[f64]) {
        self.runs.extend_from_slice(runs);
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        self.median = match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        self.min = sorted.first().copied().unwrap_or(f64::NAN);
        self.max = sorted.last().copied().unwrap_or(f64::NAN);
    }
}

/// Thousands divided, and no more digits than say something.
pub(super) fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn lines_of(name: Name) -> PathBuf {
    workspace_root().join("load/results").join(format!("{}.jsonl", name.text()))
}

/// What the figures don't say themselves: where the time goes, and what was tried.
fn notes_of(bench: &str) -> PathBuf {
    workspace_root().join("load/results").join(format!("{bench}.md"))
}

fn document() -> PathBuf {
    workspace_root().join("load/RESULTS.md")
}

/// Adds the line of this bench and makes the document anew.
pub(super) fn keep(kept: &Kept) -> Outcome {
    let path = workspace_root().join("load/results").join(format!("{}.jsonl", kept.bench));
    let mut text = std::fs::read_to_string(&path).unwrap_or_default();
    text.push_str(&kept.json()?);
    text.push('\n');
    let written = std::fs::create_dir_all(workspace_root().join("load/results"))
        .and_then(|()| std::fs::write(&path, text))
        .and_then(|()| std::fs::write(document(), made_of(&last_lines()?)));
    written.map_err(Failure::doing(path.display()))
}

/// The last line of each bench that was measured, in the order of their names here.
fn last_lines() -> std::io::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for name in Name::ALL {
        let text = match std::fs::read_to_string(lines_of(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text?,
        };
        if let Some(line) = text.lines().last() {
            all.push(serde_json::from_str(line)?);
        }
    }
    Ok(all)
}

fn made_of(all: &[Kept]) -> String {
    let mut text = format!("{HEAD}\n## Budgets\n\n{}", budgets::table(all));
    for kept in all {
        let Kept { bench, commit, at, machine, load: [before, after], .. } = kept;
        let what = Name::ALL.into_iter().find(|name| name.text() == bench).map_or("", Name::what);
        let _ = write!(
            text,
            "\n## {bench}\n\n`cargo xtask bench {bench}` at {commit}, {at}, on {machine}; load {before:.1} \
             before, {after:.1} after.\n\n{what}\n\n{}",
            kept.table()
        );
        if let Ok(notes) = std::fs::read_to_string(notes_of(bench)) {
            let _ = write!(text, "\n{notes}");
        }
    }
    text
}

/// Recomputes the verdicts from the kept lines; fails where the document says otherwise.
pub(super) fn check() -> Outcome {
    let all = last_lines().map_err(Failure::doing("load/results"))?;
    println!("{}", budgets::table(&all));
    let there = std::fs::read_to_string(document()).map_err(Failure::doing("load/RESULTS.md"))?;
    if there == made_of(&all) {
        return Ok(());
    }
    Err(Failure::of("load/RESULTS.md is not what the lines in load/results/ say; measure again"))
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// Processor, cores, memory and kernel.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("an unknown processor");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = field(&memory, "MemTotal")
        .and_then(|text| text.split(' ').next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = shell::read(&mut command("uname", &["-sr"])).unwrap_or_default();
    format!("{cores} cores of {model}, {} GiB, {kernel}", kib >> 20)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, runs: &[f64]) -> Figure {
        let mut figure = Figure {
            figure: name.to_owned(),
            unit: "events/s".to_owned(),
            median: 0.0,
            min: 0.0,
            max: 0.0,
            runs: Vec::new(),
        };
        figure.add(runs);
        figure
    }

    fn kept(figures: Vec<Figure>) -> Kept {
        Kept {
            bench: "ingest-single".to_owned(),
            commit: "abc".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            machine: "2 cores of something".to_owned(),
            load: [0.5, 2.0],
            figures,
        }
    }

    #[test]
    fn runs_of_one_figure_are_taken_together() {
        let mut figures = vec![figure("rate", &[1.0, 2.0, 3.0])];
        merge(&mut figures, vec![figure("rate", &[9.0, 10.0]), figure("other", &[1.0])]);
        assert_eq!(figures.len(), 2);
        assert_eq!((figures[0].median, figures[0].max), (3.0, 10.0));
    }

    #[test]
    fn a_ratio_is_of_medians_and_spreads_over_pairs() {
        let figures = [figure("a", &[1.0, 3.0]), figure("b", &[2.0, 2.0])];
        let share = ratio(&figures, "share", "a", "b").unwrap();
        assert_eq!((share.median, share.min, share.max), (1.0, 0.5, 1.5));
        assert!(ratio(&figures, "share", "a", "c").is_none());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(1.234), "1.23");
    }

    #[test]
    fn who_uses_the_cores_is_said_of_what_was_saturated() {
        let text = kept(vec![
            figure("saturated: machine CPU", &[1.95]),
            figure("saturated: gateway CPU", &[1.2]),
            figure("saturated: generator CPU", &[0.5]),
        ])
        .table();
        assert!(
            text.contains("at their limit, 1.95 of 2 (gateway 1.20, generator 0.50)"),
            "{text}"
        );
    }

    #[test]
    fn the_document_is_what_the_kept_lines_say() {
        let all = last_lines().unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(document(), made_of(&all)).unwrap();
        }
        let there = std::fs::read_to_string(document()).unwrap();
        assert!(there == made_of(&all), "load/RESULTS.md is older than the lines");
    }
}
