//! Publishing: from a connection's submission to the journal's acknowledgement and back.
//!
//! [`Ingest`] is the one way in. A submission goes into the lane of its partition, which keeps order
//! and bounds; one task a partition carries the lane to the partition's appender, in this process or
//! in another gateway. The rules are pure state machines in `stormwire_journal`; here they meet
//! time, the journal and the other gateways.

mod actor;
mod api;
mod cell;
mod hot;
mod notices;
mod peers;
mod remote;

pub use api::{
    Answers, IngestConfig, LiveProducers, NoWitness, PartitionStatus, Published, Role, Submission,
    Witness,
};

use actor::Actor;
use cell::{Cell, Ticket, deliver};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Clock, Timestamp};
use stormwire_journal::lane::Request;
use stormwire_journal::owner::Members;
use stormwire_journal::publish::{Now, ProducerKey};
use stormwire_journal::{Journal, Peers};
use stormwire_telemetry::{CancellationToken, Tasks};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

/// How long a drain waits for others to take the partitions.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// D3: claims under way at once in one gateway.
const CLAIMS_AT_ONCE: usize = 2;
/// D3: partitions that one gateway takes over from living owners at once. Each stands still meanwhile, so
/// not all of them; one after the other, a gateway with many would be seconds on its way out.
const HAND_OVERS_AT_ONCE: usize = 4;

/// The way in for publishes. Clones are handles of the same; when the last one is dropped its tasks end.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
    _stop: Arc<Stop>,
}

/// What the handles, the partitions' tasks and the heartbeats share.
struct Shared {
    config: IngestConfig,
    clock: Arc<dyn Clock>,
    started: Instant,
    process: [u8; 16],
    cells: Vec<Arc<Cell>>,
    members: Mutex<Members>,
    /// Moves whenever `members` changed in a way that matters.
    changed: watch::Sender<u64>,
    /// Wakes the heartbeat before its time: something is owned that was not, or the reverse.
    beat_now: Notify,
    notices: notices::Notices,
    hot: hot::Hot,
    claims: Arc<Semaphore>,
    hand_overs: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Ends the tasks with the last handle.
struct Stop(CancellationToken);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Shared {
    fn now(&self) -> Now {
        Now { mono: self.started.elapsed(), wall: self.clock.now() }
    }

    /// The moment `mono` of this process's time as the runtime's timers take it.
    fn instant(&self, mono: Duration) -> Instant {
        self.started + mono
    }

