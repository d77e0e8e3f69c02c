//! The task of one partition: carries the lane to the appender, here or elsewhere, drives the appender
//! against the journal, and decides with the other gateways who owns the partition.

mod claims;
mod feed;
mod meters;
mod perform;

use super::Shared;
use super::api::{Role, Witness};
use super::cell::{Cell, Ticket, deliver};
use super::remote::Remote;
use bytes::Bytes;
use futures::future::BoxFuture;
use meters::Meters;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use stormwire_core::{Epoch, ErrorCode, FrameSeq, Refusal, Timestamp};
use stormwire_journal::appender::{Appender, AppenderConfig, Event, rewound_refusal};
use stormwire_journal::lane::Answer;
use stormwire_journal::message::{Ask, AskBody, Reply};
use stormwire_journal::owner::{Claim, Ownership};
use stormwire_journal::publish::Now;
use stormwire_journal::{
    Journal, JournalError, Known, Op, OpResult, PeerError, PeerRequest, Peers,
};
use stormwire_telemetry::Quiet;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Requests of other gateways that may wait for this task.
const INBOX: usize = 256;
/// How often a partition that is not owned here is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// D5: a lane without a way to an owner for this long refuses.
const UNREACHABLE: Duration = Duration::from_secs(5);
/// A request that was on its way for longer is not taken: its sender has long been answered.
const STALE: Duration = Duration::from_secs(30);

/// Each attempt to save tables fails the same way: one line in ten seconds will do.
static UNSAVED: Quiet = Quiet::new(Duration::from_secs(10));

type Send1 = Box<dyn FnOnce(Bytes) + Send>;

/// Where a batch in the appender came from.
enum Origin {
    Lane,
    Peer(Send1),
}

/// A hand-over that was asked for, and the right to ask for one.
struct Asking {
    of: Claim,
    answer: BoxFuture<'static, Result<Bytes, PeerError>>,
    permit: OwnedSemaphorePermit,
}

impl Future for Asking {
    type Output = Result<Bytes, PeerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(context)
    }
}

/// What a partition's task stands on.
pub(super) struct Ports {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) witness: Arc<dyn Witness>,
}

pub(super) struct Actor {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    me: Arc<str>,
    journal: Arc<dyn Journal>,
    peers: Arc<dyn Peers>,
    witness: Arc<dyn Witness>,
    appender: Appender<Origin>,
    ownership: Ownership,
    inbox: mpsc::Receiver<PeerRequest>,
    remote: Remote,
    asking: Option<Asking>,
    /// Gateways that wait for this one to let go.
    released: Vec<Send1>,
    /// D3: the right to read and claim, one of a few in this gateway.
    claiming: Option<OwnedSemaphorePermit>,
    /// D3: the right to take over from a living owner, one of a few in this gateway.
    handing: Option<OwnedSemaphorePermit>,
    /// E1: what others know of the log, on its way, and when it was asked for.
    knowing: Option<BoxFuture<'static, Known>>,
    asked_known: Option<Duration>,
    /// E1: a look at the end of a log that nobody writes, and what the last one saw.
    looking: Option<BoxFuture<'static, bool>>,
    looked: Option<Duration>,
    seen_rewound: bool,
    unreachable_since: Option<Duration>,
    unavailable: Option<ErrorCode>,
    outbox: Vec<Answer<Ticket>>,
    op_began: Timestamp,
    /// B7: a table on its way to the journal.
    saving: Option<BoxFuture<'static, Result<(), JournalError>>>,
    meters: Meters,
}

