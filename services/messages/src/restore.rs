//! Frames that were copied from a journal, stored behind an archive's ledger by the rules by which a
//! worker stores them: each once, in order, without a hole, the ledger in the same transaction.

use crate::plan::{Pending, Place, Prepared, Stop};
use stormwire_archive::{Archive, ArchiveError, Lease, PersistError};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_journal::StoredFrame;

/// A batch is closed at so many events …
const BATCH_EVENTS: usize = 10_000;
/// … or so many bytes of frames.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Why copied frames cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive does not answer.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It did not take a batch; what came before is stored.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The copy is not one: what comes next is not there.
    #[error(
        "the copy of partition {partition} lacks frame {due} of epoch {epoch}: {found} comes instead"
    )]
    Hole {
        /// Whose copy.
        partition: Partition,
        /// The incarnation that is being read.
        epoch: Epoch,
        /// The frame that is due there.
        due: FrameSeq,
        /// What was found.
        found: String,
    },
    /// A frame that a newer program wrote.
    #[error(
        "frame {seq} of partition {partition} is of version {version}, which a newer program wrote"
    )]
    NewerVersion {
        /// Whose.
        partition: Partition,
        /// Its number.
        seq: FrameSeq,
        /// Its version.
        version: u8,
    },
}

/// Stores the copied frames of one partition.
pub struct Restore<'a> {
    archive: &'a dyn Archive,
    lease: &'a Lease,
    pending: Option<Pending>,
    /// What is stored so far.
    stored: Restored,
}

/// What became of copied frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Frames that the archive has now and had not before.
    pub frames: u64,
    /// Events of those.
    pub events: u64,
    /// Frames that it had already.
    pub known: u64,
}

impl<'a> Restore<'a> {
    /// Goes on behind the ledger of the lease's partition.
    ///
    /// # Errors
    /// [`RestoreError::Archive`].
    pub async fn begin(archive: &'a dyn Archive, lease: &'a Lease) -> Result<Self, RestoreError> {
        let ledger = archive.ledger(lease.partition).await?;
        let pending = ledger
            .map(|ledger| Pending::at(Place { epoch: ledger.epoch, next: ledger.last_seq + 1 }));
        Ok(Self { archive, lease, pending, stored: Restored::default() })
    }

    /// Takes the next frame of the copy, ascending. One that the archive has is left out.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn push(&mut self, frame: StoredFrame) -> Result<(), RestoreError> {
        let first = Place { epoch: frame.epoch, next: 1 };
        let place = self.pending.get_or_insert_with(|| Pending::at(first)).place();
        if (frame.epoch, frame.seq) < (place.epoch, place.next) {
            self.stored.known += 1;
            return Ok(());
        }
        if !self.offer(frame.clone()) {
            // The batch ends with its epoch, or is full; the frame begins the next one.
            self.persist().await?;
            if !self.offer(frame.clone()) {
                return Err(self.hole(&frame));
            }
        }
        if let Some(Stop::NewerVersion { seq, version }) = self.stop() {
            let partition = self.lease.partition;
            return Err(RestoreError::NewerVersion { partition, seq, version });
        }
        self.stored.frames += 1;
        Ok(())
    }

    /// Stores what is left, and says what became of all of them.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn finish(mut self) -> Result<Restored, RestoreError> {
        // Behind a close frame comes a step into the next epoch, which is a batch of its own.
        self.persist().await?;
        self.persist().await?;
        Ok(self.stored)
    }

    fn offer(&mut self, frame: StoredFrame) -> bool {
        self.pending.as_mut().is_some_and(|pending| {
            pending.has_room(BATCH_EVENTS, BATCH_BYTES) && pending.push(frame)
        })
    }

    fn stop(&self) -> Option<Stop> {
        self.pending.as_ref().and_then(Pending::stop)
    }

    fn hole(&self, frame: &StoredFrame) -> RestoreError {
        let first = Place { epoch: frame.epoch, next: 1 };
        let place = self.pending.as_ref().map_or(first, Pending::place);
        RestoreError::Hole {
            partition: self.lease.partition,
            epoch: place.epoch,
            due: place.next,
            found: format!("frame {} of epoch {}", frame.seq, frame.epoch),
        }
    }

    async fn persist(&mut self) -> Result<(), RestoreError> {
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_empty()) else {
            return Ok(());
        };
        let Prepared { batch, events, .. } = pending.take();
        self.archive.persist(self.lease, &batch).await?;
        self.stored.events += events as u64;
        Ok(())
    }
}
