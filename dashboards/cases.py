"""What each alert of rules/alerts.yaml is tested with: half an hour of health, an hour of trouble, and
health again. make.py writes tests/alerts.yaml from it, and tests/errors.yaml of those that look at the
objectives: silent, firing, resolved.

A counter is (selector, growth a minute in health, in trouble); a gauge (selector, level in health, in
trouble); `None` for a series that is not there. `also` are alerts that must fire with it.
"""

HEALTH, TROUBLE, AFTER = 30, 60, 75
POD = 'namespace="s",pod="a"'
OK = f'stormwire_dependency_calls_total{{{POD},dependency="nats_append",operation="append",outcome="ok"}}'
HTTP = f'stormwire_http_requests_total{{{POD},route="/v1/channels/{{channel}}/events",method="POST",status="%s"}}'
POOL = f'stormwire_dependency_pool_connections{{{POD},dependency="%s",state="%s"}}'
VOLUME = 'namespace="s",persistentvolumeclaim="data-stormwire-nats-0"'


def buckets(metric, labels, fast, slow):
    """A histogram of a thousand observations a minute: all below 10 ms, or all between 1 s and 2.5 s."""
    at = [("0.01", fast, 0), ("0.1", fast, 0), ("0.5", fast, 0), ("1", fast, 0), ("2.5", fast, slow), ("+Inf", fast, slow)]
    return [(f'{metric}_bucket{{{labels},le="{edge}"}}', healthy, broken) for edge, healthy, broken in at]


CASES = {
    "StormwireErrors": dict(
        severity="P1",
        counters=[(HTTP % 200, 6000, 6000), (HTTP % 503, 0, 100),
                  (f'stormwire_http_requests_total{{{POD},route="/readyz",method="GET",status="503"}}', 600, 600)],
        also=[("StormwireErrorBudgetBurns", "P3"), ("StormwireErrorBudgetBurnsFast", "P1")],
    ),
    "StormwireSlowAppends": dict(
        severity="P1",
        counters=buckets("stormwire_ingest_append_seconds", POD, 1000, 1000)),
    "StormwireSlowRequests": dict(
        severity="P1",
        counters=buckets("stormwire_http_request_seconds", f'{POD},route="/v1/channels/{{channel}}/events",method="POST"', 1000, 1000)
        # A long poll waits on purpose.
        + buckets("stormwire_http_request_seconds", f'{POD},route="/v1/channels/{{channel}}/events",method="GET"', 0, 1000)),
    "StormwireNoGateway": dict(severity="P1", gauges=[(f"stormwire_connections{{{POD}}}", 7, None)]),
    "StormwireFailedAuthentication": dict(
        severity="P3",
        counters=[(f'stormwire_token_checks_total{{{POD},outcome="refused"}}', 6, 6),
                  (f'stormwire_sign_ins_total{{{POD},outcome="refused"}}', 6, 600)]),
    "StormwireRefreshTokenReused": dict(
        severity="P3", counters=[(f'stormwire_refreshes_total{{{POD},outcome="reused"}}', 0, 2)]),
    "StormwireTaskPanicked": dict(severity="P3", counters=[(f'stormwire_task_panics_total{{{POD},task="tail"}}', 0, 1)]),
    "StormwireJournalWithoutQuorum": dict(
        severity="P1", counters=[(OK, 6000, 0), (OK.replace('"ok"', '"deadline"'), 0, 60)]),
    "StormwireJournalDisconnected": dict(
        severity="P2", gauges=[(f'stormwire_nats_connected{{{POD},connection="tail"}}', 1, 0),
                               (f'stormwire_nats_connected{{{POD},connection="append"}}', 1, 1)]),
    "StormwireJournalRewound": dict(severity="P1", gauges=[(f'stormwire_journal_rewound{{{POD},partition="3"}}', 0, 1)]),
    "StormwireBacklogGrows": dict(
        severity="P2", counters=[(f'stormwire_persist_backlog_frames{{{POD},partition="3"}}', 0, 500)],
        gauges=[(f'stormwire_persist_lag_seconds{{{POD},partition="3"}}', 2, 600)]),
    # Of two workers the one with half of the partitions goes, and nobody takes them over.
    "StormwirePersistUnowned": dict(
        severity="P1", gauges=[(f"stormwire_partitions{{{POD}}}", 16, 16),
                               ('stormwire_persist_partitions_owned{namespace="s",pod="w1"}', 8, 8),
                               ('stormwire_persist_partitions_owned{namespace="s",pod="w2"}', 8, None)]),
    "StormwirePersistStopped": dict(
        severity="P1", gauges=[(f'stormwire_persist_stopped{{{POD},partition="3",reason="rewound"}}', 0, 1)]),
    "StormwireEventsMissing": dict(
        severity="P2", counters=[(f'stormwire_persist_gaps_total{{{POD},reason="hole"}}', 0, 1)]),
    "StormwireCanaryLost": dict(severity="P1", counters=[(f"stormwire_canary_lost_total{{{POD}}}", 0, 1)]),
    "StormwireCanaryDoubled": dict(severity="P1", counters=[(f"stormwire_canary_doubled_total{{{POD}}}", 0, 1)]),
    "StormwireCanarySilent": dict(
        severity="P2", counters=[(f'stormwire_canary_published_total{{{POD},outcome="acknowledged"}}', 960, 0),
                                 (f'stormwire_canary_published_total{{{POD},outcome="refused"}}', 0, 960)]),
    "StormwireRevocationsAway": dict(severity="P2", gauges=[(f"stormwire_revocations_away{{{POD}}}", 0, 1)]),
    "StormwireDeadLetters": dict(severity="P3", counters=[(f"stormwire_dead_letters_total{{{POD}}}", 0, 1)]),
    "StormwireArchiveTablesLate": dict(
        severity="P3", counters=[(f"stormwire_archive_partition_failures_total{{{POD}}}", 0, 1)]),
    "StormwirePoolExhausted": dict(severity="P1", gauges=[(POOL % ("postgres", "waiting"), 0, 3)]),
    "StormwirePoolNearlyExhausted": dict(
        severity="P2", gauges=[(POOL % ("postgres", "open"), 10, 20), (POOL % ("postgres", "idle"), 8, 2),
                               (POOL % ("postgres", "max"), 20, 20), (POOL % ("redis", "open"), 4, 4),
                               (POOL % ("redis", "max"), 4, 4)]),
    "StormwireBreakerOpen": dict(
        severity="P2", gauges=[(f'stormwire_dependency_breaker_state{{{POD},dependency="nats"}}', 0, 2),
                               (f'stormwire_dependency_breaker_state{{{POD},dependency="redis"}}', 1, 1)]),
    "StormwireLimitsDegraded": dict(severity="P3", gauges=[(f"stormwire_limits_degraded{{{POD}}}", 0, 1)]),
    "StormwireRedisMemory": dict(
        severity="P3", gauges=[('redis_memory_used_bytes{namespace="s",pod="r"}', 800, 950),
                               ('redis_memory_max_bytes{namespace="s",pod="r"}', 1000, 1000),
                               ('redis_memory_used_bytes{namespace="s",pod="unbounded"}', 800, 950),
                               ('redis_memory_max_bytes{namespace="s",pod="unbounded"}', 0, 0)]),
    "StormwireDiskFull": dict(
        severity="P3", gauges=[(f"kubelet_volume_stats_used_bytes{{{VOLUME}}}", 70, 85),
                               (f"kubelet_volume_stats_capacity_bytes{{{VOLUME}}}", 100, 100)]),
    "StormwirePostgresDown": dict(
        severity="P2", gauges=[('cnpg_collector_up{namespace="s",pod="postgres-1"}', 1, 0)]),
    "StormwirePostgresReplicaLag": dict(
        severity="P3", gauges=[('cnpg_pg_replication_lag{namespace="s",pod="postgres-2"}', 1, 300)]),
    # Time begins at 0 in a test: a backup in the future is a young one.
    "StormwireBackupOld": dict(
        severity="P2", gauges=[('cnpg_collector_last_available_backup_timestamp{namespace="s",pod="postgres-1"}', 0, -200000)]),
}


