//! B7: saving the table of producers.

use super::{Appender, Owner, State};
use crate::port::SavedTable;
use std::time::Duration;
use stormwire_core::FrameSeq;

/// B7: how often the table is saved.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// After a claim, and after a save that failed, it is saved sooner.
const SAVE_SOON: Duration = Duration::from_secs(1);

/// When the table is saved.
#[derive(Debug)]
pub(super) struct Saves {
    /// The last frame that a saved table counts; 0 if none is known of.
    through: FrameSeq,
    /// The last frame that the table under way counts.
    under_way: Option<FrameSeq>,
    next: Duration,
}

impl Saves {
    /// After a claim.
    pub(super) fn since(now: Duration) -> Self {
        Self { through: 0, under_way: None, next: now + SAVE_SOON }
    }
}

impl<O> Appender<O> {
    /// The table, when it is to be saved: a pure function of the log up to its last frame, so that a late
    /// write is only older. Each is followed by [`Appender::saved`].
    pub fn table_to_save(&mut self, now: Duration) -> Option<SavedTable> {
        let State::Owner(owner) = &mut self.state else { return None };
        let due = owner.saves.under_way.is_none() && now >= owner.saves.next;
        if !due || owner.last == owner.saves.through {
            return None;
        }
        owner.saves.under_way = Some(owner.last);
        owner.saves.next = now + SAVE_EVERY;
        Some(owner.table())
    }

    /// Whether the table under way was saved.
    pub fn saved(&mut self, now: Duration, done: bool) {
        let State::Owner(owner) = &mut self.state else { return };
        let Some(through) = owner.saves.under_way.take() else { return };
        if done {
            owner.saves.through = owner.saves.through.max(through);
        } else {
            owner.saves.next = now + SAVE_SOON;
        }
    }
}

impl Owner {
    /// The table as it is now.
    pub(super) fn table(&self) -> SavedTable {
        let (epoch, through) = (self.epoch, self.last);
        SavedTable { epoch, through, bytes: self.repeats.image(self.last_id) }
    }

    /// The same, unless it was saved like that.
    pub(super) fn unsaved_table(&self) -> Option<SavedTable> {
        (self.last > self.saves.through).then(|| self.table())
    }
}
