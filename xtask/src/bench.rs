//! `cargo xtask bench`: figures that anybody can measure again with the same command.
//!
//! Each bench starts servers of its own, warms up, measures several times and keeps the median and the
//! spread beside the machine in `load/RESULTS.md`. What is measured and what measures share the cores.

pub(crate) mod results;

use crate::shell;
use crate::up::cluster::Cluster;
use crate::up::{self, build_package};
use crate::{Failure, Outcome, tools};
use results::Figure;
use std::path::PathBuf;
use std::process::Stdio;
use stormwire_testkit::workspace_root;
use tokio::process::Command;

/// What there is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Acknowledged events through one gateway, 100 a message, on JetStream with one replica
    IngestBatched,
    /// The same, one event a message
    IngestSingle,
    /// Rows from the journal to Postgres, beside a bare COPY
    Persist,
}

/// Which bench, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One of them; all by default
    name: Option<Name>,
    /// Shorter, and not kept: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// One JSON line a figure instead of a table
    #[arg(long)]
    json: bool,
    /// Build without optimising; not kept
    #[arg(long)]
    debug: bool,
}

/// The programs and the folder of a run.
struct Bench {
    stormwire: PathBuf,
    load: PathBuf,
    quick: bool,
}

/// Measures and keeps.
pub(crate) fn run(options: &Options) -> Outcome {
    tools::provide()?;
    let bench = Bench {
        stormwire: up::build(options.debug)?,
        load: build_package("stormwire-load", options.debug)?,
        quick: options.quick,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::doing("starting a runtime"))?;
    let all = [Name::IngestBatched, Name::IngestSingle, Name::Persist];
    for name in all.into_iter().filter(|name| options.name.is_none_or(|wanted| wanted == *name)) {
        shell::progress(&format!("== {}", name.text()));
        let figures = runtime.block_on(bench.measure(name))?;
        if options.json {
            for figure in &figures {
                println!("{}", figure.json()?);
            }
        } else {
            println!("{}", results::table(&figures));
        }
        if !options.quick && !options.debug {
            results::keep(name.text(), name.what(), &figures)?;
        }
    }
    Ok(())
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::IngestBatched => "ingest-batched",
            Self::IngestSingle => "ingest-single",
            Self::Persist => "persist",
        }
    }

    /// For the table's readers: what stood where.
    fn what(self) -> &'static str {
        match self {
            Self::IngestBatched => {
                "One gateway over WebSocket, JetStream R1 on disk, 128-byte events, 50 publishers, 100 \
                 events a message, at most 16 messages of each unacknowledged: more would pass the \
                 bound of a lane. Then latency at half \
                 of that rate, counted from when a message was due."
            }
            Self::IngestSingle => {
                "The same with one event a message, at most 100 of each publisher unacknowledged."
            }
            Self::Persist => {
                "One worker from JetStream R1 to Postgres, which writes to disk before it commits; the \
                 bare COPY writes the same rows into a table with the same indexes."
            }
        }
    }
}

impl Bench {
    async fn measure(&self, name: Name) -> Outcome<Vec<Figure>> {
        let folder = workspace_root().join("target/bench");
        let options = up::Options {
            gateways: 1,
            workers: 0,
            identities: 0,
            nats: 1,
            no_sync: true,
            no_respawn: true,
            keep: false,
            debug: false,
            folder: folder.clone(),
            environment: vec![
                ("STORMWIRE_JOURNAL_BYTES_MAX", "4GiB"),
                ("STORMWIRE_LOG_LEVEL", "warn"),
            ],
        };
        let mut cluster = Cluster::start(&options, &self.stormwire).await?;
        let measured = match name {
            Name::IngestBatched => self.ingest(&cluster, name, "100", "16").await,
            Name::IngestSingle => self.ingest(&cluster, name, "1", "100").await,
            Name::Persist => self.persist(&mut cluster, &options, name).await,
        };
        cluster.stop().await;
        if measured.is_ok() {
            // Gigabytes; after a failure the logs in it say why.
            let _ = std::fs::remove_dir_all(&folder);
        }
        measured.map_err(|failure| Failure::of(format!("{failure}; logs: {}", folder.display())))
    }

    async fn ingest(
        &self,
        cluster: &Cluster,
        name: Name,
        batch: &str,
        window: &str,
    ) -> Outcome<Vec<Figure>> {
        let timing = self.timing(name);
        let mut ingest = self.load("ingest");
        ingest.args(&timing).args(["--batch", batch, "--window", window]);
        ingest.args(["--address", &address(cluster)?]).env("STORMWIRE_TOKEN", cluster.token());
        for (shown, member) in [("gateway", "gateway_1"), ("nats-server", "nats_1")] {
            ingest.arg("--watch").arg(format!("{shown}={}", cluster.pid(member)?));
        }
        let mut figures = figures(ingest).await?;
        let mut ceiling = self.load("ceiling");
        ceiling.args(&timing).args(["--batch", batch, "--window", window]);
        ceiling.env("NATS_URL", cluster.nats_url());
        figures.extend(self::figures(ceiling).await?);
        Ok(figures)
    }

    /// Fills the journal while there is no worker, then lets one loose; several times.
    async fn persist(
        &self,
        cluster: &mut Cluster,
        options: &up::Options,
        name: Name,
    ) -> Outcome<Vec<Figure>> {
        let (runs, events) = if self.quick { (1, "200000") } else { (3, "3000000") };
        let mut figures = Vec::new();
        for _ in 0..runs {
            let mut fill = self.load("fill");
            fill.args(["--window", "16", "--events", events, "--address", &address(cluster)?]);
            fill.env("STORMWIRE_TOKEN", cluster.token());
            self::figures(fill).await?;
            let mut persist = self.load("persist");
            persist
                .args(["--bench", name.text()])
                .env("NATS_URL", cluster.nats_url())
                .env("DATABASE_URL", cluster.database_url());
            let measuring = tokio::spawn(self::figures(persist));
            cluster.add_worker(options, &self.stormwire).await?;
            let measured = measuring.await.map_err(Failure::doing("measuring"))?;
            cluster.remove_last().await;
            results::merge(&mut figures, measured?);
        }
        Ok(figures)
    }

    fn load(&self, subcommand: &str) -> Command {
        let mut load = Command::new(&self.load);
        load.arg(subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        load
    }

    fn timing(&self, name: Name) -> Vec<&'static str> {
        let (warm_up, seconds, runs) = if self.quick { ("1", "1", "2") } else { ("3", "5", "5") };
        vec!["--bench", name.text(), "--warm-up", warm_up, "--seconds", seconds, "--runs", runs]
    }
}

/// `HOST:PORT` of the gateway.
fn address(cluster: &Cluster) -> Outcome<String> {
    let urls = cluster.urls();
    let url = urls.first().ok_or_else(|| Failure::of("no gateway"))?;
    Ok(url.trim_start_matches("http://").to_owned())
}

/// Runs the generator with its progress in view and reads its figures.
async fn figures(mut load: Command) -> Outcome<Vec<Figure>> {
    let child = load.spawn().map_err(Failure::doing("the load generator"))?;
    let output = child.wait_with_output().await.map_err(Failure::doing("the load generator"))?;
    if !output.status.success() {
        return Err(Failure::of(format!("the load generator ended with {}", output.status)));
    }
    String::from_utf8_lossy(&output.stdout).lines().map(Figure::parse).collect()
}
