//! What the figures are held against: the budgets of the design, for two cores that generator and
//! servers share, and in quick runs ratios that only a gross mistake misses.

use super::results::{Kept, number};
use std::fmt::Write as _;

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Budget {
    what: &'static str,
    bench: &'static str,
    figure: &'static str,
    bound: Bound,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", number(least)),
            Self::AtMost(most) => format!("≤ {}", number(most)),
        }
    }
}

const fn budget(
    what: &'static str,
    bench: &'static str,
    figure: &'static str,
    bound: Bound,
) -> Budget {
    Budget { what, bench, figure, bound }
}

use Bound::{AtLeast, AtMost};

const BUDGETS: &[Budget] = &[
    budget(
        "acknowledged events/s, R1, 100 a message",
        "ingest-batched",
        "saturated: acknowledged",
        AtLeast(1_200_000.0),
    ),
    budget(
        "acknowledged events/s, R1, one a message",
        "ingest-single",
        "saturated: acknowledged",
        AtLeast(600_000.0),
    ),
    budget(
        "acknowledged events/s, R3, on disk first, 10 a message",
        "ingest-replicated",
        "10 a message, saturated: acknowledged",
        AtLeast(500_000.0),
    ),
    budget(
        "acknowledged events/s, R3, on disk first, one a message",
        "ingest-replicated",
        "1 a message, saturated: acknowledged",
        AtLeast(150_000.0),
    ),
    budget(
        "publish to acknowledged at 100,000/s, p50 ms",
        "ingest-single",
        "at 100000/s: publish to acknowledged p50",
        AtMost(2.0),
    ),
    budget(
        "publish to acknowledged at 100,000/s, p99 ms",
        "ingest-single",
        "at 100000/s: publish to acknowledged p99",
        AtMost(8.0),
    ),
    budget(
        "publish to acknowledged at 2,000/s, p50 ms",
        "ingest-single",
        "at 2000/s: publish to acknowledged p50",
        AtMost(0.5),
    ),
    budget(
        "publish to delivered at half load, p50 ms",
        "latency",
        "at 0.5 of saturation: publish to delivered p50",
        AtMost(3.0),
    ),
    budget(
        "publish to delivered at half load, p99 ms",
        "latency",
        "at 0.5 of saturation: publish to delivered p99",
        AtMost(12.0),
    ),
    budget(
        "journal to Postgres, share of a bare COPY",
        "persist",
        "share of the bare COPY",
        AtLeast(0.8),
    ),
    budget(
        "everything together: acknowledged events/s",
        "end-to-end",
        "at 200000/s: acknowledged",
        AtLeast(198_000.0),
    ),
    budget(
        "everything together: delivered events/s",
        "end-to-end",
        "at 200000/s: delivered",
        AtLeast(198_000.0),
    ),
    budget(
        "everything together: archive behind at the end, s",
        "end-to-end",
        "archive behind the journal at the end",
        AtMost(2.0),
    ),
    budget(
        "fan-out 1 x 1,000 saturated, deliveries a server CPU second",
        "fanout-one",
        "1 x 1,000, stormwire, saturated: delivered a server CPU second",
        AtLeast(1_400_000.0),
    ),
    budget(
        "fan-out 100 x 100 saturated, deliveries a server CPU second",
        "fanout-many",
        "100 x 100, stormwire, saturated: delivered a server CPU second",
        AtLeast(210_000.0),
    ),
    budget(
        "fan-out 1 x 1,000 paced, deliveries a CPU second against a minimal writer",
        "fanout-one",
        "1 x 1,000, at 50/s: deliveries a CPU second against minimal writer",
        AtLeast(0.9),
    ),
    budget(
        "fan-out 100 x 100 paced, deliveries a CPU second against a minimal writer",
        "fanout-many",
        "100 x 100, at 500/s: deliveries a CPU second against minimal writer",
        AtLeast(0.9),
    ),
    budget(
        "fan-out 1 x 1,000 paced, against Centrifugo's 89k deliveries a CPU second on such a machine",
        "fanout-one",
        "1 x 1,000, stormwire, at 50/s: delivered a server CPU second",
        AtLeast(1.5 * 89_000.0),
    ),
    budget(
        "fan-out 100 x 100 paced, against Centrifugo's 67k deliveries a CPU second on such a machine",
        "fanout-many",
        "100 x 100, stormwire, at 500/s: delivered a server CPU second",
        AtLeast(1.5 * 67_000.0),
    ),
    budget(
        "idle subscribed connection, KiB",
        "idle",
        "10000, stormwire: memory a connection",
        AtMost(8.0),
    ),
    budget(
        "connections on one machine, each given its event",
        "connections-100k",
        "subscribers that were given their event",
        AtLeast(100_000.0),
    ),
    budget(
        "connects/s, connected and subscribed",
        "idle",
        "10000, stormwire: connected and subscribed",
        AtLeast(10_000.0),
    ),
    budget(
        "start of the embedded server to the first acknowledged event, ms",
        "embedded",
        "start to first acknowledged event",
        AtMost(300.0),
    ),
];

