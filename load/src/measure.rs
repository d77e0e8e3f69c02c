//! Publishing and delivering through a server: how much goes, what it costs, and how long it takes.
//!
//! Latencies count from when a message was due, not from when it could be sent, so that a server that
//! stalls is charged for all that waited (no coordinated omission).

use crate::control::{Control, Mode};
use crate::crowd::{Crowd, Plan};
use crate::dialect::Dialect;
use crate::pacer;
use crate::publisher::{Publisher, Target, Window};
use crate::report::{Figure, Report, progress};
use crate::usage::{Machine, Watched};
use crate::{Failure, Outcome, Timing, Traffic};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

/// A schedule that begins after all measurements.
const NEVER: Duration = Duration::from_hours(24);
const FINISH_DEADLINE: Duration = Duration::from_secs(60);
/// How often the terminal is told.
const LOOK: Duration = Duration::from_millis(100);
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    traffic: Traffic,
    #[command(flatten)]
    server: Server,
    /// How much to publish, one after the other: `saturated`, `0.5x` of what that reached, or events a
    /// second
    #[arg(long, value_delimiter = ',', default_value = "saturated,0.5x")]
    paces: Vec<Pace>,
    /// Subscribers
    #[arg(long, default_value_t = 0)]
    subscribers: usize,
    /// Each subscriber follows all channels instead of one
    #[arg(long)]
    follow_all: bool,
    /// Processes of subscribers
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// A process whose cost is measured, as NAME=PID,PID..; again for more. The first is the server's
    #[arg(long)]
    watch: Vec<Watched>,
    /// Words before the names of the figures
    #[arg(long, default_value = "")]
    label: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FillOptions {
    #[command(flatten)]
    traffic: Traffic,
    #[command(flatten)]
    server: Server,
    /// How many events
    #[arg(long)]
    events: u64,
}

#[derive(Debug, clap::Args)]
struct Server {
    /// The servers, HOST:PORT; publishers and subscribers take them in turn
    #[arg(long, value_delimiter = ',', required = true)]
    address: Vec<SocketAddr>,
    /// What they speak
    #[arg(long, value_enum, default_value = "stormwire")]
    dialect: Dialect,
    /// A token without limits
    #[arg(long, env = "STORMWIRE_TOKEN", default_value = "")]
    token: String,
    /// What frees a place in a publisher's window
    #[arg(long, value_enum, default_value = "acknowledged")]
    window_by: Window,
    /// Publish each message to the next channel instead of each publisher to its own
    #[arg(long)]
    rotate: bool,
}

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As much as the windows let through.
    Saturated,
    /// So much of what `Saturated` reached.
    Share(f64),
    /// Events a second.
    Rate(f64),
}

impl std::str::FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.parse::<f64>().ok().filter(|number| *number > 0.0);
            number
                .ok_or_else(|| format!("{text} is neither `saturated`, nor like 0.5x, nor a rate"))
        };
        match text.strip_suffix('x') {
            _ if text == "saturated" => Ok(Self::Saturated),
            Some(share) => number(share).map(Self::Share),
            None => number(text).map(Self::Rate),
        }
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Saturated => out.write_str("saturated"),
            Self::Share(share) => write!(out, "at {share} of saturation"),
            Self::Rate(rate) => write!(out, "at {rate}/s"),
        }
    }
}

pub(crate) async fn run(options: &Options) -> Outcome {
    LocalSet::new().run_until(measure(options)).await
}

