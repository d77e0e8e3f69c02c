//! A drill: a backup under load, everything destroyed, a restore, and the checker's word on what is there.
//!
//! What was acknowledged before the backup began must be there, once, where its acknowledgement says. What
//! was acknowledged afterwards may be there or not; in the histories that are judged its outcome is unknown.

use crate::cluster::{Cluster, NATS_NODES, Options};
use crate::control::{Control, Phase};
use crate::producer::Producer;
use crate::recorder::{Recorder, now};
use crate::run::{all_end, target};
use crate::{Failure, Outcome, archive, say};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stormwire_checker::{ProducerRecord, check, explain};
use stormwire_testkit::Program;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PRODUCERS: usize = 10;
/// Mean pause between two publishes of a producer.
const INTERVAL: Duration = Duration::from_millis(30);
/// Acknowledged events before the workers stop, before the backup, and before the end.
const EVENTS: u64 = 400;
const WITHIN: Duration = Duration::from_secs(120);
/// The producers' names in histories.
const HISTORY: &str = "producer-p";

/// Where, and with which executable.
#[derive(Debug)]
pub(crate) struct Drill {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
}

/// Does it; whether every guarantee held.
pub(crate) async fn run(drill: &Drill) -> Outcome<bool> {
    let folder = &drill.folder;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder.join("cluster")).map_err(Failure::doing(folder.display()))?;
    say("drill: starting the cluster");
    let options = Options {
        program: drill.program.clone(),
        folder: folder.join("cluster"),
        variables: Vec::new(),
        postgres: None,
        clocks: false,
    };
    let cluster = Cluster::start(&options).await?;
    let control = Arc::new(Control::new());
    let mut producers = producers(drill, &cluster, &control)?;
    acknowledged(&control, EVENTS).await?;
    say("drill: stopping the workers, so that the journal has what the archive has not");
    for worker in &cluster.workers {
        worker.server.kill().await;
    }
    acknowledged(&control, EVENTS).await?;
    let cut = now();
    say("drill: backing up under load");
    let told = stormwire(drill, &cluster, "backup", &folder.join("backups")).await?;
    let backup = told["backup"].as_str().map(PathBuf::from);
    let backup = backup.ok_or_else(|| Failure::of(format!("no backup: {told}")))?;
    let lost_from = control.acknowledged_now();
    acknowledged(&control, EVENTS).await?;
    control.enter(Phase::Finish);
    if !all_end(&mut producers, WITHIN).await {
        return Err(Failure::of("some publishes have no final answer"));
    }
    let lost = control.acknowledged_now() - lost_from;
    destroy(&cluster, folder).await?;
    say("drill: restoring");
    let began = Instant::now();
    let restored = stormwire(drill, &cluster, "restore", &backup).await?;
    cluster.heal().await?;
    let recovery = began.elapsed();
    archive::dump(&cluster, Recorder::create(folder, "archive")?).await?;
    cluster.stop().await;
    forget_after(folder, cut)?;
    let verdict = check(folder).map_err(Failure::doing("the histories"))?;
    println!("{verdict}");
    for violation in verdict.examples() {
        println!("{}", explain(folder, violation).map_err(Failure::doing("the histories"))?);
    }
    println!(
        "backup {:.1} s; restored {} frames beyond the dump, {} events; ready again {:.1} s after the restore \
         began; {lost} events were acknowledged after the backup had ended",
        told["seconds"].as_f64().unwrap_or_default(),
        restored["frames"],
        restored["events"],
        recovery.as_secs_f64()
    );
    if restored["events"].as_u64().unwrap_or_default() == 0 {
        return Err(Failure::of(
            "the backup had nothing beyond its dump: this drill proves little",
        ));
    }
    Ok(verdict.is_clean())
}

fn producers(
    drill: &Drill,
    cluster: &Cluster,
    control: &Arc<Control>,
) -> Outcome<JoinSet<Outcome>> {
    let target = Arc::new(target(cluster, INTERVAL, 64)?);
    let mut producers = JoinSet::new();
    for number in 1..=PRODUCERS {
        let recorder = Recorder::create(&drill.folder, &format!("{HISTORY}{number}"))?;
        let (target, control) = (Arc::clone(&target), Arc::clone(control));
        producers.spawn(Producer::new(number, drill.seed, target, control, recorder).run());
    }
    Ok(producers)
}

