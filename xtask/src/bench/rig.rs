//! Servers, the load generator, and how both are called.

use super::Name;
use super::results::{Figure, Line, merge};
use crate::shell;
use crate::up;
use crate::up::cluster::Cluster;
use crate::{Failure, Outcome};
use std::path::PathBuf;
use std::process::Stdio;
use stormwire_testkit::workspace_root;
use tokio::process::Command;

/// The programs of a bench, and how thorough it is.
pub(super) struct Rig {
    pub(super) stormwire: PathBuf,
    pub(super) load: PathBuf,
    pub(super) quick: bool,
    pub(super) name: Name,
}

/// What is started for a bench.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) gateways: u16,
    pub(super) workers: u16,
    pub(super) nats: u16,
    /// On disk before it is acknowledged.
    pub(super) sync: bool,
}

impl Shape {
    pub(super) const ONE: Self = Self { gateways: 1, workers: 0, nats: 1, sync: false };
}

/// What the load generator is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Call {
    /// Words, divided by spaces.
    pub(super) fn of(words: &str) -> Self {
        Self::default().and(words)
    }

    /// With more words.
    #[must_use]
    pub(super) fn and(mut self, words: &str) -> Self {
        self.arguments.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// With one argument that may hold spaces.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.arguments.extend([name.to_owned(), value.into()]);
        self
    }

    /// What its figures are called.
    fn label(&self) -> &str {
        let mut words = self.arguments.iter().skip_while(|word| *word != "--label");
        words.nth(1).map_or("all", |label| label.trim_end_matches([',', ':', ' ']))
    }

    /// With a variable.
    #[must_use]
    pub(super) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }
}

impl Rig {
    /// All figures of the bench.
    pub(super) async fn measure(&self) -> Outcome<Vec<Figure>> {
        match self.name {
            Name::IngestBatched => self.ingest_batched().await,
            Name::IngestSingle => self.ingest_single().await,
            Name::IngestRest => self.ingest_rest().await,
            Name::IngestReplicated => self.ingest_replicated().await,
            Name::Latency => self.latency().await,
            Name::FanoutOne => self.fanout_one().await,
            Name::FanoutMany => self.fanout_many().await,
            Name::Firehose => self.firehose().await,
            Name::Idle => self.idle().await,
            Name::Connections => self.connections().await,
            Name::Persist => self.persist().await,
            Name::EndToEnd => self.end_to_end().await,
            Name::Embedded => self.embedded().await,
            Name::History => self.history(),
            Name::Curves => self.curves().await,
        }
    }

    /// Where this bench's servers keep their data and logs.
    pub(super) fn folder(&self) -> PathBuf {
        workspace_root().join("target/bench").join(self.name.text())
    }

    pub(super) fn cluster_options(&self, shape: Shape) -> up::Options {
        up::Options {
            gateways: shape.gateways,
            workers: shape.workers,
            identities: 0,
            nats: shape.nats,
            no_sync: !shape.sync,
            no_respawn: true,
            program: None,
            keep: false,
            debug: false,
            folder: self.folder(),
            environment: vec![
                ("STORMWIRE_JOURNAL_BYTES_MAX", "4GiB"),
                ("STORMWIRE_LOG_LEVEL", "warn"),
            ],
        }
    }

    /// Starts a cluster, measures, and ends it whatever came of it.
    pub(super) async fn with_cluster<F>(&self, shape: Shape, measure: F) -> Outcome<Vec<Figure>>
    where
        F: AsyncFnOnce(&mut Cluster) -> Outcome<Vec<Figure>>,
    {
        self.with_options(self.cluster_options(shape), measure).await
    }

    /// The same with other settings.
    pub(super) async fn with_options<F>(
        &self,
        options: up::Options,
        measure: F,
    ) -> Outcome<Vec<Figure>>
    where
        F: AsyncFnOnce(&mut Cluster) -> Outcome<Vec<Figure>>,
    {
        let mut cluster = Cluster::start(&options, &self.stormwire).await?;
        let measured = measure(&mut cluster).await;
        cluster.stop().await;
        self.clear(measured)
    }

