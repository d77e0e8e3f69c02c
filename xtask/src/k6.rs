//! `cargo xtask k6`: the scripts of `load/k6` against a cluster on this machine, by the real k6.
//!
//! Several processes share the sockets, since one has only so many files; each has the objectives as its
//! thresholds and leaves its summary in `target/k6`. A Prometheus scrapes the cluster meanwhile, and every
//! query of the dashboards must find something in it afterwards.

mod crowd;
pub(crate) mod prometheus;

use crate::bench::results::machine;
use crate::ops::install::Tools;
use crate::shell;
use crate::up::{self, cluster::Cluster};
use crate::{Failure, Outcome, tools};
use prometheus::Prometheus;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use stormwire_testkit::{Program, workspace_root};

/// Sockets of one process of k6.
const SOCKETS_PER_PROCESS: u32 = 5_000;
/// What is kept of the last run.
const RESULTS: &str = "load/k6/RESULTS.md";
/// The dashboard of the objectives over that run.
const PICTURE: &str = "load/k6/slo.svg";

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many WebSockets, all of which receive
    #[arg(long, default_value_t = 20_000)]
    sockets: u32,
    /// How many channels they are spread over
    #[arg(long, default_value_t = 1_000)]
    channels: u32,
    /// Events a second over all channels
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds to open all sockets in
    #[arg(long, default_value_t = 90)]
    ramp: u32,
    /// Seconds to stay after that
    #[arg(long, default_value_t = 60)]
    hold: u32,
    /// Seconds of the REST script before it; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    rest: u32,
    /// Sockets that the Rust generator holds afterwards, each of which must be given its event; 0: none
    #[arg(long, default_value_t = 100_000)]
    crowd: u32,
    /// Use this executable instead of building one
    #[arg(long, requires = "load")]
    program: Option<PathBuf>,
    /// Use this load generator instead of building one
    #[arg(long)]
    load: Option<PathBuf>,
    /// Keep the figures in load/k6/RESULTS.md
    #[arg(long)]
    keep: bool,
}

/// A run of a script and what it left.
struct Run {
    name: String,
    child: Child,
    summary: PathBuf,
    log: PathBuf,
}

/// Runs the scripts and fails where a threshold is crossed or a query finds nothing.
pub(crate) fn run(options: &Options) -> Outcome {
    tools::provide()?;
    let ops = Tools::provide()?;
    let [program, load] = match (&options.program, &options.load) {
        (Some(program), Some(load)) => [program.clone(), load.clone()],
        _ => up::build_packages(["stormwire", "stormwire-load"], false)?,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::doing("starting a runtime"))?;
    runtime.block_on(async {
        let done = measure(options, &ops, &program).await?;
        let mut table = table(&done)?;
        println!("{table}");
        if options.crowd > 0 {
            let folder = folder().join("crowd");
            let rows = crowd::gather(options.crowd, &folder, &program, &load).await?;
            println!("{rows}");
            table += &rows;
        }
        if options.keep {
            keep(options, &table)?;
        }
        within(&done)
    })
}

fn folder() -> PathBuf {
    workspace_root().join("target/k6")
}

async fn measure(options: &Options, ops: &Tools, program: &Path) -> Outcome<Vec<Done>> {
    let folder = folder();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(Failure::doing(folder.display()))?;
    let cluster = Cluster::start(&cluster_options(&folder), program).await?;
    let outcome = loaded(options, ops, &cluster, &folder).await;
    cluster.stop().await;
    outcome
}

fn cluster_options(folder: &Path) -> up::Options {
    up::Options {
        gateways: 2,
        workers: 1,
        identities: 1,
        nats: 3,
        no_sync: false,
        no_respawn: true,
        program: None,
        keep: false,
        debug: false,
        folder: folder.join("cluster"),
        environment: vec![
            ("STORMWIRE_LIMITS_CONNECTIONS_PER_IP", "100000"),
            ("STORMWIRE_LIMITS_EVENTS_PER_SECOND", "1000000"),
            ("STORMWIRE_LIMITS_REST_REQUESTS_PER_MINUTE", "1000000"),
            ("STORMWIRE_LIMITS_REST_REQUESTS_PER_MINUTE_IP", "1000000"),
        ],
    }
}

