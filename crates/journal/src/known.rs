//! What is known of a log from outside of it, against which it is held (rule E1).

use stormwire_core::{Epoch, FrameSeq};
use stormwire_wire::frame::FrameId;

/// Frames that were in a partition's log: a log that does not have them has gone back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest frame that this process has written, read or been told of.
    seen: Option<(Epoch, FrameSeq)>,
    /// The highest one of which it is known who wrote it.
    kept: Option<(Epoch, FrameSeq, FrameId)>,
}

impl Known {
    /// Frame `seq` of `epoch` was there.
    pub fn saw(&mut self, epoch: Epoch, seq: FrameSeq) {
        self.seen = self.seen.max(Some((epoch, seq)));
    }

    /// Frame `seq` of `epoch` was there, written by `id`: the archive says so, or a saved table.
    pub fn keep(&mut self, epoch: Epoch, seq: FrameSeq, id: FrameId) {
        self.saw(epoch, seq);
        if self.kept.is_none_or(|(of, known, _)| (of, known) < (epoch, seq)) {
            self.kept = Some((epoch, seq, id));
        }
    }

    /// Takes over what `other` knows.
    pub(crate) fn learn(&mut self, other: &Self) {
        if let Some((epoch, seq)) = other.seen {
            self.saw(epoch, seq);
        }
        if let Some((epoch, seq, id)) = other.kept {
            self.keep(epoch, seq, id);
        }
    }

    /// The highest frame that a log of `epoch` must have, if it must have one: also what later epochs
    /// have had, which cannot be there without it.
    pub(crate) fn due(&self, epoch: Epoch) -> FrameSeq {
        self.seen.filter(|(of, _)| *of >= epoch).map_or(0, |(_, seq)| seq)
    }

    /// A frame of `epoch` of which it is known who wrote it.
    pub(crate) fn kept(&self, epoch: Epoch) -> Option<(FrameSeq, FrameId)> {
        self.kept.filter(|(of, ..)| *of == epoch).map(|(_, seq, id)| (seq, id))
    }
}
