//! Publishing through lanes and appenders on the embedded engine and on a real NATS server.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a panic is a failed test")]

mod embedded;
mod gateways;
mod notices;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, Offset, PartitionCount, Refusal};
use stormwire_gateway::ingest::{Answers, Ingest, Published, Submission};
use stormwire_journal::Journal;
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame};
use tokio::sync::Notify;

pub(crate) const PARTITIONS: u16 = 4;

pub(crate) fn partitions() -> PartitionCount {
    PartitionCount::new(PARTITIONS).unwrap()
}

/// A client that remembers its answers.
#[derive(Default)]
pub(crate) struct Client {
    answers: Mutex<HashMap<u64, Result<Published, Refusal>>>,
    answered: Notify,
}

impl Answers for Client {
    fn answer(&self, ticket: u64, answer: Result<Published, Refusal>) {
        let before = self.answers.lock().insert(ticket, answer);
        assert!(before.is_none(), "ticket {ticket} was answered twice");
        self.answered.notify_one();
    }
}

/// One publish as a test writes it.
pub(crate) struct Event<'a> {
    pub(crate) connection: u64,
    pub(crate) channel: &'a str,
    pub(crate) producer: Option<&'a str>,
    pub(crate) seq: u64,
    pub(crate) again: Option<Duration>,
}

impl Client {
    /// Submits one event whose data is its producer and number. The ticket is given with it.
    pub(crate) fn publish(self: &Arc<Self>, ingest: &Ingest, ticket: u64, event: &Event<'_>) {
        let Event { connection, channel, producer, seq, again } = *event;
        let mut events = EventsBuilder::default();
        let data = format!("\"{}:{seq}\"", producer.unwrap_or("nobody"));
        events.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
        ingest.submit(Submission {
            connection,
            ticket,
            channel: Channel::parse(channel).unwrap(),
            user: Arc::from("alice"),
            producer: producer.map(Arc::from),
            seq,
            again,
            events: events.take(),
            trace: None,
            answers: Arc::clone(self) as Arc<dyn Answers>,
        });
    }

    /// The answer to `ticket`, taken out.
    pub(crate) async fn answer(&self, ticket: u64) -> Result<Published, Refusal> {
        let wait = async {
            loop {
                let answered = self.answered.notified();
                if let Some(answer) = self.answers.lock().remove(&ticket) {
                    return answer;
                }
                answered.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an answer within 30 s")
    }
}

/// Every event of the log: data, channel and offset, in order of the offsets of each partition.
pub(crate) async fn stored(journal: &dyn Journal) -> Vec<(String, String, Offset)> {
    let mut events = Vec::new();
    for partition in partitions().all() {
        let tip = journal.tip(partition).await.unwrap();
        let mut next = tip.first;
        while next <= tip.last {
            let frames = journal.read(partition, Epoch::FIRST, next, 100, 1 << 20).await.unwrap();
            for stored in &frames {
                assert_eq!(stored.seq, next, "the log has a hole");
                next += 1;
                let frame = Frame::decode(&stored.bytes).unwrap();
                for run in frame.events().into_iter().flat_map(|events| events.runs()) {
                    for event in run.events() {
                        let data = String::from_utf8(event.data.to_vec()).unwrap();
                        let offset = Offset::new(stored.seq, event.index);
                        events.push((data, run.channel.to_owned(), offset));
                    }
                }
            }
        }
    }
    events
}
