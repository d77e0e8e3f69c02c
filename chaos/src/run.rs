//! One run: a cluster, load on it, faults in it; then all is healed, drained and judged.

use crate::cluster::{Cluster, Options};
use crate::control::{Control, Phase};
use crate::faults::{Active, Fault, Field, pick};
use crate::producer::Producer;
use crate::recorder::Recorder;
use crate::report::{Report, Timing};
use crate::scenario::Scenario;
use crate::subscriber::{Habit, Subscriber};
use crate::{Failure, Outcome, Target, archive, say};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stormwire_checker::{check, explain};
use stormwire_core::PartitionCount;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PRODUCERS: usize = 10;
const CHANNELS: usize = 12;
/// Mean pause between two publishes of a producer.
const INTERVAL: Duration = Duration::from_millis(70);
const HABITS: [Habit; 6] =
    [Habit::Live, Habit::Live, Habit::Restless, Habit::Restless, Habit::Restless, Habit::Pattern];
/// Acknowledged events before the first fault.
const WARM_EVENTS: u64 = 200;
const WARM_WITHIN: Duration = Duration::from_secs(120);
/// How long acknowledgements may take to come back after a fault was undone.
const RECOVERED_WITHIN: Duration = Duration::from_secs(90);
/// How long producers may take to get their last answers, and subscribers to read to the end.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Acknowledged events that a second of a run must bring at the least, on however slow a machine.
const EVENTS_A_SECOND_MIN: u64 = 3;
/// One confirmed fault is due in so many seconds.
const SECONDS_A_FAULT_MAX: u64 = 25;

/// What to run.
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    /// The safety rule that the processes are told to leave out.
    pub(crate) fault: Option<String>,
}

struct Faults {
    asked: u64,
    confirmed: u64,
    recovery: Duration,
}

/// Runs it and judges.
pub(crate) async fn run(plan: &Plan) -> Outcome<Report> {
    let folder = &plan.folder;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder.join("cluster")).map_err(Failure::doing(folder.display()))?;
    let disk = match plan.scenario.small_disk {
        true => Some(crate::disk::SmallDisk::mount(&folder.join("disk"))?),
        false => None,
    };
    say(&format!("{} seed {}: starting the cluster", plan.scenario.name, plan.seed));
    let cluster = Cluster::start(&options(plan, disk.as_ref().map(|disk| disk.path()))).await?;
    let control = Arc::new(Control::new());
    let (mut producers, mut subscribers) = load(plan, &cluster, &control)?;
    warm(&control).await?;
    control.count_stops(true);
    let small_disk = disk.as_ref().map(|disk| disk.path().to_path_buf());
    let faults = torment(plan, &Field { cluster: &cluster, control: &control, small_disk }).await?;
    control.count_stops(false);
    say("healing");
    let mut timing = Timing { longest_stop: control.longest_stop(), ..Timing::default() };
    timing.recovery = faults.recovery;
    cluster.heal().await?;
    control.enter(Phase::Finish);
    say("waiting for the last answers");
    let settled = all_end(&mut producers, SETTLED_WITHIN).await;
    if !settled {
        // They note what never got an answer; the checker tells it.
        say("some publishes have no final answer");
    }
    let drained = archive::drained(&cluster).await;
    let ends = archive::dump(&cluster, Recorder::create(folder, "archive")?).await?;
    control.tell_ends(ends);
    say("waiting for the subscribers");
    all_end(&mut subscribers, SETTLED_WITHIN).await;
    control.enter(Phase::End);
    all_end(&mut producers, Duration::from_secs(30)).await;
    all_end(&mut subscribers, Duration::from_secs(30)).await;
    let leftover = producers.len() + subscribers.len();
    cluster.stop().await;
    drop(disk);
    if leftover > 0 {
        return Err(Failure::of(format!("{leftover} clients did not end")));
    }
    judge(plan, &faults, timing, drained.err()).await
}

async fn judge(
    plan: &Plan,
    faults: &Faults,
    timing: Timing,
    not_drained: Option<Failure>,
) -> Outcome<Report> {
    let verdict = check(&plan.folder).map_err(Failure::doing("the histories"))?;
    let mut report = Report::new(plan, &verdict, timing, faults.asked, faults.confirmed);
    println!("{verdict}");
    for violation in verdict.examples() {
        println!("{}", explain(&plan.folder, violation).map_err(Failure::doing("the histories"))?);
    }
    report.shortfalls.extend(not_drained.map(|failure| failure.to_string()));
    let due = (plan.seconds / SECONDS_A_FAULT_MAX).max(1);
    if faults.confirmed < due {
        report.shortfalls.push(format!("{} confirmed faults, {due} are due", faults.confirmed));
    }
    let due = plan.seconds * EVENTS_A_SECOND_MIN;
    if report.acknowledged < due {
        report
            .shortfalls
            .push(format!("{} events were acknowledged, {due} are due", report.acknowledged));
    }
    report.keep(&plan.folder)?;
    Ok(report)
}

