//! Live fan-out: who on this gateway wants what, and the last frames of each partition.
//!
//! One [`Feed`] a partition. Its tail ([`crate::tail`]) hands it frames in order, each once; a
//! subscription is either *live* in a feed, and then gets everything from the position at which it
//! became live, or it is catching up and the feed does not know it. The change from one to the other
//! happens under the feed's lock, at a position that both sides name: that is the whole stitch.

mod audience;
mod subscription;

pub use subscription::Selection;
pub(crate) use subscription::{Subscription, Wide};

use crate::outbox::{Outbox, Parked};
use crate::render::Gathered;
use audience::Audiences;
pub(crate) use audience::{append, runs_by_channel};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{
    Channel, Clock, CloseCode, Epoch, FrameSeq, MAX_EVENTS_PER_FRAME, Offset, Partition,
    PartitionCount, Position, Timestamp,
};
use stormwire_telemetry::metrics as names;
use stormwire_wire::frame::{Events, Frame, FrameId};
use stormwire_wire::protocol::{Codec, Mode};
use tokio::sync::{Notify, watch};

/// Where a partition stands on this gateway: everything through frame `last` was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) epoch: Epoch,
    pub(crate) last: FrameSeq,
}

impl Standing {
    /// The position of somebody who has seen everything so far.
    pub(crate) const fn position(self) -> Position {
        after_frame(self.epoch, self.last)
    }
}

/// The position behind every event of frame `seq`.
pub(crate) const fn after_frame(epoch: Epoch, seq: FrameSeq) -> Position {
    #[expect(clippy::cast_possible_truncation, reason = "4095")]
    let last = (MAX_EVENTS_PER_FRAME - 1) as u16;
    Position { epoch, offset: Offset::new(seq, last) }
}

/// The first frame that can hold an event behind `position`.
pub(crate) const fn next_frame(position: Position) -> FrameSeq {
    let whole = position.offset.index() as usize == MAX_EVENTS_PER_FRAME - 1;
    if whole { position.offset.seq() + 1 } else { position.offset.seq() }
}

/// A frame of the partition's recent past.
#[derive(Debug, Clone)]
pub(crate) struct RecentFrame {
    pub(crate) seq: FrameSeq,
    pub(crate) ts: Timestamp,
    /// None in a claim.
    pub(crate) events: Option<Events>,
    pub(crate) bytes: usize,
}

/// What a subscription that catches up is told by the feed.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is live now (or was ended meanwhile).
    Live,
    /// The recent frames gave it this much; it stands at the position given now.
    Advanced(Position),
    /// Its position is older than the recent frames: the reader must help.
    Behind,
    /// Its position is above everything that the partition has.
    Above,
    /// The partition's tail does not run yet.
    NotReady,
}

#[derive(Debug, Default)]
struct State {
    standing: Option<Standing>,
    recent: VecDeque<RecentFrame>,
    recent_bytes: usize,
    /// Who wrote the frame at `standing`: should another stand there, the log has gone back.
    last_id: Option<FrameId>,
    audiences: Audiences,
}

/// One partition's live side.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) partition: Partition,
    state: Mutex<State>,
    /// Tells the tail that somebody waits for it.
    pub(crate) wanted: Notify,
    /// How many need the tail, live or catching up.
    users: AtomicUsize,
    /// Up to where every frame was sent to, or parked, all who are live.
    done: Mutex<Option<Standing>>,
    /// What the tail has reached, while it runs.
    reached: watch::Sender<Option<Standing>>,
    recent_bytes_max: usize,
    pace: Arc<Pace>,
}

/// Takes the time of deliveries, once there is a clock.
#[derive(Default)]
struct Pace(OnceLock<Arc<dyn Clock>>);

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pace").field(&self.0.get().is_some()).finish()
    }
}

impl Pace {
    /// A frame of `ts` is in the queues of whoever is live.
    fn delivered(&self, ts: Timestamp) {
        if let Some(clock) = self.0.get() {
            let seconds = clock.now().since(ts).as_secs_f64();
            metrics::histogram!(names::DELIVERY_SECONDS).record(seconds);
        }
    }
}

impl Feed {
    fn new(partition: Partition, recent_bytes_max: usize, pace: Arc<Pace>) -> Self {
        Self {
            partition,
            state: Mutex::default(),
            wanted: Notify::new(),
            users: AtomicUsize::new(0),
            done: Mutex::default(),
            reached: watch::channel(None).0,
            recent_bytes_max,
            pace,
        }
    }

    /// Asks for the partition's tail for as long as the answer is held.
    pub(crate) fn want(self: &Arc<Self>) -> Wanted {
        self.users.fetch_add(1, Ordering::AcqRel);
        self.wanted.notify_one();
        Wanted(Arc::clone(self))
    }

