//! D5: gateways that reach the journal, and partitions that are left to them.

use super::{GIVEN_UP, Members, SILENCE, lives};
use crate::message::Notice;
use std::time::Duration;
use stormwire_core::Partition;

/// What a gateway has said beside its heartbeats.
#[derive(Debug)]
pub(super) struct Noticed {
    reaches_journal: bool,
    given_up: Vec<Partition>,
    heard: Duration,
}

impl Noticed {
    pub(super) fn has_given_up(&self, partition: Partition) -> bool {
        self.given_up.contains(&partition)
    }
}

impl Members {
    /// Takes a notice of a gateway that is known by its heartbeats; `true` if it changed who should own
    /// what.
    pub fn hear_notice(&mut self, now: Duration, notice: &Notice) -> bool {
        let Some(other) = self.others.get_mut(&*notice.gateway) else { return false };
        if other.process != notice.process {
            return false;
        }
        let given_up = notice.given_up.clone();
        let before = other.noticed.replace(Noticed {
            reaches_journal: notice.reaches_journal,
            given_up,
            heard: now,
        });
        before.map_or(Vec::new(), |before| before.given_up) != notice.given_up
    }

    /// D5: whether another gateway lives and says that it reaches the journal.
    #[must_use]
    pub fn another_reaches_journal(&self, now: Duration) -> bool {
        self.others.values().any(|other| {
            let says = other.noticed.as_ref().is_some_and(|noticed| {
                noticed.reaches_journal && now.saturating_sub(noticed.heard) < SILENCE
            });
            says && !other.leaving && lives(other, now)
        })
    }

    /// D5: for a while this gateway should not own `partition`.
    pub fn give_up(&mut self, partition: Partition, now: Duration) {
        self.given_up.retain(|(of, _)| *of != partition);
        self.given_up.push((partition, now + GIVEN_UP));
    }

    /// The partitions that this gateway leaves to others now.
    #[must_use]
    pub fn given_up(&self, now: Duration) -> Vec<Partition> {
        let still = self.given_up.iter().filter(|(_, until)| now < *until);
        still.map(|(partition, _)| *partition).collect()
    }

    pub(super) fn has_given_up(&self, partition: Partition, now: Duration) -> bool {
        self.given_up.iter().any(|(of, until)| *of == partition && now < *until)
    }
}
