//! The window against a simulated cluster that keeps the server's rules and fails in every way it may:
//! refusals, unknown outcomes, lost answers, answers out of order, connections cut while publishes are
//! still under way behind them. At the end every event is stored exactly once and in order.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{HashMap, VecDeque};

const PARTITIONS: usize = 3;
const CHANNELS: usize = 7;
const PUBLISHES: usize = 120;
const REMEMBERED: usize = 16;
const UNACKED: usize = REMEMBERED;

/// What is published: a channel, the first event's number on it, and whether a server refuses it for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Payload {
    channel: usize,
    number: u64,
    events: u64,
    bad: bool,
}

#[derive(Debug, Clone, Copy)]
struct Publish {
    seq: u64,
    again: bool,
    payload: Payload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Published,
    Permanent,
    Temporary,
    OutOfOrder,
}

/// One connection: what the gateway has not read, its lanes, its fences, and answers on their way.
#[derive(Debug, Default)]
struct Connection {
    unread: VecDeque<Publish>,
    lanes: [VecDeque<Publish>; PARTITIONS],
    fences: [Option<u64>; PARTITIONS],
    answers: [VecDeque<(u64, Answer)>; PARTITIONS],
}

/// A partition's log and its table for our producer.
#[derive(Debug, Default)]
struct Partition {
    log: Vec<(usize, u64)>,
    highest: u64,
    stored: VecDeque<u64>,
}