    /// Gigabytes; after a failure the logs in them say why.
    pub(super) fn clear(&self, measured: Outcome<Vec<Figure>>) -> Outcome<Vec<Figure>> {
        let folder = self.folder();
        match measured {
            Ok(figures) => {
                let _ = std::fs::remove_dir_all(&folder);
                Ok(figures)
            }
            Err(failure) => Err(Failure::of(format!("{failure}; logs: {}", folder.display()))),
        }
    }

    /// `measure` with this bench's timing.
    pub(super) fn measuring(&self) -> Call {
        let timing = if self.quick {
            "--warm-up 0.5 --seconds 1 --runs 1"
        } else {
            "--warm-up 2 --seconds 4 --runs 5"
        };
        Call::of("measure").and(timing)
    }

    /// One run of `measure`, to be interleaved with others.
    pub(super) fn measuring_once(&self) -> Call {
        let timing =
            if self.quick { "--warm-up 0.5 --seconds 1" } else { "--warm-up 1.5 --seconds 3" };
        Call::of("measure --runs 1").and(timing)
    }

    /// How often interleaved runs go round.
    pub(super) const fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Runs the generator with its progress in view and reads its figures.
    pub(super) async fn call(&self, call: Call) -> Outcome<Vec<Figure>> {
        let text = self.output(call.with("--bench", self.name.text())).await?;
        let line = text.lines().last().unwrap_or_default();
        Ok(Line::parse(line)?.figures)
    }

    /// Runs the generator and gives back what it wrote.
    pub(super) async fn output(&self, call: Call) -> Outcome<String> {
        let mut load = Command::new(&self.load);
        load.args(&call.arguments);
        load.envs(call.environment.iter().map(|(name, value)| (name, value)));
        load.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = load.spawn().map_err(Failure::doing("the load generator"))?;
        let output =
            child.wait_with_output().await.map_err(Failure::doing("the load generator"))?;
        if !output.status.success() {
            let what = call.arguments.join(" ");
            return Err(Failure::of(format!("`{what}` ended with {}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Calls in turn, several times round: what else goes on on the machine meets all alike.
    pub(super) async fn interleaved(&self, calls: &[Call]) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        for round in 1..=self.rounds() {
            for call in calls {
                // Minutes, and the generator's own progress shows on a terminal alone.
                let (label, rounds) = (call.label(), self.rounds());
                shell::progress(&format!("round {round} of {rounds}: {label} ..."));
                merge(&mut figures, self.call(call.clone()).await?);
            }
        }
        Ok(figures)
    }
}

/// Adds the arguments that lead to the gateways of a cluster.
pub(super) fn toward(call: Call, cluster: &Cluster) -> Outcome<Call> {
    let members: Vec<String> = cluster.members().iter().map(up::member::Member::name).collect();
    let watch = |shown: &str, prefix: &str| -> Outcome<String> {
        let pids = members.iter().filter(|name| name.starts_with(prefix));
        let pids: Vec<String> =
            pids.map(|name| Ok(cluster.pid(name)?.to_string())).collect::<Outcome<_>>()?;
        Ok(format!("{shown}={}", pids.join(",")))
    };
    let mut call = call
        .with("--address", addresses(cluster).join(","))
        .with("--watch", watch("gateway", "gateway_")?)
        .with("--watch", watch("nats-server", "nats_")?)
        .variable("STORMWIRE_TOKEN", cluster.token());
    if members.iter().any(|name| name.starts_with("worker_")) {
        call = call
            .with("--watch", watch("worker", "worker_")?)
            .with("--watch", format!("postgres={}", cluster.pid("postgres")?));
    }
    Ok(call)
}

/// `HOST:PORT` of each gateway.
pub(super) fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.urls().iter().map(|url| url.trim_start_matches("http://").to_owned()).collect()
}
