//! The scenarios by name: which faults, for how long, and what a green run shows.

use crate::faults::Between::{
    GatewayAndJournal, GatewaysAndRedis, NatsNodes, ServicesAndArchive, WorkerAndJournal,
};
use crate::faults::Fault::{
    self, ClockJump, CutSockets, Freeze, FullArchive, FullJournal, Kill, LostPackets, Network,
};
use crate::faults::How::{AnswersLost, Cut, Forgetful, HalfOpen, Slow};
use crate::faults::Who::{
    Gateway, NatsFollower, NatsLeader, Postgres, Redis, TwoNatsNodes, Worker,
};

/// One way to try the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What a green run shows, in one line.
    pub(crate) shows: &'static str,
    pub(crate) faults: &'static [Fault],
    /// Shortest and longest time that a fault lasts, in milliseconds.
    pub(crate) hold_ms: (u64, u64),
    /// Bytes that pad each event.
    pub(crate) event_bytes: usize,
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Whether the archive lies on a disk small enough to be filled.
    pub(crate) small_disk: bool,
    /// Whether a second fault may begin before the first is healed.
    pub(crate) overlapping: bool,
}

const fn scenario(
    name: &'static str,
    faults: &'static [Fault],
    hold_ms: (u64, u64),
    shows: &'static str,
) -> Scenario {
    let (event_bytes, variables, small_disk, overlapping) = (0, &[] as &[_], false, false);
    Scenario { name, shows, faults, hold_ms, event_bytes, variables, small_disk, overlapping }
}

const SHORT: (u64, u64) = (1_000, 4_000);
const LONG: (u64, u64) = (4_000, 8_000);
/// Longer than a worker's lease and than what a gateway's silence counts as its death.
const PAST_LEASES: (u64, u64) = (8_000, 11_000);

/// All, in the order of the table; `mixed` is the last.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario(
        "gateway-kill",
        &[Kill(Gateway)],
        SHORT,
        "partitions get another appender, producers go on elsewhere, nothing is lost or doubled",
    ),
    scenario(
        "gateway-stop",
        &[Freeze(Gateway)],
        PAST_LEASES,
        "an owner that sleeps and wakes is fenced by the log",
    ),
    scenario("worker-kill", &[Kill(Worker)], LONG, "another worker goes on behind the ledger"),
    scenario(
        "worker-stop",
        &[Freeze(Worker)],
        PAST_LEASES,
        "two workers that both believe to own a partition cannot both commit",
    ),
    scenario(
        "nats-leader-kill",
        &[Kill(NatsLeader)],
        LONG,
        "a frame whose acknowledgement died with the leader is found or sent again, once",
    ),
    scenario(
        "nats-leader-stop",
        &[Freeze(NatsLeader)],
        LONG,
        "a leader that sleeps through an election and wakes takes nothing",
    ),
    scenario("nats-follower-kill", &[Kill(NatsFollower)], LONG, "two of three nodes are enough"),
    scenario(
        "nats-follower-stop",
        &[Freeze(NatsFollower)],
        LONG,
        "two of three nodes are enough, also while the third keeps its connections",
    ),
    scenario(
        "nats-two-kill",
        &[Kill(TwoNatsNodes)],
        LONG,
        "without a quorum nothing is acknowledged; afterwards all of it is there",
    ),
    scenario(
        "postgres-kill",
        &[Kill(Postgres)],
        LONG,
        "the archive's death delays persisting only",
    ),
    scenario("postgres-stop", &[Freeze(Postgres)], LONG, "commits that hang end once"),
    scenario("redis-kill", &[Kill(Redis)], SHORT, "limits become local, nothing else changes"),
    scenario("redis-stop", &[Freeze(Redis)], SHORT, "a silent Redis stops nobody"),
    scenario(
        "nats-partition",
        &[Network(NatsNodes, Cut)],
        (1_500, 5_000),
        "a node apart from the others takes no frames, and what it did not pass on is fetched",
    ),
    scenario(
        "nats-half-open",
        &[Network(NatsNodes, HalfOpen)],
        LONG,
        "a node that hears nothing neither takes frames nor lies about them",
    ),
    scenario("nats-delay", &[Network(NatsNodes, Slow)], LONG, "slow replication is slow, no more"),
    scenario(
        "journal-partition",
        &[Network(GatewayAndJournal, Cut)],
        SHORT,
        "what passed meanwhile is fetched before the feed goes on",
    ),
    scenario(
        "journal-partition-worker",
        &[Network(WorkerAndJournal, Cut)],
        SHORT,
        "a worker goes on behind the ledger, not where its connection broke",
    ),
    scenario(
        "journal-answers-lost",
        &[Network(GatewayAndJournal, AnswersLost)],
        LONG,
        "a frame whose acknowledgement does not come is found or sent again, and stored once",
    ),
    scenario(
        "live-messages-lost",
        &[Network(GatewayAndJournal, Forgetful)],
        LONG,
        "a live frame that never came is seen as a hole and fetched",
    ),
    scenario(
        "journal-half-open",
        &[Network(GatewayAndJournal, HalfOpen), Network(WorkerAndJournal, HalfOpen)],
        LONG,
        "a journal that takes and does not answer makes outcomes unknown, never wrong",
    ),
    scenario(
        "journal-delay",
        &[Network(GatewayAndJournal, Slow)],
        LONG,
        "a far gateway is slow, no more",
    ),
    scenario(
        "archive-partition",
        &[Network(ServicesAndArchive, Cut), Network(ServicesAndArchive, HalfOpen)],
        LONG,
        "a commit whose answer is lost counts once",
    ),
    scenario(
        "archive-delay",
        &[Network(ServicesAndArchive, Slow)],
        LONG,
        "slow commits delay persisting only",
    ),
    scenario(
        "redis-partition",
        &[Network(GatewaysAndRedis, Cut), Network(GatewaysAndRedis, HalfOpen)],
        SHORT,
        "limits become local, nothing else changes",
    ),
    scenario(
        "packets-lost",
        &[LostPackets],
        LONG,
        "a gateway or a worker whose packets vanish is given up, and comes back without a hole",
    ),
    scenario(
        "sockets-cut",
        &[CutSockets],
        (100, 500),
        "half a frame is nothing, a repeat is known for one, feeds go on without a hole",
    ),
    scenario(
        "clock-jump-gateway",
        &[ClockJump(Gateway)],
        SHORT,
        "a gateway whose clock is minutes off stores no event twice, and none out of order",
    ),
    scenario(
        "clock-jump-worker",
        &[ClockJump(Worker)],
        SHORT,
        "a worker whose clock is minutes off neither loses its leases nor trims what is needed",
    ),
    Scenario {
        event_bytes: 24 * 1024,
        variables: &[("STORMWIRE_JOURNAL_BYTES_MAX", "16MiB")],
        ..scenario(
            "journal-full",
            &[FullJournal],
            SHORT,
            "a full journal refuses, and a refused publish goes in its place later",
        )
    },
    Scenario {
        small_disk: true,
        ..scenario(
            "archive-full",
            &[FullArchive],
            LONG,
            "an archive without a byte left delays persisting only",
        )
    },
    Scenario {
        overlapping: true,
        ..scenario("mixed", MIXED, (500, 6_000), "all of them at random, two at a time")
    },
];

