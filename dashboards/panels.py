"""The panels: a list a dashboard, each panel one line with its query."""

OWN = 'namespace=~"$namespace"'
POD = 'namespace=~"$namespace",pod=~"$pod"'


def panel(title, unit, description, *queries, kind="timeseries", width=8, **options):
    """`queries` are (expression, legend); a panel of SQL has `sql` instead."""
    return {"title": title, "unit": unit, "description": description, "queries": queries,
            "kind": kind, "width": width, **options}


def stat(title, unit, description, *queries, **options):
    return panel(title, unit, description, *queries, kind="stat", width=options.pop("width", 3), **options)


def total(metric, matchers="", by="", window="$__rate_interval"):
    inner = ",".join(part for part in (POD, matchers) if part)
    by = f" by ({by})" if by else ""
    return f"sum{by} (rate({metric}{{{inner}}}[{window}]))"


def level(metric, matchers="", by="", how="sum"):
    inner = ",".join(part for part in (POD, matchers) if part)
    by = f" by ({by})" if by else ""
    return f"{how}{by} ({metric}{{{inner}}})"


def quantile(q, metric, matchers="", by=""):
    inner = ",".join(part for part in (POD, matchers) if part)
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{inner}}}[$__rate_interval])))"


def quantiles(metric, matchers=""):
    return [(quantile(q, metric, matchers), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


EVENTS = total("stormwire_ingest_frame_events_sum")

SLO = [
    ("Objectives", [
        stat("Requests answered", "percentunit", "HTTP requests under /v1/ without 5xx, 30 days; objective 99.9 %.",
             (f'1 - slo:sli_error:ratio_rate30d{{slo="requests",{OWN}}}', "30 d"), limits=[(0, "red"), (0.999, "green")]),
        stat("Publishes acknowledged", "percentunit", "Publishes on WebSockets not refused for a fault of the server, 30 days; objective 99.9 %.",
             (f'1 - slo:sli_error:ratio_rate30d{{slo="publishes",{OWN}}}', "30 d"), limits=[(0, "red"), (0.999, "green")]),
        stat("Acknowledged within 100 ms", "percentunit", "Publishes on WebSockets acknowledged within 100 ms, 30 days; objective 99 %.",
             (f'1 - slo:sli_error:ratio_rate30d{{slo="latency",{OWN}}}', "30 d"), limits=[(0, "red"), (0.99, "green")]),
        stat("Delivered within 100 ms", "percentunit", "Frames queued for live subscribers within 100 ms of their time in the journal, 30 days; objective 99 %.",
             (f'1 - slo:sli_error:ratio_rate30d{{slo="delivery",{OWN}}}', "30 d"), limits=[(0, "red"), (0.99, "green")]),
        stat("Publish p99", "s", "From a publish to its acknowledgement; objective 100 ms.",
             (quantile(0.99, "stormwire_publish_seconds"), "p99"), limits=[(0, "green"), (0.1, "red")]),
        stat("Delivery p99", "s", "From the journal to the queues of live subscribers; objective 100 ms.",
             (quantile(0.99, "stormwire_delivery_seconds"), "p99"), limits=[(0, "green"), (0.1, "red")]),
        stat("Events a second", "short", "Events written to the journal; the platform is sized for 500,000 a second.",
             (EVENTS, "events/s")),
        stat("Of the throughput sized for", "percentunit", "Events a second against 500,000.",
             (f"{EVENTS} / 500000", "share"), limits=[(0, "green"), (0.8, "red")]),
    ]),
    ("Error budget", [
        panel("Budget left", "percentunit", "The part of the 30 days' error budget that is not used up.",
              (f"slo:error_budget_left:ratio{{{OWN}}}", "{{slo}}"), width=12),
        panel("Burn rate, 1 h", "short", "How many times faster than evenly the budget is used; 14.4 pages.",
              (f'slo:sli_error:ratio_rate1h{{slo=~"requests|publishes",{OWN}}} / 0.001', "{{slo}}"),
              (f'slo:sli_error:ratio_rate1h{{slo=~"latency|delivery",{OWN}}} / 0.01', "{{slo}}"), width=12),
    ]),
    ("Golden signals", [
        panel("Throughput", "short", "Events written, delivered to live subscribers, stored in the archive.",
              (EVENTS, "written"), (total("stormwire_events_delivered_total"), "delivered"),
              (total("stormwire_persist_events_total"), "archived")),
        panel("Publish to acknowledgement", "s", "On WebSockets, the wait in the lane included.",
              *quantiles("stormwire_publish_seconds")),
        panel("Journal to subscribers", "s", "From a frame's time in the journal to the queues of its live subscribers, by two machines' clocks.",
              *quantiles("stormwire_delivery_seconds")),
        panel("Errors", "percentunit", "The share of failed requests and publishes, of slow acknowledgements and deliveries, in 5 minutes.",
              (f"slo:sli_error:ratio_rate5m{{{OWN}}}", "{{slo}}")),
        panel("Connections", "short", "Open WebSockets by gateway.",
              (level("stormwire_connections", by="pod"), "{{pod}}")),
        panel("Behind the journal", "s", "Age of the oldest frame that is not in the archive.",
              (level("stormwire_persist_lag_seconds", how="max"), "oldest")),
        panel("HTTP by status", "reqps", "Requests under /v1/ by status.",
              (total("stormwire_http_requests_total", 'route=~"/v1/.*"', "status"), "{{status}}")),
    ]),
    ("Proof", [
        panel("Canary", "ops", "Events that `stormwire canary` published, through every partition, by outcome.",
              (total("stormwire_canary_published_total", by="outcome"), "{{outcome}}")),
        panel("Lost and doubled", "short", "Events of the canary in 10 minutes; anything but zero breaks a guarantee.",
              (f"sum(increase(stormwire_canary_lost_total{{{POD}}}[10m]))", "lost"),
              (f"sum(increase(stormwire_canary_doubled_total{{{POD}}}[10m]))", "doubled")),
        panel("End to end", "s", "From the canary's publish to the event's arrival at its subscriber.",
              *quantiles("stormwire_canary_delivery_seconds")),
    ]),
]

GATEWAY = [
    ("Connections", [
        panel("Connections", "short", "Open WebSockets by gateway.", (level("stormwire_connections", by="pod"), "{{pod}}")),
        panel("Subscriptions", "short", "Subscriptions of open WebSockets.", (level("stormwire_subscriptions", by="pod"), "{{pod}}")),
        panel("Token checks", "ops", "Checks of tokens by outcome; refused and expired are failed authentications.",
              (total("stormwire_token_checks_total", by="outcome"), "{{outcome}}")),
    ]),
    ("Publishing", [
        panel("Events acknowledged", "short", "Events that the journal has and their producers were told of, by any way.",
              (total("stormwire_ingest_frame_events_sum", by="pod"), "{{pod}}")),
        panel("Refusals on WebSockets", "ops", "Refused operations by code; docs/errors.md names each.",
              (total("stormwire_refusals_total", by="code"), "{{code}}")),
        panel("Repeats dropped", "ops", "Repeated publishes answered without being written again.",
              (total("stormwire_ingest_duplicates_total"), "repeats")),
        panel("Publish latency", "s", "From a publish on a WebSocket to its acknowledgement, the wait in the lane included.",
              *quantiles("stormwire_publish_seconds")),
        panel("Append latency", "s", "From a frame's first attempt to its acknowledgement.", *quantiles("stormwire_ingest_append_seconds")),
        panel("Events in a frame", "short", "Grows by itself under load.", *quantiles("stormwire_ingest_frame_events")),
        panel("Waiting in lanes", "bytes", "Bytes that wait for their partition's appender, by gateway.",
              (level("stormwire_ingest_lane_bytes", by="pod"), "{{pod}}")),
    ]),
    ("Delivery", [
        panel("Delivered and recovered", "short", "Events queued for live subscribers, and given to those that catch up.",
              (total("stormwire_events_delivered_total"), "live"), (total("stormwire_events_recovered_total"), "recovered")),
        panel("Slow readers", "ops", "Subscriptions parked at their position; gaps that subscribers were told of.",
              (total("stormwire_subscriptions_parked_total"), "parked"), (total("stormwire_gaps_told_total"), "gaps told")),
        panel("Delivery latency", "s", "From a frame's time in the journal to the queues of its live subscribers, by two machines' clocks.",
              *quantiles("stormwire_delivery_seconds")),
        panel("Tail repairs", "ops", "Holes in live frames repaired from the journal; interrupted tails.",
              (total("stormwire_tail_repairs_total"), "repairs"), (total("stormwire_tail_failures_total"), "interruptions")),
        panel("Presence", "short", "Members that the gateways report.", (level("stormwire_presence_members"), "members")),
        panel("Presence changes", "ops", "Joins and leaves; watchers told to read anew; lives lost; channels swept after a gateway died.",
              (total("stormwire_presence_changes_total"), "changes"), (total("stormwire_presence_resyncs_total"), "resyncs"),
              (total("stormwire_presence_lives_lost_total"), "lives lost"), (total("stormwire_presence_swept_channels_total"), "swept")),
        panel("Signals", "ops", "Signals by outcome, sent and delivered.",
              (total("stormwire_signals_total", by="outcome"), "sent: {{outcome}}"),
              (total("stormwire_signals_delivered_total", by="outcome"), "to subscribers: {{outcome}}")),
    ]),
    ("HTTP", [
        panel("Requests", "reqps", "By route.", (total("stormwire_http_requests_total", by="route"), "{{route}}")),
        panel("Latency p95", "s", "Time to begin an answer, by route; a long poll waits on purpose.",
              (quantile(0.95, "stormwire_http_request_seconds", by="route"), "{{route}}")),
        panel("Limits", "ops", "Refused by the limiter, by scope; leases asked of its engine.",
              (total("stormwire_limit_decisions_total", 'outcome="refused"', "scope"), "refused: {{scope}}"),
              (total("stormwire_limit_leases_total", by="outcome"), "leases: {{outcome}}")),
        panel("Limits counted alone", "short", "1 while a gateway counts limits for itself; keys that it keeps.",
              (level("stormwire_limits_degraded", by="pod"), "alone: {{pod}}"), (level("stormwire_limit_keys", by="pod"), "keys: {{pod}}")),
        panel("Revocations", "ops", "Lines of the list of revoked sessions and tokens that were told; connections closed by them.",
              (total("stormwire_revocations_total"), "told"), (total("stormwire_revoked_connections_total"), "connections closed")),
        panel("Revocations away", "short", "1 while a process is not told which tokens are revoked.",
              (level("stormwire_revocations_away", by="pod", how="max"), "{{pod}}")),
        panel("Keys and tokens", "short", "Verified tokens kept, signing keys known, fetches of keys.",
              (level("stormwire_token_cache_entries"), "tokens"), (level("stormwire_jwks_keys", how="min"), "keys"),
              (total("stormwire_jwks_fetches_total", by="outcome"), "fetches: {{outcome}}")),
        panel("Sign-ins", "ops", "Sign-ins and refreshes by outcome.",
              (total("stormwire_sign_ins_total", by="outcome"), "sign-in: {{outcome}}"),
              (total("stormwire_refreshes_total", by="outcome"), "refresh: {{outcome}}")),
    ]),
    ("Process", [
        panel("Tasks", "short", "Supervised tasks by name.", (level("stormwire_tasks_running", by="task"), "{{task}}")),
        panel("Panics", "ops", "Panics by task; each is a bug.", (total("stormwire_task_panics_total", by="task"), "{{task}}")),
        panel("Runtime", "short", "Tasks alive, waiting in the shared queue, and worker threads.",
              (level("stormwire_runtime_tasks_alive"), "alive"), (level("stormwire_runtime_queue_depth"), "queue"),
              (level("stormwire_runtime_workers"), "threads")),
        panel("Passwords", "s", "Hashing of passwords, and callers that wait for it.",
              (quantile(0.95, "stormwire_password_hash_seconds"), "p95"), (level("stormwire_password_hashes_waiting"), "waiting")),
        panel("Held back", "ops", "Log lines that a rate limit held back.", (total("stormwire_log_lines_suppressed_total"), "lines")),
    ]),
]

JOURNAL = [
    ("Appending", [
        panel("Frames", "ops", "Frames that the journal acknowledged, by gateway.", (total("stormwire_ingest_frames_total", by="pod"), "{{pod}}")),
        panel("Append latency", "s", "From a frame's first attempt to its acknowledgement.", *quantiles("stormwire_ingest_append_seconds")),
        panel("Append outcomes", "ops", "Attempts to append, by outcome; anything but ok is tried again.",
              (total("stormwire_dependency_calls_total", 'dependency="nats_append"', "outcome"), "{{outcome}}")),
        panel("Frame size", "bytes", "Bytes of a frame.", *quantiles("stormwire_ingest_frame_bytes")),
        panel("Uncertain and fenced", "ops", "Frames whose attempt had no answer and were found; appenders that lost their partition.",
              (total("stormwire_ingest_uncertain_total"), "uncertain"), (total("stormwire_ingest_fenced_total"), "fenced"),
              (total("stormwire_ingest_owner_changes_total"), "owner changes")),
        panel("Waiting for acknowledgement", "short", "Frames sent and not yet acknowledged.", (level("stormwire_nats_appends_pending", by="pod"), "{{pod}}")),
    ]),
    ("Connections", [
        panel("Connected", "short", "1 while a connection to NATS stands.", (level("stormwire_nats_connected", by="connection", how="min"), "{{connection}}")),
        panel("Lost connections and slow consumers", "ops", "By connection.",
              (total("stormwire_nats_disconnects_total", by="connection"), "lost: {{connection}}"),
              (total("stormwire_nats_slow_consumers_total", by="connection"), "slow: {{connection}}"),
              (total("stormwire_journal_tail_dropped_total"), "dropped at a tail")),
        panel("Calls", "s", "p95 of calls to the journal, by operation.",
              (quantile(0.95, "stormwire_dependency_call_seconds", 'dependency=~"nats|nats_append"', "operation"), "{{operation}}")),
    ]),
    ("State", [
        panel("Rewound partitions", "short", "Partitions that wait for an operator because their journal has gone back.",
              (level("stormwire_journal_rewound", how="max", by="partition"), "{{partition}}")),
        panel("Disk of NATS", "percentunit", "Use of the volumes of NATS.",
              (f'kubelet_volume_stats_used_bytes{{{OWN},persistentvolumeclaim=~".*nats.*"}} / kubelet_volume_stats_capacity_bytes{{{OWN},persistentvolumeclaim=~".*nats.*"}}', "{{persistentvolumeclaim}}")),
        panel("Embedded commits", "s", "Commits of the embedded engine, and frames in one.",
              (quantile(0.95, "stormwire_sqlite_commit_seconds"), "p95"), (quantile(0.5, "stormwire_sqlite_commit_frames"), "frames, p50"), embedded=True),
    ]),
]

WORKERS = [
    ("Backlog", [
        panel("Backlog", "short", "Frames in the journal and not in the archive, by partition; this scales the workers.",
              (level("stormwire_persist_backlog_frames", by="partition", how="max"), "{{partition}}")),
        panel("Lag", "s", "Age of the oldest frame that is not in the archive.", (level("stormwire_persist_lag_seconds", by="partition", how="max"), "{{partition}}")),
        panel("Partitions", "short", "Partitions that each worker persists; together they must be all that there are.",
              (level("stormwire_persist_partitions_owned", by="pod"), "{{pod}}"),
              (level("stormwire_partitions", how="max"), "all")),
    ]),
    ("Persisting", [
        panel("Events", "short", "Events stored in the archive.", (total("stormwire_persist_events_total", by="pod"), "{{pod}}")),
        panel("Batch", "s", "Time to store a batch, commit included.", *quantiles("stormwire_persist_batch_seconds")),
        panel("Events in a batch", "short", "Grows with the backlog.", *quantiles("stormwire_persist_batch_events")),
        panel("Failures", "ops", "Batches that were not stored, by reason; they are tried again.",
              (total("stormwire_persist_failures_total", by="reason"), "{{reason}}")),
        panel("Dead letters and gaps", "ops", "Events that could not be stored as what they are; stretches found missing.",
              (total("stormwire_dead_letters_total"), "dead letters"), (total("stormwire_persist_gaps_total", by="reason"), "gap: {{reason}}")),
        panel("Stopped partitions", "short", "Not persisted until an operator acts.",
              (level("stormwire_persist_stopped", by="partition, reason", how="max") + " > 0", "{{partition}}: {{reason}}"), may_be_empty=True),
    ]),
    ("Retention", [
        panel("Removed", "ops", "Events removed past their bounds, tables dropped whole, rounds that failed.",
              (total("stormwire_retention_removed_events_total"), "events"), (total("stormwire_retention_dropped_tables_total"), "tables"),
              (total("stormwire_retention_failures_total"), "failed rounds")),
        panel("Default table", "short", "Rows that wait for a table of their own; tables that could not be made.",
              (level("stormwire_archive_default_partition_rows", how="max"), "rows"), (total("stormwire_archive_partition_failures_total"), "failures")),
    ]),
]


def dependency(names):
    matchers = f'dependency=~"{names}"'
    return [
        panel("Calls", "ops", "Calls by operation.", (total("stormwire_dependency_calls_total", matchers, "operation"), "{{operation}}")),
        panel("Outcomes", "ops", "Calls by outcome.", (total("stormwire_dependency_calls_total", matchers, "outcome"), "{{outcome}}")),
        panel("Latency p95", "s", "By operation.", (quantile(0.95, "stormwire_dependency_call_seconds", matchers, "operation"), "{{operation}}")),
        panel("Pool", "short", "Connections of the processes by state.", (level("stormwire_dependency_pool_connections", matchers, "dependency, state"), "{{dependency}} {{state}}")),
        panel("Breaker", "short", "0 closed, 1 half-open, 2 open.", (level("stormwire_dependency_breaker_state", matchers, "dependency", "max"), "{{dependency}}")),
        panel("Retries and openings", "ops", "Retries by outcome; times that the breaker opened.",
              (total("stormwire_dependency_retries_total", matchers, "outcome"), "retries: {{outcome}}"),
              (total("stormwire_dependency_breaker_opened_total", matchers), "opened")),
    ]


POSTGRES = [
    ("As the platform sees it", dependency("postgres|postgres_replica|postgres_identity") + [
        panel("Reads of history", "ops", "By the server that answered.", (total("stormwire_archive_reads_total", by="outcome"), "{{outcome}}")),
    ]),
    ("CloudNativePG", [
        panel("Instances up", "short", "1 while Postgres answers its exporter.", (f"cnpg_collector_up{{{OWN}}}", "{{pod}}")),
        panel("Backends", "short", "Sessions by state.", (f"sum by (state) (cnpg_backends_total{{{OWN}}})", "{{state}}")),
        panel("Replication lag", "s", "How far a replica is behind.", (f"cnpg_pg_replication_lag{{{OWN}}}", "{{pod}}")),
        panel("Size", "bytes", "Of each database.", (f"max by (datname) (cnpg_pg_database_size_bytes{{{OWN}}})", "{{datname}}")),
        panel("Age of the last backup", "s", "Since the last base backup that can be restored.",
              (f"time() - max(cnpg_collector_last_available_backup_timestamp{{{OWN}}})", "age")),
        panel("Disk", "percentunit", "Use of the volumes of Postgres.",
              (f'kubelet_volume_stats_used_bytes{{{OWN},persistentvolumeclaim=~".*postgres.*"}} / kubelet_volume_stats_capacity_bytes{{{OWN},persistentvolumeclaim=~".*postgres.*"}}', "{{persistentvolumeclaim}}")),
    ]),
]

REDIS = [
    ("As the platform sees it", dependency("redis|redis_presence") + [
        panel("Degraded", "short", "Gateways that count limits alone, and for which presence is away.",
              (level("stormwire_limits_degraded"), "limits"), (level("stormwire_presence_degraded"), "presence")),
    ]),
    ("redis_exporter", [
        panel("Up", "short", "1 while Redis answers its exporter.", (f"redis_up{{{OWN}}}", "{{pod}}")),
        panel("Memory", "percentunit", "Of `maxmemory`.", (f"redis_memory_used_bytes{{{OWN}}} / (redis_memory_max_bytes{{{OWN}}} > 0)", "{{pod}}")),
        panel("Clients", "short", "Connected clients.", (f"redis_connected_clients{{{OWN}}}", "{{pod}}")),
        panel("Commands", "ops", "Commands a second.", (f"rate(redis_commands_processed_total{{{OWN}}}[$__rate_interval])", "{{pod}}")),
        panel("Evicted", "ops", "Keys evicted for want of memory; must be none.", (f"rate(redis_evicted_keys_total{{{OWN}}}[$__rate_interval])", "{{pod}}")),
    ]),
]

BUSINESS = [
    ("Users", [
        stat("Active today", "short", "Users who published since midnight, UTC.", sql=
             "SELECT count(DISTINCT producer) AS users FROM event_log WHERE ts >= date_trunc('day', now())", width=6),
        stat("Active this month", "short", "Users who published in the last 30 days.", sql=
             "SELECT count(DISTINCT producer) AS users FROM event_log WHERE ts >= now() - interval '30 days'", width=6),
        stat("Stickiness", "percentunit", "Mean daily users over the users of 30 days.", sql=
             "WITH days AS (SELECT date_trunc('day', ts) AS day, count(DISTINCT producer) AS users FROM event_log "
             "WHERE ts >= now() - interval '30 days' GROUP BY 1) SELECT avg(users) / greatest((SELECT count(DISTINCT producer) "
             "FROM event_log WHERE ts >= now() - interval '30 days'), 1) AS share FROM days", width=6),
        stat("Accounts", "short", "Registered with the identity service.", sql="SELECT count(*) AS accounts FROM identity_accounts", width=6),
        panel("Daily users", "short", "Users who published, by day.", width=12, sql=
              "SELECT date_trunc('day', ts) AS time, count(DISTINCT producer) AS users FROM event_log "
              "WHERE $__timeFilter(ts) GROUP BY 1 ORDER BY 1"),
        panel("New accounts", "short", "By day.", width=12, sql=
              "SELECT date_trunc('day', to_timestamp(created_at / 1000.0)) AS time, count(*) AS accounts FROM identity_accounts "
              "WHERE $__timeFilter(to_timestamp(created_at / 1000.0)) GROUP BY 1 ORDER BY 1"),
        panel("Retention", "percentunit", "Of the users first seen on a day, the share seen again 1, 7 and 30 days later.", kind="table", width=12, sql=
              "WITH seen AS (SELECT DISTINCT producer, date_trunc('day', ts)::date AS day FROM event_log WHERE ts >= now() - interval '60 days'), "
              "first AS (SELECT producer, min(day) AS day FROM seen GROUP BY 1) "
              "SELECT first.day AS time, count(DISTINCT first.producer) AS users, "
              "count(DISTINCT s1.producer)::float / count(DISTINCT first.producer) AS day_1, "
              "count(DISTINCT s7.producer)::float / count(DISTINCT first.producer) AS day_7, "
              "count(DISTINCT s30.producer)::float / count(DISTINCT first.producer) AS day_30 FROM first "
              "LEFT JOIN seen s1 ON s1.producer = first.producer AND s1.day = first.day + 1 "
              "LEFT JOIN seen s7 ON s7.producer = first.producer AND s7.day = first.day + 7 "
              "LEFT JOIN seen s30 ON s30.producer = first.producer AND s30.day = first.day + 30 GROUP BY 1 ORDER BY 1"),
        panel("Busiest namespaces", "short", "Events of the last day by namespace.", kind="table", width=12, sql=
              "SELECT split_part(channel, ':', 1) AS namespace, count(*) AS events FROM event_log "
              "WHERE ts >= now() - interval '1 day' GROUP BY 1 ORDER BY 2 DESC LIMIT 20"),
    ]),
    ("Traffic", [
        panel("Events", "short", "Written and delivered.", (EVENTS, "written"), (total("stormwire_events_delivered_total"), "delivered"), width=12),
        panel("Connected", "short", "Open WebSockets.", (level("stormwire_connections"), "connections"), width=12),
    ]),
]

DASHBOARDS = [
    ("slo", "Stormwire: objectives", SLO),
    ("gateway", "Stormwire: gateway", GATEWAY),
    ("journal", "Stormwire: journal", JOURNAL),
    ("workers", "Stormwire: workers", WORKERS),
    ("postgres", "Stormwire: Postgres", POSTGRES),
    ("redis", "Stormwire: Redis", REDIS),
    ("business", "Stormwire: business", BUSINESS),
]


def dashboards():
    for name, title, rows in DASHBOARDS:
        yield {
            "uid": f"stormwire-{name}",
            "id": None,
            "title": title,
            "tags": ["stormwire"],
            "schemaVersion": 39,
            "timezone": "browser",
            "refresh": "30s",
            "editable": False,
            "time": {"from": "now-6h", "to": "now"},
            "templating": {"list": variables(rows)},
            "annotations": {"list": [annotation()]},
            "links": [{"type": "dashboards", "tags": ["stormwire"], "title": "Stormwire", "asDropdown": True}],
            "panels": laid_out(rows),
        }


def variables(rows):
    def source(name, kind):
        return {"name": name, "type": "datasource", "query": kind, "label": name}

    def label(name, query):
        return {"name": name, "type": "query", "datasource": PROMETHEUS, "query": query, "refresh": 2,
                "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}

    listed = [source("datasource", "prometheus")]
    if any(panel.get("sql") for _, panels in rows for panel in panels):
        listed.append(source("database", "grafana-postgresql-datasource"))
    listed.append(label("namespace", "label_values(stormwire_runtime_workers, namespace)"))
    listed.append(label("pod", 'label_values(stormwire_runtime_workers{namespace=~"$namespace"}, pod)'))
    return listed


PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
POSTGRES_SOURCE = {"type": "grafana-postgresql-datasource", "uid": "${database}"}


def annotation():
    return {"name": "Releases", "datasource": PROMETHEUS, "enable": True, "iconColor": "blue",
            "expr": f"changes(kube_deployment_status_observed_generation{{{OWN}}}[2m]) > 0", "titleFormat": "{{deployment}}"}


def laid_out(rows):
    made, y = [], 0
    for title, panels in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y, x = y + 1, 0
        height = 0
        for panel in panels:
            h = 5 if panel["kind"] == "stat" else 8
            if x + panel["width"] > 24:
                x, y, height = 0, y + height, 0
            made.append(drawn(panel, len(made) + 1, {"x": x, "y": y, "w": panel["width"], "h": h}))
            x, height = x + panel["width"], max(height, h)
        y += height
    return made


def drawn(panel, number, place):
    sql = panel.get("sql")
    source = POSTGRES_SOURCE if sql else PROMETHEUS
    if sql:
        form = "time_series" if panel["kind"] == "timeseries" else "table"
        targets = [{"refId": "A", "datasource": source, "rawQuery": True, "rawSql": sql, "format": form}]
    else:
        targets = [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": expr, "legendFormat": legend,
             **({"instant": True} if panel["kind"] == "stat" else {})}
            for index, (expr, legend) in enumerate(panel["queries"])
        ]
    defaults = {"unit": panel["unit"]}
    if "limits" in panel:
        steps = [{"value": None if at == 0 else at, "color": colour} for at, colour in panel["limits"]]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {"id": number, "type": panel["kind"], "title": panel["title"], "description": panel["description"],
            "datasource": source, "gridPos": place, "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []}}
