//! Receipts of the archive: a publish that asked for one is answered when the archive has its events.
//!
//! Its acknowledgement by the journal comes first and is kept here until the ledger of the partition
//! covers it. While anybody waits, one task asks for the ledgers of those partitions, all in one
//! question; when nobody does, nothing is asked. What became a dead letter is told with the answer.

use crate::hub::after_frame;
use crate::ingest::{Answers, Published};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{Archive, ArchiveError, MISSING_MAX, Missing};
use stormwire_core::{
    Channel, Epoch, ErrorCode, Offset, Partition, PartitionCount, Position, Refusal,
};
use stormwire_telemetry::Tasks;
use tokio::time::{Instant, sleep};

/// Longest wait behind the journal's acknowledgement.
pub(crate) const RECEIPT_WITHIN: Duration = Duration::from_secs(15);
/// Most publishes of this process that may wait.
const WAITING_MAX: usize = 65_536;
/// Bounds of the pause between two questions; it grows while no ledger moves.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Who waits for the archive.
pub(crate) struct Receipts {
    archive: Arc<dyn Archive>,
    partitions: PartitionCount,
    tasks: Tasks,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By partition and last position; the number tells two of one place apart.
    by_place: BTreeMap<(Partition, Position, u64), Waiter>,
    next: u64,
    /// Whether somebody asks.
    is_watched: bool,
}

struct Waiter {
    channel: Channel,
    events: usize,
    published: Published,
    ticket: u64,
    answers: Arc<dyn Answers>,
    until: Instant,
}

/// Takes the journal's answers of one publish, and gives on what the archive makes of them.
struct InArchive {
    receipts: Arc<Receipts>,
    channel: Channel,
    events: usize,
    answers: Arc<dyn Answers>,
}

impl Answers for InArchive {
    fn answer(&self, ticket: u64, answer: Result<Published, Refusal>) {
        let published = match answer {
            Ok(published) => published,
            Err(refusal) => return self.answers.answer(ticket, Err(refusal)),
        };
        let waiter = Waiter {
            channel: self.channel.clone(),
            events: self.events,
            published,
            ticket,
            answers: Arc::clone(&self.answers),
            until: Instant::now() + RECEIPT_WITHIN,
        };
        self.receipts.wait(waiter);
    }
}

impl Receipts {
    pub(crate) fn new(archive: Arc<dyn Archive>, partitions: PartitionCount, tasks: Tasks) -> Self {
        Self { archive, partitions, tasks, waiting: Mutex::default() }
    }

    /// Answers for one publish of so many events: `answers` hears of it when the archive has them.
    pub(crate) fn of_archive(
        self: &Arc<Self>,
        channel: Channel,
        events: usize,
        answers: Arc<dyn Answers>,
    ) -> Arc<dyn Answers> {
        Arc::new(InArchive { receipts: Arc::clone(self), channel, events, answers })
    }

    fn wait(self: &Arc<Self>, waiter: Waiter) {
        let place = waiter.place(self.partitions);
        let (full, watch) = {
            let mut waiting = self.waiting.lock();
            if waiting.by_place.len() >= WAITING_MAX {
                (Some(waiter), false)
            } else {
                let number = waiting.next;
                waiting.next += 1;
                waiting.by_place.insert((place.0, place.1, number), waiter);
                (None, !std::mem::replace(&mut waiting.is_watched, true))
            }
        };
        if let Some(waiter) = full {
            waiter.refuse();
        }
        if watch {
            let receipts = Arc::clone(self);
            self.tasks.spawn("receipts", async move { receipts.watch().await });
        }
    }

    /// Asks until nobody waits any more.
    async fn watch(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            sleep(pause).await;
            self.refuse_late();
            let Some(partitions) = self.asked_for() else { return };
            let settled = match self.archive.ledgers(&partitions).await {
                Ok(ledgers) => {
                    let mut settled = false;
                    for (partition, entry) in ledgers {
                        let through = after_frame(entry.epoch, entry.last_seq);
                        settled |= self.settle(partition, through).await;
                    }
                    settled
                }
                Err(error) => {
                    tracing::debug!(error = %error, "the ledgers cannot be read; receipts wait");
                    false
                }
            };
            pause = if settled { PAUSE_MIN } else { (pause * 3 / 2).min(PAUSE_MAX) };
        }
    }

    /// The partitions that somebody waits for; without any the watch is over.
    fn asked_for(&self) -> Option<Vec<Partition>> {
        let mut waiting = self.waiting.lock();
        let partitions: BTreeSet<Partition> =
            waiting.by_place.keys().map(|(partition, ..)| *partition).collect();
        waiting.is_watched = !partitions.is_empty();
        waiting.is_watched.then(|| partitions.into_iter().collect())
    }

    fn refuse_late(&self) {
        let now = Instant::now();
        let late: Vec<Waiter> = {
            let mut waiting = self.waiting.lock();
            let late = waiting.by_place.extract_if(.., |_, waiter| waiter.until <= now);
            late.map(|(_, waiter)| waiter).collect()
        };
        late.into_iter().for_each(Waiter::refuse);
    }

    /// Answers everybody whose events the ledger covers; whether there was anybody.
    async fn settle(&self, partition: Partition, through: Position) -> bool {
        let covered: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let range = (partition, Position { epoch: Epoch(0), offset: Offset(0) }, 0)
                ..=(partition, through, u64::MAX);
            waiting.by_place.extract_if(range, |_, _| true).collect()
        };
        let firsts = covered.iter().map(|(_, waiter)| waiter.first());
        let (Some(from), Some(to)) = (firsts.min(), covered.last().map(|((_, to, _), _)| *to))
        else {
            return false;
        };
        match self.missing(partition, from, to).await {
            Ok(missing) => {
                covered.into_iter().for_each(|(_, waiter)| waiter.answer(&missing));
                true
            }
            Err(error) => {
                tracing::debug!(error = %error, "dead letters cannot be read; receipts wait");
                self.waiting.lock().by_place.extend(covered);
                false
            }
        }
    }

    async fn missing(
        &self,
        partition: Partition,
        mut from: Position,
        to: Position,
    ) -> Result<Vec<Missing>, ArchiveError> {
        let mut all = Vec::new();
        loop {
            let page = self.archive.missing(partition, from, to).await?;
            let is_last = page.len() < MISSING_MAX;
            all.extend(page);
            match all.last() {
                Some(last) if !is_last => {
                    let offset = Offset(last.gap.from.0 + 1);
                    from = Position { epoch: last.gap.epoch, offset };
                }
                _ => return Ok(all),
            }
        }
    }
}

