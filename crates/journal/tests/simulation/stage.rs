//! A stage for scenarios at exact moments: gateways and a journal that do one step at a time, as they are
//! told.

use crate::log::Log;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, FrameSeq, Offset, Timestamp};
use stormwire_journal::appender::{Appender, AppenderConfig, Event};
use stormwire_journal::lane::{Answer, Lane, LaneConfig, Request};
use stormwire_journal::owner::Claim;
use stormwire_journal::publish::{Now, Outcome, Publish};
use stormwire_journal::{AppendError, LogEnd, Op, OpResult};
use stormwire_wire::frame::{EventParts, EventsBuilder, Frame};

/// Wall time of a stage's beginning, in milliseconds.
pub(crate) const BASE: u64 = 1_000_000_000;

/// Two gateways.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

enum Origin {
    Lane,
    /// The lane of that gateway.
    Peer(usize),
}

struct Gateway {
    name: &'static str,
    lane: Lane<(u64, u64)>,
    appender: Appender<Origin>,
    /// The batch that another gateway was asked to write.
    asked: Option<Vec<Publish>>,
    claims: u8,
    answers: Vec<String>,
    events: Vec<Event>,
}

/// One publish of one event.
#[derive(Clone, Copy)]
pub(crate) struct Send {
    pub(crate) user: &'static str,
    pub(crate) producer: Option<&'static str>,
    pub(crate) connection: u64,
    pub(crate) seq: u64,
    pub(crate) count: u64,
    /// Since how many seconds, for a repeat.
    pub(crate) again: Option<u64>,
}

/// A publish of alice's producer "p" on connection 1.
pub(crate) const fn send(seq: u64) -> Send {
    Send { user: "alice", producer: Some("p"), connection: 1, seq, count: 1, again: None }
}

impl Send {
    /// The same as a repeat of what was sent so many seconds ago, on another connection.
    pub(crate) const fn again(self, seconds: u64) -> Self {
        Self { connection: 2, again: Some(seconds), ..self }
    }
}

pub(crate) struct Stage {
    /// Milliseconds since the beginning.
    pub(crate) now: u64,
    pub(crate) log: Log,
    gateways: Vec<Gateway>,
}

impl Stage {
    /// Two gateways, nobody owns anything.
    pub(crate) fn new() -> Self {
        let gateways = ["a", "b"].map(|name| Gateway {
            name,
            lane: Lane::new(LaneConfig {
                producer: Arc::from(format!("lane-{name}")),
                bytes_max: 8 << 20,
                connection_bytes_max: 1 << 20,
                deadline: Duration::from_secs(15),
            }),
            appender: Appender::new(AppenderConfig {
                gateway: name.to_owned(),
                linger: Duration::ZERO,
                repeats_bytes_max: 1 << 20,
            }),
            asked: None,
            claims: 0,
            answers: Vec::new(),
            events: Vec::new(),
        });
        Self { now: 0, log: Log::default(), gateways: gateways.into() }
    }

    /// One whose gateway A owns the partition since frame 1.
    pub(crate) fn owned() -> Self {
        let mut stage = Self::new();
        stage.own(A);
        stage
    }

    pub(crate) fn time(&self) -> Now {
        let wall = i64::try_from(BASE + self.now).unwrap();
        Now { mono: Duration::from_millis(self.now), wall: Timestamp(wall) }
    }

    /// Reads the log and claims the partition, without a fault.
    pub(crate) fn own(&mut self, at: usize) -> Claim {
        self.read(at);
        self.claim(at);
        self.run(at);
        self.owner(at).expect("it owns the partition")
    }

    /// Reads the log to its end.
    pub(crate) fn read(&mut self, at: usize) {
        self.gateways[at].appender.read_log();
        self.run(at);
    }

    /// Begins to claim.
    pub(crate) fn claim(&mut self, at: usize) {
        let now = self.time();
        let gateway = &mut self.gateways[at];
        gateway.claims += 1;
        let mut id = [gateway.claims; 16];
        id[0] = gateway.name.as_bytes()[0];
        gateway.appender.claim(now, id);
    }

