//! Who is there, and what they tell each other without storing it: this gateway's side.
//!
//! One [`Part`] a partition. Who subscribes here stands in its [`Audience`]; who is there as a member in
//! its [`Roster`]. A task a part ([`keeper`]) holds the lease that the members hang on, reports who came
//! and went, at most every [`REPORT_EVERY`], takes out the members of gateways that died, and asks what has
//! changed in the channels that somebody here watches. It asks when it is told that something has
//! changed, and every [`TEND_EVERY`] in case that word was lost: what is told to subscribers never
//! rests on a message between gateways, only its haste does. [`ears`] hears those words, and signals.

mod audience;
mod ears;
mod keeper;
mod rendered;
#[cfg(test)]
mod tests;

pub(crate) use audience::shown;

use crate::outbox::Outbox;
use audience::{Audience, Listener};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stormwire_core::{Channel, ErrorCode, Partition, PartitionCount, Refusal};
use stormwire_presence::{
    LEASE, Member, MemberPage, Message, Presence, PresenceError, Roster, Sender, SignalMessage,
    Signals,
};
use stormwire_telemetry::{Tasks, metrics as names};
use stormwire_wire::protocol::Payload;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// How often leases are renewed, dead ones swept, and watched channels looked at. Those of a killed gateway
/// are told as left within a lease, this once or twice, and a little.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Joins and leaves of so long are reported at once.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long a question waits for what happened here before it to be reported.
const REPORTED_WITHIN: Duration = Duration::from_millis(500);
/// How long the first subscriber of a partition waits for the ears to open.
const EARS_WITHIN: Duration = Duration::from_millis(500);
/// When to try again while the engine is away.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

const _: () = assert!(LEASE.as_secs() + 2 * TEND_EVERY.as_secs() + 1 < 10);

/// One partition's side of it.
#[derive(Debug)]
struct Part {
    partition: Partition,
    audience: Mutex<Audience>,
    roster: Mutex<Roster>,
    /// Wakes the part's task.
    work: Notify,
    /// Somebody waits for the next report.
    hurry: AtomicBool,
    /// Told after each report.
    reported: Notify,
    /// Tells the ears that somebody listens.
    wanted: Notify,
    /// Whether signals are heard.
    ears: watch::Sender<bool>,
    /// The engine did not answer the last call.
    away: AtomicBool,
}

impl Part {
    fn new(partition: Partition) -> Self {
        Self {
            partition,
            audience: Mutex::default(),
            roster: Mutex::default(),
            work: Notify::new(),
            hurry: AtomicBool::new(false),
            reported: Notify::new(),
            wanted: Notify::new(),
            ears: watch::channel(false).0,
            away: AtomicBool::new(false),
        }
    }
}

struct Shared {
    presence: Arc<dyn Presence>,
    signals: Arc<dyn Signals>,
    /// This gateway's name, which its lives' names begin with.
    gateway: String,
    /// Tells this process's signals from others'.
    process: u64,
    partitions: PartitionCount,
    parts: Box<[Part]>,
    /// There are other gateways whose members this engine does not know.
    sees_own_only: bool,
}

/// All partitions. Clones are the same.
#[derive(Clone)]
pub(crate) struct Rooms {
    shared: Arc<Shared>,
}

/// A page of members, and whether some may be missing from it.
#[derive(Debug)]
pub(crate) struct KnownPage {
    pub(crate) page: MemberPage,
    pub(crate) partial: bool,
}

impl Rooms {
    /// Begins to hold leases, and to listen where somebody listens. `alone`: there are no other gateways.
    pub(crate) fn start(
        presence: Arc<dyn Presence>,
        signals: Arc<dyn Signals>,
        gateway: String,
        partitions: PartitionCount,
        alone: bool,
        tasks: &Tasks,
    ) -> Self {
        let sees_own_only = !presence.is_shared() && !alone;
        let parts = partitions.all().map(Part::new).collect();
        let process = rand::random();
        let shared = Arc::new(Shared {
            presence,
            signals,
            gateway,
            process,
            partitions,
            parts,
            sees_own_only,
        });
        for at in 0..shared.parts.len() {
            tasks.spawn("presence", keeper::run(Arc::clone(&shared), at, tasks.token()));
            tasks.spawn("signals", ears::run(Arc::clone(&shared), at, tasks.token()));
        }
        Self { shared }
    }