fn options(plan: &Plan, disk: Option<&Path>) -> Options {
    let mut variables: Vec<(String, String)> = plan
        .scenario
        .variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    variables.extend(plan.fault.iter().map(|fault| ("STORMWIRE_FAULT".to_owned(), fault.clone())));
    Options {
        program: plan.program.clone(),
        folder: plan.folder.join("cluster"),
        variables,
        postgres: disk.map(|disk| disk.join("postgres")),
        clocks: plan.scenario.possible().into_iter().any(Fault::moves_clocks),
    }
}

type Clients = JoinSet<Outcome>;

/// What clients of this cluster are told.
pub(crate) fn target(cluster: &Cluster, interval: Duration, event_bytes: usize) -> Outcome<Target> {
    Ok(Target {
        ports: cluster.ports(),
        token: cluster.token.clone(),
        channels: (1..=CHANNELS).map(|number| format!("chaos:{number}")).collect(),
        partitions: PartitionCount::new(crate::PARTITIONS)
            .ok_or_else(|| Failure::of("no number of partitions"))?,
        interval,
        event_bytes,
    })
}

fn load(plan: &Plan, cluster: &Cluster, control: &Arc<Control>) -> Outcome<(Clients, Clients)> {
    let target = Arc::new(target(cluster, INTERVAL, plan.scenario.event_bytes)?);
    let (mut producers, mut subscribers) = (Clients::new(), Clients::new());
    for number in 1..=PRODUCERS {
        let recorder = Recorder::create(&plan.folder, &format!("producer-p{number}"))?;
        let (target, control) = (Arc::clone(&target), Arc::clone(control));
        producers.spawn(Producer::new(number, plan.seed, target, control, recorder).run());
    }
    for (number, habit) in (1..).zip(HABITS) {
        let name = format!("subscriber-{}{number}", format!("{habit:?}").to_lowercase());
        let recorder = Recorder::create(&plan.folder, &name)?;
        let (target, control) = (Arc::clone(&target), Arc::clone(control));
        let subscriber = Subscriber::new(number, plan.seed, habit, target, control, recorder);
        subscribers.spawn(subscriber.run());
    }
    Ok((producers, subscribers))
}

async fn warm(control: &Control) -> Outcome {
    let until = Instant::now() + WARM_WITHIN;
    while control.acknowledged_now() < WARM_EVENTS {
        if Instant::now() > until {
            let events = control.acknowledged_now();
            let why = format!("{events} events were acknowledged within {WARM_WITHIN:?}");
            return Err(Failure::of(why));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Fault after fault until the time is over.
async fn torment(plan: &Plan, field: &Field<'_>) -> Outcome<Faults> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let possible = plan.scenario.possible();
    let mut faults = Faults { asked: 0, confirmed: 0, recovery: Duration::ZERO };
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    while Instant::now() < until {
        let mut active: Vec<Active<'_>> = Vec::new();
        let more = plan.scenario.overlapping && random.random_bool(0.4);
        for _ in 0..=u8::from(more) {
            rest(&mut random, (500, 2_000)).await;
            let Some(fault) = pick(&possible, &mut random) else { break };
            let begun = field.inject(fault, &mut random).await?;
            faults.asked += 1;
            say(&format!("{:>6} acknowledged; {}", field.control.acknowledged_now(), begun.what));
            active.push(begun);
        }
        rest(&mut random, plan.scenario.hold_ms).await;
        for active in active {
            let what = active.what.clone();
            let confirmed = field.heal(active).await?;
            faults.confirmed += u64::from(confirmed);
            if !confirmed {
                say(&format!("not seen to have happened: {what}"));
            }
        }
        let recovery = recovery(field.control).await?;
        faults.recovery = faults.recovery.max(recovery);
        say(&format!(
            "{:>6} acknowledged; healed, all partitions go on after {recovery:.0?}",
            field.control.acknowledged_now()
        ));
    }
    Ok(faults)
}

async fn rest(random: &mut StdRng, (shortest, longest): (u64, u64)) {
    tokio::time::sleep(Duration::from_millis(random.random_range(shortest..longest))).await;
}

/// How long it takes until every partition has acknowledged something.
async fn recovery(control: &Control) -> Outcome<Duration> {
    let healed = std::time::Instant::now();
    while !control.all_went_on_since(healed) {
        if healed.elapsed() > RECOVERED_WITHIN {
            let why = format!("a partition stands still {RECOVERED_WITHIN:?} after healing");
            return Err(Failure::of(why));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(healed.elapsed())
}

/// Whether all have ended within the time.
pub(crate) async fn all_end(clients: &mut Clients, within: Duration) -> bool {
    let ended = async {
        while let Some(ended) = clients.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => say(&failure.to_string()),
                Err(panicked) => say(&format!("a client failed: {panicked}")),
            }
        }
    };
    tokio::time::timeout(within, ended).await.is_ok()
}
