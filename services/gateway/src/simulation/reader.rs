//! One client of the simulation: what it asked for, where it stands, what it was given.

use super::Server;
use super::world::Logged;
use crate::feeder::Refills;
use crate::hub::{Joined, Selection, Subscription, Wide};
use crate::outbox::{Outbox, Parked};
use axum::extract::ws::Message;
use futures::task::noop_waker;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Context;
use stormwire_core::{Channel, Epoch, Offset, Partition, Position};
use stormwire_wire::protocol::{Codec, Cursor, Mode};

/// What it wants.
#[derive(Debug, Clone)]
pub(super) enum Want {
    Channel(Channel),
    /// All that begin with this.
    Pattern(String),
}

impl Want {
    fn takes(&self, channel: &str) -> bool {
        match self {
            Self::Channel(wanted) => wanted.as_str() == channel,
            Self::Pattern(prefix) => channel.starts_with(prefix),
        }
    }
}

pub(super) struct SimReader {
    want: Want,
    mode: Mode,
    bound: usize,
    /// Where it began, in each partition.
    start: Vec<Position>,
    /// Where it would go on from, by what it was given.
    at: Cursor,
    outbox: Arc<Outbox>,
    refills: Arc<Refills>,
    subscriptions: Vec<Arc<Subscription>>,
    given: Vec<(String, Position, Option<String>)>,
    /// Stretches that it was told are missing.
    gaps: Vec<(Partition, Position, Position)>,
}

impl SimReader {
    pub(super) fn join(
        server: &Server,
        want: Want,
        mode: Mode,
        start: Vec<Position>,
        bound: usize,
    ) -> Self {
        let at = Cursor::new(server.hub.partitions().all().zip(start.iter().copied()));
        let mut reader = Self {
            want,
            mode,
            bound,
            start,
            at,
            outbox: Outbox::new(bound),
            refills: Arc::default(),
            subscriptions: Vec::new(),
            given: Vec::new(),
            gaps: Vec::new(),
        };
        reader.subscribe(server);
        reader
    }

    /// As a session does it.
    fn subscribe(&mut self, server: &Server) {
        let wide = |text: &str| Some(Arc::new(Wide::new(text.into(), self.at.clone())));
        let parts: Vec<(Selection, Option<Arc<Wide>>)> = match &self.want {
            Want::Channel(channel) => vec![(Selection::Channel(channel.clone()), None)],
            Want::Pattern(prefix) => {
                let wide = wide(&format!("{prefix}*"));
                let prefix: Arc<str> = prefix.as_str().into();
                let part = |p| (Selection::Prefix(p, Arc::clone(&prefix)), wide.clone());
                server.hub.partitions().all().map(part).collect()
            }
        };
        let mut behind = Vec::new();
        for part in parts {
            let outbox = Arc::clone(&self.outbox);
            let subscription = server.hub.subscription(part, self.mode, Codec::Json, outbox);
            let position = self.at.get(subscription.feed().partition).unwrap();
            let position = match subscription.feed().join(&subscription, position, 500) {
                Joined::Live => None,
                Joined::Advanced(position) => Some(position),
                Joined::Behind | Joined::Above | Joined::NotReady => Some(position),
            };
            if let Some(position) = position {
                behind.push(Parked { subscription: Arc::clone(&subscription), position });
            }
            self.subscriptions.push(subscription);
        }
        self.refills.add(behind, &server.reader, &server.tasks);
    }

    /// Everything that it has not read is lost with its connection; it comes back where it stands.
    pub(super) fn cut(&mut self, server: &Server) {
        self.outbox.gone();
        for subscription in self.subscriptions.drain(..) {
            subscription.feed().leave(&subscription);
        }
        self.outbox = Outbox::new(self.bound);
        self.refills = Arc::default();
        self.subscribe(server);
    }

    /// Reads what waits; says how many of its subscriptions had been parked.
    pub(super) fn drain(&mut self, server: &Server) -> usize {
        let (mut messages, mut parked) = (VecDeque::new(), Vec::new());
        // Twice: what was taken is written when more is asked for.
        for _ in 0..2 {
            let mut taken = VecDeque::new();
            self.outbox.drain(&Context::from_waker(&noop_waker()), &mut taken, &mut parked);
            messages.append(&mut taken);
        }
        for message in messages {
            let Message::Text(text) = message else { panic!("text is due") };
            let value: Value = serde_json::from_str(&text).unwrap();
            let list = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
            let mut cursor = None;
            for one in list {
                assert!(cursor.is_none(), "the cursor comes with the last: {value}");
                if one["op"] == "gap" {
                    self.take_gap(server, one);
                } else {
                    assert_eq!(one["op"], "events", "{one}");
                    self.take(server, one);
                }
                cursor = one["cursor"].as_str();
            }
            if let Want::Pattern(_) = self.want {
                let next = Cursor::decode(cursor.unwrap()).unwrap();
                for (partition, position) in next.iter() {
                    assert!(Some(position) >= self.at.get(partition), "a cursor never goes back");
                }
                self.at = next;
            }
        }
        let count = parked.len();
        self.refills.add(parked, &server.reader, &server.tasks);
        count
    }

