//! A journal whose live frames, pages and answers go wrong, around one that is right.

use super::World;
use crate::decorate::{AroundJournal, Decorated};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{AppendError, Journal, JournalError, StoredFrame, Tail, TailEvent, Tip};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Usual and longest time of a call.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(4);
/// Longest time that an old leader answers beside the new one, and shortest until that happens again.
const OLD_LEADER_MAX: Duration = Duration::from_millis(1_500);
const REIGN: Duration = Duration::from_secs(3);

/// Live frames are dropped, doubled, exchanged, held back; pages are short or have holes; calls fail or
/// take long, and what is answered late is old; now and then an old leader answers, whose log ends earlier
/// and who stores nothing any more. What is declared lost is not there at all, for nobody. An old leader
/// lasts less than 2 s.
pub struct FaultyJournal {
    journal: Arc<dyn Journal>,
    world: Arc<World>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: Vec<Weak<Queue>>,
    lost: BTreeSet<(Partition, Epoch, FrameSeq)>,
    old_leaders: HashMap<Partition, OldLeader>,
}

/// One that is cut off from the others and does not know it yet.
#[derive(Debug, Clone, Copy)]
struct OldLeader {
    until: Instant,
    epoch: Epoch,
    /// Where its log ends.
    last: FrameSeq,
    /// It answers also in a world that is healed.
    by_order: bool,
}

/// The live frames of one tail.
#[derive(Default)]
struct Queue {
    partitions: Vec<Partition>,
    events: Mutex<VecDeque<TailEvent>>,
    ended: AtomicBool,
    wake: Notify,
}

impl FaultyJournal {
    /// Around `journal`, which must be used through this alone.
    pub fn new(world: &Arc<World>, journal: Arc<dyn Journal>) -> Arc<Decorated<Self>> {
        let world = Arc::clone(world);
        Arc::new(Decorated(Self { journal, world, state: Mutex::default() }))
    }

    /// Writes a frame without any fault and tells the tails of it, with theirs. `lost`: no reader is
    /// ever to find it again.
    pub fn write(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
        frame: Bytes,
        lost: bool,
    ) -> StoredFrame {
        let journal = Arc::clone(&self.journal);
        let stored = self.world.engine(async move {
            journal.append(partition, epoch, seq - 1, frame).await?;
            Ok::<_, AppendError>(journal.frame(partition, epoch, seq).await)
        });
        let frame = stored.expect("a frame is taken").expect("an answer").expect("it is there");
        if lost {
            self.state.lock().lost.insert((partition, epoch, seq));
            return frame;
        }
        for queue in self.queues(partition) {
            self.tell(&queue, &frame);
        }
        frame
    }

    /// For as long as an old leader may last, one answers beside the new one whose log ends at `last`.
    pub fn cut_off(&self, partition: Partition, epoch: Epoch, last: FrameSeq) {
        let until = Instant::now() + OLD_LEADER_MAX;
        let leader = OldLeader { until, epoch, last, by_order: true };
        self.state.lock().old_leaders.insert(partition, leader);
    }

    fn queues(&self, partition: Partition) -> Vec<Arc<Queue>> {
        let mut state = self.state.lock();
        state.queues.retain(|queue| queue.strong_count() > 0);
        let queues = state.queues.iter().filter_map(Weak::upgrade);
        queues.filter(|queue| queue.partitions.contains(&partition)).collect()
    }

    fn tell(&self, queue: &Arc<Queue>, frame: &StoredFrame) {
        let world = &self.world;
        let event = TailEvent::Frame(frame.clone());
        if world.fault(0.08) {
            return;
        }
        let mut events = queue.events.lock();
        if world.fault(0.05) {
            events.push_back(event.clone());
        }
        match events.pop_back() {
            Some(last) if world.fault(0.08) => events.extend([event, last]),
            Some(last) => events.extend([last, event]),
            None => events.push_back(event),
        }
        if world.fault(0.02) {
            events.push_back(TailEvent::Check);
        }
        if world.fault(0.01) {
            queue.ended.store(true, Ordering::Relaxed);
        }
        drop(events);
        queue.wake.notify_one();
    }

    /// What every call may suffer before it is made.
    async fn before(&self, partition: Partition) -> Result<(), JournalError> {
        self.world.dawdle(if self.world.fault(0.02) { SLOW } else { QUICK }).await;
        if self.world.fault(0.05) {
            return Err(JournalError::Unavailable("a fault".to_owned()));
        }
        let may_change = self
            .state
            .lock()
            .old_leaders
            .get(&partition)
            .is_none_or(|leader| leader.until.elapsed() >= REIGN);
        if may_change && self.world.fault(0.05) {
            self.change_leader(partition)?;
        }
        Ok(())
    }

    /// What every answer may suffer on its way: it may be old when it comes.
    async fn after(&self) {
        self.world.dawdle(if self.world.fault(0.02) { SLOW } else { QUICK }).await;
    }

