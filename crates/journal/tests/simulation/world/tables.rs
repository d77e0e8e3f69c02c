//! Tables of producers on their way to the journal, and what it forgets.

use super::{Event, Trims, World};
use rand::Rng;
use stormwire_journal::SavedTable;

/// How often a claim may be misled about its table before it does without.
const MISLED_MAX: usize = 3;

/// A table that arrives.
pub(crate) struct Saving {
    table: SavedTable,
    how: How,
}

enum How {
    Whole,
    /// Another save has spoilt its parts: none is left.
    Torn,
    /// It replaces a newer one, in a store that does not look.
    Blind,
}

impl World {
    /// Gives a table to the journal, or loses it.
    pub(crate) fn save(&mut self, node: usize, table: SavedTable) {
        let life = self.nodes[node].life;
        let soon = self.now + self.rng.random_range(1..50);
        let late = self.now + self.rng.random_range(2000..12_000);
        let (how, arrives, done) = match self.rng.random_range(0..100) {
            _ if self.calm => (How::Whole, Some(soon), true),
            0..65 => (How::Whole, Some(soon), true),
            65..78 => (How::Whole, Some(late), false),
            78..88 => (How::Whole, None, false),
            88..94 => (How::Torn, Some(soon), true),
            _ => (How::Blind, Some(late), true),
        };
        if let Some(time) = arrives {
            self.at(time, Event::Saves(Saving { table, how }));
        }
        self.at(soon + 10, Event::Saved { node, life, done });
    }

    pub(crate) fn arrive(&mut self, Saving { table, how }: Saving) {
        self.summary.saved += 1;
        match how {
            How::Whole => self.log.save(table),
            How::Torn => {
                self.log.save(table);
                (self.log.table, self.log.misled) = (None, MISLED_MAX);
            }
            How::Blind => {
                let at = |table: &SavedTable| (table.epoch, table.through);
                if self.log.table.as_ref().is_some_and(|kept| at(kept) > at(&table)) {
                    self.log.misled = MISLED_MAX;
                }
                self.log.table = Some(table);
            }
        }
    }

    /// The journal forgets its oldest frames.
    pub(crate) fn trim(&mut self) {
        if self.log.is_told() {
            // The worker, which alone trims, has stopped.
            return;
        }
        let first = self.log.tip().first;
        let most = match self.trims {
            Trims::Nothing => return,
            Trims::Saved => self.log.saved_through,
            // No hand takes out the close that leads on from here, as no worker does: it keeps the last
            // frame that it has persisted.
            Trims::Wild => self.log.last() + u64::from(!self.log.is_closed()),
        };
        self.log.first = self.rng.random_range(first..=most.max(first));
        self.summary.trimmed += usize::from(self.log.first > first);
    }

    /// B7: with sound tables nothing is forgotten within the horizon, whatever was trimmed.
    pub(crate) fn may_forget(&self) {
        let trimmed = self.trims != Trims::Nothing;
        // E3: repeats do not reach over epochs.
        let may = self.tight || self.has_gone_on() || trimmed && self.says_less();
        assert!(may, "forgotten without a reason");
    }

    /// Whether owners may know less than the log once said: room was short, frames were taken out by hand,
    /// or tables were spoilt.
    pub(crate) fn says_less(&self) -> bool {
        let tables_say_less = self.trims == Trims::Wild || self.log.misled >= MISLED_MAX;
        self.tight || self.has_gone_on() || tables_say_less
    }
}
