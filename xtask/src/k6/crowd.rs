//! The sockets that are too many for k6: the Rust generator holds a hundred thousand beside a cluster on one
//! machine. Each subscribes, and each must be given its event.

use crate::shell;
use crate::up::{self, cluster::Cluster};
use crate::{Failure, Outcome};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Sockets of one gateway and of one process of the generator: each has so many files.
const SOCKETS_A_GATEWAY: u32 = 17_000;
const SOCKETS_A_PROCESS: u32 = 13_000;
const RECEIVERS: &str = "subscribers that were given their event";

#[derive(Debug, Deserialize)]
struct Report {
    figures: Vec<Figure>,
}

#[derive(Debug, Deserialize)]
struct Figure {
    figure: String,
    unit: String,
    median: f64,
}

/// Gathers them, and says what it took as rows of the table.
pub(super) async fn gather(
    count: u32,
    folder: &Path,
    program: &Path,
    load: &Path,
) -> Outcome<String> {
    let gateways =
        u16::try_from(count.div_ceil(SOCKETS_A_GATEWAY)).map_err(Failure::doing("--crowd"))?;
    let options =
        up::Options { gateways, workers: 1, identities: 0, ..super::cluster_options(folder) };
    let cluster = Cluster::start(&options, program).await?;
    let outcome = measured(count, gateways, &cluster, load).await;
    cluster.stop().await;
    rows(count, &outcome?)
}

async fn measured(count: u32, gateways: u16, cluster: &Cluster, load: &Path) -> Outcome<String> {
    let pids: Vec<String> = (1..=gateways)
        .map(|number| Ok(cluster.pid(&format!("gateway_{number}"))?.to_string()))
        .collect::<Outcome<_>>()?;
    let addresses: Vec<String> =
        cluster.urls().iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
    let mut command = Command::new(load);
    command
        .args(["idle", "--bench", "crowd", "--subscribers", &count.to_string()])
        .args(["--processes", &count.div_ceil(SOCKETS_A_PROCESS).to_string()])
        .args(["--address", &addresses.join(",")])
        .args(["--watch", &format!("gateway={}", pids.join(","))])
        .env("STORMWIRE_TOKEN", cluster.token())
        .stdin(Stdio::null());
    let read = tokio::task::spawn_blocking(move || shell::read(&mut command)).await;
    read.map_err(Failure::doing("the load generator"))?
}

fn rows(count: u32, text: &str) -> Outcome<String> {
    let line = text.lines().last().unwrap_or_default();
    let report: Report = serde_json::from_str(line).map_err(Failure::doing("the crowd"))?;
    let mut rows = String::new();
    for Figure { figure, unit, median } in &report.figures {
        let due = if figure == RECEIVERS { format!("all {count}: held") } else { String::new() };
        writeln!(rows, "| crowd | {figure}, {unit} | {median:.1} | {due} |")
            .map_err(Failure::doing("the table"))?;
    }
    let given = report.figures.iter().find(|one| one.figure == RECEIVERS).map(|one| one.median);
    if given == Some(f64::from(count)) {
        return Ok(rows);
    }
    Err(Failure::of(format!("not all of {count} subscribers were given their event\n{rows}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_of_the_crowd_must_be_given_its_event() {
        let line = |given| {
            format!(
                r#"{{"bench":"crowd","figures":[{{"figure":"{RECEIVERS}","unit":"sockets","median":{given}}}]}}"#
            )
        };
        assert!(rows(3, &line(3)).unwrap().contains("| 3.0 | all 3: held |"));
        assert!(rows(3, &line(2)).is_err());
        assert!(rows(3, "").is_err());
    }
}
