//! The newest events of a channel by what they are about.

use crate::{LedgerEntry, StoredEvent};

/// Whose newest events. Events without a key belong to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyQuery {
    /// This key's.
    Of(String),
    /// Each key's behind this one, in the order of their bytes; all, without it.
    After(Option<String>),
}

impl KeyQuery {
    /// Whether an event of this key is asked for.
    #[must_use]
    pub fn wants(&self, key: &str) -> bool {
        match self {
            Self::Of(of) => of == key,
            Self::After(after) => after.as_deref().is_none_or(|after| key > after),
        }
    }
}

/// The newest event of some keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatestPage {
    /// One event a key, ascending by key.
    pub events: Vec<StoredEvent>,
    /// Whether there are more keys behind the last one.
    pub more: bool,
    /// How far the archive had the partition, in the same snapshot as the events.
    pub ledger: Option<LedgerEntry>,
}