struct World {
    random: StdRng,
    faults: bool,
    now: Instant,
    start: Instant,
    window: Window<Payload>,
    connections: Vec<Connection>,
    live: Option<usize>,
    partitions: [Partition; PARTITIONS],
    answered: HashMap<(usize, u64), Answer>,
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            random: StdRng::seed_from_u64(seed),
            faults: true,
            now: start,
            start,
            window: Window::new(seed),
            connections: Vec::new(),
            live: None,
            partitions: Default::default(),
            answered: HashMap::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.faults && self.random.random_range(0..100) < percent
    }

    fn server_time(&self) -> Timestamp {
        Timestamp(1_000).plus(self.now - self.start)
    }

    fn step(&mut self) {
        match self.random.random_range(0..10) {
            0..3 => self.client_sends(),
            3..5 => self.gateway_reads(),
            5..7 => self.appender_takes(),
            7..9 => self.client_hears(),
            _ => self.now += Duration::from_millis(self.random.random_range(0..200)),
        }
        if self.live.is_none() {
            let server = self.server_time();
            self.connections.push(Connection::default());
            self.live = Some(self.connections.len() - 1);
            self.window.connected(Some(UNACKED), server, self.now);
        } else if self.chance(1) {
            self.cut();
        }
    }

    /// The connection breaks: some of what was written arrives all the same, no answer does.
    fn cut(&mut self) {
        let Some(live) = self.live.take() else { return };
        let unread = self.connections[live].unread.len();
        let arrives = self.random.random_range(0..=unread);
        self.connections[live].unread.truncate(arrives);
        self.window.disconnected();
    }

    fn client_sends(&mut self) {
        let Some(live) = self.live else { return };
        for _ in 0..self.random.random_range(1..8) {
            let Some(next) = self.window.take(self.now) else { return };
            let again = next.again.is_some();
            let publish = Publish { seq: next.seq, again, payload: *next.payload };
            self.connections[live].unread.push_back(publish);
        }
    }

    fn gateway_reads(&mut self) {
        // Connections that the client has left are still read to their end.
        let connection = self.random.random_range(0..self.connections.len().max(1));
        let Some(connection) = self.connections.get_mut(connection) else { return };
        if let Some(publish) = connection.unread.pop_front() {
            connection.lanes[publish.payload.channel % PARTITIONS].push_back(publish);
        }
    }

    fn appender_takes(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.connections.len());
        let lane = self.random.random_range(0..PARTITIONS);
        let Some(publish) = self.connections[index].lanes[lane].pop_front() else { return };
        let answer = self.judge(index, lane, publish);
        if answer == Answer::Temporary {
            self.connections[index].fences[lane] = Some(publish.seq);
        }
        self.connections[index].answers[lane].push_back((publish.seq, answer));
    }

    fn judge(&mut self, connection: usize, lane: usize, publish: Publish) -> Answer {
        if let Some(expected) = self.connections[connection].fences[lane] {
            if publish.seq > expected {
                return Answer::OutOfOrder;
            }
            self.connections[connection].fences[lane] = None;
        }
        if publish.payload.bad {
            return Answer::Permanent;
        }
        if self.chance(6) {
            return Answer::Temporary;
        }
        let partition = &mut self.partitions[lane];
        if publish.again && partition.stored.contains(&publish.seq) {
            return Answer::Published;
        }
        if publish.seq <= partition.highest {
            // Refused for ever: with `again` an unknown outcome, without it a conflict.
            return if publish.again { Answer::Temporary } else { Answer::Permanent };
        }
        let Payload { channel, number, events, .. } = publish.payload;
        partition.log.extend((number..number + events).map(|number| (channel, number)));
        partition.highest = publish.seq;
        partition.stored.push_back(publish.seq);
        if partition.stored.len() > REMEMBERED {
            partition.stored.pop_front();
        }
        if self.chance(6) { Answer::Temporary } else { Answer::Published }
    }

    fn client_hears(&mut self) {
        let Some(live) = self.live else { return };
        let lane = self.random.random_range(0..PARTITIONS);
        let Some((seq, answer)) = self.connections[live].answers[lane].pop_front() else { return };
        match answer {
            Answer::Published | Answer::Permanent => {
                let payload = self.window.settled(seq).expect("it was in flight");
                let before = self.answered.insert((payload.channel, payload.number), answer);
                assert_eq!(before, None, "one answer for {payload:?}");
            }
            Answer::Temporary => {
                let after = Duration::from_millis(self.random.random_range(0..300));
                let after = self.random.random_bool(0.5).then_some(after);
                self.window.refused(seq, false, after, self.now);
            }
            Answer::OutOfOrder => self.window.refused(seq, true, None, self.now),
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let mut published: Vec<Payload> = Vec::new();
    let mut next = [0u64; CHANNELS];
    while published.len() < PUBLISHES {
        if world.random.random_range(0..4) == 0 {
            let channel = world.random.random_range(0..CHANNELS);
            let events = world.random.random_range(1..4);
            let bad = world.chance(5);
            let payload = Payload { channel, number: next[channel], events, bad };
            next[channel] += events;
            world.window.push(payload, events, 100, world.now + Duration::from_secs(1 << 30));
            published.push(payload);
        }
        world.step();
    }
    let mut steps = 0;
    while !world.window.is_empty() {
        steps += 1;
        world.faults = steps < 5_000;
        assert!(steps < 200_000, "the window never empties: {:?}", world.window);
        world.step();
    }
    for channel in 0..CHANNELS {
        let log = &world.partitions[channel % PARTITIONS].log;
        let stored = log.iter().filter(|(of, _)| *of == channel).map(|(_, number)| *number);
        let due = published.iter().filter(|payload| payload.channel == channel && !payload.bad);
        let due = due.flat_map(|payload| payload.number..payload.number + payload.events);
        assert_eq!(stored.collect::<Vec<_>>(), due.collect::<Vec<_>>(), "channel {channel}");
    }
    for payload in &published {
        let due = if payload.bad { Answer::Permanent } else { Answer::Published };
        assert_eq!(world.answered.get(&(payload.channel, payload.number)), Some(&due));
    }
}

#[test]
fn every_event_ends_stored_once_and_in_order_whatever_the_server_does() {
    let seeds = match option_env!("STORMWIRE_SEED").and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..100u64,
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "STORMWIRE_SEED={seed} fails");
    }
}