/// A verdict for each budget whose bench was kept.
pub(super) fn table(all: &[Kept]) -> String {
    let mut text = String::from(
        "| what | budget | median | lowest to highest | | bench |\n| --- | ---: | ---: | --- | --- | --- |\n",
    );
    let (mut met, mut measured) = (0, 0);
    for Budget { what, bench, figure, bound } in BUDGETS {
        let kept = all.iter().find(|kept| kept.bench == *bench);
        let limit = bound.text();
        let Some(found) = kept.and_then(|kept| kept.figure(figure)) else {
            let _ = writeln!(text, "| {what} | {limit} | | | not measured | {bench} |");
            continue;
        };
        measured += 1;
        let holds = bound.holds(found.median);
        met += usize::from(holds);
        let verdict = if holds { "met" } else { "**not met**" };
        let (median, min, max) = (number(found.median), number(found.min), number(found.max));
        let _ = writeln!(
            text,
            "| {what} | {limit} | {median} | {min} to {max} | {verdict} | {bench} |"
        );
    }
    let _ =
        writeln!(text, "\n{met} of {measured} measured budgets are met; {} in all.", BUDGETS.len());
    text
}

/// Ratios far below what they are on any machine and in any build: only a gross mistake misses them.
const GROSS: &[Budget] = &[
    budget(
        "publishing through a gateway against a plain JetStream publisher",
        "ingest-single",
        "share of the plain JetStream publisher",
        AtLeast(0.05),
    ),
    budget(
        "deliveries against a minimal writer",
        "fanout-one",
        "1 x 1,000, at 50/s: deliveries a CPU second against minimal writer",
        AtLeast(0.15),
    ),
    budget(
        "storing against a bare COPY of the same rows",
        "persist",
        "share of the bare COPY",
        AtLeast(0.05),
    ),
];

/// Sentences for what is grossly slower than it was.
pub(super) fn gross(kept: &Kept) -> Vec<String> {
    let of = |budget: &&Budget| budget.bench == kept.bench;
    GROSS
        .iter()
        .filter(of)
        .filter_map(|Budget { what, figure, bound, .. }| {
            let found = kept.figure(figure)?;
            let text = bound.text();
            (!bound.holds(found.median))
                .then(|| format!("{what}: {} where {text} is due", number(found.median)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(value: f64) -> Kept {
        let line = format!(
            r#"{{"bench":"persist","commit":"c","at":"t","machine":"2 cores","load":[0.0,1.0],"figures":[{{"figure":"share of the bare COPY","unit":"ratio","median":{value},"min":0.5,"max":1.0,"runs":[{value}]}}]}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_verdict_follows_from_the_median() {
        assert!(table(&[kept(0.85)]).contains("| 0.85 | 0.50 to 1.00 | met | persist |"));
        let text = table(&[kept(0.75)]);
        assert!(text.contains("| **not met** | persist |"), "{text}");
        assert!(text.contains("0 of 1 measured budgets are met"), "{text}");
    }

    #[test]
    fn only_what_is_grossly_slower_is_complained_of() {
        assert!(gross(&kept(0.5)).is_empty());
        assert_eq!(gross(&kept(0.01)).len(), 1);
    }
}