    /// Whether anybody needs the tail.
    pub(crate) fn is_wanted(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }

    /// Tells of every move of the tail.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Standing>> {
        self.reached.subscribe()
    }

    /// The tail runs from here on, or goes on in the next epoch with nothing lost: whoever is live stays
    /// so, and what was recent before is forgotten.
    pub(crate) fn start(&self, standing: Standing) {
        self.go_on(self.state.lock(), standing);
    }

    fn go_on(&self, mut state: MutexGuard<'_, State>, standing: Standing) {
        state.standing = Some(standing);
        state.recent.clear();
        (state.recent_bytes, state.last_id) = (0, None);
        *self.done.lock() = Some(standing);
        drop(state);
        self.reached.send_replace(Some(standing));
    }

    /// The tail stops: nobody is live here any more.
    pub(crate) fn stop(&self) {
        self.reached.send_replace(None);
        let mut state = self.state.lock();
        park_all(&mut state);
        *self.done.lock() = None;
        state.standing = None;
        state.recent.clear();
        state.recent_bytes = 0;
    }

    /// Up to where every frame was sent to, or parked, all who are live.
    fn done(&self) -> Option<Standing> {
        *self.done.lock()
    }

    /// Where the tail stands, while it runs.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.state.lock().standing
    }

    /// The tail could not follow: everybody live is parked where it stood, and the tail goes on behind
    /// `last`.
    pub(crate) fn skip_to(&self, standing: Standing) {
        let mut state = self.state.lock();
        park_all(&mut state);
        self.go_on(state, standing);
    }

    /// Who wrote the last frame that was delivered, where that is known.
    pub(crate) fn last_id(&self) -> Option<FrameId> {
        self.state.lock().last_id
    }

    /// This process cannot read the partition any further: its clients are to connect to one that can.
    pub(crate) fn move_away(&self) {
        for subscription in self.state.lock().audiences.drain() {
            let outbox = &subscription.outbox;
            outbox.close(CloseCode::Moving, "another server reads on; connect again");
        }
    }

    /// Puts frames of the past before the first recent one, so that short absences need no disk.
    pub(crate) fn prime(&self, frames: impl DoubleEndedIterator<Item = RecentFrame>) {
        let mut state = self.state.lock();
        let Some(standing) = state.standing else { return };
        for frame in frames.rev() {
            let due = state.recent.front().map_or(standing.last, |first| first.seq - 1);
            if frame.seq != due || state.recent_bytes + frame.bytes > self.recent_bytes_max {
                break;
            }
            state.recent_bytes += frame.bytes;
            state.recent.push_front(frame);
        }
    }

    /// Delivers the next frame to everybody who is live.
    pub(crate) fn deliver(&self, seq: FrameSeq, ts: Timestamp, frame: &Frame, bytes: usize) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(standing) = &mut state.standing else { return };
        debug_assert!(
            seq == standing.last + 1 || injected(Fault::ContiguityCheckOff),
            "the tail delivers without a hole"
        );
        let before = standing.position();
        standing.last = seq;
        state.last_id = Some(frame.id);
        let epoch = standing.epoch;
        let events = frame.events().cloned();
        if let Some(events) = events.as_ref().filter(|_| !state.audiences.is_empty()) {
            let place = Place { partition: self.partition, epoch, seq, ts, before };
            state.audiences.fan_out(events, &place);
            self.pace.delivered(ts);
        }
        state.recent_bytes += bytes;
        state.recent.push_back(RecentFrame { seq, ts, events, bytes });
        while state.recent_bytes > self.recent_bytes_max {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.recent_bytes -= oldest.bytes;
        }
        *self.done.lock() = Some(Standing { epoch, last: seq });
        drop(guard);
        if self.reached.receiver_count() > 0 {
            self.reached.send_replace(Some(Standing { epoch, last: seq }));
        }
    }

    /// Moves a subscription that stands at `position` on: by what the recent frames hold, at most about
    /// `bytes` at a time, and to live when it has reached the tail.
    pub(crate) fn join(
        &self,
        subscription: &Arc<Subscription>,
        position: Position,
        bytes: usize,
    ) -> Joined {
        let mut state = self.state.lock();
        let Some(standing) = state.standing else { return Joined::NotReady };
        if position > standing.position() {
            return Joined::Above;
        }
        let mut at = position;
        if at < standing.position() {
            match self.replay(&state, standing, subscription, at, bytes) {
                None => return Joined::Behind,
                Some(reached) => at = reached,
            }
            if at < standing.position() {
                return Joined::Advanced(at);
            }
        }
        if subscription.is_cancelled() {
            return Joined::Live;
        }
        state.audiences.enter(subscription);
        Joined::Live
    }

    fn replay(
        &self,
        state: &State,
        standing: Standing,
        subscription: &Arc<Subscription>,
        from: Position,
        bytes: usize,
    ) -> Option<Position> {
        let first = state.recent.front()?.seq;
        let wanted = next_frame(from);
        if from.epoch != standing.epoch || wanted < first {
            return None;
        }
        let mut gathered = Gathered::new(subscription.codec);
        let skip = usize::try_from(wanted - first).unwrap_or(usize::MAX);
        let mut reached = standing.position();
        for frame in state.recent.iter().skip(skip) {
            let place = Place {
                partition: self.partition,
                epoch: standing.epoch,
                seq: frame.seq,
                ts: frame.ts,
                before: from,
            };
            let Some(events) = &frame.events else { continue };
            gathered.frame(events, &place, &subscription.selection);
            if gathered.bytes() >= bytes {
                reached = after_frame(standing.epoch, frame.seq);
                break;
            }
        }
        subscription.answer(gathered, reached);
        Some(reached)
    }

    /// Ends a subscription, live or not.
    pub(crate) fn leave(&self, subscription: &Subscription) {
        subscription.cancel();
        self.state.lock().audiences.leave(subscription);
    }

    /// Recent frames with what lies behind `from`, oldest first, if they reach back so far.
    pub(crate) fn recent(&self, from: Position) -> Option<(Standing, Vec<RecentFrame>)> {
        let state = self.state.lock();
        let standing = state.standing.filter(|standing| standing.epoch == from.epoch)?;
        if from >= standing.position() {
            return Some((standing, Vec::new()));
        }
        let first = state.recent.front()?.seq;
        let skip = usize::try_from(next_frame(from).checked_sub(first)?).ok()?;
        Some((standing, state.recent.iter().skip(skip).cloned().collect()))
    }

    /// All recent frames, oldest first, and where the feed stands.
    pub(crate) fn all_recent(&self) -> Option<(Standing, Vec<RecentFrame>)> {
        let state = self.state.lock();
        Some((state.standing?, state.recent.iter().cloned().collect()))
    }
}

