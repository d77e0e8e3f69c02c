//! The retry budget: first attempts put a fraction of a retry in, a retry takes a whole one out.

use std::sync::atomic::{AtomicU64, Ordering};

/// One retry, in the budget's unit.
const RETRY: u64 = 100;

#[derive(Debug)]
pub(crate) struct Budget {
    saved: AtomicU64,
    earned: u64,
    most: u64,
}

impl Budget {
    /// Starts full: a process that has just begun may retry.
    pub(crate) fn new(percent: u32, burst: u32) -> Self {
        let most = u64::from(burst) * RETRY;
        Self { saved: AtomicU64::new(most), earned: u64::from(percent), most }
    }

    /// A first attempt was made.
    pub(crate) fn earn(&self) {
        self.change(|saved| Some((saved + self.earned).min(self.most)));
    }

    /// Pays for a retry; false if there is not enough.
    pub(crate) fn spend(&self) -> bool {
        self.change(|saved| saved.checked_sub(RETRY))
    }

    fn change(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        // The number stands for itself: nothing else is published by it.
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}