impl Waiter {
    fn place(&self, partitions: PartitionCount) -> (Partition, Position) {
        let Published { epoch, last, .. } = self.published;
        (self.channel.partition(partitions), Position { epoch, offset: last })
    }

    const fn first(&self) -> Position {
        Position { epoch: self.published.epoch, offset: self.published.first }
    }

    fn answer(self, missing: &[Missing]) {
        let Published { epoch, first, last, .. } = self.published;
        let mine = missing.iter().filter(|missing| {
            missing.gap.epoch == epoch
                && missing.channel.as_deref().is_none_or(|name| name == self.channel.as_str())
        });
        let lost = mine.map(|Missing { gap, .. }| {
            let (from, to) = (gap.from.max(first), gap.to.min(last));
            (to.0 + 1).saturating_sub(from.0)
        });
        // Offsets of two frames are far apart; there are no more events than were published.
        let lost = lost.sum::<u64>().min(self.events as u64);
        let dead_letters = u32::try_from(lost).unwrap_or(u32::MAX);
        self.answers.answer(self.ticket, Ok(Published { dead_letters, ..self.published }));
    }

    fn refuse(self) {
        let Published { epoch, first, .. } = self.published;
        let text = format!(
            "the events are durable in the journal at {epoch}:{first} and will be stored, but the \
             archive does not have them yet; sent again as a repeat the publish is answered when it has"
        );
        let refusal = Refusal::new(ErrorCode::ArchiveUnavailable, text);
        self.answers.answer(self.ticket, Err(refusal.retry_after(Duration::from_secs(2))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::SystemClock;
    use stormwire_embedded::{Embedded, EmbeddedConfig};
    use stormwire_testkit::Folder;
    use tokio::sync::mpsc;

    struct Heard(mpsc::Sender<(u64, Result<Published, Refusal>)>);

    impl Answers for Heard {
        fn answer(&self, ticket: u64, answer: Result<Published, Refusal>) {
            let _ = self.0.try_send((ticket, answer));
        }
    }

    #[tokio::test]
    async fn who_waits_for_an_archive_that_stays_behind_is_told_after_15_seconds_and_not_before() {
        let folder = Folder::temporary("receipts").unwrap();
        let file = folder.path().join("stormwire.db");
        let clock = Arc::new(SystemClock);
        let engine = Embedded::open(file, EmbeddedConfig::default(), clock).await.unwrap();
        let (partitions, tasks) = (PartitionCount::DEFAULT, Tasks::new());
        let receipts = Arc::new(Receipts::new(engine.archive(), partitions, tasks));
        let (heard, mut answers) = mpsc::channel(1);
        let channel = Channel::parse("a:x").unwrap();
        let waiting = receipts.of_archive(channel, 1, Arc::new(Heard(heard)));
        // The clock jumps whenever everybody waits. Whether the archive answers in time then does not
        // matter: it has nothing.
        tokio::time::pause();
        let since = Instant::now();
        let at = Offset::new(1, 0);
        let (epoch, duplicate, dead_letters) = (Epoch::FIRST, false, 0);
        let published = Published { epoch, first: at, last: at, duplicate, dead_letters };
        waiting.answer(7, Ok(published));
        let (ticket, answer) = answers.recv().await.unwrap();
        let refusal = answer.unwrap_err();
        assert_eq!((ticket, refusal.code), (7, ErrorCode::ArchiveUnavailable));
        assert!(refusal.message.contains("durable in the journal at 1:4096"), "{refusal}");
        assert!(since.elapsed() >= RECEIPT_WITHIN, "{:?}", since.elapsed());
        assert!(since.elapsed() < RECEIPT_WITHIN * 2, "{:?}", since.elapsed());
        assert_eq!(receipts.waiting.lock().by_place.len(), 0);
        engine.close().await;
    }
}