/// Publishes a number of events as fast as it can.
pub(crate) async fn fill(options: &FillOptions) -> Outcome {
    let local = LocalSet::new();
    let work = async {
        let control = Rc::new(Control::new(options.events));
        let mut publishers = start(&options.server, &options.traffic, &control).await?;
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

async fn start(server: &Server, traffic: &Traffic, control: &Rc<Control>) -> Outcome<JoinSet<()>> {
    let target = Target {
        addresses: server.address.clone(),
        dialect: server.dialect,
        token: server.token.clone(),
        window: server.window_by,
        rotate: server.rotate,
    };
    let mut publishers = JoinSet::new();
    let mut wakes = Vec::new();
    for number in 0..traffic.publishers {
        let publisher = Publisher::connect(&target, number, traffic, Rc::clone(control)).await?;
        let wake = Rc::<Notify>::default();
        publishers.spawn_local(publisher.run(Rc::clone(&wake)));
        wakes.push(wake);
    }
    let (mode, control) = (control.watch(), Rc::clone(control));
    tokio::task::spawn_local(async move {
        if let Err(failure) = pacer::run(mode, wakes).await {
            control.fail(&failure.to_string());
        }
    });
    Ok(publishers)
}

async fn finish(control: &Control, publishers: &mut JoinSet<()>) -> Outcome {
    control.set(Mode::Finish);
    let ended = async { while publishers.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(FINISH_DEADLINE, ended).await;
    control.check()?;
    ended.map_err(|_| Failure::of(format!("answers are missing after {FINISH_DEADLINE:?}")))
}

/// One measurement under way.
struct Bench<'a> {
    options: &'a Options,
    control: Rc<Control>,
    crowd: Crowd,
    watched: Vec<Watched>,
    bar: ProgressBar,
    report: Report,
}

async fn measure(options: &Options) -> Outcome {
    let (timing, traffic) = (&options.timing, &options.traffic);
    let crowd = if options.subscribers > 0 {
        Crowd::gather(&options.plan()).await?
    } else {
        Crowd::default()
    };
    // Nothing but zero is done to it before the first pace.
    let control = Rc::new(Control::new(u64::MAX));
    control.set(Mode::Paced(traffic.schedule(Instant::now() + NEVER, NEVER)));
    let mut publishers = start(&options.server, traffic, &control).await?;
    let mut watched = options.watch.clone();
    watched.push(Watched::own());
    watched.extend(crowd.watched());
    let paces = u32::try_from(options.paces.len()).unwrap_or(1);
    let runs = u32::try_from(timing.runs).unwrap_or(1);
    let bar = progress(&timing.bench, (timing.warm_up() + timing.run() * runs) * paces);
    let report = Report::new(&timing.bench);
    let mut bench = Bench { options, control, crowd, watched, bar, report };
    let mut reached = 0.0;
    for pace in &options.paces {
        let rate = bench.pace(*pace, reached).await?;
        if *pace == Pace::Saturated {
            reached = rate;
        }
    }
    bench.bar.finish_and_clear();
    finish(&bench.control, &mut publishers).await?;
    if options.subscribers > 0 {
        bench.crowd.all_arrived(bench.expected()).await?;
    }
    bench.report.print();
    Ok(())
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            addresses: self.server.address.clone(),
            dialect: self.server.dialect,
            token: self.server.token.clone(),
            subscribers: self.subscribers,
            channels: if self.follow_all { 0 } else { self.traffic.channels() },
            processes: self.processes,
        }
    }
}

/// The measurements of one pace.
#[derive(Default)]
struct Series {
    acknowledged: Vec<f64>,
    delivered: Vec<f64>,
    delivered_bytes: Vec<f64>,
    per_core: Vec<f64>,
    cores: Vec<Vec<f64>>,
    memory: Vec<Vec<f64>>,
    machine: Vec<f64>,
    others: Vec<f64>,
    to_acknowledged: [Vec<f64>; 3],
    to_delivered: [Vec<f64>; 3],
}

