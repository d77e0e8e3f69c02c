//! What the configuration names: the journal, the archive, the limiter, the keys, the clocks.

use super::{Finding, Level, http};
use crate::config::Config;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Clock as _, SystemClock, Timestamp};
use stormwire_engine::{
    ArchiveUrl, EngineConfig, EngineError, Engines, JournalUrl, LimitsUrl, OpenError,
    inspect_postgres,
};
use stormwire_journal::JournalError;

/// Longest wait for one answer.
const WITHIN: Duration = Duration::from_secs(5);
/// A clock further off than this keeps a gateway from being ready.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// A replica further behind than this is passed over for many reads.
const LAG_MAX: Duration = Duration::from_secs(10);
/// The first NATS server on which syncing every write is affordable in a cluster.
const NATS_MIN: (u64, u64) = (2, 15);
/// Connections that the archive's server should have for others.
const CONNECTIONS_BESIDE: u32 = 10;

/// All checks of dependencies.
pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Looking must not change anything: no schema is brought up to date from here.
    let engine = EngineConfig { migrate_at_start: false, ..config.engine.clone() };
    let mut engines = Engines::new(engine, Arc::new(SystemClock));
    if matches!(config.engine.journal, JournalUrl::Nats(_)) {
        findings.extend(journal(config, &mut engines).await);
        findings.push(nats_server(config).await);
    }
    match &config.engine.archive {
        ArchiveUrl::Sqlite => findings.push(embedded(&mut engines).await),
        ArchiveUrl::Postgres(url) => findings.extend(postgres("archive", url, config).await),
    }
    if let Some(url) = &config.engine.archive_replica_url {
        findings.extend(postgres("archive replica", url, config).await);
    }
    findings.push(limiter(config, &mut engines).await);
    findings.push(keys(config).await);
    engines.close().await;
    findings
}

async fn embedded(engines: &mut Engines) -> Finding {
    match engines.archive().await {
        Ok(archive) => match archive.ping().await {
            Ok(()) => Finding::ok("archive", "the embedded file opens and answers"),
            Err(error) => Finding::fail(
                "archive",
                error.to_string(),
                "check the file stormwire.db and its disk",
            ),
        },
        // A server that works on it is as it should be.
        Err(EngineError::Embedded(error)) if matches!(error, OpenError::InUse { .. }) => {
            Finding::ok("archive", format!("{error}"))
        }
        Err(error) => Finding::fail("archive", error.to_string(), "see the message"),
    }
}

async fn journal(config: &Config, engines: &mut Engines) -> Vec<Finding> {
    let journal = match engines.journal().await {
        Ok(journal) => journal,
        Err(error) => {
            return vec![Finding::fail(
                "journal",
                error.to_string(),
                "correct journal.url (NATS_URL)",
            )];
        }
    };
    if let Err(error) = journal.ping().await {
        let remedy = "start the NATS servers with JetStream on, or correct journal.url (NATS_URL)";
        return vec![Finding::fail("journal", error.to_string(), remedy)];
    }
    let mut findings = vec![Finding::ok("journal", "NATS answers and JetStream is on")];
    let (mut there, mut bytes) = (0, 0);
    for partition in config.partitions.all() {
        let Ok(tip) = journal.tip(partition).await else { continue };
        there += 1;
        bytes += tip.bytes;
        if tip.bytes > tip.bytes_max / 4 * 3 {
            findings.push(Finding::warn(
                "streams",
                format!(
                    "partition {partition} is {} % full",
                    tip.bytes * 100 / tip.bytes_max.max(1)
                ),
                "workers are behind or absent: look at `stormwire messages` and at the archive",
            ));
        }
        // The stream is there, so opening it only compares its settings.
        if let Err(error @ JournalError::Settings { .. }) = journal.open(partition).await {
            findings.push(Finding::fail(
                "streams",
                error.to_string(),
                "correct the setting in the configuration, or the stream with the nats tool",
            ));
        }
    }
    let all = config.partitions.get();
    findings.push(Finding::ok(
        "streams",
        format!("{there} of {all} partitions have a stream (they are made when first needed), {} MiB in all", bytes >> 20),
    ));
    findings
}

async fn nats_server(config: &Config) -> Finding {
    let Some(base) = config.journal_monitor_url.as_deref() else {
        return Finding::warn(
            "journal server",
            "version and sync_interval were not looked at",
            "set journal.monitor_url to a NATS server's monitoring address, as in http://nats:8222",
        );
    };
    let base = base.trim_end_matches('/');
    let (varz, jsz) = (format!("{base}/varz"), format!("{base}/jsz"));
    let pages = tokio::try_join!(http::get(&varz), http::get(&jsz));
    match pages {
        Ok((varz, jsz)) => judge_nats(&varz, &jsz, config.engine.journal_replicas),
        Err(error) => Finding::fail(
            "journal server",
            error,
            "correct journal.monitor_url, or turn monitoring on (http: 8222)",
        ),
    }
}

fn judge_nats(varz: &Value, jsz: &Value, replicas: u8) -> Finding {
    let version = varz["version"].as_str().unwrap_or("unknown");
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let always = jsz["config"]["sync_always"].as_bool().unwrap_or(false);
    let interval = Duration::from_nanos(jsz["config"]["sync_interval"].as_u64().unwrap_or(0));
    let sync = if always { "always".to_owned() } else { format!("{interval:?}") };
    let detail = format!("nats-server {version}, sync_interval {sync}, {replicas} replicas");
    if found < NATS_MIN {
        return Finding::fail(
            "journal server",
            detail,
            "this program expects nats-server 2.15 or newer",
        );
    }
    if !always {
        let remedy = "acknowledged events of the last interval are lost if all nodes lose power: set jetstream { sync_interval: always }";
        return Finding::warn("journal server", detail, remedy);
    }
    Finding::ok("journal server", detail)
}

