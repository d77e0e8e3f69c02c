//! Delivering: fan-out beside its peers, one subscriber behind everything, and very many connections.

use super::peers::Peers;
use super::results::{Figure, merge, ratio};
use super::rig::{Call, Rig, Shape, toward};
use crate::Outcome;

/// One way of spreading 50,000 deliveries a second.
struct Fan {
    label: &'static str,
    publishers: usize,
    subscribers: usize,
    /// Events a second that make 50,000 deliveries.
    rate: usize,
    window: usize,
}

impl Fan {
    fn words(&self) -> String {
        let Self { publishers, subscribers, rate, window, .. } = self;
        format!(
            "--batch 1 --window {window} --window-by delivered --publishers {publishers} \
             --subscribers {subscribers} --paces {rate},saturated"
        )
    }
}

impl Rig {
    pub(super) async fn fanout_one(&self) -> Outcome<Vec<Figure>> {
        let fan =
            |label, subscribers, rate| Fan { label, publishers: 1, subscribers, rate, window: 256 };
        let fans = [fan("1 x 1,000", 1_000, 50), fan("1 x 10,000", 10_000, 5)];
        self.fans(if self.quick { &fans[..1] } else { &fans }).await
    }

    pub(super) async fn fanout_many(&self) -> Outcome<Vec<Figure>> {
        let fans = [
            Fan { label: "100 x 100", publishers: 100, subscribers: 10_000, rate: 500, window: 16 },
            Fan {
                label: "1,000 x 10",
                publishers: 1_000,
                subscribers: 10_000,
                rate: 5_000,
                window: 4,
            },
        ];
        let quick =
            [Fan { label: "10 x 50", publishers: 10, subscribers: 500, rate: 500, window: 16 }];
        self.fans(if self.quick { &quick } else { &fans }).await
    }

    async fn fans(&self, fans: &[Fan]) -> Outcome<Vec<Figure>> {
        self.with_cluster(Shape::ONE, async |cluster| {
            let peers = Peers::start(self).await?;
            let mut figures = Vec::new();
            for fan in fans {
                let base = self.measuring_once().and(&fan.words());
                let label = |who: &str| format!("{}, {who}, ", fan.label);
                let ours = base.clone().with("--label", label("stormwire"));
                let mut calls = vec![toward(ours, cluster)?];
                for peer in peers.all() {
                    calls.push(peer.toward(base.clone().with("--label", label(peer.name)))?);
                }
                merge(&mut figures, self.interleaved(&calls).await?);
                for pace in [format!("at {}/s", fan.rate), "saturated".to_owned()] {
                    for peer in peers.all() {
                        let figure =
                            |who| format!("{}{pace}: delivered a server CPU second", label(who));
                        let name = format!(
                            "{}, {pace}: deliveries a CPU second against {}",
                            fan.label, peer.name
                        );
                        figures.extend(ratio(
                            &figures,
                            &name,
                            &figure("stormwire"),
                            &figure(peer.name),
                        ));
                    }
                }
            }
            Ok(figures)
        })
        .await
    }

    pub(super) async fn firehose(&self) -> Outcome<Vec<Figure>> {
        self.with_cluster(Shape::ONE, async |cluster| {
            let rate = if self.quick { 2_000 } else { 200_000 };
            let words = format!(
                "--batch 10 --window 50 --subscribers 1 --follow-all --paces {rate},saturated"
            );
            self.call(toward(self.measuring().and(&words), cluster)?).await
        })
        .await
    }

    pub(super) async fn idle(&self) -> Outcome<Vec<Figure>> {
        let (some, many) = if self.quick { (500, 1_000) } else { (10_000, 50_000) };
        let mut figures = Vec::new();
        for round in 0..self.rounds() {
            let label = format!("{some}, stormwire: ");
            merge(&mut figures, self.connected(1, 1, some, &label).await?);
            if round == 0 {
                let label = format!("{many}, stormwire: ");
                merge(&mut figures, self.connected(3, 4, many, &label).await?);
            }
            let peers = Peers::start(self).await?;
            for peer in peers.all().filter(|peer| peer.name != super::peers::WRITER) {
                let call = self.idling(&format!("--subscribers {some}"));
                let call = call.with("--label", format!("{some}, {}: ", peer.name));
                merge(&mut figures, self.call(peer.toward(call)?).await?);
            }
        }
        Ok(figures)
    }

    pub(super) async fn connections(&self) -> Outcome<Vec<Figure>> {
        let (gateways, processes, count) = if self.quick { (2, 2, 1_000) } else { (6, 8, 100_000) };
        self.connected(gateways, processes, count, "").await
    }

    fn idling(&self, words: &str) -> Call {
        let settle = if self.quick { "idle --settle 0.2" } else { "idle" };
        Call::of(settle).and(words)
    }

    pub(super) async fn connected(
        &self,
        gateways: u16,
        processes: usize,
        count: usize,
        label: &str,
    ) -> Outcome<Vec<Figure>> {
        let shape = Shape { gateways, ..Shape::ONE };
        self.with_cluster(shape, async |cluster| {
            let pids: Vec<String> = (1..=gateways)
                .map(|number| Ok(cluster.pid(&format!("gateway_{number}"))?.to_string()))
                .collect::<Outcome<_>>()?;
            let call = self
                .idling(&format!("--subscribers {count} --processes {processes}"))
                .with("--address", super::rig::addresses(cluster).join(","))
                .with("--watch", format!("gateway={}", pids.join(",")))
                .with("--label", label)
                .variable("STORMWIRE_TOKEN", cluster.token());
            self.call(call).await
        })
        .await
    }
}
