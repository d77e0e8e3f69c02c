//! What the metrics say at one moment, and between two: for whoever shows them live.

use crate::MetricsHandle;
use std::collections::BTreeMap;

/// The metrics at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// By name, each with its labels as text and its value.
    series: BTreeMap<String, Vec<(String, f64)>>,
}

impl MetricsHandle {
    /// The metrics now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::read(&self.render())
    }
}

impl Figures {
    /// Reads Prometheus's text format, as [`MetricsHandle::render`] writes it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut series: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            series.entry(name.to_owned()).or_default().push((labels, value));
        }
        Self { series }
    }

    /// The sum over all labels; `None` if nothing was ever counted under that name.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        let series = self.series.get(name)?;
        Some(series.iter().map(|(_, value)| value).sum())
    }

    /// The sums by the values of one label.
    #[must_use]
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.series.get(name).into_iter().flatten() {
            if let Some(text) = label_of(labels, label) {
                *sums.entry(text.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// How much a counter has grown since `before`.
    #[must_use]
    pub fn grown(&self, before: &Self, name: &str) -> f64 {
        (self.sum(name).unwrap_or(0.0) - before.sum(name).unwrap_or(0.0)).max(0.0)
    }

    /// What a histogram has taken since `before`.
    #[must_use]
    pub fn taken(&self, before: &Self, name: &str) -> Taken {
        let bucket = format!("{name}_bucket");
        let (now, before) = (self.by(&bucket, "le"), before.by(&bucket, "le"));
        let mut buckets: Vec<(f64, f64)> = now
            .into_iter()
            .filter_map(|(edge, count)| {
                let grown = count - before.get(&edge).copied().unwrap_or(0.0);
                let edge = if edge == "+Inf" { f64::INFINITY } else { edge.parse().ok()? };
                Some((edge, grown.max(0.0)))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Taken { buckets }
    }
}

/// What a histogram took between two moments: cumulative counts by upper edge, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    buckets: Vec<(f64, f64)>,
}

impl Taken {
    /// How many samples.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value below which the share `q` of the samples lies, estimated within its bucket; `None`
    /// without samples. Above the last edge it is that edge.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = q * count;
        let mut below = (0.0, 0.0);
        for &(edge, upto) in &self.buckets {
            if upto >= rank && upto > below.1 {
                if edge.is_infinite() {
                    return Some(below.0);
                }
                return Some(below.0 + (edge - below.0) * (rank - below.1) / (upto - below.1));
            }
            below = (edge, upto);
        }
        Some(below.0)
    }
}

fn label_of<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    // No label of ours has a quotation mark or a comma in its value.
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE x_total counter\nx_total{code=\"limited\"} 3\nx_total{code=\"forbidden\"} 1\n\n# TYPE t_seconds histogram\nt_seconds_bucket{le=\"0.1\"} 2\nt_seconds_bucket{le=\"1\"} 2\nt_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 0.1\nt_seconds_count 2\n";
    const AFTER: &str = "x_total{code=\"limited\"} 5\nx_total{code=\"forbidden\"} 1\nopen 7\nt_seconds_bucket{le=\"0.1\"} 6\nt_seconds_bucket{le=\"1\"} 10\nt_seconds_bucket{le=\"+Inf\"} 12\n";

    #[test]
    fn counters_grow_and_gauges_stand_between_two_moments() {
        let (before, after) = (Figures::read(BEFORE), Figures::read(AFTER));
        assert_eq!((after.sum("x_total"), after.grown(&before, "x_total")), (Some(6.0), 2.0));
        assert_eq!((after.sum("open"), before.sum("open")), (Some(7.0), None));
        assert_eq!(after.by("x_total", "code")["limited"], 5.0);
        assert_eq!(after.grown(&before, "nothing"), 0.0);
    }

    #[test]
    fn quantiles_are_those_of_the_time_between() {
        let (before, after) = (Figures::read(BEFORE), Figures::read(AFTER));
        let taken = after.taken(&before, "t_seconds");
        // Four up to 0.1, four up to 1, two above.
        assert_eq!(taken.count(), 10.0);
        let near = |q, due: f64| (taken.quantile(q).unwrap() - due).abs() < 1e-9;
        assert!(near(0.2, 0.05) && near(0.6, 0.55) && near(0.99, 1.0), "{taken:?}");
        assert_eq!(before.taken(&before, "t_seconds").quantile(0.5), None);
        assert_eq!(after.taken(&before, "nothing").count(), 0.0);
    }

    #[test]
    fn what_the_recorder_writes_is_understood() {
        let handle = crate::metrics_handle().unwrap();
        metrics::counter!(crate::metrics::TASK_PANICS, "task" => "figures").increment(2);
        let before = handle.figures();
        metrics::histogram!(crate::metrics::SQLITE_COMMIT_SECONDS).record(0.003);
        let after = handle.figures();
        assert_eq!(after.by(crate::metrics::TASK_PANICS, "task")["figures"], 2.0);
        let taken = after.taken(&before, crate::metrics::SQLITE_COMMIT_SECONDS);
        assert_eq!(taken.count(), 1.0);
        assert!((0.0025..=0.005).contains(&taken.quantile(0.5).unwrap()), "{taken:?}");
    }
}
