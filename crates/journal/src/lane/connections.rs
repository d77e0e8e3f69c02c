//! What a lane keeps for each connection that has something in it or a fence.

use crate::publish::ProducerKey;
use hashbrown::HashMap;
use std::sync::Arc;
use stormwire_core::faults::{Fault, injected};

#[derive(Debug, Default)]
struct Connection {
    /// Publishes in the queue or under way.
    inside: usize,
    bytes: usize,
    /// The highest number among them, ever since there was one.
    highest: u64,
    /// C1: the number that must come before anything above it.
    fence: Option<u64>,
    closed: bool,
    /// The last producer's key, so that it is hashed once and not for each publish.
    key: Option<(Arc<str>, Arc<str>, ProducerKey)>,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    known: HashMap<u64, Connection>,
    /// Whether a fence was set below something that is inside.
    sweep: bool,
}

impl Connections {
    pub(super) fn fence(&self, connection: u64) -> Option<u64> {
        self.known.get(&connection)?.fence
    }

    pub(super) fn bytes(&self, connection: u64) -> usize {
        self.known.get(&connection).map_or(0, |known| known.bytes)
    }

    pub(super) fn key(
        &mut self,
        connection: u64,
        user: &Arc<str>,
        producer: &Arc<str>,
    ) -> ProducerKey {
        let known = self.known.entry(connection).or_default();
        match &known.key {
            Some((of, name, key)) if of == user && name == producer => *key,
            _ => {
                let key = ProducerKey::of(user, producer);
                known.key = Some((Arc::clone(user), Arc::clone(producer), key));
                key
            }
        }
    }

    pub(super) fn enter(&mut self, connection: u64, seq: Option<u64>, bytes: usize) {
        let known = self.known.entry(connection).or_default();
        known.inside += 1;
        known.bytes += bytes;
        if let Some(seq) = seq {
            known.highest = known.highest.max(seq);
            // C1: the one that was refused has come again.
            known.fence = known.fence.filter(|due| *due != seq);
        }
    }

    pub(super) fn leave(&mut self, connection: u64, bytes: usize) {
        let Some(known) = self.known.get_mut(&connection) else { return };
        known.inside = known.inside.saturating_sub(1);
        known.bytes = known.bytes.saturating_sub(bytes);
        if known.inside == 0 && (known.closed || known.fence.is_none()) {
            self.known.remove(&connection);
        }
    }

    pub(super) fn set_fence(&mut self, connection: u64, seq: u64) {
        if injected(Fault::FailStopOff) {
            return;
        }
        let known = self.known.entry(connection).or_default();
        known.fence = Some(known.fence.map_or(seq, |due| due.min(seq)));
        self.sweep |= known.inside > 0 && known.highest > seq;
    }

    pub(super) fn use_up(&mut self, connection: u64, seq: u64) {
        let Some(known) = self.known.get_mut(&connection) else { return };
        known.fence = known.fence.filter(|due| *due != seq);
        if known.inside == 0 && known.fence.is_none() {
            self.known.remove(&connection);
        }
    }

    /// C2: a fence goes with its connection.
    pub(super) fn closed(&mut self, connection: u64) {
        let Some(known) = self.known.get_mut(&connection) else { return };
        known.closed = true;
        if known.inside == 0 {
            self.known.remove(&connection);
        }
    }

    pub(super) const fn take_sweep(&mut self) -> bool {
        std::mem::replace(&mut self.sweep, false)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
