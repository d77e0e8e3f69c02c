//! Publishing through a gateway, and the plain publisher beside it.

use super::results::{Figure, ratio};
use super::rig::{Call, Rig, Shape, toward};
use crate::Outcome;
use crate::up::cluster::Cluster;

const CEILING: &str = "plain JetStream publisher";
const ACKNOWLEDGED: &str = "saturated: acknowledged";
const SHARE: &str = "share of the plain JetStream publisher";

impl Rig {
    pub(super) async fn ingest_batched(&self) -> Outcome<Vec<Figure>> {
        let traffic = "--batch 100 --window 16";
        self.with_cluster(Shape::ONE, async |cluster| {
            self.beside_ceiling(cluster, traffic, "--paces saturated,0.5x").await
        })
        .await
    }

    pub(super) async fn ingest_single(&self) -> Outcome<Vec<Figure>> {
        let traffic = "--batch 1 --window 100";
        let paces = if self.quick {
            "--paces saturated,2000"
        } else {
            "--paces saturated,0.5x,100000,2000"
        };
        self.with_cluster(Shape::ONE, async |cluster| {
            self.beside_ceiling(cluster, traffic, paces).await
        })
        .await
    }

    async fn beside_ceiling(
        &self,
        cluster: &Cluster,
        traffic: &str,
        paces: &str,
    ) -> Outcome<Vec<Figure>> {
        let measure = toward(self.measuring().and(traffic).and(paces), cluster)?;
        let mut figures = self.call(measure).await?;
        let timing = if self.quick {
            "ceiling --warm-up 0.5 --seconds 1 --runs 1"
        } else {
            "ceiling --warm-up 2 --seconds 4 --runs 5"
        };
        let ceiling = Call::of(timing).and(traffic).variable("NATS_URL", cluster.nats_url());
        figures.extend(self.call(ceiling).await?);
        figures.extend(ratio(&figures, SHARE, ACKNOWLEDGED, CEILING));
        Ok(figures)
    }

    pub(super) async fn ingest_rest(&self) -> Outcome<Vec<Figure>> {
        self.with_cluster(Shape::ONE, async |cluster| {
            let rest = self.measuring_once().and("--dialect rest --publishers 64 --window 1");
            let calls = [("1 a request, ", "--batch 1"), ("100 a request, ", "--batch 100")];
            let calls: Vec<Call> = calls
                .into_iter()
                .map(|(label, batch)| {
                    let call = rest.clone().and(batch).and("--paces saturated,0.5x");
                    toward(call.with("--label", label), cluster)
                })
                .collect::<Outcome<_>>()?;
            self.interleaved(&calls).await
        })
        .await
    }

    pub(super) async fn ingest_replicated(&self) -> Outcome<Vec<Figure>> {
        let shape = Shape { nats: 3, sync: true, ..Shape::ONE };
        self.with_cluster(shape, async |cluster| {
            let calls = [("10 a message, ", "--batch 10"), ("1 a message, ", "--batch 1")];
            let calls: Vec<Call> = calls
                .into_iter()
                .map(|(label, batch)| {
                    let call = self.measuring_once().and("--window 100 --paces saturated,0.5x");
                    toward(call.and(batch).with("--label", label), cluster)
                })
                .collect::<Outcome<_>>()?;
            self.interleaved(&calls).await
        })
        .await
    }

    pub(super) async fn latency(&self) -> Outcome<Vec<Figure>> {
        let paces = if self.quick {
            "--paces saturated,0.5x"
        } else {
            "--paces saturated,0.25x,0.5x,0.8x,100000,2000"
        };
        self.with_cluster(Shape::ONE, async |cluster| {
            let call = self.measuring().and("--batch 1 --window 100 --subscribers 50").and(paces);
            self.call(toward(call, cluster)?).await
        })
        .await
    }
}
