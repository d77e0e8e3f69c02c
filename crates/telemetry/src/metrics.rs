//! The one list of metrics: a name, a kind, a unit and a sentence for each. Whoever counts something adds
//! a line here; dashboards and alerts are checked against [`ALL`].
//!
//! Labels are few and bounded: never a user, a channel, an address or an id.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// How a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with the buckets of its unit.
    Histogram,
}

/// One line of the list.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name in Prometheus.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// What its numbers are.
    pub unit: Unit,
    /// One sentence; names the labels.
    pub description: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $constant:ident $kind:ident $unit:ident $name:literal;)+) => {
        $($(#[doc = $doc])+ pub const $constant: &str = $name;)+

        /// Every metric, in the list's order.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            description: concat!($($doc),+).trim_ascii(),
        },)+];
    };
}

metrics! {
    // Gateway: publishing
    /// Events that the journal has acknowledged to this gateway's appenders.
    PUBLISH_ACKNOWLEDGED Counter Count "stormwire_publish_acknowledged_total";
    /// From a publish on a WebSocket to its acknowledgement; of each connection one at a time is measured.
    PUBLISH_SECONDS Histogram Seconds "stormwire_publish_seconds";
    /// Operations refused on WebSockets, by code.
    REFUSALS Counter Count "stormwire_refusals_total";

    // HTTP
    /// HTTP requests answered, by route, method and status.
    HTTP_REQUESTS Counter Count "stormwire_http_requests_total";
    /// How long it took to begin an HTTP answer, by route and method.
    HTTP_REQUEST_SECONDS Histogram Seconds "stormwire_http_request_seconds";

    // Identity
    /// Sign-ins, by outcome (ok, refused, locked, provider_away).
    SIGN_INS Counter Count "stormwire_sign_ins_total";
    /// Refresh tokens shown, by outcome (ok, refused, reused).
    REFRESHES Counter Count "stormwire_refreshes_total";
    /// How long it took to hash or check a password, without the wait for a place.
    PASSWORD_HASH_SECONDS Histogram Seconds "stormwire_password_hash_seconds";
    /// Callers whose password is being hashed or who wait for it.
    PASSWORD_HASHES_WAITING Gauge Count "stormwire_password_hashes_waiting";

    // Gateway: connections and live delivery
    /// WebSockets that are open.
    CONNECTIONS Gauge Count "stormwire_connections";
    /// Subscriptions of open WebSockets.
    SUBSCRIPTIONS Gauge Count "stormwire_subscriptions";
    /// Events queued for live subscribers, one for each of them.
    EVENTS_DELIVERED Counter Count "stormwire_events_delivered_total";
    /// From a frame's time in the journal to the queues of its live subscribers, by two machines' clocks.
    DELIVERY_SECONDS Histogram Seconds "stormwire_delivery_seconds";
    /// Events given to subscribers that were catching up, from the archive or the journal.
    EVENTS_RECOVERED Counter Count "stormwire_events_recovered_total";
    /// Subscriptions that fell behind and were parked at their position.
    SUBSCRIPTIONS_PARKED Counter Count "stormwire_subscriptions_parked_total";
    /// Gaps that subscribers were told of.
    GAPS_TOLD Counter Count "stormwire_gaps_told_total";
    /// Holes in the live frames that were repaired from the journal.
    TAIL_REPAIRS Counter Count "stormwire_tail_repairs_total";
    /// Times that a partition's tail was interrupted.
    TAIL_FAILURES Counter Count "stormwire_tail_failures_total";

    // Gateway: presence and signals
    /// Members of channels that this gateway reports, by partition.
    PRESENCE_MEMBERS Gauge Count "stormwire_presence_members";
    /// Joins and leaves that this gateway reported and the engine took.
    PRESENCE_CHANGES Counter Count "stormwire_presence_changes_total";
    /// Channels that this gateway took members of a dead gateway out of, once for each sweep.
    PRESENCE_SWEPT Counter Count "stormwire_presence_swept_channels_total";
    /// Times that this gateway was told that its life was over and reported everything anew.
    PRESENCE_LIVES_LOST Counter Count "stormwire_presence_lives_lost_total";
    /// Times that a subscriber was told to read the members anew instead of each change.
    PRESENCE_RESYNCS Counter Count "stormwire_presence_resyncs_total";
    /// 1 while the engine of presence does not answer this gateway.
    PRESENCE_DEGRADED Gauge Count "stormwire_presence_degraded";
    /// Signals of this gateway's clients, by outcome (sent, failed).
    SIGNALS Counter Count "stormwire_signals_total";
    /// Signals queued for this gateway's subscribers, by outcome (delivered, dropped at a full queue).
    SIGNALS_DELIVERED Counter Count "stormwire_signals_delivered_total";

    // Ingest: lanes and appenders
    /// Frames that the journal has acknowledged to this gateway's appenders.
    INGEST_FRAMES Counter Count "stormwire_ingest_frames_total";
    /// Events in a frame.
    INGEST_FRAME_EVENTS Histogram Count "stormwire_ingest_frame_events";
    /// Bytes of a frame.
    INGEST_FRAME_BYTES Histogram Bytes "stormwire_ingest_frame_bytes";
    /// From a frame's first attempt to its acknowledgement.
    INGEST_APPEND_SECONDS Histogram Seconds "stormwire_ingest_append_seconds";
    /// Frames of which some attempt had no answer, and that were found to be stored.
    INGEST_UNCERTAIN Counter Count "stormwire_ingest_uncertain_total";
    /// Bytes that wait in the lane of a partition, by partition.
    INGEST_LANE_BYTES Gauge Bytes "stormwire_ingest_lane_bytes";
    /// Times that an appender of this gateway found the partition claimed by another.
    INGEST_FENCED Counter Count "stormwire_ingest_fenced_total";
    /// 1 while a partition's journal has gone back and waits for an operator, by partition.
    JOURNAL_REWOUND Gauge Count "stormwire_journal_rewound";
    /// Repeated publishes that were answered without being written again.
    INGEST_DUPLICATES Counter Count "stormwire_ingest_duplicates_total";
    /// Times that this gateway took a partition.
    INGEST_OWNER_CHANGES Counter Count "stormwire_ingest_owner_changes_total";

    // Dependencies, by `dependency` (nats, postgres, redis, sqlite, jwks)
    /// Calls to a dependency, by dependency, operation and outcome (ok, failed, deadline, open, cancelled).
    DEPENDENCY_CALLS Counter Count "stormwire_dependency_calls_total";
    /// How long calls to a dependency took, by dependency and operation.
    DEPENDENCY_CALL_SECONDS Histogram Seconds "stormwire_dependency_call_seconds";
    /// Retries, by dependency and outcome (made, refused by the budget).
    DEPENDENCY_RETRIES Counter Count "stormwire_dependency_retries_total";
    /// The circuit breaker, by dependency: 0 closed, 1 half-open, 2 open.
    DEPENDENCY_BREAKER_STATE Gauge Count "stormwire_dependency_breaker_state";
    /// Times that the circuit breaker opened, by dependency.
    DEPENDENCY_BREAKER_OPENED Counter Count "stormwire_dependency_breaker_opened_total";
    /// Connections to a dependency, by dependency and state (open, idle, waiting, max).
    DEPENDENCY_POOL_CONNECTIONS Gauge Count "stormwire_dependency_pool_connections";

    /// How long a commit of the embedded database took, sync to disk included.
    SQLITE_COMMIT_SECONDS Histogram Seconds "stormwire_sqlite_commit_seconds";
    /// Frames that one commit of the embedded database stored.
    SQLITE_COMMIT_FRAMES Histogram Count "stormwire_sqlite_commit_frames";

    // Messages and archive
    /// Frames of a partition that are in the journal and not in the archive, by partition.
    PERSIST_BACKLOG_FRAMES Gauge Count "stormwire_persist_backlog_frames";
    /// Age of the oldest frame of a partition that is not in the archive, by partition.
    PERSIST_LAG_SECONDS Gauge Seconds "stormwire_persist_lag_seconds";
    /// Events stored in the archive.
    PERSIST_EVENTS Counter Count "stormwire_persist_events_total";
    /// Events in a persisted batch.
    PERSIST_BATCH_EVENTS Histogram Count "stormwire_persist_batch_events";
    /// How long it took to store a batch, commit included.
    PERSIST_BATCH_SECONDS Histogram Seconds "stormwire_persist_batch_seconds";
    /// Batches that were not stored, by reason (lease_lost, ledger_moved, unavailable).
    PERSIST_FAILURES Counter Count "stormwire_persist_failures_total";
    /// Partitions that there are, as a gateway was told: each is one worker's to persist.
    PARTITIONS Gauge Count "stormwire_partitions";
    /// Partitions that this worker persists.
    PERSIST_PARTITIONS_OWNED Gauge Count "stormwire_persist_partitions_owned";
    /// 1 while a partition is not persisted until an operator acts, by partition and reason (rewound, newer_version, settings).
    PERSIST_STOPPED Gauge Count "stormwire_persist_stopped";
    /// Stretches of the log found missing, by reason (hole, trimmed).
    PERSIST_GAPS Counter Count "stormwire_persist_gaps_total";
    /// Events and frames that became dead letters.
    DEAD_LETTERS Counter Count "stormwire_dead_letters_total";
    /// Rows that wait in the default table of events for a table of their own.
    ARCHIVE_DEFAULT_PARTITION_ROWS Gauge Count "stormwire_archive_default_partition_rows";
    /// Tables of events that could not be made in time.
    ARCHIVE_PARTITION_FAILURES Counter Count "stormwire_archive_partition_failures_total";
    /// Reads of history on Postgres, by outcome (replica, primary, replica_behind, replica_away); one
    /// that the replica could not answer counts a second time, for the primary.
    ARCHIVE_READS Counter Count "stormwire_archive_reads_total";
    /// Events removed because they were past their namespace's bounds.
    RETENTION_EVENTS Counter Count "stormwire_retention_removed_events_total";
    /// Tables of events removed as a whole.
    RETENTION_TABLES Counter Count "stormwire_retention_dropped_tables_total";
    /// Rounds of retention that could not be finished and are tried again.
    RETENTION_FAILURES Counter Count "stormwire_retention_failures_total";

    // Journal on NATS, by `connection` (append, read, tail, peers, beat, signals)
    /// 1 while a connection to NATS stands, by connection.
    NATS_CONNECTED Gauge Count "stormwire_nats_connected";
    /// Times that a connection to NATS was lost, by connection.
    NATS_DISCONNECTS Counter Count "stormwire_nats_disconnects_total";
    /// Times that messages were dropped because this process did not take them in time, by connection.
    NATS_SLOW_CONSUMERS Counter Count "stormwire_nats_slow_consumers_total";
    /// Frames sent to NATS that wait for their acknowledgement.
    NATS_APPENDS_PENDING Gauge Count "stormwire_nats_appends_pending";
    /// Live frames dropped because a tail's reader stood still; they are read again.
    JOURNAL_TAIL_DROPPED Counter Count "stormwire_journal_tail_dropped_total";

    // Process
    /// Supervised tasks that run now, by task.
    TASKS_RUNNING Gauge Count "stormwire_tasks_running";
    /// Supervised tasks that panicked, by task.
    TASK_PANICS Counter Count "stormwire_task_panics_total";
    /// Tasks alive in the asynchronous runtime.
    RUNTIME_TASKS_ALIVE Gauge Count "stormwire_runtime_tasks_alive";
    /// Tasks waiting in the runtime's shared queue.
    RUNTIME_QUEUE_DEPTH Gauge Count "stormwire_runtime_queue_depth";
    /// Worker threads of the runtime.
    RUNTIME_WORKERS Gauge Count "stormwire_runtime_workers";
    /// Log lines that a rate limit held back.
    LOG_LINES_SUPPRESSED Counter Count "stormwire_log_lines_suppressed_total";

    // Tokens
    /// Token checks, by outcome (ok, cached, expired, refused, revoked).
    TOKEN_CHECKS Counter Count "stormwire_token_checks_total";
    /// Verified tokens kept.
    TOKEN_CACHE_ENTRIES Gauge Count "stormwire_token_cache_entries";
    /// Fetches of the signing keys, by outcome (ok, failed).
    JWKS_FETCHES Counter Count "stormwire_jwks_fetches_total";
    /// Lines of the list of revoked sessions and tokens that this process was told.
    REVOCATIONS Counter Count "stormwire_revocations_total";
    /// 1 while this process is not told which tokens are revoked.
    REVOCATIONS_AWAY Gauge Count "stormwire_revocations_away";
    /// Connections closed because their token was revoked.
    REVOKED_CONNECTIONS Counter Count "stormwire_revoked_connections_total";
    /// Signing keys known.
    JWKS_KEYS Gauge Count "stormwire_jwks_keys";

    // Limits
    /// Decisions of the limiter, by scope (user, ip, channel) and outcome (admitted, refused).
    LIMIT_DECISIONS Counter Count "stormwire_limit_decisions_total";
    /// Leases asked of the limiter's engine, by outcome (granted, partial, empty, failed).
    LIMIT_LEASES Counter Count "stormwire_limit_leases_total";
    /// 1 while limits are counted by each gateway for itself because the engine is away.
    LIMITS_DEGRADED Gauge Count "stormwire_limits_degraded";
    /// Users, addresses and channels whose counts are kept in this process.
    LIMIT_KEYS Gauge Count "stormwire_limit_keys";

    // Canary
    /// Events that a canary published, by outcome (acknowledged, refused).
    CANARY_PUBLISHED Counter Count "stormwire_canary_published_total";
    /// From a canary's publish to the event's arrival at its own subscriber.
    CANARY_DELIVERY_SECONDS Histogram Seconds "stormwire_canary_delivery_seconds";
    /// Events of a canary that were acknowledged and did not come to its subscriber.
    CANARY_LOST Counter Count "stormwire_canary_lost_total";
    /// Events of a canary that came twice, or behind a later one.
    CANARY_DOUBLED Counter Count "stormwire_canary_doubled_total";
}