    /// A connection has subscribed to `channel`: it is told signals from now on, and as `member`, if it is
    /// one, who comes and goes. Returns when signals are heard, unless that takes too long.
    pub(crate) async fn enter(
        &self,
        channel: &Channel,
        connection: u64,
        outbox: &Arc<Outbox>,
        member: Option<&Member>,
    ) {
        let part = self.part(channel);
        let listener = Listener::new(connection, Arc::clone(outbox), member.is_some());
        part.audience.lock().add(channel, listener);
        if let Some(member) = member {
            part.roster.lock().join(channel, member);
            part.work.notify_one();
        }
        self.hear(part).await;
    }

    /// The connection has ended its subscription.
    pub(crate) fn leave(&self, channel: &Channel, connection: u64, member: Option<&Member>) {
        let part = self.part(channel);
        part.audience.lock().remove(channel, connection);
        self.part_with(part, channel, member);
    }

    /// The connection stays subscribed and is no longer a member.
    pub(crate) fn withdraw(&self, channel: &Channel, connection: u64, member: &Member) {
        let part = self.part(channel);
        part.audience.lock().unwatch(channel, connection);
        self.part_with(part, channel, Some(member));
    }

    fn part_with(&self, part: &Part, channel: &Channel, member: Option<&Member>) {
        if let Some(member) = member {
            part.roster.lock().leave(channel, member);
            part.work.notify_one();
        }
    }

    /// A page of a channel's members behind `after`, with everybody who came to this gateway before.
    pub(crate) async fn page(
        &self,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<KnownPage, Refusal> {
        let part = self.part(channel);
        let deadline = Instant::now() + REPORTED_WITHIN;
        loop {
            let reported = part.reported.notified();
            tokio::pin!(reported);
            reported.as_mut().enable();
            if !part.roster.lock().is_waiting() || part.away.load(Ordering::Relaxed) {
                break;
            }
            part.hurry.store(true, Ordering::Release);
            part.work.notify_one();
            if timeout_at(deadline, reported).await.is_err() {
                break;
            }
        }
        let page = self.shared.presence.page(part.partition, channel, after, limit).await;
        let page = page.map_err(|error| unavailable(&error))?;
        let partial = self.shared.sees_own_only || !page.settled;
        Ok(KnownPage { page, partial })
    }

    /// Tells `data` to the channel's subscribers on every gateway, except `connection` of this one.
    pub(crate) async fn signal(
        &self,
        channel: &Channel,
        connection: u64,
        from: &str,
        data: Payload<'_>,
    ) -> Result<(), Refusal> {
        let (data, binary) = match data {
            Payload::Json(text) => (text.into_owned().into_bytes(), false),
            Payload::Binary(bytes) => (bytes.into_owned(), true),
        };
        let message = Message::Signal(SignalMessage {
            sender: Sender { process: self.shared.process, connection },
            channel: channel.clone(),
            from: from.into(),
            data: data.into(),
            binary,
        });
        let sent = self.shared.signals.send(self.part(channel).partition, message.encode()).await;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        metrics::counter!(names::SIGNALS, "outcome" => outcome).increment(1);
        sent.map_err(|error| {
            let message = format!("{error}; nobody was told, try again");
            Refusal::new(ErrorCode::PresenceUnavailable, message).retry_after(COME_BACK_AFTER)
        })
    }

    /// What is missing now, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let away = self.shared.parts.iter().any(|part| part.away.load(Ordering::Relaxed));
        match self.shared.signals.check() {
            _ if away => Some("away: who is there is not known, nobody is told of changes".into()),
            Err(error) => Some(error.to_string()),
            Ok(()) => None,
        }
    }

    fn part(&self, channel: &Channel) -> &Part {
        &self.shared.parts[usize::from(channel.partition(self.shared.partitions).0)]
    }

    async fn hear(&self, part: &Part) {
        let mut ears = part.ears.subscribe();
        if *ears.borrow() || self.shared.signals.check().is_err() {
            part.wanted.notify_one();
            return;
        }
        part.wanted.notify_one();
        let open = ears.wait_for(|open| *open);
        // Signals are at most once; who waited long enough goes on without.
        let _ = tokio::time::timeout(EARS_WITHIN, open).await;
    }
}

/// The refusal of a question that the engine does not answer.
fn unavailable(error: &PresenceError) -> Refusal {
    let message = format!("{error}; try again");
    Refusal::new(ErrorCode::PresenceUnavailable, message).retry_after(COME_BACK_AFTER)
}