const MIXED: &[Fault] = &[
    Kill(Gateway),
    Freeze(Gateway),
    Kill(Worker),
    Freeze(Worker),
    Kill(NatsLeader),
    Freeze(NatsLeader),
    Kill(NatsFollower),
    Freeze(NatsFollower),
    Kill(TwoNatsNodes),
    Kill(Postgres),
    Freeze(Postgres),
    Kill(Redis),
    Freeze(Redis),
    Network(NatsNodes, Cut),
    Network(NatsNodes, HalfOpen),
    Network(NatsNodes, Slow),
    Network(GatewayAndJournal, Cut),
    Network(WorkerAndJournal, Cut),
    Network(GatewayAndJournal, HalfOpen),
    Network(WorkerAndJournal, HalfOpen),
    Network(GatewayAndJournal, Slow),
    Network(ServicesAndArchive, Cut),
    Network(ServicesAndArchive, HalfOpen),
    Network(ServicesAndArchive, Slow),
    Network(GatewaysAndRedis, Cut),
    Network(GatewayAndJournal, AnswersLost),
    Network(GatewayAndJournal, Forgetful),
    CutSockets,
    ClockJump(Gateway),
    ClockJump(Worker),
];

impl Scenario {
    /// The faults that this machine can do: without the library that moves clocks, those are left out
    /// where there are others.
    pub(crate) fn possible(&self) -> Vec<Fault> {
        let all = self.faults.iter().copied();
        let moves_clocks = stormwire_testkit::faketime().is_some();
        let others: Vec<Fault> =
            all.filter(|fault| moves_clocks || !fault.moves_clocks()).collect();
        if others.is_empty() { self.faults.to_vec() } else { others }
    }
}

/// The scenario of that name.
pub(crate) fn named(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().copied().find(|scenario| scenario.name == name)
}

/// The compiled-in faults and the scenario that shows each.
pub(crate) const COMPILED_IN: &[(&str, &str)] = &[
    ("early-acknowledgement", "nats-two-kill"),
    ("ledger-check-skipped", "worker-stop"),
    ("contiguity-check-off", "live-messages-lost"),
    ("hole-repair-off", "journal-partition"),
    ("repeats-let-through", "sockets-cut"),
    ("fail-stop-off", "journal-full"),
    ("append-without-expected-sequence", "journal-answers-lost"),
    ("trim-below-the-ledger", "postgres-stop"),
];
