//! Who is connected to this gateway: for the count, for taking over a producer, for shutting out whoever's
//! token was revoked, for moving everybody away when the process ends.

use crate::ingest::LiveProducers;
use crate::outbox::Outbox;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stormwire_core::{CloseCode, Timestamp};
use stormwire_journal::publish::ProducerKey;
use stormwire_telemetry::metrics as names;
use stormwire_tokens::Claims;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const REPLACED: &str = "this producer has connected again elsewhere";
/// Told to whoever is shut out; a fresh token says whether they may come back.
pub(crate) const REVOKED: &str = "the token was revoked; connect with a fresh one";

#[derive(Debug)]
struct Entry {
    outbox: Arc<Outbox>,
    /// Its producer, and since when.
    producer: Option<(ProducerKey, Timestamp)>,
    /// Who it is, once signed in.
    claims: Option<Arc<Claims>>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    producers: HashMap<ProducerKey, u64>,
    /// HTTP requests that last: streams and long polls, and what ends each.
    streams: HashMap<u64, (Arc<Claims>, CancellationToken)>,
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
        table.entries.insert(id, Entry { outbox, producer: None, claims: None });
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

    /// The connection is `claims`' from now on.
    pub(crate) fn sign_in(&self, id: u64, claims: &Arc<Claims>) {
        if let Some(entry) = self.table.lock().entries.get_mut(&id) {
            entry.claims = Some(Arc::clone(claims));
        }
    }

    /// Enters a request that lasts; `until` is cancelled when it has to end.
    pub(crate) fn enter_stream(
        self: &Arc<Self>,
        claims: &Arc<Claims>,
        until: CancellationToken,
    ) -> RegisteredStream {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.table.lock().streams.insert(id, (Arc::clone(claims), until));
        RegisteredStream { id, connections: Arc::clone(self) }
    }

    /// Ends whatever is `good` no longer.
    pub(crate) fn shut_out(&self, good: impl Fn(&Claims) -> bool) {
        let table = self.table.lock();
        let mut count = 0_u64;
        for entry in table.entries.values() {
            if entry.claims.as_ref().is_some_and(|claims| !good(claims)) {
                entry.outbox.close(CloseCode::Unauthenticated, REVOKED);
                count += 1;
            }
        }
        for (claims, until) in table.streams.values() {
            if !good(claims) {
                until.cancel();
                count += 1;
            }
        }
        drop(table);
        metrics::counter!(names::REVOKED_CONNECTIONS).increment(count);
    }

    /// Connections that are signed in, of `user` or of all, by number behind `after`.
    pub(crate) fn page(
        &self,
        user: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Vec<(u64, Arc<Claims>)> {
        let table = self.table.lock();
        let mut found: Vec<_> = table
            .entries
            .iter()
            .filter(|(id, _)| **id > after)
            .filter_map(|(id, entry)| Some((*id, Arc::clone(entry.claims.as_ref()?))))
            .filter(|(_, claims)| user.is_none_or(|user| *claims.user == *user))
            .collect();
        drop(table);
        found.sort_by_key(|(id, _)| *id);
        found.truncate(limit);
        found
    }

    /// Whose the connection is.
    pub(crate) fn claims(&self, id: u64) -> Option<Arc<Claims>> {
        self.table.lock().entries.get(&id)?.claims.clone()
    }

    /// Ends a connection for an operator.
    pub(crate) fn end(&self, id: u64) {
        if let Some(entry) = self.table.lock().entries.get(&id) {
            entry.outbox.close(CloseCode::Forbidden, "an operator has closed this connection");
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

/// A request's place in the table; dropped when it ends.
#[derive(Debug)]
pub(crate) struct RegisteredStream {
    id: u64,
    connections: Arc<Connections>,
}

impl Drop for RegisteredStream {
    fn drop(&mut self) {
        self.connections.table.lock().streams.remove(&self.id);
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
