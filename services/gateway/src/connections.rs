//! Who is connected to this gateway: for the count, for taking over a producer, for moving everybody
//! away when the process ends.

use crate::outbox::Outbox;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_core::CloseCode;
use stormwire_telemetry::metrics as names;
use tokio::sync::Notify;

#[derive(Debug)]
struct Entry {
    outbox: Arc<Outbox>,
    producer: Option<(Arc<str>, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    producers: HashMap<(Arc<str>, Arc<str>), u64>,
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

    /// APPENDER B8: a second live connection of one (user, producer) closes the first.
    pub(crate) fn produce(&self, id: u64, user: &Arc<str>, producer: &Arc<str>) {
        let key = (Arc::clone(user), Arc::clone(producer));
        let mut table = self.table.lock();
        let former = table.producers.insert(key.clone(), id).filter(|former| *former != id);
        if let Some(entry) = table.entries.get_mut(&id) {
            entry.producer = Some(key);
        }
        if let Some(entry) = former.and_then(|former| table.entries.get(&former)) {
            entry.outbox.close(CloseCode::Replaced, "this producer has connected again elsewhere");
        }
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
        if let Some(producer) = table.entries.remove(&id).and_then(|entry| entry.producer)
            && table.producers.get(&producer) == Some(&id)
        {
            table.producers.remove(&producer);
        }
        metrics::gauge!(names::CONNECTIONS).set(table.entries.len() as f64);
        drop(table);
        self.changed.notify_waiters();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}