def counter(healthy, broken):
    parts, at = [], 0
    for growth, minutes in ((healthy, HEALTH), (broken, TROUBLE), (healthy, AFTER)):
        parts.append(f"{at}+{growth}x{minutes - 1}")
        at += growth * minutes
    return " ".join(parts)


def gauge(healthy, broken):
    def held(level, minutes):
        return f"_x{minutes}" if level is None else f"{level}x{minutes - 1}"

    return " ".join(held(level, n) for level, n in ((healthy, HEALTH), (broken, TROUBLE), (healthy, AFTER)))


def tests(objectives):
    """The cases as promtool wants them: those with the rules of the objectives, or the others."""
    for alert, case in CASES.items():
        if ("also" in case) != objectives:
            continue
        series = [{"series": s, "values": counter(a, b)} for s, a, b in case.get("counters", [])]
        series += [{"series": s, "values": gauge(a, b)} for s, a, b in case.get("gauges", [])]
        # What is absent fires everywhere but where it is there.
        seen = "" if alert == "StormwireNoGateway" else ',alertname!="StormwireNoGateway"'
        query = f'count by (alertname, severity) (ALERTS{{alertstate="firing"{seen}}})'

        def samples(alerts):
            return [{"labels": f'{{alertname="{name}",severity="{level}"}}', "value": 1} for name, level in alerts]

        firing = [(alert, case["severity"]), *case.get("also", [])]
        # A budget that was burnt is burnt for longer than the trouble lasts; tests/slo.yaml is about it.
        settled = f'ALERTS{{alertstate="firing",alertname!~"StormwireErrorBudget.*"{seen}}}'
        end = HEALTH + TROUBLE
        yield {
            "name": alert,
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [
                {"eval_time": f"{HEALTH - 1}m", "expr": query, "exp_samples": []},
                {"eval_time": f"{end - 1}m", "expr": query, "exp_samples": samples(sorted(firing))},
                {"eval_time": f"{end + AFTER - 1}m", "expr": settled, "exp_samples": []},
            ],
        }