    fn take(&mut self, server: &Server, message: &Value) {
        let channel = message["channel"].as_str().unwrap();
        let epoch = Epoch(u32::try_from(message["epoch"].as_u64().unwrap()).unwrap());
        let partition = Channel::parse(channel).unwrap().partition(server.hub.partitions());
        for event in message["events"].as_array().unwrap() {
            let position = Position { epoch, offset: Offset(event["offset"].as_u64().unwrap()) };
            let key = event["key"].as_str().map(str::to_owned);
            self.given.push((channel.to_owned(), position, key));
            if let Want::Channel(_) = self.want {
                self.at.set(partition, position);
            }
        }
    }

    fn take_gap(&mut self, server: &Server, message: &Value) {
        let [from, to] = ["from", "to"].map(|end| {
            let at = &message[end];
            let epoch = Epoch(u32::try_from(at["epoch"].as_u64().unwrap()).unwrap());
            Position { epoch, offset: Offset(at["offset"].as_u64().unwrap()) }
        });
        assert!(from < to, "nothing is above the end: {message}");
        let partition = match &self.want {
            Want::Channel(channel) => channel.partition(server.hub.partitions()),
            Want::Pattern(_) => {
                Partition(u16::try_from(message["partition"].as_u64().unwrap()).unwrap())
            }
        };
        self.gaps.push((partition, from, to));
        if let Want::Channel(_) = self.want {
            self.at.set(partition, to);
        }
    }

    /// The gaps that it was told.
    pub(super) fn gaps(&self) -> &[(Partition, Position, Position)] {
        &self.gaps
    }

    fn due<'a>(&'a self, log: &'a [Logged]) -> impl Iterator<Item = &'a Logged> {
        let begins = |partition: Partition| self.start[usize::from(partition.0)];
        log.iter().filter(move |event| {
            self.want.takes(&event.channel) && event.position > begins(event.partition)
        })
    }

    fn newest<'a>(
        events: impl Iterator<Item = (&'a str, Position, Option<&'a str>)>,
    ) -> HashMap<(&'a str, Option<&'a str>), Position> {
        events.map(|(channel, position, key)| ((channel, key), position)).collect()
    }

    fn due_newest<'a>(
        &'a self,
        log: &'a [Logged],
    ) -> HashMap<(&'a str, Option<&'a str>), Position> {
        let due = self.due(log);
        Self::newest(due.map(|event| (&*event.channel, event.position, event.key.as_deref())))
    }

    fn given_newest(&self) -> HashMap<(&str, Option<&str>), Position> {
        let given = self.given.iter();
        Self::newest(given.map(|(channel, position, key)| (&**channel, *position, key.as_deref())))
    }

    /// Whether it has seen the end.
    pub(super) fn is_complete(&self, log: &[Logged]) -> bool {
        match self.mode {
            Mode::All => self.given.len() >= self.due(log).count(),
            Mode::Latest => self.given_newest() == self.due_newest(log),
        }
    }

    /// Compares what it was given with the log; says how much that was, and how much was left out.
    pub(super) fn check(&self, log: &[Logged]) -> (usize, usize) {
        let mut due: HashMap<&str, Vec<Position>> = HashMap::new();
        for event in self.due(log) {
            due.entry(&event.channel).or_default().push(event.position);
        }
        let mut given: HashMap<&str, Vec<Position>> = HashMap::new();
        for (channel, position, _) in &self.given {
            given.entry(channel).or_default().push(*position);
        }
        match self.mode {
            Mode::All => assert_eq!(given, due, "{:?} {:?}", self.want, self.start),
            Mode::Latest => {
                for (channel, given) in &given {
                    assert!(given.is_sorted_by(|a, b| a < b), "{channel}: {given:?}");
                    let due = due.get(channel).unwrap();
                    let known = given.iter().all(|position| due.binary_search(position).is_ok());
                    assert!(known, "{channel}: {given:?} of {due:?}");
                }
            }
        }
        (self.given.len(), self.due(log).count() - self.given.len())
    }

    /// Nothing that is there was called missing, and what is lost was.
    pub(super) fn check_gaps(&self, log: &[Logged], lost: &[Logged]) {
        let told = |event: &Logged| {
            self.gaps.iter().find(|(partition, from, to)| {
                *partition == event.partition && *from < event.position && event.position <= *to
            })
        };
        for event in self.due(log) {
            assert_eq!(told(event), None, "{event:?} is there: {:?}", self.want);
        }
        if self.mode == Mode::All {
            for event in self.due(lost) {
                assert!(
                    told(event).is_some(),
                    "{event:?} is lost, and not told: {:?} since {:?}, {:?}",
                    self.want,
                    self.start,
                    self.gaps
                );
            }
        }
    }

    pub(super) fn describe(&self, log: &[Logged]) -> String {
        let due = self.due(log).count();
        let (want, given, at) = (&self.want, self.given.len(), &self.at);
        format!(
            "{want:?} {:?} since {:?}: {given} of {due}, stands at {at:?}",
            self.mode, self.start
        )
    }
}
