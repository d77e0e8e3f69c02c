//! What is stored: journal to Postgres, everything at once, and the single process.

use super::results::{Figure, merge};
use super::rig::{Call, Rig, Shape, addresses, toward};
use crate::up::cluster;
use crate::{Failure, Outcome};
use stormwire_testkit::Port;

impl Rig {
    /// Fills the journal while there is no worker, then lets one loose; several times.
    pub(super) async fn persist(&self) -> Outcome<Vec<Figure>> {
        let events = if self.quick { 100_000 } else { 3_000_000 };
        self.with_cluster(Shape::ONE, async |cluster| {
            let options = self.cluster_options(Shape::ONE);
            let mut figures = Vec::new();
            for _ in 0..self.rounds() {
                let fill = Call::of(&format!("fill --window 16 --events {events}"));
                let fill = fill
                    .with("--address", addresses(cluster).join(","))
                    .variable("STORMWIRE_TOKEN", cluster.token());
                self.output(fill).await?;
                let persist = Call::of("persist")
                    .variable("NATS_URL", cluster.nats_url())
                    .variable("DATABASE_URL", cluster.database_url());
                // The worker may begin when the measurement looks.
                let (measured, started) =
                    tokio::join!(self.call(persist), cluster.add_worker(&options, &self.stormwire));
                started?;
                cluster.remove_last().await;
                merge(&mut figures, measured?);
            }
            Ok(figures)
        })
        .await
    }

    pub(super) async fn end_to_end(&self) -> Outcome<Vec<Figure>> {
        let (rate, timing) = if self.quick {
            (2_000, "--warm-up 0.5 --seconds 1 --runs 1")
        } else {
            (200_000, "--warm-up 3 --seconds 10 --runs 3")
        };
        self.with_cluster(Shape { workers: 1, ..Shape::ONE }, async |cluster| {
            let words = format!("--batch 10 --subscribers 1 --follow-all --paces {rate}");
            let call = Call::of("measure").and(timing).and(&words);
            let mut figures = self.call(toward(call, cluster)?).await?;
            let caught_up = Call::of("caught-up")
                .variable("NATS_URL", cluster.nats_url())
                .variable("DATABASE_URL", cluster.database_url());
            figures.extend(self.call(caught_up).await?);
            Ok(figures)
        })
        .await
    }

    pub(super) async fn embedded(&self) -> Outcome<Vec<Figure>> {
        let folder = self.folder();
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(Failure::doing(folder.display()))?;
        let measured = self.embedded_in(&folder).await;
        self.clear(measured)
    }

    async fn embedded_in(&self, folder: &std::path::Path) -> Outcome<Vec<Figure>> {
        let token = cluster::token(&self.stormwire, folder)?;
        let port = Port::reserve().map_err(Failure::doing("a port"))?;
        let management = Port::reserve().map_err(Failure::doing("a port"))?;
        let local = |port: &Port| format!("127.0.0.1:{}", port.number());
        let variables = [
            ("STORMWIRE_DATA_DIR", folder.display().to_string()),
            ("STORMWIRE_LISTEN", local(&port)),
            ("STORMWIRE_MANAGEMENT_LISTEN", local(&management)),
            ("STORMWIRE_LOG_LEVEL", "warn".to_owned()),
        ];
        let start = Call::of(if self.quick { "cold-start --runs 1" } else { "cold-start" })
            .with("--program", self.stormwire.display().to_string())
            .with("--address", local(&port))
            .variable("STORMWIRE_TOKEN", &token);
        let start = variables.iter().fold(start, |call, (name, value)| call.variable(name, value));
        let mut figures = self.call(start).await?;
        let launch = stormwire_testkit::Launch::new("stormwire", &self.stormwire, folder);
        let launch =
            variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
        let server = stormwire_testkit::Server::new(launch);
        let ready = management.number();
        let started = server.start(move || stormwire_testkit::http_ok(ready, "/readyz")).await;
        started.map_err(Failure::doing("the embedded server"))?;
        let pid = server.pid().ok_or_else(|| Failure::of("the embedded server has ended"))?;
        let calls: Vec<Call> = [("1 a message, ", "--batch 1"), ("100 a message, ", "--batch 100")]
            .into_iter()
            .map(|(label, batch)| {
                self.measuring_once()
                    .and("--window 16 --subscribers 50 --paces saturated,0.5x")
                    .and(batch)
                    .with("--label", label)
                    .with("--address", local(&port))
                    .with("--watch", format!("stormwire={pid}"))
                    .variable("STORMWIRE_TOKEN", &token)
            })
            .collect();
        merge(&mut figures, self.interleaved(&calls).await?);
        server.stop();
        Ok(figures)
    }
}