impl Actor {
    /// The task of `cell`, and where other gateways' requests for it go.
    pub(super) fn new(
        shared: &Arc<Shared>,
        cell: &Arc<Cell>,
        Ports { journal, peers, witness }: Ports,
    ) -> (Self, mpsc::Sender<PeerRequest>) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let config = AppenderConfig {
            gateway: shared.config.gateway.clone(),
            linger: shared.config.linger,
            repeats_bytes_max: shared.config.repeats_bytes_max / shared.cells.len().max(1),
        };
        let actor = Self {
            shared: Arc::clone(shared),
            cell: Arc::clone(cell),
            me: Arc::from(&*shared.config.gateway),
            journal,
            peers,
            witness,
            appender: Appender::new(config),
            ownership: Ownership::new(cell.partition),
            inbox,
            remote: Remote::default(),
            asking: None,
            released: Vec::new(),
            claiming: None,
            handing: None,
            knowing: None,
            asked_known: None,
            looking: None,
            looked: None,
            seen_rewound: false,
            unreachable_since: None,
            unavailable: None,
            outbox: Vec::new(),
            op_began: Timestamp(0),
            saving: None,
            meters: Meters::new(cell.partition),
        };
        (actor, sender)
    }

    /// Serves the partition until the process or the last handle ends.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut changed = shared.changed.subscribe();
        let mut op: Option<BoxFuture<'static, OpResult>> = None;
        loop {
            let (next, wake_at) = self.turn();
            if let Some(next) = next {
                self.op_began = shared.clock.now();
                let mut work = perform::perform(&self.journal, self.cell.partition, next);
                // Sent before anybody is answered: the journal works while the answers go out.
                if let Poll::Ready(result) = futures::poll!(&mut work) {
                    self.completed(result);
                    deliver(std::mem::take(&mut self.outbox));
                    continue;
                }
                op = Some(work);
            }
            deliver(std::mem::take(&mut self.outbox));
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => break,
                result = or_pending(op.as_mut()) => {
                    op = None;
                    self.completed(result);
                }
                saved = or_pending(self.saving.as_mut()) => self.table_saved(saved),
                answer = self.remote.answered() => self.remote_answered(answer),
                answer = or_pending(self.asking.as_mut().map(|asking| &mut asking.answer)) => {
                    self.hand_over_answered(answer);
                }
                known = or_pending(self.knowing.as_mut()) => {
                    self.knowing = None;
                    self.appender.learn(&known);
                }
                rewound = or_pending(self.looking.as_mut()) => {
                    self.looking = None;
                    self.seen_rewound = rewound;
                }
                Some(request) = self.inbox.recv() => self.serve(request),
                () = self.cell.wake.notified() => {}
                Ok(()) = changed.changed() => {}
                () = tokio::time::sleep_until(shared.instant(wake_at)) => {}
            }
        }
    }

    fn completed(&mut self, result: OpResult) {
        let now = self.shared.now();
        if result.is_answer() {
            self.shared.notices.reached(now.mono);
        }
        self.appender.complete(now, result);
    }

    /// All that can be done without waiting; then what to ask of the journal, and when to come again.
    fn turn(&mut self) -> (Option<Op>, Duration) {
        let now = self.shared.now();
        let mut op = None;
        let mut wake = self.decide(now);
        loop {
            self.take_events(now);
            self.take_answers();
            wake = wake.min(self.feed(now));
            let (next, at) = self.appender.poll(now);
            op = op.or(next);
            wake = at.map_or(wake, |at| wake.min(at));
            if !self.appender.has_news() {
                break;
            }
        }
        if self.saving.is_none()
            && let Some(table) = self.appender.table_to_save(now.mono)
        {
            self.saving = Some(perform::save(&self.journal, self.cell.partition, table));
        }
        self.show(now);
        (op, wake)
    }

    fn table_saved(&mut self, saved: Result<(), JournalError>) {
        self.saving = None;
        self.appender.saved(self.shared.now().mono, saved.is_ok());
        if let Err(error) = saved
            && let Some(suppressed) = UNSAVED.ready()
        {
            let partition = self.cell.partition;
            tracing::warn!(%partition, %error, suppressed,
                "the table of producers was not saved; the journal is not trimmed further");
        }
    }

    fn take_events(&mut self, now: Now) {
        let partition = self.cell.partition;
        for event in self.appender.events() {
            match event {
                Event::Claimed { epoch, claim } => {
                    tracing::info!(%partition, %epoch, claim, "this gateway owns the partition");
                    let mine = Claim { gateway: Arc::clone(&self.me), epoch, seq: claim };
                    self.shared.members.lock().note_claim(partition, mine);
                    self.ownership.claimed();
                    (self.claiming, self.handing) = (None, None);
                    self.meters.owner_changes.increment(1);
                    perform::measure_skew(
                        &self.journal,
                        &self.cell,
                        epoch,
                        claim,
                        self.op_began,
                        now.wall,
                    );
                    self.shared.owned_changed(&self.cell, Some((epoch, claim)));
                }
                Event::ClaimRefused => {
                    tracing::info!(%partition, "another gateway was faster to claim the partition");
                    self.ownership.lost(now.mono, rand::random());
                    (self.claiming, self.handing) = (None, None);
                }
                Event::Rewound { epoch, seen } => {
                    tracing::error!(%partition, %epoch, seen, "the journal has gone back behind frames that it acknowledged; the partition takes no publishes until `stormwire journal new-epoch`");
                    (self.claiming, self.handing) = (None, None);
                    self.shared.owned_changed(&self.cell, None);
                    self.released.drain(..).for_each(|reply| reply(Reply::Moved(None).encode()));
                }
                Event::Fenced => {
                    tracing::warn!(%partition, "another gateway has claimed the partition");
                    self.meters.fenced.increment(1);
                    self.ownership.lost(now.mono, rand::random());
                    self.shared.owned_changed(&self.cell, None);
                    self.released.drain(..).for_each(|reply| reply(Reply::Moved(None).encode()));
                }
                Event::Released { table } => {
                    tracing::info!(%partition, "the partition was handed over");
                    self.shared.owned_changed(&self.cell, None);
                    let waiting = std::mem::take(&mut self.released);
                    perform::hand_over(&self.journal, partition, table, move || {
                        waiting.into_iter().for_each(|reply| reply(Reply::Moved(None).encode()));
                    });
                }
                Event::GaveUp => {
                    tracing::warn!(%partition, "the journal does not answer; the partition is given up");
                    self.ownership.gave_up(now.mono);
                    self.shared.owned_changed(&self.cell, None);
                    self.released.drain(..).for_each(|reply| reply(Reply::Moved(None).encode()));
                }
                Event::Written { events, bytes, took, uncertain } => {
                    self.meters.written(events, bytes, took, uncertain);
                }
                Event::Duplicates(count) => self.meters.duplicates.increment(count as u64),
            }
        }
    }

    fn take_answers(&mut self) {
        for answer in self.appender.answers() {
            match answer.origin {
                Origin::Lane => {
                    let mut lane = self.cell.lane.lock();
                    lane.settle(answer.epoch, answer.items, answer.outcomes);
                    self.outbox.append(&mut lane.answers());
                }
                Origin::Peer(reply) => {
                    let done = Reply::Done { epoch: answer.epoch, outcomes: answer.outcomes };
                    reply(done.encode());
                }
            }
        }
    }

    /// Answers another gateway. D4: what does not name this gateway, epoch and claim is answered `moved`.
    fn serve(&mut self, request: PeerRequest) {
        let now = self.shared.now();
        let ask = Ask::decode(&request.body)
            .ok()
            .filter(|ask| self.appender.serves(&ask.to) && now.wall.since(ask.sent) < STALE);
        let members = self.shared.members.lock();
        match ask.map(|ask| (ask.from, ask.body)) {
            Some((_, AskBody::Append(items))) => {
                self.appender.push(now, Origin::Peer(request.reply), items);
            }
            Some((from, AskBody::HandOver))
                if members.should_own(self.cell.partition, now.mono) == Some(&*from) =>
            {
                self.released.push(request.reply);
                self.appender.release();
            }
            _ => {
                let gateway = || Arc::clone(&self.me);
                let mine = self.appender.owned();
                let mine = mine.map(|(epoch, seq)| Claim { gateway: gateway(), epoch, seq });
                let owner = mine.or_else(|| members.owner(self.cell.partition).cloned());
                (request.reply)(Reply::Moved(owner).encode());
            }
        }
    }

    /// Shows callers how the partition stands.
    fn show(&mut self, now: Now) {
        let owned = self.appender.owned();
        let rewound = self.is_rewound();
        self.meters.show_rewound(rewound);
        let mut view = self.cell.view.lock();
        view.role = match owned {
            Some(_) => Role::Owner,
            None if self.claiming.is_some() || self.appender.is_between() => Role::Claiming,
            None => Role::Follower,
        };
        if let Some((epoch, claim)) = owned {
            (view.epoch, view.claim) = (Some(epoch), claim);
        }
        view.last = self.appender.last();
        view.rewound = rewound;
        view.unsettled_since = self.appender.unsettled_since();
        if owned.is_none() {
            let members = self.shared.members.lock();
            let owner = members.owner(self.cell.partition);
            let alive = owner.filter(|owner| members.is_alive(&owner.gateway, now.mono));
            view.owner =
                alive.filter(|owner| owner.gateway != self.me).map(|of| of.gateway.clone());
            let unavailable = self
                .unavailable
                .is_some()
                .then(|| "no gateway can write to this partition now".to_owned());
            let rewound = rewound.then(|| rewound_refusal().message.into_owned());
            let problem = || self.appender.problem().map(str::to_owned);
            view.problem = rewound.or_else(problem).or(unavailable);
            self.meters.show_lane(&self.cell);
        } else if view.owner.is_none() || view.problem.is_some() {
            view.owner = Some(Arc::clone(&self.me));
            view.problem = None;
        }
    }

    /// Answers all that waits: this process will not write it.
    fn end(&mut self) {
        let now = self.shared.now();
        let text = "this process is going away; connect again";
        let mut lane = self.cell.lane.lock();
        lane.set_unavailable(Some(Refusal::new(ErrorCode::ShuttingDown, text)));
        lane.expire(Now { mono: Duration::MAX, ..now });
        self.outbox.append(&mut lane.answers());
        drop(lane);
        deliver(std::mem::take(&mut self.outbox));
    }
}

impl Drop for Actor {
    /// Also after a panic: nobody waits for an answer of a task that is gone, and no gateway takes this
    /// one for the partition's owner.
    fn drop(&mut self) {
        self.end();
        self.cell.view.lock().ended = true;
        if std::thread::panicking() {
            self.shared.owned_changed(&self.cell, None);
        }
    }
}

impl Shared {
    /// Notes in heartbeats and for lanes that this gateway owns the partition now, or not any longer.
    fn owned_changed(&self, cell: &Cell, owned: Option<(Epoch, FrameSeq)>) {
        let mut view = cell.view.lock();
        if let Some((epoch, claim)) = owned {
            (view.role, view.epoch, view.claim) = (Role::Owner, Some(epoch), claim);
        } else {
            view.role = Role::Follower;
            if let Some(epoch) = view.epoch {
                let gateway = Arc::from(&*self.config.gateway);
                let mine = Claim { gateway, epoch, seq: view.claim };
                self.members.lock().note_end(cell.partition, &mine);
            }
        }
        drop(view);
        self.beat_now.notify_one();
    }
}

/// The future's output; never, while there is none.
async fn or_pending<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