async fn postgres(check: &'static str, url: &str, config: &Config) -> Vec<Finding> {
    let found = match inspect_postgres(url, WITHIN).await {
        Ok(found) => found,
        Err(error) => {
            let remedy =
                "start Postgres, or correct archive.url (DATABASE_URL), its user and its password";
            return vec![Finding::fail(check, error.to_string(), remedy)];
        }
    };
    let mut findings = vec![skew(check, SystemClock.now(), found.now)];
    let detail =
        format!("Postgres {}, {} connections at most", found.version, found.connections_max);
    let connections = config.engine.archive_connections;
    findings.push(if !found.is_durable {
        Finding::fail(check, detail, "fsync, full_page_writes and synchronous_commit must be on: without them a commit is no commit")
    } else if !found.is_replica && !found.may_create && !found.has_schema {
        Finding::fail(check, format!("{detail}; it does not have this program's schema, and this user may not make it"), "run `stormwire migrate` as the role that owns the schema (docs/database-roles.md), or GRANT CREATE ON SCHEMA public TO this user")
    } else if u32::try_from(found.connections_max).unwrap_or(0) < connections + CONNECTIONS_BESIDE {
        Finding::warn(check, detail, format!("each process may open {connections} (archive.connections): raise max_connections or lower that"))
    } else {
        Finding::ok(check, detail)
    });
    if check == "archive replica" {
        findings.push(replica(found.is_replica, found.replica_lag));
    }
    findings
}

fn replica(is_replica: bool, lag: Option<Duration>) -> Finding {
    match (is_replica, lag) {
        (false, _) => Finding::fail(
            "replica lag",
            "this server is a primary",
            "archive.replica_url names the same or another primary: correct it",
        ),
        (true, Some(lag)) if lag <= LAG_MAX => {
            Finding::ok("replica lag", format!("{lag:?} behind"))
        }
        (true, Some(lag)) => Finding::warn(
            "replica lag",
            format!("{lag:?} behind"),
            "reads go to the primary meanwhile: look at the replica's load and network",
        ),
        (true, None) => Finding::warn(
            "replica lag",
            "it has replayed nothing yet",
            "look at pg_stat_replication on the primary",
        ),
    }
}

fn skew(check: &'static str, ours: Timestamp, theirs: Timestamp) -> Finding {
    let off = ours.since(theirs).max(theirs.since(ours));
    let detail = format!("{check}'s clock is {off:?} from this machine's");
    if off > SKEW_MAX {
        return Finding::fail(
            "clock skew",
            detail,
            "run an NTP client (chrony) on both machines; a gateway further off than 2 s is not ready",
        );
    }
    Finding::ok("clock skew", detail)
}

async fn limiter(config: &Config, engines: &mut Engines) -> Finding {
    if config.engine.limits == LimitsUrl::Local {
        let detail = "limits are counted by each process alone";
        if config.is_cluster() {
            return Finding::warn(
                "limiter",
                detail,
                "set limits.url (REDIS_URL), so that all gateways count together",
            );
        }
        return Finding::ok("limiter", detail);
    }
    let answer = match engines.limiter().await {
        Ok(limiter) => limiter.ping().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(()) => Finding::ok("limiter", "Redis answers"),
        Err(error) => Finding::fail(
            "limiter",
            error,
            "start Redis, or correct limits.url (REDIS_URL); meanwhile each gateway counts its share",
        ),
    }
}

async fn keys(config: &Config) -> Finding {
    let Some(jwks) = config.auth.jwks.as_deref() else {
        return Finding::warn(
            "keys",
            "tokens are verified with the development key",
            "for production set auth.jwks to your identity provider's keys",
        );
    };
    let remedy = "correct auth.jwks: a file, or a URL that answers with {\"keys\": [...]}";
    let document = if jwks.starts_with("http://") {
        http::get(jwks).await
    } else if jwks.starts_with("https://") {
        return Finding::ok(
            "keys",
            format!("{jwks} (a gateway's /readyz says whether it was read)"),
        );
    } else {
        read(Path::new(jwks))
    };
    match document.map(|document| document["keys"].as_array().map_or(0, Vec::len)) {
        Ok(0) => Finding::fail("keys", format!("{jwks} holds no key"), remedy),
        Ok(count) => Finding::ok("keys", format!("{count} in {jwks}")),
        Err(error) => {
            Finding { level: Level::Fail, check: "keys", detail: error, remedy: remedy.to_owned() }
        }
    }
}

fn read(path: &Path) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn servers_and_clocks_are_judged() {
        let nats = |version: &str, always: bool| {
            let jsz = json!({ "config": { "sync_interval": 120_000_000_000_u64, "sync_always": always } });
            judge_nats(&json!({ "version": version }), &jsz, 3)
        };
        assert_eq!(nats("2.15.1", true).level, Level::Ok);
        assert!(nats("2.15.1", false).detail.contains("sync_interval 120s"));
        assert_eq!(nats("2.15.1", false).level, Level::Warn);
        assert_eq!(nats("2.10.25", true).level, Level::Fail);
        assert_eq!(skew("x", Timestamp(10_000), Timestamp(11_000)).level, Level::Ok);
        assert_eq!(skew("x", Timestamp(13_000), Timestamp(10_000)).level, Level::Fail);
        assert_eq!(replica(false, None).level, Level::Fail);
        assert_eq!(replica(true, Some(Duration::from_secs(1))).level, Level::Ok);
        assert_eq!(replica(true, Some(Duration::from_secs(60))).level, Level::Warn);
    }
}
