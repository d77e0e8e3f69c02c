//! History beside live readers: the readers' own bench, which measures the released program with the
//! clients of its tests, read line by line.

use super::results::{Figure, merge};
use super::rig::Rig;
use crate::shell::{self, command};
use crate::{Failure, Outcome};

impl Rig {
    /// A hundred clients that each read a hundred thousand events, on both engines.
    pub(super) fn history(&self) -> Outcome<Vec<Figure>> {
        let engines = [("embedded, ", "replays-embedded"), ("cluster, ", "replays-cluster")];
        let engines = if self.quick { &engines[..1] } else { &engines[..] };
        let mut figures = Vec::new();
        for round in 1..=self.rounds() {
            for (label, scenario) in engines {
                shell::progress(&format!("round {round} of {}: {scenario} ...", self.rounds()));
                let arguments =
                    ["bench", "--locked", "-p", "stormwire", "--bench", "readers", "--", scenario];
                let text = shell::read(&mut command("cargo", &arguments))?;
                let measured: Vec<Figure> =
                    text.lines().filter_map(|line| figure(label, line)).collect();
                if measured.is_empty() {
                    return Err(Failure::of(format!("{scenario} has no figures: {text}")));
                }
                merge(&mut figures, measured);
            }
        }
        Ok(figures)
    }
}

/// A figure of a line: its name, at least two blanks, a number and perhaps its unit.
fn figure(label: &str, line: &str) -> Option<Figure> {
    let (name, rest) = line.trim().split_once("  ")?;
    let mut words = rest.split_whitespace();
    let value: f64 = words.next()?.parse().ok()?;
    let unit = words.next().unwrap_or("events");
    words.next().is_none().then(|| Figure {
        figure: format!("{label}{name}"),
        unit: unit.to_owned(),
        median: value,
        min: value,
        max: value,
        runs: vec![value],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_readers_bench_is_a_figure() {
        let read = |line| figure("embedded, ", line).map(|it| (it.figure, it.unit, it.median));
        let is = |name: &str, unit: &str, value| Some((name.to_owned(), unit.to_owned(), value));
        assert_eq!(
            read("delivery p99, with replays                     12.50 ms"),
            is("embedded, delivery p99, with replays", "ms", 12.5)
        );
        assert_eq!(
            read("events a second        400000"),
            is("embedded, events a second", "events", 400_000.0)
        );
        assert_eq!(read("    Finished `bench` profile [optimized] target(s) in 0.5s"), None);
        assert_eq!(read("running 2 tests"), None);
        assert_eq!(read(""), None);
    }
}
