//! What a partition's task counts.

use super::super::cell::Cell;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::Duration;
use stormwire_core::Partition;
use stormwire_telemetry::metrics as names;

pub(super) struct Meters {
    acknowledged: Counter,
    frames: Counter,
    frame_events: Histogram,
    frame_bytes: Histogram,
    append_seconds: Histogram,
    uncertain: Counter,
    lane_bytes: Gauge,
    rewound: Gauge,
    pub(super) fenced: Counter,
    pub(super) duplicates: Counter,
    pub(super) owner_changes: Counter,
}

impl Meters {
    pub(super) fn new(partition: Partition) -> Self {
        Self {
            acknowledged: counter!(names::PUBLISH_ACKNOWLEDGED),
            frames: counter!(names::INGEST_FRAMES),
            frame_events: histogram!(names::INGEST_FRAME_EVENTS),
            frame_bytes: histogram!(names::INGEST_FRAME_BYTES),
            append_seconds: histogram!(names::INGEST_APPEND_SECONDS),
            uncertain: counter!(names::INGEST_UNCERTAIN),
            lane_bytes: gauge!(names::INGEST_LANE_BYTES, "partition" => partition.to_string()),
            rewound: gauge!(names::JOURNAL_REWOUND, "partition" => partition.to_string()),
            fenced: counter!(names::INGEST_FENCED),
            duplicates: counter!(names::INGEST_DUPLICATES),
            owner_changes: counter!(names::INGEST_OWNER_CHANGES),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a frame are small")]
    pub(super) fn written(&self, events: usize, bytes: usize, took: Duration, uncertain: bool) {
        self.acknowledged.increment(events as u64);
        self.frames.increment(1);
        self.frame_events.record(events as f64);
        self.frame_bytes.record(bytes as f64);
        self.append_seconds.record(took.as_secs_f64());
        self.uncertain.increment(u64::from(uncertain));
    }

    pub(super) fn show_rewound(&self, rewound: bool) {
        self.rewound.set(if rewound { 1.0 } else { 0.0 });
    }

    #[expect(clippy::cast_precision_loss, reason = "a lane is a few MiB")]
    pub(super) fn show_lane(&self, cell: &Cell) {
        self.lane_bytes.set(cell.lane.lock().bytes() as f64);
    }
}