/// Waits until so many more events are acknowledged.
async fn acknowledged(control: &Control, more: u64) -> Outcome {
    let (due, until) = (control.acknowledged_now() + more, Instant::now() + WITHIN);
    while control.acknowledged_now() < due {
        if Instant::now() > until {
            return Err(Failure::of(format!("{more} more events were not acknowledged in time")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A command as an operator gives it, past all proxies; its last line.
async fn stormwire(
    drill: &Drill,
    cluster: &Cluster,
    command: &str,
    path: &Path,
) -> Outcome<serde_json::Value> {
    if command == "backup" {
        std::fs::create_dir_all(path).map_err(Failure::doing(path.display()))?;
    }
    let nats: Vec<String> = cluster.nats.nodes().iter().map(|node| node.url()).collect();
    let mut stormwire = Command::new(&drill.program);
    stormwire.arg(command).arg(path).kill_on_drop(true);
    if let Some(bin) = Program::Postgres.find().and_then(|path| Some(path.parent()?.to_owned()))
        && bin.join("pg_dump").is_file()
    {
        stormwire.arg("--pg-bin").arg(bin);
    }
    let output = stormwire
        .env("STORMWIRE_PARTITIONS", crate::PARTITIONS.to_string())
        .env("STORMWIRE_JOURNAL_URL", nats.join(","))
        .env("STORMWIRE_JOURNAL_REPLICAS", NATS_NODES.to_string())
        .env("STORMWIRE_ARCHIVE_URL", cluster.database_url())
        .output()
        .await
        .map_err(Failure::doing(command))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::of(format!("stormwire {command}: {}: {why}", output.status)));
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(Failure::doing(said.clone()))
}

/// Ends every process, empties the journal's disks and drops the database.
async fn destroy(cluster: &Cluster, folder: &Path) -> Outcome {
    say("drill: destroying journal and archive");
    for role in cluster.roles() {
        role.server.kill().await;
    }
    for (number, node) in (1..).zip(cluster.nats.nodes()) {
        node.kill().await;
        let store = folder.join(format!("cluster/nats-{number}/data"));
        std::fs::remove_dir_all(&store).map_err(Failure::doing(store.display()))?;
    }
    for node in cluster.nats.nodes() {
        node.try_restart().await.map_err(Failure::doing("NATS again"))?;
    }
    cluster.nats.wait_healthy().await;
    cluster.empty_database().await
}

/// What was acknowledged from `cut` on may be gone: in the histories nobody knows its outcome.
fn forget_after(folder: &Path, cut: u64) -> Outcome {
    for number in 1..=PRODUCERS {
        let path = folder.join(format!("{HISTORY}{number}.jsonl"));
        let text = std::fs::read_to_string(&path).map_err(Failure::doing(path.display()))?;
        let mut kept = String::with_capacity(text.len());
        for line in text.lines() {
            let record = serde_json::from_str(line).map_err(Failure::doing(path.display()))?;
            let record = forgotten(record, cut);
            kept += &serde_json::to_string(&record).map_err(Failure::doing(path.display()))?;
            kept.push('\n');
        }
        std::fs::write(&path, kept).map_err(Failure::doing(path.display()))?;
    }
    Ok(())
}

fn forgotten(record: ProducerRecord, cut: u64) -> ProducerRecord {
    match record {
        ProducerRecord::Acknowledged { t, attempt, .. } if t >= cut => ProducerRecord::Unknown {
            t,
            attempt,
            why: "acknowledged after the backup had begun".to_owned(),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_after_the_cut_is_forgotten() {
        let at = |t| ProducerRecord::Acknowledged {
            t,
            attempt: 1,
            epoch: 1,
            first: 2,
            last: 2,
            duplicate: false,
        };
        assert_eq!(forgotten(at(99), 100), at(99));
        assert!(matches!(forgotten(at(100), 100), ProducerRecord::Unknown { t: 100, .. }));
    }
}
