//! What happened in one run, or in all.

use std::fmt;

/// What happened in one run, or in all.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) acknowledged: usize,
    pub(crate) duplicates: usize,
    pub(crate) fenced: usize,
    pub(crate) unknown: usize,
    pub(crate) late: usize,
    pub(crate) out_of_order: usize,
    pub(crate) forgotten: usize,
    pub(crate) frames: usize,
    pub(crate) saved: usize,
    pub(crate) loaded: usize,
    pub(crate) trimmed: usize,
    pub(crate) rewinds: usize,
    pub(crate) found: usize,
    pub(crate) epochs: usize,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.duplicates += other.duplicates;
        self.fenced += other.fenced;
        self.unknown += other.unknown;
        self.late += other.late;
        self.out_of_order += other.out_of_order;
        self.forgotten += other.forgotten;
        self.frames += other.frames;
        self.saved += other.saved;
        self.loaded += other.loaded;
        self.trimmed += other.trimmed;
        self.rewinds += other.rewinds;
        self.found += other.found;
        self.epochs += other.epochs;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
