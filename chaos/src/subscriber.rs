//! A subscriber: records what it sees, and goes on where it stood after each connection.

use crate::control::{Control, Phase};
use crate::recorder::{Recorder, now, recorded};
use crate::socket::Socket;
use crate::{Outcome, Target};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_checker::{Position, SubscriberRecord};
use tokio::time::Instant;

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// From now on, for as long as the connection holds.
    Live,
    /// From the beginning; goes away and comes back at random.
    Restless,
    /// All channels by one pattern, from now on; goes away and comes back too.
    Pattern,
}

/// One subscriber.
pub(crate) struct Subscriber {
    habit: Habit,
    target: Arc<Target>,
    control: Arc<Control>,
    recorder: Recorder,
    random: StdRng,
    /// Where it stands in each channel.
    positions: BTreeMap<String, Position>,
    cursor: Option<String>,
    /// Subscriptions that the present connection has confirmed.
    confirmed: usize,
    /// A pattern was told of a gap, whose ends name no channel: what it sees from then on proves nothing.
    over: bool,
}

/// What happens next on a connection.
enum Turn {
    Heard(Outcome<Vec<Value>>),
    Cut,
    Changed,
    Tired,
}

impl Subscriber {
    pub(crate) fn new(
        number: usize,
        seed: u64,
        habit: Habit,
        target: Arc<Target>,
        control: Arc<Control>,
        recorder: Recorder,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (0x5eed_0000 + number as u64));
        let (positions, cursor, confirmed, over) = (BTreeMap::new(), None, 0, false);
        Self { habit, target, control, recorder, random, positions, cursor, confirmed, over }
    }

    /// Reads until it has everything that the archive has, or time is up.
    pub(crate) async fn run(mut self) -> Outcome {
        let phase = self.control.phase();
        let mut reached = false;
        while !reached && !self.over && *phase.borrow() != Phase::End {
            let port = self.target.port(&mut self.random);
            match Socket::open(port, &self.target.token, None).await {
                Ok(socket) => reached = self.converse(socket).await,
                Err(_) => self.away(100..500).await,
            }
        }
        self.recorder.note(&SubscriberRecord::End { t: now(), live: !self.over });
        self.recorder.finish()
    }

    async fn away(&mut self, range: std::ops::Range<u64>) {
        let pause = Duration::from_millis(self.random.random_range(range));
        tokio::time::sleep(pause).await;
    }

    /// Whether everything was read.
    async fn converse(&mut self, mut socket: Socket) -> bool {
        let (mut phases, mut ends) = (self.control.phase(), self.control.ends());
        let mut cuts = self.control.cuts();
        cuts.mark_unchanged();
        self.confirmed = 0;
        let tired = Instant::now() + Duration::from_millis(self.random.random_range(1_000..6_000));
        if let Err(failure) = socket.send(self.subscribe()).await {
            self.lost(&failure.to_string());
            return false;
        }
        loop {
            let phase = *phases.borrow_and_update();
            let reached = ends.borrow_and_update().as_ref().is_some_and(|ends| self.reached(ends));
            if phase == Phase::End || reached || self.over {
                return reached;
            }
            let restless = phase == Phase::Run && self.habit != Habit::Live;
            let turn = tokio::select! {
                heard = socket.next() => Turn::Heard(heard),
                _ = cuts.changed() => Turn::Cut,
                _ = phases.changed() => Turn::Changed,
                _ = ends.changed() => Turn::Changed,
                () = tokio::time::sleep_until(tired), if restless => Turn::Tired,
            };
            let why = match turn {
                Turn::Heard(Ok(messages)) => {
                    match messages.iter().find_map(|message| self.heard(message)) {
                        Some(why) => why,
                        None => continue,
                    }
                }
                Turn::Changed => continue,
                Turn::Heard(Err(failure)) => failure.to_string(),
                Turn::Cut => {
                    self.control.sockets_cut.fetch_add(1, Ordering::Relaxed);
                    socket.reset();
                    self.lost("the socket was cut");
                    return false;
                }
                Turn::Tired => "it went away".to_owned(),
            };
            self.lost(&why);
            if restless {
                self.away(50..3_000).await;
            }
            return false;
        }
    }

    fn lost(&mut self, why: &str) {
        self.recorder.note(&SubscriberRecord::Lost { t: now(), why: why.to_owned() });
    }

    fn wanted(&self) -> &[String] {
        &self.target.channels
    }

    fn reached(&self, ends: &crate::control::Ends) -> bool {
        let is_confirmed = match self.habit {
            Habit::Pattern => self.confirmed > 0,
            _ => self.confirmed == self.wanted().len(),
        };
        // A pattern begins with the first event after it: a channel without one is reached.
        is_confirmed
            && ends.iter().all(|(channel, end)| match self.positions.get(channel) {
                Some(position) => position >= end,
                None => self.habit == Habit::Pattern,
            })
    }

    fn subscribe(&self) -> String {
        if self.habit == Habit::Pattern {
            let mut subscribe = json!({"op": "subscribe", "id": 1, "pattern": crate::PATTERN});
            if let Some(cursor) = &self.cursor {
                subscribe["since"] = json!({"cursor": cursor});
            }
            return subscribe.to_string();
        }
        let operations = self.wanted().iter().map(|channel| {
            let mut subscribe = json!({"op": "subscribe", "id": 1, "channel": channel});
            if let Some(since) = self.since(channel) {
                subscribe["since"] = json!({"epoch": since.epoch, "offset": since.offset});
            }
            subscribe
        });
        Value::Array(operations.collect()).to_string()
    }

    fn since(&self, channel: &str) -> Option<Position> {
        let beginning = (self.habit == Habit::Restless).then_some(Position { epoch: 1, offset: 0 });
        self.positions.get(channel).copied().or(beginning)
    }

    /// Takes one message; why the connection should be left, if it should.
    fn heard(&mut self, message: &Value) -> Option<String> {
        let channel = message["channel"].as_str();
        match (message["op"].as_str()?, channel) {
            ("subscribed", Some(channel)) => self.subscribed(channel, message),
            ("subscribed", None) => self.moved(message),
            ("events", Some(channel)) => self.events(channel, message),
            ("gap", Some(channel)) => self.gap(channel.to_owned(), message),
            ("gap", None) => self.over = true,
            ("error", _) => return Some(message.to_string()),
            ("moving", _) => return Some("the server asked to move".to_owned()),
            _ => {}
        }
        None
    }

    fn subscribed(&mut self, channel: &str, message: &Value) {
        self.confirmed += 1;
        let (position, since) = (position_of(message), self.since(channel));
        self.positions.insert(channel.to_owned(), since.unwrap_or(position));
        let (t, channel) = (now(), channel.to_owned());
        self.recorder.note(&SubscriberRecord::Subscribed { t, channel, position, since });
    }

    /// The place of a pattern's subscription.
    fn moved(&mut self, message: &Value) {
        self.confirmed += 1;
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    fn events(&mut self, channel: &str, message: &Value) {
        let epoch = position_of(message).epoch;
        for event in message["events"].as_array().into_iter().flatten() {
            let position = Position { epoch, ..position_of(event) };
            let data = recorded(event["data"].as_str().unwrap_or_default());
            self.positions.insert(channel.to_owned(), position);
            self.control.seen.fetch_add(1, Ordering::Relaxed);
            let (t, channel) = (now(), channel.to_owned());
            self.recorder.note(&SubscriberRecord::Event { t, channel, position, data });
        }
        if self.habit == Habit::Pattern {
            self.moved(message);
        }
    }

    fn gap(&mut self, channel: String, message: &Value) {
        let (from, to) = (position_of(&message["from"]), position_of(&message["to"]));
        self.positions.insert(channel.clone(), to);
        self.recorder.note(&SubscriberRecord::Gap { t: now(), channel, from, to });
    }
}

fn position_of(message: &Value) -> Position {
    let number = |field: &str| message[field].as_u64().unwrap_or_default();
    Position { epoch: u32::try_from(number("epoch")).unwrap_or_default(), offset: number("offset") }
}
