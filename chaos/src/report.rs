//! The figures of a run.

use crate::run::Plan;
use crate::{Failure, Outcome};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use stormwire_checker::{Kind, Verdict};

/// How long things took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timing {
    /// The longest time between two acknowledgements while faults came.
    pub(crate) longest_stop: Duration,
    /// The longest time from the end of a fault to the next acknowledgement.
    pub(crate) recovery: Duration,
}

/// What `result.json` holds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: String,
    shows: String,
    seed: u64,
    seconds: u64,
    fault: Option<String>,
    asked: u64,
    confirmed: u64,
    pub(crate) acknowledged: u64,
    refused: u64,
    unknown: u64,
    seen: u64,
    told_as_gap: u64,
    lost: u64,
    doubled: u64,
    longest_stop_ms: u128,
    recovery_ms: u128,
    /// The kinds of violations.
    violations: Vec<&'static str>,
    /// Why the run proves nothing.
    pub(crate) shortfalls: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        verdict: &Verdict,
        timing: Timing,
        asked: u64,
        confirmed: u64,
    ) -> Self {
        let totals = verdict.totals;
        Self {
            scenario: plan.scenario.name.to_owned(),
            shows: plan.scenario.shows.to_owned(),
            seed: plan.seed,
            seconds: plan.seconds,
            fault: plan.fault.clone(),
            asked,
            confirmed,
            acknowledged: totals.acknowledged,
            refused: totals.refused,
            unknown: totals.unknown,
            seen: totals.seen,
            told_as_gap: totals.told_as_gap,
            lost: verdict.count(Kind::Lost),
            doubled: verdict.count(Kind::StoredTwice),
            longest_stop_ms: timing.longest_stop.as_millis(),
            recovery_ms: timing.recovery.as_millis(),
            violations: verdict.kinds().into_iter().map(Kind::name).collect(),
            shortfalls: Vec::new(),
        }
    }

    /// Whether a guarantee was broken.
    pub(crate) fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Writes it beside the histories.
    pub(crate) fn keep(&self, folder: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(self).map_err(Failure::doing("the report"))?;
        let path = folder.join("result.json");
        std::fs::write(&path, text).map_err(Failure::doing(path.display()))
    }

    /// A row a figure.
    pub(crate) fn table(&self) -> String {
        let verdict = match (self.is_broken(), self.shortfalls.is_empty()) {
            (true, _) => format!("BROKEN: {}", self.violations.join(", ")),
            (false, false) => format!("proves nothing: {}", self.shortfalls.join("; ")),
            (false, true) => "every guarantee held".to_owned(),
        };
        let rows = [
            ("scenario", format!("{}, seed {}, {} s", self.scenario, self.seed, self.seconds)),
            ("faults asked / confirmed", format!("{} / {}", self.asked, self.confirmed)),
            ("events acknowledged", self.acknowledged.to_string()),
            ("events lost / doubled", format!("{} / {}", self.lost, self.doubled)),
            ("events seen by subscribers", self.seen.to_string()),
            ("longest stop", format!("{} ms", self.longest_stop_ms)),
            ("longest recovery", format!("{} ms", self.recovery_ms)),
            ("verdict", verdict),
        ];
        rows.iter().map(|(name, value)| format!("{name:<28} {value}\n")).collect()
    }
}
