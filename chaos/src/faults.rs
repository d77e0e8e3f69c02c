//! What can be done to a running cluster, how it is seen to have happened, and how it is undone.

use crate::clock::Clock;
use crate::cluster::{Cluster, Role};
use crate::control::Control;
use crate::packets::BlackHole;
use crate::{Failure, Outcome, journal};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stormwire_testkit::Server;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::proxy::{Network, Proxy};
use tokio::time::Instant;

/// How long a fault may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// One way of a slow network; there and back twice that.
const DELAY: Duration = Duration::from_millis(120);
/// By how much a clock is moved, in seconds, ahead or back.
const JUMP_SECONDS: std::ops::Range<i64> = 3..900;
/// How long a process may take to see its clock moved, which it does within a second or two.
const JUMP_SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Whose process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Gateway,
    Worker,
    /// The node that leads most partitions.
    NatsLeader,
    /// The node that leads fewest.
    NatsFollower,
    TwoNatsNodes,
    Postgres,
    Redis,
}

/// Which ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// One node and the two others.
    NatsNodes,
    /// One gateway and all nodes.
    GatewayAndJournal,
    /// One worker and all nodes.
    WorkerAndJournal,
    /// All workers and gateways, and Postgres.
    ServicesAndArchive,
    /// All gateways and Redis.
    GatewaysAndRedis,
}

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Connections are reset and refused.
    Cut,
    /// Connections stay and nothing passes.
    HalfOpen,
    /// Everything comes late.
    Slow,
    /// What is said arrives, what is answered waits.
    AnswersLost,
    /// Some live messages never come.
    Forgetful,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`.
    Kill(Who),
    /// SIGSTOP, later SIGCONT.
    Freeze(Who),
    /// A network that fails.
    Network(Between, How),
    /// No packet of a gateway or a worker reaches a store.
    LostPackets,
    /// Nothing is trimmed until the journal refuses.
    FullJournal,
    /// No byte is left on the archive's disk.
    FullArchive,
    /// Clients break off in the middle of a frame.
    CutSockets,
    /// The wall clock of a gateway or a worker is minutes off from one moment to the next.
    ClockJump(Who),
}

/// A fault under way.
pub(crate) struct Active<'a> {
    /// What was done, for the log.
    pub(crate) what: String,
    /// Whether it was seen to have happened.
    pub(crate) confirmed: bool,
    members: Vec<Member<'a>>,
    ways: Vec<(Arc<Proxy>, u64)>,
    ballast: Option<PathBuf>,
    black_hole: Option<BlackHole>,
    clock: Option<&'a Clock>,
}

/// A process that can be killed and started again.
#[derive(Clone, Copy)]
enum Member<'a> {
    Role(&'a Role),
    Nats(&'a NatsServer),
    Postgres(&'a Cluster),
    Redis(&'a Cluster),
}

impl<'a> Member<'a> {
    fn server(self) -> &'a Server {
        match self {
            Self::Role(role) => &role.server,
            Self::Nats(node) => node,
            Self::Postgres(cluster) => &cluster.postgres,
            Self::Redis(cluster) => &cluster.redis,
        }
    }

    async fn restart(self) -> Outcome {
        let again = Failure::doing("starting again");
        match self {
            Self::Role(role) => role.launch().await,
            Self::Nats(node) => node.try_restart().await.map_err(again),
            Self::Postgres(cluster) => cluster.postgres.try_restart().await.map_err(again),
            Self::Redis(cluster) => cluster.redis.try_restart().await.map_err(again),
        }
    }

    /// Stores come back before those who need them.
    fn rank(self) -> u8 {
        u8::from(matches!(self, Self::Role(_)))
    }
}

/// What a fault is done to and seen by.
pub(crate) struct Field<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) control: &'a Control,
    /// Where Postgres keeps its data, if that disk is small enough to be filled.
    pub(crate) small_disk: Option<PathBuf>,
}

impl<'a> Field<'a> {
    /// Does it, and sees whether it happened where that can be seen at once.
    pub(crate) async fn inject(&self, fault: Fault, random: &mut StdRng) -> Outcome<Active<'a>> {
        match fault {
            Fault::Kill(who) => {
                let (members, names) = self.members(who, random).await;
                let mut gone = true;
                for member in &members {
                    let pid = member.server().pid();
                    member.server().kill().await;
                    gone &= pid.is_some_and(|pid| state(pid).is_none());
                }
                Ok(Active::of(format!("killed {names}"), gone, members))
            }
            Fault::Freeze(who) => {
                let (members, names) = self.members(who, random).await;
                let mut still = true;
                for member in &members {
                    member.server().pause().await;
                    let stopped = || member.server().pid().and_then(state) == Some('T');
                    still &= seen(Duration::from_secs(2), stopped).await;
                }
                Ok(Active::of(format!("froze {names}"), still, members))
            }
            Fault::Network(between, how) => Ok(self.spoil(between, how, random).await),
            Fault::LostPackets => self.lose_packets(random),
            Fault::ClockJump(who) => self.move_clock(who, random).await,
            Fault::FullJournal => Ok(self.fill_journal().await),
            Fault::FullArchive => self.fill_archive().await,
            Fault::CutSockets => {
                let cut = grows(&self.control.sockets_cut, || self.control.cut_sockets());
                let confirmed = cut.await;
                Ok(Active::of("cut the clients' sockets".to_owned(), confirmed, Vec::new()))
            }
        }
    }

    /// Undoes it; what could only be seen while it lasted is seen now.
    pub(crate) async fn heal(&self, mut active: Active<'a>) -> Outcome<bool> {
        if let Some(ballast) = &active.ballast {
            let log = self.cluster.postgres.log_path();
            let text = std::fs::read(log).unwrap_or_default();
            active.confirmed = String::from_utf8_lossy(&text).contains("No space left on device");
            let _ = std::fs::remove_file(ballast);
        }
        if let Some(hole) = active.black_hole.take() {
            active.confirmed = hole.lost_some();
        }
        for (way, before) in &active.ways {
            active.confirmed |= way.spoilt() > *before;
            way.set(Network::Healthy);
        }
        if let Some(clock) = active.clock {
            // Back again: the other direction.
            clock.set(0)?;
        }
        active.members.sort_by_key(|member| member.rank());
        for member in &active.members {
            member.server().resume().await;
            if !member.server().is_running() {
                member.restart().await?;
            }
        }
        Ok(active.confirmed)
    }

    async fn members(&self, who: Who, random: &mut StdRng) -> (Vec<Member<'a>>, String) {
        let cluster = self.cluster;
        let role = |roles: &'a [Role], random: &mut StdRng| {
            let role = &roles[random.random_range(0..roles.len())];
            (vec![Member::Role(role)], role.name.clone())
        };
        let node = |index: usize| Member::Nats(&cluster.nats.nodes()[index]);
        match who {
            Who::Gateway => role(&cluster.gateways, random),
            Who::Worker => role(&cluster.workers, random),
            Who::Postgres => (vec![Member::Postgres(cluster)], "postgres".to_owned()),
            Who::Redis => (vec![Member::Redis(cluster)], "redis".to_owned()),
            Who::TwoNatsNodes => {
                let spared = random.random_range(0..cluster.nats.nodes().len());
                let nodes: Vec<_> =
                    (0..cluster.nats.nodes().len()).filter(|index| *index != spared).collect();
                let names: Vec<_> =
                    nodes.iter().map(|index| format!("nats-{}", index + 1)).collect();
                (nodes.into_iter().map(node).collect(), names.join(" and "))
            }
            Who::NatsLeader | Who::NatsFollower => {
                let leads = journal::leaders(&cluster.nats).await;
                let by_leads =
                    (0..leads.len()).filter(|index| cluster.nats.nodes()[*index].is_running());
                let index = if who == Who::NatsLeader {
                    by_leads.max_by_key(|index| leads[*index])
                } else {
                    by_leads.min_by_key(|index| leads[*index])
                };
                let index = index.unwrap_or_default();
                let of = crate::PARTITIONS;
                let name = format!("nats-{}, leader of {} of {of}", index + 1, leads[index]);
                (vec![node(index)], name)
            }
        }
    }

    async fn spoil(&self, between: Between, how: How, random: &mut StdRng) -> Active<'a> {
        let cluster = self.cluster;
        let (ways, which) = match between {
            Between::NatsNodes => {
                let index = random.random_range(0..cluster.nats.nodes().len());
                (cluster.nats.routes_of(index), format!("nats-{} and the others", index + 1))
            }
            Between::GatewayAndJournal | Between::WorkerAndJournal => {
                let gateways = between == Between::GatewayAndJournal;
                let roles = if gateways { &cluster.gateways } else { &cluster.workers };
                let role = &roles[random.random_range(0..roles.len())];
                (role.to_nats.clone(), format!("{} and the journal", role.name))
            }
            Between::ServicesAndArchive => {
                let ways = cluster.roles().map(|role| Arc::clone(&role.to_postgres)).collect();
                (ways, "all and the archive".to_owned())
            }
            Between::GatewaysAndRedis => {
                let gateways = cluster.gateways.iter();
                (
                    gateways.map(|role| Arc::clone(&role.to_redis)).collect(),
                    "the gateways and Redis".to_owned(),
                )
            }
        };
        let network = match how {
            How::Cut => Network::Cut,
            How::HalfOpen => Network::HalfOpen,
            How::Slow => Network::Slow(DELAY),
            How::AnswersLost => Network::AnswersLost,
            How::Forgetful => Network::Forgetful,
        };
        let ways: Vec<_> = ways.into_iter().map(|way| (Arc::clone(&way), way.spoilt())).collect();
        ways.iter().for_each(|(way, _)| way.set(network));
        let what = format!("{how:?} between {which}");
        Active { ways, ..Active::of(what, false, Vec::new()) }
    }

    fn lose_packets(&self, random: &mut StdRng) -> Outcome<Active<'a>> {
        let roles: Vec<_> = self.cluster.roles().collect();
        let role = roles[random.random_range(0..roles.len())];
        let hole = BlackHole::open(role.stores)?;
        let what = format!("every packet from {} to its stores is lost", role.name);
        Ok(Active { black_hole: Some(hole), ..Active::of(what, false, Vec::new()) })
    }

    /// Sets the clock of one process off and waits until the process says so.
    async fn move_clock(&self, who: Who, random: &mut StdRng) -> Outcome<Active<'a>> {
        let cluster = self.cluster;
        let roles = if who == Who::Worker { &cluster.workers } else { &cluster.gateways };
        let role = &roles[random.random_range(0..roles.len())];
        let clock = role.clock.as_ref();
        let clock = clock.ok_or_else(|| Failure::of("the cluster's clocks can't be moved"))?;
        let ahead = random.random_range(JUMP_SECONDS);
        let seconds = if random.random_bool(0.5) { ahead } else { -ahead };
        clock.set(seconds)?;
        let until = Instant::now() + JUMP_SEEN_WITHIN;
        let mut seen = false;
        while !seen && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen = role.says_it_is_off(seconds).await;
        }
        let what = format!("moved the clock of {} by {seconds:+} s", role.name);
        Ok(Active { clock: Some(clock), ..Active::of(what, seen, Vec::new()) })
    }

    /// Freezes those who trim and waits for the journal's first refusal.
    async fn fill_journal(&self) -> Active<'a> {
        let members: Vec<_> = self.cluster.workers.iter().map(Member::Role).collect();
        for member in &members {
            member.server().pause().await;
        }
        let confirmed = grows(&self.control.journal_refused, || ()).await;
        Active::of("let the journal run full".to_owned(), confirmed, members)
    }

    async fn fill_archive(&self) -> Outcome<Active<'a>> {
        let disk = self.small_disk.clone();
        let disk = disk.ok_or_else(|| Failure::of("the archive has no small disk to fill"))?;
        let ballast = disk.join("ballast");
        let mut file = std::fs::File::create(&ballast).map_err(Failure::doing("the ballast"))?;
        let block = vec![0; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        let what = "filled the archive's disk".to_owned();
        let postgres = vec![Member::Postgres(self.cluster)];
        Ok(Active { ballast: Some(ballast), ..Active::of(what, false, postgres) })
    }
}

impl<'a> Active<'a> {
    fn of(what: String, confirmed: bool, members: Vec<Member<'a>>) -> Self {
        let (ways, ballast, black_hole, clock) = (Vec::new(), None, None, None);
        Self { what, confirmed, members, ways, ballast, black_hole, clock }
    }
}

impl Fault {
    /// Whether clocks have to be such that they can be moved.
    pub(crate) const fn moves_clocks(self) -> bool {
        matches!(self, Self::ClockJump(_))
    }
}

/// One of several faults.
pub(crate) fn pick(faults: &[Fault], random: &mut StdRng) -> Option<Fault> {
    faults.choose(random).copied()
}

/// The state letter of a process; `None` when it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let letter = stat.rsplit(')').next()?.trim_start().chars().next()?;
    (letter != 'Z' && letter != 'X').then_some(letter)
}

async fn seen(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + within;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

async fn grows(counter: &AtomicU64, act: impl FnOnce()) -> bool {
    let before = counter.load(Ordering::Relaxed);
    act();
    seen(SEEN_WITHIN, || counter.load(Ordering::Relaxed) > before).await
}