/// Bucket edges for seconds. 0.1 is one exactly: it is the promise for delivery.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Bucket edges for bytes.
pub const BYTES_BUCKETS: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// Bucket edges for plain numbers, such as events in a batch.
pub const COUNT_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0];

impl Metric {
    /// The bucket edges of its unit, for a histogram.
    #[must_use]
    pub fn buckets(&self) -> &'static [f64] {
        match self.unit {
            Unit::Seconds => SECONDS_BUCKETS,
            Unit::Bytes => BYTES_BUCKETS,
            _ => COUNT_BUCKETS,
        }
    }
}

/// Tells the installed recorder every metric's unit and sentence.
pub fn describe_all() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.description),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.description),
            Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.description),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_follow_prometheus() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} stands there twice", metric.name);
            assert!(metric.name.starts_with("stormwire_"), "{}", metric.name);
            assert!(
                metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                metric.name
            );
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            assert!(metric.description.ends_with('.'), "{}", metric.name);
            if metric.kind == Kind::Histogram {
                let unit = match metric.unit {
                    Unit::Seconds => "_seconds",
                    Unit::Bytes => "_bytes",
                    _ => "",
                };
                assert!(metric.name.ends_with(unit), "{} lacks its unit", metric.name);
            }
        }
    }

    #[test]
    fn buckets_ascend_and_hold_a_tenth_of_a_second() {
        assert!(SECONDS_BUCKETS.contains(&0.1));
        for buckets in [SECONDS_BUCKETS, BYTES_BUCKETS, COUNT_BUCKETS] {
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