async fn loaded(
    options: &Options,
    ops: &Tools,
    cluster: &Cluster,
    folder: &Path,
) -> Outcome<Vec<Done>> {
    let prometheus = Prometheus::start(folder, &cluster.metrics(), "local").await?;
    let mut done = Vec::new();
    if options.rest > 0 {
        let rest = [("DURATION", format!("{}s", options.rest)), ("RATE", "30".to_owned())];
        done.push(ended(start(ops, cluster, folder, "rest", "rest", &rest)?).await?);
    }
    let mut running = Vec::new();
    for (index, sockets) in shares(options.sockets).into_iter().enumerate() {
        let rate = if index == 0 { options.rate } else { 0 };
        let variables = [
            ("SOCKETS", sockets.to_string()),
            ("CHANNELS", options.channels.to_string()),
            ("RATE", rate.to_string()),
            ("RAMP", options.ramp.to_string()),
            ("HOLD", options.hold.to_string()),
        ];
        running.push(start(
            ops,
            cluster,
            folder,
            "sockets",
            &format!("sockets-{index}"),
            &variables,
        )?);
    }
    for one in running {
        done.push(ended(one).await?);
    }
    prometheus.settle().await;
    let picture = if options.keep { PICTURE } else { "target/k6/slo.svg" };
    let seconds = (options.ramp + options.hold + options.rest + 30).to_string();
    let mut plot = ops.script("dashboards/plot.py");
    let drawn = shell::read(plot.args([&prometheus.url(), "stormwire-slo", &seconds, picture]));
    let mut check = ops.script("dashboards/check.py");
    check.args(["--prometheus", &prometheus.url(), "--psql", &psql(cluster)?]);
    let queries = shell::read(&mut check);
    println!("{}", queries?);
    drawn?;
    Ok(done)
}

/// Whether every threshold was held.
fn within(done: &[Done]) -> Outcome {
    let red: Vec<&str> =
        done.iter().filter(|one| !one.green).map(|one| one.name.as_str()).collect();
    if red.is_empty() {
        return Ok(());
    }
    Err(Failure::of(format!(
        "a threshold was crossed: {}; see {}",
        red.join(", "),
        folder().display()
    )))
}

/// The sockets of each process.
fn shares(sockets: u32) -> Vec<u32> {
    let processes = sockets.div_ceil(SOCKETS_PER_PROCESS).max(1);
    (0..processes).map(|index| (sockets + index) / processes).collect()
}

fn start(
    ops: &Tools,
    cluster: &Cluster,
    folder: &Path,
    script: &str,
    name: &str,
    variables: &[(&str, String)],
) -> Outcome<Run> {
    let (summary, log) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.log")));
    let urls: Vec<String> = cluster.urls().iter().map(|url| url.replace("http", "ws")).collect();
    let output = std::fs::File::create(&log).map_err(Failure::doing(log.display()))?;
    let errors = output.try_clone().map_err(Failure::doing(log.display()))?;
    let mut k6 = ops.program("k6");
    // Several side by side: each with a port of its own for its interface.
    k6.args(["run", "--quiet", "--no-usage-report", "--address", "127.0.0.1:0"])
        .arg(format!("load/k6/{script}.js"))
        .env("URLS", urls.join(","))
        .env("TOKEN", cluster.token())
        .env("SUMMARY", &summary)
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors));
    let child = k6.spawn().map_err(Failure::doing("k6"))?;
    Ok(Run { name: name.to_owned(), child, summary, log })
}

/// A run that has ended.
struct Done {
    name: String,
    green: bool,
    metrics: Value,
}

async fn ended(mut run: Run) -> Outcome<Done> {
    let name = run.name.clone();
    let waited =
        tokio::task::spawn_blocking(move || (run.child.wait(), run.summary, run.log)).await;
    let (status, summary, log) = waited.map_err(Failure::doing("k6"))?;
    let green = status.map_err(Failure::doing("k6"))?.success();
    let text = std::fs::read_to_string(&summary).map_err(|_| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Failure::of(format!("{name} left no summary: {said}"))
    })?;
    let summary: Value = serde_json::from_str(&text).map_err(Failure::doing(&name))?;
    Ok(Done { name, green, metrics: summary["metrics"].clone() })
}

