//! The same payload published to JetStream itself: what a gateway before it can't exceed by much.
//!
//! As many streams as a cluster has partitions, one replica, on disk; each message is acknowledged.

use crate::report::{Figure, Report, progress};
use crate::{Failure, Outcome, Timing, Traffic};
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::cell::Cell;
use std::future::IntoFuture as _;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};

const STREAMS: usize = 16;
const STREAM_BYTES_MAX: i64 = 2 << 30;
/// One connection is one task in the client library; several spread its work.
const CONNECTIONS: usize = 4;
const ACK_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    traffic: Traffic,
    /// The server
    #[arg(long, env = "NATS_URL")]
    nats_url: String,
}

pub(crate) async fn run(options: &Options) -> Outcome {
    let contexts = connect(&options.nats_url).await?;
    let first = contexts.first().ok_or_else(|| Failure::of("no connection"))?;
    for index in 0..STREAMS {
        make_stream(first, index).await?;
    }
    let outcome = LocalSet::new().run_until(measure(options, &contexts)).await;
    for index in 0..STREAMS {
        // Nothing is lost with a stream that is left behind but disk.
        let _ = first.delete_stream(stream_name(index)).await;
    }
    outcome
}

async fn connect(url: &str) -> Outcome<Vec<jetstream::Context>> {
    let mut contexts = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = async_nats::connect(url)
            .await
            .map_err(Failure::doing(format!("connecting to {url}")))?;
        let builder = jetstream::ContextBuilder::new().timeout(ACK_DEADLINE);
        contexts.push(builder.ack_timeout(ACK_DEADLINE).build(client));
    }
    Ok(contexts)
}

async fn make_stream(context: &jetstream::Context, index: usize) -> Outcome {
    let name = stream_name(index);
    // A bench that was interrupted may have left its stream.
    let _ = context.delete_stream(&name).await;
    let config = stream::Config {
        subjects: vec![subject(index)],
        storage: stream::StorageType::File,
        discard: stream::DiscardPolicy::New,
        max_bytes: STREAM_BYTES_MAX,
        num_replicas: 1,
        name,
        ..stream::Config::default()
    };
    context.create_stream(config).await.map(|_| ()).map_err(Failure::doing("making a stream"))
}

fn stream_name(index: usize) -> String {
    format!("CEILING_{index}")
}

fn subject(index: usize) -> String {
    format!("ceiling.{index}")
}

async fn measure(options: &Options, contexts: &[jetstream::Context]) -> Outcome {
    let (timing, traffic) = (&options.timing, &options.traffic);
    let payload = Bytes::from(vec![b'x'; traffic.bytes * traffic.batch]);
    let acknowledged = Rc::new(Cell::new(0_u64));
    let mut publishers = JoinSet::new();
    for number in 0..traffic.publishers {
        let context = contexts[number % contexts.len()].clone();
        let count = Rc::clone(&acknowledged);
        let (payload, window) = (payload.clone(), traffic.window);
        publishers.spawn_local(async move {
            publish(context, subject(number % STREAMS), payload, window, &count).await
        });
    }
    let total = timing.warm_up() + timing.run() * u32::try_from(timing.runs).unwrap_or(1);
    let bar = progress(&timing.bench, total);
    let mut rates = Vec::new();
    for run in 0..=timing.runs {
        let time = if run == 0 { timing.warm_up() } else { timing.run() };
        let (started, before) = (Instant::now(), acknowledged.get());
        let ended = tokio::time::timeout(time, publishers.join_next()).await;
        if let Ok(Some(Ok(Err(failure)))) = ended {
            return Err(failure);
        }
        let messages = acknowledged.get() - before;
        #[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
        let rate = (messages * traffic.batch as u64) as f64 / started.elapsed().as_secs_f64();
        bar.set_message(format!("{rate:.0} events/s"));
        bar.inc(u64::try_from(time.as_millis() / 100).unwrap_or(0));
        if run > 0 {
            rates.push(rate);
        }
    }
    publishers.abort_all();
    bar.finish_and_clear();
    let mut report = Report::new(&timing.bench);
    report.add(Figure::new("plain JetStream publisher", "events/s", &rates));
    report.print();
    Ok(())
}

/// Keeps its window full for ever; ends with the first refusal.
async fn publish(
    context: jetstream::Context,
    subject: String,
    payload: Bytes,
    window: usize,
    acknowledged: &Cell<u64>,
) -> Outcome {
    let mut waiting = FuturesUnordered::new();
    loop {
        while waiting.len() < window {
            let sent = context.publish(subject.clone(), payload.clone()).await;
            waiting.push(sent.map_err(Failure::doing("publishing to JetStream"))?.into_future());
        }
        if let Some(answer) = waiting.next().await {
            answer.map_err(Failure::doing("JetStream refused"))?;
            acknowledged.set(acknowledged.get() + 1);
        }
    }
}
