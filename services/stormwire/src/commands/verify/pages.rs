//! Rows and frames of a partition, ascending, page by page.

use crate::failure::Failure;
use std::collections::VecDeque;
use stormwire_archive::{Archive, Gap, LedgerEntry, StoredEvent};
use stormwire_core::{Epoch, FrameSeq, Offset, Partition, Position};
use stormwire_journal::{Journal, StoredFrame};
use stormwire_wire::frame::{Body, Frame};

/// Bounds of one page.
const ROWS: usize = 2000;
const FRAMES: usize = 256;
const BYTES: usize = 8 << 20;

/// The archive's events of a partition.
pub(super) struct Rows<'a> {
    archive: &'a dyn Archive,
    partition: Partition,
    /// Behind which the next page begins, and where the last one ends.
    after: Position,
    to: Position,
    ahead: VecDeque<StoredEvent>,
    done: bool,
    missing: Vec<Gap>,
}

impl<'a> Rows<'a> {
    /// Everything from `from` through `to`.
    pub(super) fn new(
        archive: &'a dyn Archive,
        partition: Partition,
        from: Position,
        to: Position,
    ) -> Self {
        let after = Position { offset: Offset(from.offset.0.saturating_sub(1)), ..from };
        let (ahead, missing) = (VecDeque::new(), Vec::new());
        Self { archive, partition, after, to, ahead, done: false, missing }
    }

    /// The next one, if it is below `bound`.
    pub(super) async fn next_below(
        &mut self,
        bound: Position,
    ) -> Result<Option<StoredEvent>, Failure> {
        self.fill().await?;
        if self.ahead.front().is_some_and(|row| row.position < bound) {
            return Ok(self.ahead.pop_front());
        }
        Ok(None)
    }

    /// Those that stand before the end of this frame and were not taken yet.
    pub(super) async fn of_frame(
        &mut self,
        epoch: Epoch,
        seq: FrameSeq,
    ) -> Result<Vec<StoredEvent>, Failure> {
        let bound = Position { epoch, offset: Offset::new(seq + 1, 0) };
        let mut rows = Vec::new();
        while let Some(row) = self.next_below(bound).await? {
            rows.push(row);
        }
        Ok(rows)
    }

    /// What is known to be missing so far.
    pub(super) fn missing(&self) -> &[Gap] {
        &self.missing
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        while self.ahead.is_empty() && !self.done {
            // Whatever the journal has: the archive alone is asked.
            let page = self.archive.history_of_prefix(
                self.partition,
                "",
                self.after,
                ROWS,
                BYTES,
                Position { epoch: Epoch::FIRST, offset: Offset(0) },
            );
            let page = page.await.map_err(Failure::unavailable)?;
            for gap in page.gaps {
                if !self.missing.contains(&gap) {
                    self.missing.push(gap);
                }
            }
            self.done = !page.more;
            if let Some(last) = page.events.last() {
                self.after = last.position;
            }
            self.done |= page.events.is_empty() || self.after > self.to;
            let to = self.to;
            self.ahead.extend(page.events.into_iter().filter(|row| row.position <= to));
        }
        Ok(())
    }
}

/// The journal's frames of a partition, through the ledger.
pub(super) struct Journalled<'a> {
    journal: &'a dyn Journal,
    partition: Partition,
    epoch: Epoch,
    seq: FrameSeq,
    ledger: LedgerEntry,
    ahead: VecDeque<StoredFrame>,
}

impl<'a> Journalled<'a> {
    pub(super) fn new(
        journal: &'a dyn Journal,
        partition: Partition,
        from: Position,
        ledger: LedgerEntry,
    ) -> Self {
        let (epoch, seq) = (from.epoch, from.offset.seq().max(1));
        Self { journal, partition, epoch, seq, ledger, ahead: VecDeque::new() }
    }

    /// The next frame that is there.
    pub(super) async fn next(&mut self) -> Result<Option<StoredFrame>, Failure> {
        loop {
            if let Some(frame) = self.ahead.pop_front() {
                (self.epoch, self.seq) = (frame.epoch, frame.seq + 1);
                if let Ok(Frame { body: Body::Close { next, first_seq, .. }, .. }) =
                    Frame::decode(&frame.bytes)
                {
                    (self.epoch, self.seq) = (next, first_seq);
                    self.ahead.clear();
                }
                return Ok(Some(frame));
            }
            if (self.epoch, self.seq) > (self.ledger.epoch, self.ledger.last_seq) {
                return Ok(None);
            }
            let read = self.journal.read(self.partition, self.epoch, self.seq, FRAMES, BYTES);
            let frames = read.await.map_err(Failure::unavailable)?;
            let last = (self.ledger.epoch, self.ledger.last_seq);
            self.ahead.extend(frames.into_iter().filter(|frame| (frame.epoch, frame.seq) <= last));
            if self.ahead.is_empty() {
                return Ok(None);
            }
        }
    }
}
