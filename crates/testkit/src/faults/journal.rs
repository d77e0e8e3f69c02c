//! A journal whose live frames, pages and answers go wrong, around one that is right.

use super::World;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::{
    AppendError, Journal, JournalError, SavedTable, StoredFrame, Tail, TailEvent, Tip,
};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Usual and longest time of a call.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(4);
/// Longest time that an old leader answers beside the new one, and shortest until that happens again.
const OLD_LEADER_MAX: Duration = Duration::from_millis(1_500);
const REIGN: Duration = Duration::from_secs(3);

/// Live frames are dropped, doubled, exchanged, held back; pages are short or have holes; calls fail or
/// take long; now and then an old leader answers, whose log ends earlier. What is declared lost is not
/// there at all, for nobody. An old leader lasts less than 2 s.
pub struct FaultyJournal {
    journal: Arc<dyn Journal>,
    world: Arc<World>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: Vec<Weak<Queue>>,
    lost: BTreeSet<(Partition, FrameSeq)>,
    /// Until when an old leader answers for a partition, and where its log ends.
    old_leader: HashMap<Partition, (Instant, FrameSeq)>,
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
    pub fn new(world: &Arc<World>, journal: Arc<dyn Journal>) -> Arc<Self> {
        Arc::new(Self { journal, world: Arc::clone(world), state: Mutex::default() })
    }

    /// Writes a frame without any fault and tells the tails of it, with theirs. `lost`: no reader is
    /// ever to find it again.
    pub fn write(&self, partition: Partition, seq: FrameSeq, frame: Bytes, lost: bool) {
        let journal = Arc::clone(&self.journal);
        let stored = self.world.engine(async move {
            journal.append(partition, Epoch::FIRST, seq - 1, frame).await?;
            Ok::<_, AppendError>(journal.frame(partition, Epoch::FIRST, seq).await)
        });
        let frame = stored.expect("a frame is taken").expect("an answer").expect("it is there");
        if lost {
            self.state.lock().lost.insert((partition, seq));
            return;
        }
        let queues: Vec<_> = self.state.lock().queues.iter().filter_map(Weak::upgrade).collect();
        for queue in queues.iter().filter(|queue| queue.partitions.contains(&partition)) {
            self.tell(queue, &frame);
        }
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
            .old_leader
            .get(&partition)
            .is_none_or(|(until, _)| until.elapsed() >= REIGN);
        if may_change && self.world.fault(0.05) {
            let tip = self.real_tip(partition)?;
            let short = tip.last.saturating_sub(self.world.below(6));
            let until =
                Instant::now() + OLD_LEADER_MAX.mul_f64(self.world.below(100) as f64 / 100.0);
            self.state.lock().old_leader.insert(partition, (until, short));
        }
        Ok(())
    }

    fn real_tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move { journal.tip(partition).await })
    }

    /// Where the log ends by the one who answers now. Beside an old leader the new one answers as well.
    fn end(&self, partition: Partition) -> FrameSeq {
        if self.world.is_healed() || self.world.chance(0.3) {
            return FrameSeq::MAX;
        }
        match self.state.lock().old_leader.get(&partition) {
            Some((until, last)) if *until > Instant::now() => *last,
            _ => FrameSeq::MAX,
        }
    }

    fn shorter(&self, partition: Partition, tip: Tip) -> Tip {
        Tip { last: tip.last.min(self.end(partition)), ..tip }
    }

    fn is_there(&self, frame: &StoredFrame, end: FrameSeq) -> bool {
        let is_lost = self.state.lock().lost.contains(&(frame.partition, frame.seq));
        frame.seq <= end && !is_lost
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
impl Journal for FaultyJournal {
    async fn open(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        let tip = self.world.engine(async move { journal.open(partition).await })?;
        Ok(self.shorter(partition, tip))
    }

    async fn tip(&self, partition: Partition) -> Result<Tip, JournalError> {
        self.before(partition).await?;
        let tip = self.real_tip(partition)?;
        Ok(self.shorter(partition, tip))
    }

    async fn append(
        &self,
        _: Partition,
        _: Epoch,
        _: FrameSeq,
        _: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        Err(AppendError::Refused("readers do not write: see FaultyJournal::write".to_owned()))
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
        let end = self.end(partition);
        page.retain(|frame| self.is_there(frame, end));
        if self.world.fault(0.1) {
            page.truncate(usize::try_from(self.world.below(1 + page.len() as u64)).unwrap_or(0));
        }
        if self.world.fault(0.05) && !page.is_empty() {
            page.remove(usize::try_from(self.world.below(page.len() as u64)).unwrap_or(0));
        }
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
        let end = self.end(partition);
        Ok(found.filter(|frame| self.is_there(frame, end)))
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

    // What no reader of frames asks goes straight through.

    async fn epochs(&self, partition: Partition) -> Result<Vec<Tip>, JournalError> {
        self.before(partition).await?;
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move { journal.epochs(partition).await })
    }

    async fn begin(
        &self,
        partition: Partition,
        epoch: Epoch,
        first: FrameSeq,
    ) -> Result<Tip, JournalError> {
        self.journal.begin(partition, epoch, first).await
    }

    async fn remove(&self, partition: Partition, epoch: Epoch) -> Result<(), JournalError> {
        self.journal.remove(partition, epoch).await
    }

    async fn save_table(
        &self,
        partition: Partition,
        table: SavedTable,
    ) -> Result<(), JournalError> {
        self.journal.save_table(partition, table).await
    }

    async fn load_table(&self, partition: Partition) -> Result<Option<SavedTable>, JournalError> {
        self.journal.load_table(partition).await
    }

    async fn saved_through(
        &self,
        partition: Partition,
    ) -> Result<Option<(Epoch, FrameSeq)>, JournalError> {
        let journal = Arc::clone(&self.journal);
        self.world.engine(async move { journal.saved_through(partition).await })
    }

    async fn persisted(&self, _: Partition, _: Epoch, _: FrameSeq) {}

    async fn ping(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
