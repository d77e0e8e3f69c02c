//! How cost grows: one thing is made larger, step by step, and all else stays.

use super::results::{Figure, merge};
use super::rig::{Rig, Shape, toward};
use crate::Outcome;

impl Rig {
    pub(super) async fn curves(&self) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        for part in [
            self.by_connections().await?,
            self.by_traffic().await?,
            self.by_partitions().await?,
            self.by_gateways().await?,
        ] {
            merge(&mut figures, part);
        }
        Ok(figures)
    }

    /// The steps, or the first two where it is quick.
    fn steps<'a, T>(&self, steps: &'a [T]) -> &'a [T] {
        if self.quick { &steps[..steps.len().min(2)] } else { steps }
    }

    async fn by_connections(&self) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        for count in self.steps(&[1_000, 3_000, 10_000, 17_000]) {
            let label = format!("{count} connections: ");
            merge(&mut figures, self.connected(1, 1, *count, &label).await?);
        }
        Ok(figures)
    }

    /// Subscribers of a channel, channels, and the size of an event, all on one gateway.
    async fn by_traffic(&self) -> Outcome<Vec<Figure>> {
        self.with_cluster(Shape::ONE, async |cluster| {
            let mut lines = Vec::new();
            for subscribers in self.steps(&[10, 100, 1_000, 10_000]) {
                let rate = 20_000 / subscribers;
                lines.push(format!(
                    "{subscribers} subscribers a channel|--publishers 1 --batch 1 --subscribers \
                     {subscribers} --paces {rate}"
                ));
            }
            for channels in self.steps(&[10, 1_000, 100_000, 1_000_000]) {
                lines.push(format!(
                    "{channels} channels|--rotate --channels {channels} --batch 10 --window 25 --paces \
                     saturated"
                ));
            }
            for bytes in self.steps(&[50, 200, 1_000, 8_000, 64_000]) {
                let window = (400_000 / bytes).clamp(2, 100);
                lines.push(format!(
                    "{bytes} bytes an event|--bytes {bytes} --batch 1 --window {window} --paces saturated"
                ));
            }
            let mut figures = Vec::new();
            for line in lines {
                let (label, words) = line.split_once('|').unwrap_or((&line, ""));
                let call = self.measuring_once().and(words).with("--label", format!("{label}, "));
                merge(&mut figures, self.call(toward(call, cluster)?).await?);
            }
            Ok(figures)
        })
        .await
    }

    async fn by_partitions(&self) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        for partitions in self.steps(&["1", "4", "16", "64"]) {
            let mut options = self.cluster_options(Shape::ONE);
            options.environment.push(("STORMWIRE_PARTITIONS", partitions));
            let measured = self.with_options(options, async |cluster| {
                let call = self.measuring_once().and("--batch 10 --window 25 --paces saturated");
                let call = call.with("--label", format!("{partitions} partitions, "));
                self.call(toward(call, cluster)?).await
            });
            merge(&mut figures, measured.await?);
        }
        Ok(figures)
    }

    async fn by_gateways(&self) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        for gateways in self.steps(&[1, 2, 4]) {
            let shape = Shape { gateways: *gateways, ..Shape::ONE };
            let measured = self.with_cluster(shape, async |cluster| {
                let words = "--batch 10 --window 25 --subscribers 50 --paces saturated";
                let call = self.measuring_once().and(words);
                let call = call.with("--label", format!("{gateways} gateways, "));
                self.call(toward(call, cluster)?).await
            });
            merge(&mut figures, measured.await?);
        }
        Ok(figures)
    }
}