    /// The claim by which it owns the partition.
    pub(crate) fn owner(&self, at: usize) -> Option<Claim> {
        let gateway = &self.gateways[at];
        let (epoch, seq) = gateway.appender.owned()?;
        Some(Claim { gateway: Arc::from(gateway.name), epoch, seq })
    }

    /// A client publishes at this gateway.
    pub(crate) fn publish(&mut self, at: usize, send: Send) {
        let Send { user, producer, connection, seq, count, again } = send;
        let mut events = EventsBuilder::default();
        for number in seq..seq + count {
            let whose = if user == "alice" { String::new() } else { format!("{user}/") };
            let data = format!("\"{whose}{}:{number}\"", producer.unwrap_or("none"));
            events.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
        }
        let request = Request {
            connection,
            channel: Channel::parse("sim:log").unwrap(),
            user: Arc::from(user),
            producer: producer.map(Arc::from),
            seq,
            again: again.map(Duration::from_secs),
            events: events.take(),
            trace: None,
        };
        let now = self.time();
        let gateway = &mut self.gateways[at];
        if let Err((ticket, refusal)) = gateway.lane.submit(now, request, (connection, seq)) {
            gateway.answers.push(told((ticket, Err(refusal))));
        }
    }

    /// A limiter refuses before the lane, and tells it.
    pub(crate) fn limit(&mut self, at: usize, send: Send) {
        self.gateways[at].lane.refused(send.connection, send.seq, true);
    }

    /// Carries the lane's batch to the appender of the same gateway.
    pub(crate) fn feed(&mut self, at: usize) {
        let now = self.time();
        let gateway = &mut self.gateways[at];
        if let Some(batch) = gateway.lane.take() {
            gateway.appender.push(now, Origin::Lane, batch);
        }
    }

    /// Takes the lane's batch for another gateway, which it has not reached yet.
    pub(crate) fn ask(&mut self, at: usize) -> Vec<Publish> {
        let gateway = &mut self.gateways[at];
        gateway.asked = gateway.lane.take();
        gateway.asked.clone().expect("something waits in the lane")
    }

    /// A batch of `from` reaches `to`; it names this claim.
    pub(crate) fn arrive(&mut self, from: usize, to: usize, claim: &Claim, batch: Vec<Publish>) {
        let now = self.time();
        if self.gateways[to].appender.serves(claim) {
            self.gateways[to].appender.push(now, Origin::Peer(from), batch);
        } else {
            self.settle(from, Epoch::FIRST, |batch| vec![Outcome::NotStored; batch]);
        }
    }

    /// The lane does not believe any longer that an answer will come.
    pub(crate) fn give_up(&mut self, at: usize) {
        self.settle(at, Epoch::FIRST, |batch| vec![Outcome::Unknown; batch]);
    }

    fn settle(&mut self, at: usize, epoch: Epoch, outcomes: impl FnOnce(usize) -> Vec<Outcome>) {
        let gateway = &mut self.gateways[at];
        if let Some(batch) = gateway.asked.take() {
            let outcomes = outcomes(batch.len());
            gateway.lane.settle(epoch, batch, outcomes);
        }
        self.deliver(at);
    }

    /// What the appender asks of the journal now.
    pub(crate) fn poll(&mut self, at: usize) -> Option<Op> {
        let now = self.time();
        self.gateways[at].appender.poll(now).0
    }

    /// The frame that the appender sends now.
    pub(crate) fn frame(&mut self, at: usize) -> Op {
        self.feed(at);
        let op = self.poll(at).expect("it asks for something");
        assert!(matches!(op, Op::Append { .. }), "{op:?}");
        op
    }

    /// An operation reaches the journal.
    pub(crate) fn land(&mut self, op: &Op) -> OpResult {
        self.log.answer(BASE + self.now, op)
    }

    /// The answer reaches the appender.
    pub(crate) fn complete(&mut self, at: usize, result: OpResult) {
        let now = self.time();
        self.gateways[at].appender.complete(now, result);
        self.take_news(at);
    }

    /// No answer to an append came in time.
    pub(crate) fn time_out(&mut self, at: usize) {
        self.now += 2000;
        let unknown = AppendError::Unknown("no answer".to_owned());
        self.complete(at, OpResult::Appended(Err(unknown)));
    }