/// A claim on a partition's tail; dropped when it is no longer needed.
#[derive(Debug)]
pub(crate) struct Wanted(Arc<Feed>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
        self.0.wanted.notify_one();
    }
}

/// The place of a frame whose events are being rendered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    pub(crate) seq: FrameSeq,
    pub(crate) ts: Timestamp,
    /// Where a subscription stands that is parked by this frame.
    pub(crate) before: Position,
}

fn park_all(state: &mut State) {
    let Some(standing) = state.standing else { return };
    let position = standing.position();
    for subscription in state.audiences.drain() {
        let outbox = Arc::clone(&subscription.outbox);
        outbox.park(Parked { subscription, position });
    }
}

/// All partitions of this gateway.
#[derive(Debug)]
pub(crate) struct Hub {
    feeds: Box<[Arc<Feed>]>,
    count: PartitionCount,
    next_id: AtomicU64,
    pace: Arc<Pace>,
}

impl Hub {
    /// Feeds for all partitions; each keeps up to `recent_bytes` of its last frames in memory.
    pub(crate) fn new(count: PartitionCount, recent_bytes: usize) -> Self {
        let pace = Arc::<Pace>::default();
        let feed = |p| Arc::new(Feed::new(p, recent_bytes, Arc::clone(&pace)));
        let feeds = count.all().map(feed).collect();
        Self { feeds, count, next_id: AtomicU64::new(1), pace }
    }

    /// Takes the time of deliveries by `clock`.
    pub(crate) fn measure(&self, clock: Arc<dyn Clock>) {
        let _ = self.pace.0.set(clock);
    }

    /// The feed of a channel's partition.
    pub(crate) fn feed(&self, channel: &Channel) -> &Arc<Feed> {
        &self.feeds[usize::from(channel.partition(self.count).0)]
    }

    /// How many partitions the cluster has.
    pub(crate) const fn partitions(&self) -> PartitionCount {
        self.count
    }

    /// Every feed.
    pub(crate) fn feeds(&self) -> &[Arc<Feed>] {
        &self.feeds
    }

    /// The feed of what a selection is about.
    pub(crate) fn feed_of(&self, selection: &Selection) -> &Arc<Feed> {
        match selection {
            Selection::Channel(channel) => self.feed(channel),
            Selection::Prefix(partition, _) => &self.feeds[usize::from(partition.0)],
        }
    }

    /// A new subscription, not live yet: it becomes so by [`Feed::join`].
    pub(crate) fn subscription(
        &self,
        (selection, wide): (Selection, Option<Arc<Wide>>),
        mode: Mode,
        codec: Codec,
        outbox: Arc<Outbox>,
    ) -> Arc<Subscription> {
        let wanted = self.feed_of(&selection).want();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Arc::new(Subscription::new(id, (selection, wide), mode, codec, outbox, wanted))
    }
}

#[cfg(test)]
mod tests;