    fn members_changed(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

impl Ingest {
    /// Starts the partitions' tasks and, where there can be other gateways, the heartbeats on a thread of
    /// their own. Alone it claims every partition at once. Claims are held against what `witness` knows.
    pub fn start(
        journal: Arc<dyn Journal>,
        peers: Arc<dyn Peers>,
        witness: Arc<dyn Witness>,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
        tasks: &Tasks,
    ) -> Self {
        let process: [u8; 16] = rand::random();
        let alone = peers.is_alone();
        let partitions = config.partitions;
        let members = Members::new(&config.gateway, process, partitions, alone, Duration::ZERO);
        let claims = if alone { usize::from(partitions.get()) } else { CLAIMS_AT_ONCE };
        let cells = partitions.all().map(|p| Arc::new(Cell::new(p, &config, process))).collect();
        let stop = tasks.token().child_token();
        let shared = Arc::new(Shared {
            config,
            clock,
            started: Instant::now(),
            process,
            cells,
            members: Mutex::new(members),
            changed: watch::Sender::new(0),
            beat_now: Notify::new(),
            notices: notices::Notices::default(),
            hot: hot::Hot::new(),
            claims: Arc::new(Semaphore::new(claims)),
            hand_overs: Arc::new(Semaphore::new(HAND_OVERS_AT_ONCE)),
            stop: stop.clone(),
        });
        let mut requests = Vec::new();
        for cell in &shared.cells {
            let ports = actor::Ports {
                journal: Arc::clone(&journal),
                peers: Arc::clone(&peers),
                witness: Arc::clone(&witness),
            };
            let (actor, inbox) = Actor::new(&shared, cell, ports);
            requests.push(inbox);
            tasks.spawn_essential("ingest_partition", actor.run());
        }
        if !alone {
            peers::spawn(&shared, &peers, requests, tasks);
            tasks.spawn("ingest_reach", notices::watch_journal(Arc::clone(&shared), journal));
        }
        Self { shared, _stop: Arc::new(Stop(stop)) }
    }

    /// Takes a publish. Never blocks; a refusal that needs no journal is answered before it returns.
    pub fn submit(&self, submission: Submission) {
        let cell = self.cell(&submission.channel);
        let Submission { connection, channel, user, producer, seq, again, events, trace, .. } =
            submission;
        self.shared.hot.count(&channel, events.len());
        let request = Request { connection, channel, user, producer, seq, again, events, trace };
        let ticket = Ticket { ticket: submission.ticket, answers: submission.answers };
        let now = self.shared.now();
        let (result, answers) = {
            let mut lane = cell.lane.lock();
            let result = lane.submit(now, request, ticket);
            (result, if lane.has_answers() { lane.answers() } else { Vec::new() })
        };
        match result {
            Ok(true) => cell.wake.notify_one(),
            Ok(false) => {}
            Err((ticket, refusal)) => ticket.answers.answer(ticket.ticket, Err(refusal)),
        }
        deliver(answers);
    }

    /// Tells the channel's lane that a publish was refused before it came here, so that nothing above it
    /// is taken until it comes again, or, if the refusal is final, that its number is used up.
    pub fn refused(&self, connection: u64, channel: &Channel, seq: u64, temporary: bool) {
        let answers = {
            let mut lane = self.cell(channel).lane.lock();
            lane.refused(connection, seq, temporary);
            if lane.has_answers() { lane.answers() } else { Vec::new() }
        };
        deliver(answers);
    }

    /// The connection is gone: forgets its fences. What it has submitted is still written. Every
    /// connection that was used in a submission ends with this call.
    pub fn closed(&self, connection: u64) {
        for cell in &self.shared.cells {
            cell.lane.lock().closed(connection);
        }
    }

    /// B8: who is connected here, for the gateways to tell each other.
    pub fn watch_producers(&self, producers: Arc<dyn LiveProducers>) {
        self.shared.notices.watch(producers);
    }

    /// B8: tells the other gateways that `producer` has connected here at `at`: a connection of it that
    /// is older is closed there.
    pub fn producer_connected(&self, producer: ProducerKey, at: Timestamp) {
        if !self.shared.members.lock().is_alone() {
            self.shared.notices.announce(producer, at);
        }
    }

    /// Writes what waits in the lanes and hands the partitions over to the other gateways, if there are
    /// any. May be called again: what was submitted meanwhile is written then. Ends after 10 s at the latest.
    pub async fn drain(&self) {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        self.shared.members.lock().leave();
        self.shared.members_changed();
        self.shared.beat_now.notify_one();
        // What waits now, not all: while clients go on, a busy lane is never empty.
        let begun = self.shared.now().mono;
        let mut left: Vec<&Arc<Cell>> = self.shared.cells.iter().collect();
        loop {
            let others = self.shared.members.lock().others(self.shared.now().mono) > 0;
            left.retain(|cell| !cell.is_drained(begun, others));
            if left.is_empty() || Instant::now() >= deadline {
                return;
            }
            left.iter().for_each(|cell| cell.wake.notify_one());
            let pause = tokio::time::sleep(Duration::from_millis(20));
            if self.shared.stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// How every partition stands, ascending.
    #[must_use]
    pub fn status(&self) -> Vec<PartitionStatus> {
        let now = self.shared.now().mono;
        self.shared.cells.iter().map(|cell| cell.status(now)).collect()
    }

    /// The channels that most is published to through this gateway, each with about how many events a second.
    #[must_use]
    pub fn hot_channels(&self, count: usize) -> Vec<(Channel, f64)> {
        self.shared.hot.top(count)
    }

    /// How many gateways live, this one included, as far as is known here.
    #[must_use]
    pub fn gateways(&self) -> u64 {
        let now = self.shared.now().mono;
        self.shared.members.lock().others(now) as u64 + 1
    }

    fn cell(&self, channel: &Channel) -> &Arc<Cell> {
        let partition = channel.partition(self.shared.config.partitions);
        &self.shared.cells[usize::from(partition.0)]
    }
}