    /// Works with a sound journal until there is nothing to do.
    pub(crate) fn run(&mut self, at: usize) {
        for _ in 0..10_000 {
            self.feed(at);
            let now = self.time();
            let (op, later) = self.gateways[at].appender.poll(now);
            self.take_news(at);
            match (op, later) {
                (Some(op), _) => {
                    let result = self.land(&op);
                    self.complete(at, result);
                }
                (None, Some(later)) => self.now = u64::try_from(later.as_millis()).unwrap(),
                (None, None) if self.gateways[at].lane.is_ready() && self.owner(at).is_some() => {}
                (None, None) => return,
            }
        }
        panic!("it never comes to rest");
    }

    /// Saves the table as it is now, if it is due.
    pub(crate) fn save(&mut self, at: usize) {
        let now = self.time().mono;
        if let Some(table) = self.gateways[at].appender.table_to_save(now) {
            self.log.save(table);
            self.gateways[at].appender.saved(now, true);
        }
    }

    /// Lets go of the partition, by word of another.
    pub(crate) fn release(&mut self, at: usize) {
        self.gateways[at].appender.release();
        self.run(at);
    }

    pub(crate) fn give_partition_up(&mut self, at: usize) {
        self.gateways[at].appender.give_up();
        self.take_news(at);
    }

    /// Answers what waits for longer than the deadline.
    pub(crate) fn expire(&mut self, at: usize) {
        let now = self.time();
        self.gateways[at].lane.expire(now);
        self.deliver(at);
    }

    fn take_news(&mut self, at: usize) {
        let answers: Vec<_> = self.gateways[at].appender.answers().collect();
        for answer in answers {
            match answer.origin {
                Origin::Lane => {
                    self.gateways[at].lane.settle(answer.epoch, answer.items, answer.outcomes);
                }
                Origin::Peer(from) => self.settle(from, answer.epoch, |_| answer.outcomes),
            }
        }
        let gateway = &mut self.gateways[at];
        let events: Vec<_> = gateway.appender.events().collect();
        for event in &events {
            if let Event::Released { table: Some(table) } = event {
                self.log.save(table.clone());
            }
        }
        gateway.events.extend(events);
        self.deliver(at);
    }

    fn deliver(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        let answers = gateway.lane.answers();
        gateway.answers.extend(answers.into_iter().map(told));
    }

    /// What clients of this gateway were told since the last time: connection, number and answer.
    pub(crate) fn told(&mut self, at: usize) -> Vec<String> {
        std::mem::take(&mut self.gateways[at].answers)
    }

    /// What has happened to this gateway's appender since the last time.
    pub(crate) fn events(&mut self, at: usize) -> Vec<Event> {
        std::mem::take(&mut self.gateways[at].events)
    }

    /// Where the log ends, by what was read.
    pub(crate) fn log_end(&self, at: usize) -> Option<LogEnd> {
        self.gateways[at].appender.log_end()
    }

    /// The events of the log, in order.
    pub(crate) fn stored(&self) -> Vec<String> {
        let mut stored = Vec::new();
        for frame in &self.log.frames {
            let frame = Frame::decode(&frame.bytes).unwrap();
            for event in frame.events().into_iter().flat_map(|events| events.runs()) {
                for event in event.events() {
                    let data = std::str::from_utf8(event.data).unwrap();
                    stored.push(data.trim_matches('"').to_owned());
                }
            }
        }
        let once: BTreeSet<_> = stored.iter().collect();
        assert_eq!(once.len(), stored.len(), "stored twice: {stored:?}");
        stored
    }

    /// Where the log ends.
    pub(crate) fn last(&self) -> FrameSeq {
        self.log.last()
    }
}

fn told(((connection, seq), answer): Answer<(u64, u64)>) -> String {
    let place = |offset: Offset| format!("{}.{}", offset.seq(), offset.index());
    let answer = match answer {
        Ok((_, stored)) => {
            let word = if stored.duplicate { "duplicate" } else { "stored" };
            format!("{word} {}", place(stored.first))
        }
        Err(refusal) => match refusal.expected {
            Some(expected) => format!("{} {expected}", refusal.code.as_str()),
            None => refusal.code.as_str().to_owned(),
        },
    };
    format!("{connection}:{seq} {answer}")
}