    fn change_leader(&self, partition: Partition) -> Result<(), JournalError> {
        let journal = Arc::clone(&self.journal);
        let tip = self.world.engine(async move { journal.tip(partition).await })?;
        let share = self.world.below(100) as f64 / 100.0;
        let leader = OldLeader {
            until: Instant::now() + OLD_LEADER_MAX.mul_f64(share),
            epoch: tip.epoch,
            last: tip.last.saturating_sub(self.world.below(6)),
            by_order: false,
        };
        self.state.lock().old_leaders.insert(partition, leader);
        // Who listens hears of the change, or does not.
        if self.world.chance(0.5) {
            for queue in self.queues(partition) {
                queue.events.lock().push_back(TailEvent::Check);
                queue.wake.notify_one();
            }
        }
        Ok(())
    }

    /// The old leader, if it is the one who answers now. Beside it the new one answers as well.
    fn old_leader(&self, partition: Partition) -> Option<OldLeader> {
        let leader = self.state.lock().old_leaders.get(&partition).copied();
        let healed = self.world.is_healed();
        let answers =
            |leader: &OldLeader| leader.until > Instant::now() && (leader.by_order || !healed);
        leader.filter(answers).filter(|_| !self.world.chance(0.3))
    }

    fn end(&self, partition: Partition, epoch: Epoch) -> FrameSeq {
        let leader = self.old_leader(partition).filter(|leader| leader.epoch == epoch);
        leader.map_or(FrameSeq::MAX, |leader| leader.last)
    }

    fn shorter(&self, tip: Tip, partition: Partition) -> Tip {
        Tip { last: tip.last.min(self.end(partition, tip.epoch)), ..tip }
    }

    fn is_there(&self, frame: &StoredFrame, end: FrameSeq) -> bool {
        let StoredFrame { partition, epoch, seq, .. } = *frame;
        let is_lost = self.state.lock().lost.contains(&(partition, epoch, seq));
        seq <= end && !is_lost
    }
}

impl Queue {
    async fn next(&self) -> Option<TailEvent> {
        loop {
            if let Some(event) = self.events.lock().pop_front() {
                return Some(event);
            }
            if self.ended.load(Ordering::Relaxed) {
                return None;
            }
            self.wake.notified().await;
        }
    }
}

#[async_trait]
impl AroundJournal for FaultyJournal {
    fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    fn make<'a, T: Send + 'static>(&'a self, call: BoxFuture<'static, T>) -> BoxFuture<'a, T> {
        Box::pin(std::future::ready(self.world.engine(call)))
    }

    fn stale_max(&self) -> Duration {
        OLD_LEADER_MAX
    }

    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let tip = self.world.engine(async move { journal.open(partition).await })?;
        let tip = self.shorter(tip, partition);
        self.after().await;
        Ok(tip)
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let tip = self.world.engine(async move { journal.tip(partition).await })?;
        let tip = self.shorter(tip, partition);
        self.after().await;
        Ok(tip)
    }

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let tips = self.world.engine(async move { journal.epochs(partition).await })?;
        let tips = tips.into_iter().map(|tip| self.shorter(tip, partition)).collect();
        self.after().await;
        Ok(tips)
    }

    async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        let before = self.before(partition).await;
        before.map_err(|error| AppendError::Refused(error.to_string()))?;
        if let Some(leader) = self.old_leader(partition).filter(|leader| leader.epoch == epoch) {
            self.after().await;
            // What it takes it cannot keep.
            return Err(if leader.last == expected_last {
                AppendError::Unknown("no answer".to_owned())
            } else {
                AppendError::WrongLast { expected: expected_last }
            });
        }
        let journal = Arc::clone(&self.journal);
        let append = async move { journal.append(partition, epoch, expected_last, frame).await };
        let stored = self.world.engine(append);
        self.after().await;
        stored
    }

    async fn read(
        &self,
        partition: Partition,
        epoch: Epoch,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let page = async move { journal.read(partition, epoch, from, frames, bytes).await };
        let mut page = self.world.engine(page)?;
        let end = self.end(partition, epoch);
        page.retain(|frame| self.is_there(frame, end));
        if self.world.fault(0.1) {
            page.truncate(usize::try_from(self.world.below(1 + page.len() as u64)).unwrap_or(0));
        }
        if self.world.fault(0.05) && !page.is_empty() {
            page.remove(usize::try_from(self.world.below(page.len() as u64)).unwrap_or(0));
        }
        self.after().await;
        Ok(page)
    }

    async fn frame(
        &self,
        partition: Partition,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Option<StoredFrame>, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let found = self.world.engine(async move { journal.frame(partition, epoch, seq).await })?;
        let end = self.end(partition, epoch);
        let found = found.filter(|frame| self.is_there(frame, end));
        self.after().await;
        Ok(found)
    }

    async fn tail(&self, partitions: &[Partition]) -> Result<Tail, JournalError> {
        for partition in partitions {
            self.before(*partition).await?;
        }
        let queue = Arc::new(Queue { partitions: partitions.to_vec(), ..Queue::default() });
        self.state.lock().queues.push(Arc::downgrade(&queue));
        let events = stream::unfold(queue, |queue| async move {
            let event = queue.next().await?;
            Some((event, queue))
        });
        Ok(events.boxed())
    }

    async fn trim(
        &self,
        partition: Partition,
        epoch: Epoch,
        through: FrameSeq,
    ) -> Result<(), JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move { journal.trim(partition, epoch, through).await })
    }

    async fn persisted(&self, _: Partition, _: Epoch, _: FrameSeq) {}
}
