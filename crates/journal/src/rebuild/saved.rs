//! B7: beginning with the table that was saved last.

use super::{RETRY, Rebuild, Step};
use crate::flight::Found;
use crate::port::SavedTable;
use crate::publish::Now;
use crate::repeats::Repeats;
use stormwire_wire::frame::Frame;

/// How often the saved table is asked for before the log is read without it.
pub(super) const LOADS_MAX: u32 = 3;

impl Rebuild {
    /// B7: a claim reads the table that was saved last and the frames behind it. A table that does not
    /// belong to this log as it is now is none.
    pub(super) fn load(&mut self, now: Now, table: Option<SavedTable>) {
        if let Some(table) = &table {
            self.known.saw(table.epoch, table.through);
        }
        let of_this_log =
            |table: &SavedTable| table.epoch == self.epoch && table.through >= self.first;
        let Some(table) = table.filter(of_this_log) else { return self.read_from_horizon(now) };
        if table.through > self.last {
            return self.load_again(now, "the table is ahead of the log");
        }
        match Repeats::from_image(&table.bytes, self.bytes_max) {
            Ok((repeats, id)) => {
                self.loaded = Some((table.through, id, repeats));
                self.step = Step::Compare;
            }
            Err(error) => {
                tracing::warn!(%error, "the saved table of producers cannot be used; the log is read");
                self.read_from_horizon(now);
            }
        }
    }

    /// Takes the loaded table if its last frame is the one in the log: it is not when the journal has gone
    /// back.
    pub(super) fn compared(&mut self, now: Now, found: &Found) {
        match (self.loaded.take(), found) {
            (Some((through, id, repeats)), Found::Frame(frame))
                if frame.seq == through
                    && Frame::peek_id(&frame.bytes).is_ok_and(|stored| stored == id) =>
            {
                self.repeats = repeats;
                self.written = Some(frame.ts);
                self.next = through + 1;
                self.step = Step::Read;
                self.finish_if_read(now);
            }
            (Some((through, ..)), Found::Absent(tip)) if tip.first <= through => {
                self.load_again(now, "the table's last frame is not there");
            }
            (Some(_), Found::Absent(_)) if self.load_anew() => {}
            (Some((through, id, _)), _) => {
                self.known.keep(self.epoch, through, id);
                self.read_from_horizon(now);
            }
            (None, _) => self.read_from_horizon(now),
        }
    }

    /// B7: what is trimmed while the log is read is in a table that was saved meanwhile; that one is asked
    /// for, a few times. `false`: no more.
    pub(super) fn load_anew(&mut self) -> bool {
        let loads = self.loads + 1;
        if loads < LOADS_MAX {
            *self = Self { loads, ..Self::new(self.bytes_max, self.reached()) };
        }
        loads < LOADS_MAX
    }

    /// Whoever has answered may be behind, so the log and its table are asked for again, a few times. The
    /// log says the same as the table, unless it was trimmed meanwhile: then less.
    pub(super) fn load_again(&mut self, now: Now, why: &str) {
        self.loads += 1;
        if self.loads >= LOADS_MAX {
            tracing::warn!(why, "the saved table of producers cannot be used; the log is read");
            return self.read_from_horizon(now);
        }
        self.step = Step::Open;
        self.not_before = now.mono + RETRY;
    }
}
