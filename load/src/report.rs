//! Figures, one JSON line a run, and the progress on the terminal.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::time::Duration;

/// One figure: several measurements of one thing.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(figure: &str, unit: &'static str, runs: &[f64]) -> Self {
        let runs: Vec<f64> = runs.iter().map(|value| rounded(*value)).collect();
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        let (min, max) = (
            sorted.first().copied().unwrap_or(f64::NAN),
            sorted.last().copied().unwrap_or(f64::NAN),
        );
        Self { figure: figure.to_owned(), unit, median: rounded(median), min, max, runs }
    }
}

/// What one run of this program has measured: one JSON line.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: String,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(bench: &str) -> Self {
        Self { bench: bench.to_owned(), figures: Vec::new() }
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(crate) fn print(&self) {
        say(self);
    }
}

/// Writes one line of JSON to standard output.
pub(crate) fn say<T: Serialize>(what: &T) {
    if let Ok(line) = serde_json::to_string(what) {
        println!("{line}");
    }
}

/// Four digits are more than any measurement here is worth.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3.0 - value.abs().log10().floor();
    let scale = 10_f64.powf(digits);
    // Large numbers are divided again: multiplying by 0.1 would leave a tail of nines.
    if digits < 0.0 {
        let scale = 10_f64.powf(-digits);
        (value / scale).round() * scale
    } else {
        (value * scale).round() / scale
    }
}

/// A bar over the seconds of a bench; invisible where there is no terminal.
pub(crate) fn progress(bench: &str, total: Duration) -> ProgressBar {
    let tenths = u64::try_from(total.as_millis() / 100).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(tenths);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(bench.to_owned());
    bar
}

pub(crate) fn complain(what: &str) {
    eprintln!("error: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let figure = Figure::new("f", "events/s", &[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((figure.median, figure.min, figure.max), (2.5, 1.0, 4.0));
        assert_eq!(Figure::new("f", "s", &[5.0, 1.0, 9.0]).median, 5.0);
    }

    #[test]
    fn four_digits_stay() {
        assert_eq!(rounded(1_234_567.0), 1_235_000.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!(rounded(0.0), 0.0);
    }
}
