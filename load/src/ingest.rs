//! Publishing through a gateway: how much is acknowledged, then how fast at a fixed rate.
//!
//! Latencies count from when a message was due, not from when it could be sent, so that a server that
//! stalls is charged for all that waited (no coordinated omission). Schedules tick each millisecond.

use crate::control::{Control, Mode};
use crate::publisher::Publisher;
use crate::report::{Figure, progress};
use crate::usage::Watched;
use crate::{Failure, Outcome, Timing, Traffic};
use indicatif::ProgressBar;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

const TICK: Duration = Duration::from_millis(1);
const FINISH_DEADLINE: Duration = Duration::from_secs(60);
/// How often the terminal is told.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    traffic: Traffic,
    #[command(flatten)]
    target: Target,
    /// Events a second of the second part; 0: half of what the first part reached
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// A process whose cost is measured, as NAME=PID; again for more
    #[arg(long)]
    watch: Vec<Watched>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FillOptions {
    #[command(flatten)]
    traffic: Traffic,
    #[command(flatten)]
    target: Target,
    /// How many events
    #[arg(long)]
    events: u64,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The gateway, HOST:PORT
    #[arg(long)]
    address: String,
    /// A token without limits
    #[arg(long, env = "STORMWIRE_TOKEN")]
    token: String,
}

pub(crate) async fn run(options: &Options) -> Outcome {
    LocalSet::new().run_until(measure(options)).await
}

/// Publishes a number of events as fast as it can.
pub(crate) async fn fill(options: &FillOptions) -> Outcome {
    let local = LocalSet::new();
    let work = async {
        let control = Rc::new(Control::new(options.events));
        let mut publishers = start(&options.target, &options.traffic, &control, ticks()).await?;
        let bar = ProgressBar::new(options.events);
        let batch = options.traffic.batch as u64;
        while !control.is_done(batch) {
            control.check()?;
            bar.set_position(control.acknowledged());
            tokio::time::sleep(LOOK).await;
        }
        bar.finish_and_clear();
        finish(&control, &mut publishers).await
    };
    local.run_until(work).await
}

async fn start(
    target: &Target,
    traffic: &Traffic,
    control: &Rc<Control>,
    ticks: watch::Receiver<u64>,
) -> Outcome<JoinSet<()>> {
    let mut publishers = JoinSet::new();
    for number in 0..traffic.publishers {
        let (address, token) = (&target.address, &target.token);
        let publisher =
            Publisher::connect(address, token, number, traffic, Rc::clone(control)).await?;
        publishers.spawn_local(publisher.run(ticks.clone()));
    }
    Ok(publishers)
}

async fn finish(control: &Control, publishers: &mut JoinSet<()>) -> Outcome {
    control.set(Mode::Finish);
    let ended = async { while publishers.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(FINISH_DEADLINE, ended).await;
    control.check()?;
    ended.map_err(|_| Failure::of(format!("answers are missing after {FINISH_DEADLINE:?}")))
}

async fn measure(options: &Options) -> Outcome {
    let timing = &options.timing;
    let control = Rc::new(Control::new(u64::MAX));
    let mut publishers = start(&options.target, &options.traffic, &control, ticks()).await?;
    let total = timing.warm_up() * 2 + timing.run() * 2 * u32::try_from(timing.runs).unwrap_or(1);
    let bar = progress(&timing.bench, total);
    wait(timing.warm_up(), &control, &bar).await?;
    let reached = saturated(options, &control, &bar).await?;
    let rate = if options.rate > 0.0 { options.rate } else { reached / 2.0 };
    paced(options, &control, &bar, rate).await?;
    bar.finish_and_clear();
    finish(&control, &mut publishers).await
}

/// As much as goes, and what it costs; returns the median rate.
async fn saturated(options: &Options, control: &Control, bar: &ProgressBar) -> Outcome<f64> {
    let timing = &options.timing;
    let watched: Vec<Watched> = options.watch.iter().cloned().chain([Watched::own()]).collect();
    let mut cores = vec![Vec::new(); watched.len()];
    let mut memory = vec![Vec::new(); watched.len()];
    let mut rates = Vec::new();
    for _ in 0..timing.runs {
        let earlier: Vec<_> = watched.iter().map(Watched::read).collect::<Outcome<_>>()?;
        let (started, before) = (Instant::now(), control.acknowledged());
        wait(timing.run(), control, bar).await?;
        rates.push(as_float(control.acknowledged() - before) / started.elapsed().as_secs_f64());
        for (index, process) in watched.iter().enumerate() {
            cores[index].push(process.read()?.cores_since(&earlier[index]));
            memory[index].push(process.resident_mib()?);
        }
    }
    let reached = Figure::new(&timing.bench, "acknowledged", "events/s", &rates);
    reached.print();
    for (index, process) in watched.iter().enumerate() {
        let figure = |what| format!("{} {what}", process.name);
        Figure::new(&timing.bench, &figure("CPU"), "cores", &cores[index]).print();
        Figure::new(&timing.bench, &figure("memory"), "MiB", &memory[index]).print();
    }
    Ok(reached.median)
}

/// A fixed rate: the percentiles of each run.
async fn paced(options: &Options, control: &Control, bar: &ProgressBar, rate: f64) -> Outcome {
    let timing = &options.timing;
    let traffic = &options.traffic;
    let messages = rate / as_float(traffic.batch as u64);
    let interval = Duration::from_secs_f64(as_float(traffic.publishers as u64) / messages);
    // The backlog of the first part is answered before the schedule begins.
    control.set(Mode::Paced { since: Instant::now() + timing.warm_up() / 2, interval });
    wait(timing.warm_up(), control, bar).await?;
    let mut percentiles = [("p50", 0.5, vec![]), ("p99", 0.99, vec![]), ("p99.9", 0.999, vec![])];
    let mut rates = Vec::new();
    for _ in 0..timing.runs {
        control.keep_latencies()?;
        let (started, before) = (Instant::now(), control.acknowledged());
        wait(timing.run(), control, bar).await?;
        rates.push(as_float(control.acknowledged() - before) / started.elapsed().as_secs_f64());
        let latencies = control.take_latencies().ok_or_else(|| Failure::of("no latencies"))?;
        for (_, quantile, values) in &mut percentiles {
            values.push(as_float(latencies.value_at_quantile(*quantile)) / 1_000.0);
        }
    }
    Figure::new(&timing.bench, "paced rate", "events/s", &rates).print();
    for (name, _, values) in &percentiles {
        let figure = format!("paced publish to acknowledged {name}");
        Figure::new(&timing.bench, &figure, "ms", values).print();
    }
    Ok(())
}

/// Waits, shows the rate, and ends at the first failure.
async fn wait(time: Duration, control: &Control, bar: &ProgressBar) -> Outcome {
    let until = Instant::now() + time;
    while Instant::now() < until {
        let (started, before) = (Instant::now(), control.acknowledged());
        tokio::time::sleep(LOOK.min(until - started)).await;
        control.check()?;
        let rate = as_float(control.acknowledged() - before) / started.elapsed().as_secs_f64();
        bar.set_message(format!("{rate:.0} events/s"));
        bar.inc(1);
    }
    Ok(())
}

/// Ticks each millisecond, from a thread of its own: the runtime's own timer is coarser.
fn ticks() -> watch::Receiver<u64> {
    let (ticks, receiver) = watch::channel(0_u64);
    std::thread::spawn(move || {
        let mut due = Instant::now();
        while !ticks.is_closed() {
            due += TICK;
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            ticks.send_modify(|tick| *tick += 1);
        }
    });
    receiver
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}