impl Bench<'_> {
    /// How many deliveries are due for what was sent.
    fn expected(&self) -> u64 {
        let channels = self.options.traffic.channels() as u64;
        let subscribers = self.crowd.subscribers as u64;
        let fans = if self.options.follow_all { subscribers } else { subscribers / channels };
        self.control.sent() * fans
    }

    /// Measures at one pace; gives back the median of what was acknowledged.
    async fn pace(&mut self, pace: Pace, reached: f64) -> Outcome<f64> {
        let (timing, traffic) = (&self.options.timing, &self.options.traffic);
        let rate = match pace {
            Pace::Saturated => None,
            Pace::Share(share) => Some(reached * share),
            Pace::Rate(rate) => Some(rate),
        };
        match rate {
            None => self.control.set(Mode::Saturate),
            Some(rate) if rate > 0.0 => {
                let messages = rate / as_float(traffic.batch as u64);
                let interval =
                    Duration::from_secs_f64(as_float(traffic.publishers as u64) / messages);
                // The backlog of the last pace is answered before the schedule begins.
                let since = Instant::now() + timing.warm_up() / 2;
                self.control.set(Mode::Paced(traffic.schedule(since, interval)));
            }
            Some(_) => return Err(Failure::of("a share of nothing: put `saturated` before it")),
        }
        self.wait(timing.warm_up()).await?;
        let mut series = Series {
            cores: vec![Vec::new(); self.watched.len()],
            memory: vec![Vec::new(); self.watched.len()],
            ..Series::default()
        };
        for _ in 0..timing.runs {
            self.run(&mut series, rate.is_some()).await?;
        }
        Ok(self.show(pace, &series))
    }

    async fn run(&mut self, series: &mut Series, latencies: bool) -> Outcome {
        if latencies {
            self.control.keep_latencies()?;
        }
        self.crowd.begin(latencies).await?;
        let machine = Machine::read()?;
        let earlier: Vec<_> = self.watched.iter().map(Watched::read).collect::<Outcome<_>>()?;
        let (started, before) = (Instant::now(), self.control.acknowledged());
        self.wait(self.options.timing.run()).await?;
        let seconds = started.elapsed().as_secs_f64();
        let acknowledged = self.control.acknowledged() - before;
        let mut all_cores = 0.0;
        let mut server = None;
        for (index, process) in self.watched.iter().enumerate() {
            let cores = process.read()?.cores_since(&earlier[index]);
            all_cores += cores;
            server.get_or_insert(cores);
            series.cores[index].push(cores);
            series.memory[index].push(process.resident_mib()?);
        }
        let busy = Machine::read()?.cores_since(&machine);
        series.machine.push(busy);
        series.others.push((busy - all_cores).max(0.0));
        series.acknowledged.push(as_float(acknowledged) / seconds);
        let taken = self.crowd.tell().await?;
        if self.crowd.subscribers > 0 {
            let delivered = as_float(taken.delivered) / seconds;
            series.delivered.push(delivered);
            series.delivered_bytes.push(as_float(taken.bytes) / seconds / 1e6);
            if let Some(cores) = server.filter(|cores| *cores > 0.0) {
                series.per_core.push(delivered / cores);
            }
        }
        keep(&mut series.to_acknowledged, self.control.take_latencies().as_ref());
        keep(&mut series.to_delivered, taken.latencies.as_ref());
        Ok(())
    }

    fn show(&mut self, pace: Pace, series: &Series) -> f64 {
        let label = format!("{}{pace}: ", self.options.label);
        let report = &mut self.report;
        let mut add = |name: &str, unit, values: &[f64]| {
            if !values.is_empty() {
                report.add(Figure::new(&format!("{label}{name}"), unit, values));
            }
        };
        let acknowledged = Figure::new("", "", &series.acknowledged).median;
        add("acknowledged", "events/s", &series.acknowledged);
        add("delivered", "events/s", &series.delivered);
        add("delivered bytes", "MB/s", &series.delivered_bytes);
        add("delivered a server CPU second", "events", &series.per_core);
        for (index, (name, _)) in QUANTILES.iter().enumerate() {
            add(&format!("publish to acknowledged {name}"), "ms", &series.to_acknowledged[index]);
        }
        for (index, (name, _)) in QUANTILES.iter().enumerate() {
            add(&format!("publish to delivered {name}"), "ms", &series.to_delivered[index]);
        }
        for (index, process) in self.watched.iter().enumerate() {
            add(&format!("{} CPU", process.name), "cores", &series.cores[index]);
            add(&format!("{} memory", process.name), "MiB", &series.memory[index]);
        }
        add("machine CPU", "cores", &series.machine);
        add("CPU of all else", "cores", &series.others);
        acknowledged
    }

    /// Waits, shows the rate, and ends at the first failure.
    async fn wait(&self, time: Duration) -> Outcome {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let (started, before) = (Instant::now(), self.control.acknowledged());
            tokio::time::sleep(LOOK.min(until - started)).await;
            self.control.check()?;
            let acknowledged = as_float(self.control.acknowledged() - before);
            let rate = acknowledged / started.elapsed().as_secs_f64();
            self.bar.set_message(format!("{rate:.0} events/s"));
            self.bar.inc(1);
        }
        Ok(())
    }
}

/// Adds the quantiles of a histogram in milliseconds.
fn keep(series: &mut [Vec<f64>; 3], latencies: Option<&Histogram<u64>>) {
    let Some(latencies) = latencies.filter(|latencies| !latencies.is_empty()) else { return };
    for (values, (_, quantile)) in series.iter_mut().zip(QUANTILES) {
        values.push(as_float(latencies.value_at_quantile(quantile)) / 1_000.0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_word_a_share_or_a_rate() {
        assert_eq!("saturated".parse(), Ok(Pace::Saturated));
        assert_eq!("0.5x".parse(), Ok(Pace::Share(0.5)));
        assert_eq!("100000".parse(), Ok(Pace::Rate(100_000.0)));
        assert!("0".parse::<Pace>().is_err());
        assert!("fast".parse::<Pace>().is_err());
    }
}
