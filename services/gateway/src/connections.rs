//! Who is connected to this gateway: for the count, for taking over a producer, for moving everybody
//! away when the process ends.

use crate::ingest::LiveProducers;
use crate::outbox::Outbox;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_core::{CloseCode, Timestamp};
use stormwire_journal::publish::ProducerKey;
use stormwire_telemetry::metrics as names;
use tokio::sync::Notify;

const REPLACED: &str = "this producer has connected again elsewhere";

#[derive(Debug)]
struct Entry {
    outbox: Arc<Outbox>,
    /// Its producer, and since when.
    producer: Option<(ProducerKey, Timestamp)>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    producers: HashMap<ProducerKey, u64>,
}

/// All connections of this process.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    next: AtomicU64,
    changed: Notify,
}

/// One connection's place in the table; dropped when it ends.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    /// Enters a connection.
    pub(crate) fn enter(self: &Arc<Self>, outbox: Arc<Outbox>) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut table = self.table.lock();
        table.entries.insert(id, Entry { outbox, producer: None });
        metrics::gauge!(names::CONNECTIONS).set(table.entries.len() as f64);
        Registered { id, connections: Arc::clone(self) }
    }

    /// APPENDER B8: a second live connection of one (user, producer) closes the first. `false` if this one
    /// had the producer before.
    pub(crate) fn produce(&self, id: u64, producer: ProducerKey, now: Timestamp) -> bool {
        let mut table = self.table.lock();
        let former = table.producers.insert(producer, id);
        if former == Some(id) {
            return false;
        }
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.producer = Some((producer, now));
        }
        if let Some(entry) = former.and_then(|former| table.entries.get(&former)) {
            entry.outbox.close(CloseCode::Replaced, REPLACED);
        }
        true
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// The queues of all connections.
    pub(crate) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.table.lock().entries.values().map(|entry| Arc::clone(&entry.outbox)).collect()
    }

    /// Waits until nobody is connected.
    pub(crate) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn leave(&self, id: u64) {
        let mut table = self.table.lock();
        if let Some((producer, _)) = table.entries.remove(&id).and_then(|entry| entry.producer)
            && table.producers.get(&producer) == Some(&id)
        {
            table.producers.remove(&producer);
        }
        metrics::gauge!(names::CONNECTIONS).set(table.entries.len() as f64);
        drop(table);
        self.changed.notify_waiters();
    }
}

impl Table {
    /// The live connection of `producer`, and since when it is.
    fn of(&self, producer: ProducerKey) -> Option<(&Entry, Timestamp)> {
        let entry = self.entries.get(self.producers.get(&producer)?)?;
        entry.producer.map(|(_, since)| (entry, since))
    }
}

impl LiveProducers for Connections {
    fn is_connected(&self, producer: ProducerKey, at: Timestamp) -> bool {
        self.table.lock().of(producer).is_some_and(|(_, since)| since == at)
    }

    fn connected_elsewhere(&self, producer: ProducerKey, at: Timestamp, wins_tie: bool) {
        if let Some((entry, since)) = self.table.lock().of(producer)
            && (since < at || since == at && wins_tie)
        {
            entry.outbox.close(CloseCode::Replaced, REPLACED);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::task::{Context, Waker};

    fn is_closed(outbox: &Outbox) -> bool {
        let context = Context::from_waker(Waker::noop());
        let closing = outbox.drain(&context, &mut VecDeque::new(), &mut Vec::new());
        closing.is_some_and(|closing| closing.code == CloseCode::Replaced)
    }

    #[tokio::test]
    async fn b8_of_two_connections_of_one_producer_the_later_stays_wherever_it_is() {
        let connections = Arc::new(Connections::default());
        let producer = ProducerKey::of("alice", "p");
        let connect = |at: i64| {
            let outbox = Outbox::new(1 << 20);
            let registered = connections.enter(Arc::clone(&outbox));
            assert!(connections.produce(registered.id, producer, Timestamp(at)));
            (registered, outbox)
        };
        let (registered, first) = connect(1000);
        assert!(!connections.produce(registered.id, producer, Timestamp(1500)), "the same one");
        assert!(connections.is_connected(producer, Timestamp(1000)));
        connections.connected_elsewhere(producer, Timestamp(900), true);
        connections.connected_elsewhere(producer, Timestamp(1000), false);
        connections.connected_elsewhere(ProducerKey::of("bob", "p"), Timestamp(2000), true);
        assert!(!is_closed(&first), "it is the later one, or another's");
        connections.connected_elsewhere(producer, Timestamp(1000), true);
        assert!(is_closed(&first));
        let (second, here) = connect(3000);
        connections.connected_elsewhere(producer, Timestamp(3001), false);
        assert!(is_closed(&here));
        drop(second);
        assert!(!connections.is_connected(producer, Timestamp(3000)));
    }
}