/// Which figures of each metric stand in the table.
const FIGURES: [(&str, &str); 13] = [
    ("stormwire_opened", "count"),
    ("stormwire_receiving", "count"),
    ("stormwire_received", "count"),
    ("stormwire_published", "count"),
    ("stormwire_connections_lost", "count"),
    ("stormwire_refused", "count"),
    ("stormwire_gaps", "count"),
    ("stormwire_delivery", "med"),
    ("stormwire_delivery", "p(99)"),
    ("stormwire_acknowledgement", "p(99)"),
    ("http_reqs", "count"),
    ("http_req_duration{name:publish}", "p(99)"),
    ("http_req_failed", "rate"),
];

fn table(done: &[Done]) -> Outcome<String> {
    let mut text =
        String::from("| process | figure | value | threshold |\n| --- | --- | ---: | --- |\n");
    for one in done {
        for (metric, figure) in FIGURES {
            let entry = &one.metrics[metric];
            let Some(value) = entry["values"][figure].as_f64() else { continue };
            let limits: Vec<String> =
                entry["thresholds"].as_object().map_or_else(Vec::new, |limits| {
                    let held = |limit: &Value| if limit["ok"] == true { "held" } else { "CROSSED" };
                    limits.iter().map(|(name, limit)| format!("{name}: {}", held(limit))).collect()
                });
            let row = format!(
                "| {} | {metric} {figure} | {value:.1} | {} |",
                one.name,
                limits.join(", ")
            );
            writeln!(text, "{row}").map_err(Failure::doing("the table"))?;
        }
    }
    Ok(text)
}

fn keep(options: &Options, table: &str) -> Outcome {
    let path = workspace_root().join(RESULTS);
    let profile = if options.program.is_some() { "a given executable" } else { "release profile" };
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = busy.split(' ').next().unwrap_or("unknown");
    let text = format!(
        "# The last run of k6\n\n`cargo xtask k6 --sockets {} --channels {} --rate {} --ramp {} --hold {} --crowd {} --keep` \
         ({profile}) on {}, load average {busy} at its end: k6 1.1.0, three NATS nodes that write before each \
         acknowledgement, Postgres, Redis, two gateways and a worker share the machine. Times are milliseconds, \
         from a publish to its arrival at a subscriber in another process. The crowd is held by the Rust generator \
         on a cluster of its own.\n\n{table}\n\
         ![The dashboard of the objectives over the run](slo.svg)\n",
        options.sockets,
        options.channels,
        options.rate,
        options.ramp,
        options.hold,
        options.crowd,
        machine()
    );
    std::fs::write(&path, text).map_err(Failure::doing(path.display()))
}

/// How the cluster's database is asked.
fn psql(cluster: &Cluster) -> Outcome<String> {
    let postgres = Program::Postgres.find().ok_or_else(|| Failure::of("Postgres is not there"))?;
    let psql = postgres.with_file_name("psql");
    let psql = if psql.exists() { psql } else { PathBuf::from("psql") };
    Ok(format!("{} {}", psql.display(), cluster.database_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_are_shared_out_without_a_rest() {
        assert_eq!(shares(20_000), [5_000; 4]);
        assert_eq!(shares(1), [1]);
        assert_eq!(shares(12_001).iter().sum::<u32>(), 12_001);
    }

    #[test]
    fn a_crossed_threshold_stands_in_the_table() {
        let metrics = serde_json::json!({"stormwire_delivery": {
            "values": {"p(99)": 120.0}, "thresholds": {"p(99)<100": {"ok": false}}}});
        let done = [Done { name: "sockets-0".to_owned(), green: false, metrics }];
        let text = table(&done).unwrap();
        assert!(
            text.contains("| sockets-0 | stormwire_delivery p(99) | 120.0 | p(99)<100: CROSSED |"),
            "{text}"
        );
    }
}
