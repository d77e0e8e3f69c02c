//! Figures as they are read, shown and kept.

use crate::shell::{self, command};
use crate::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use stormwire_testkit::workspace_root;

const HEAD: &str = "\
# Measured

Each section is written by the command that it names; the median of several runs, and the lowest and the
highest. The load generator runs on the same machine as what it measures.
";

/// One figure: several measurements of one thing.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub(super) struct Figure {
    bench: String,
    figure: String,
    unit: String,
    median: f64,
    min: f64,
    max: f64,
    runs: Vec<f64>,
}

impl Figure {
    pub(super) fn parse(line: &str) -> Outcome<Self> {
        serde_json::from_str(line).map_err(Failure::doing(format!("the figure {line}")))
    }

    pub(super) fn json(&self) -> Outcome<String> {
        serde_json::to_string(self).map_err(Failure::doing("writing a figure"))
    }

    fn add(&mut self, runs: &[f64]) {
        self.runs.extend_from_slice(runs);
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        self.median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        self.min = sorted.first().copied().unwrap_or(f64::NAN);
        self.max = sorted.last().copied().unwrap_or(f64::NAN);
    }
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

/// A table for people.
pub(super) fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| figure | median | lowest to highest | unit |\n| --- | ---: | --- | --- |\n",
    );
    for figure in figures {
        let _ = writeln!(
            text,
            "| {} | {} | {} to {} | {} |",
            figure.figure,
            number(figure.median),
            number(figure.min),
            number(figure.max),
            figure.unit
        );
    }
    text
}

/// Thousands divided, and no more digits than say something.
fn number(value: f64) -> String {
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

/// Writes the section of this bench into `load/RESULTS.md`, in the place of its last one.
pub(super) fn keep(name: &str, what: &str, figures: &[Figure]) -> Outcome {
    let path = workspace_root().join("load/RESULTS.md");
    let old = std::fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
    let commit = shell::read(&mut command("git", &["describe", "--always", "--dirty"]))?;
    let section = format!(
        "## {name}\n\n`cargo xtask bench {name}` at {commit}, on {}\n\n{what}\n\n{}",
        machine(),
        table(figures)
    );
    std::fs::write(&path, with_section(&old, name, &section))
        .map_err(Failure::doing(path.display()))
}

fn with_section(document: &str, name: &str, section: &str) -> String {
    let heading = format!("## {name}");
    let mut parts: Vec<String> = Vec::new();
    for line in document.lines() {
        if line.starts_with("## ") || parts.is_empty() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let place = parts.iter().position(|part| part.lines().next() == Some(heading.as_str()));
    match place {
        Some(index) => parts[index] = section.to_owned(),
        None => parts.push(section.to_owned()),
    }
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
    parts.join("\n\n") + "\n"
}

/// Processor, cores, memory and kernel.
/// The machine, for the readers of a table.
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

    const LINE: &str = r#"{"bench":"b","figure":"rate","unit":"events/s","median":2.0,"min":1.0,"max":3.0,"runs":[1.0,2.0,3.0]}"#;

    #[test]
    fn a_figure_is_read_as_it_was_written() {
        let figure = Figure::parse(LINE).unwrap();
        assert_eq!(Figure::parse(&figure.json().unwrap()).unwrap(), figure);
        assert!(Figure::parse("{}").is_err());
    }

    #[test]
    fn runs_of_one_figure_are_taken_together() {
        let mut figures = Vec::new();
        merge(&mut figures, vec![Figure::parse(LINE).unwrap()]);
        let mut more = Figure::parse(LINE).unwrap();
        more.runs = vec![9.0, 10.0];
        merge(&mut figures, vec![more]);
        assert_eq!(figures.len(), 1);
        assert_eq!((figures[0].median, figures[0].max), (3.0, 10.0));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(1.234), "1.23");
    }

    #[test]
    fn a_section_takes_the_place_of_its_last_one() {
        let first = with_section(HEAD, "a", "## a\n\nold\n");
        let second = with_section(&first, "b", "## b\n\nother\n");
        let third = with_section(&second, "a", "## a\n\nnew\n");
        assert!(third.starts_with(HEAD.lines().next().unwrap()), "{third}");
        assert!(third.contains("## a\n\nnew\n\n## b\n\nother\n"), "{third}");
        assert!(!third.contains("old"), "{third}");
    }
}
