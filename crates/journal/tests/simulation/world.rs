//! The world of one seed: gateways, their network, clients, the journal, and what goes wrong.

mod check;
mod epochs;
mod event;
mod node;
mod summary;
mod tables;

use crate::client::{Client, End};
use crate::log::{Fate, Log, timed_out};
use epochs::Tail;
use event::{Event, Replied};
use node::{Node, Origin, Ticket};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Epoch, ErrorCode, Refusal, Timestamp};
use stormwire_journal::lane::Request;
use stormwire_journal::publish::{Now, Stored};
use stormwire_journal::{Op, OpResult};
use stormwire_wire::frame::{EncodedEvents, EventParts, EventsBuilder};
pub(crate) use summary::Summary;

/// Wall time of the world's beginning, in milliseconds.
const BASE: i64 = 1_000_000_000;
const CHAOS_MS: u64 = 25_000;
const CALM_MS: u64 = 120_000;

/// What the journal forgets in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trims {
    Nothing,
    /// Nothing that the next claim reads: up to the table that was saved last.
    Saved,
    /// Anything, as if by hand.
    Wild,
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    pub(crate) log: Log,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    connections: u64,
    ops: usize,
    pub(crate) calm: bool,
    trims: Trims,
    /// Tables have hardly any room, so that they say less.
    tight: bool,
    big: bool,
    /// Whether the journal may go back, and an operator begin epochs for nothing.
    goes_back: bool,
    tail: Tail,
    pub(crate) summary: Summary,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tight = rng.random_bool(0.1);
        let nodes =
            (0..rng.random_range(1..4)).map(|at| Node::new(at, 0, tight, &mut rng)).collect();
        let trims = match rng.random_range(0..100) {
            0..50 => Trims::Nothing,
            50..85 => Trims::Saved,
            _ => Trims::Wild,
        };
        let big = rng.random_bool(0.04);
        let goes_back = rng.random_bool(0.3);
        let mut world = Self {
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            log: Log::default(),
            nodes,
            clients: Vec::new(),
            connections: 0,
            ops: 0,
            calm: false,
            trims,
            tight,
            big,
            goes_back,
            tail: Tail::default(),
            summary: Summary::default(),
        };
        for at in 0..world.rng.random_range(1..6) {
            world.add_client(at);
        }
        world.at(0, Event::Chaos);
        world.at(500, Event::Compares);
        world.at(700, Event::Operates);
        world
    }

    fn add_client(&mut self, at: usize) {
        let node = self.rng.random_range(0..self.nodes.len());
        self.connections += 1;
        let producer = (at % 4 != 3).then(|| Arc::from(format!("p{at}")));
        self.clients.push(Client {
            user: Arc::from(format!("u{}", at / 2)),
            producer,
            node,
            connection: self.connections,
            next_seq: 1,
            left: self.rng.random_range(1..40),
            window: Default::default(),
            ended: Vec::new(),
            wait_until: 0,
        });
        self.at(self.now, Event::Client { client: at });
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.queue.push(Reverse((time, self.events.len() as u64, self.events.len())));
        self.events.push(Some(event));
    }

    pub(crate) fn soon(&mut self, event: Event) {
        let time = self.now + self.rng.random_range(1..20);
        self.at(time, event);
    }

    pub(crate) fn time(&self, node: usize) -> Now {
        let wall = BASE + self.now as i64 + self.nodes[node].skew_ms;
        Now { mono: Duration::from_millis(self.now), wall: Timestamp(wall) }
    }

    pub(crate) fn run(mut self) -> Summary {
        while let Some(Reverse((time, _, at))) = self.queue.pop() {
            self.now = time;
            if !self.calm && self.now >= CHAOS_MS {
                self.heal();
            }
            if self.calm && self.clients.iter().all(Client::is_done) {
                break;
            }
            let open = self.clients.iter().filter(|client| !client.is_done());
            assert!(
                self.now < CHAOS_MS + CALM_MS,
                "the world has healed (tight: {}), but not all is answered: {:?}",
                self.tight,
                open.map(|client| &client.window).collect::<Vec<_>>()
            );
            if let Some(event) = self.events[at].take() {
                self.handle(event);
            }
        }
        // Whoever remembers looks once more.
        (self.calm, self.log.full) = (true, false);
        self.compares();
        self.check();
        self.summary.frames = self.log.all().count();
        self.summary
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives { node, life, op, answers, what, begun } => {
                let (now, before) = (self.now, self.log.frames.len());
                let result = self.log.take(&mut self.rng, (BASE as u64) + now, &what);
                self.summary.loaded += usize::from(matches!(result, OpResult::Loaded(Ok(Some(_)))));
                let late = now - begun > 2000 && self.log.frames.len() > before;
                self.summary.late += usize::from(late);
                if self.log.frames.len() > before && self.rng.random_bool(0.9) {
                    self.tail.hears(&self.log);
                }
                if let Some(time) = answers {
                    self.at(time.max(now), Event::Answers { node, life, op, result });
                }
            }
            Event::Answers { node, life, op, result } => {
                let now = self.time(node);
                let it = &mut self.nodes[node];
                if it.life == life && it.op == Some(op) {
                    it.op = None;
                    it.reads(&result);
                    it.appender.complete(now, result);
                    it.remembers();
                    self.turn(node);
                }
            }
            Event::Asked { to, claim, from, items } => self.asked(to, claim, from, items),
            Event::Replied { to, outcomes } => self.replied(to, outcomes),
            Event::Rumour { node, owner } => {
                self.hear(node, owner);
                self.turn(node);
            }
            Event::Saves(saving) => self.arrive(saving),
            Event::Saved { node, life, done } => {
                let now = self.time(node).mono;
                if self.nodes[node].life == life {
                    self.nodes[node].appender.saved(now, done);
                }
            }
            Event::Wake { node } => self.turn(node),
            Event::Client { client } => self.client(client),
            Event::Chaos => self.chaos(),
            Event::Restart { node } => self.restart(node),
            Event::Compares => self.compares(),
            Event::Operates => self.operates(),
        }
    }

    /// Gives an operation of `node` to the journal, or loses it.
    pub(crate) fn perform(&mut self, node: usize, op: Op) {
        self.ops += 1;
        let (id, life, now) = (self.ops, self.nodes[node].life, self.now);
        self.may_claim(node, &op);
        self.nodes[node].op = Some(id);
        let fate = Fate::draw(&mut self.rng, now, &op, &mut self.log, self.calm);
        let answer = |result| Event::Answers { node, life, op: id, result };
        if let Some(wrong) = fate.wrong {
            return self.at(fate.answers.unwrap_or(now), answer(wrong));
        }
        if fate.answers.is_none() || fate.arrives.is_none() {
            self.at(now + 2000, answer(timed_out(&op)));
        }
        if let Some(time) = fate.arrives {
            let answers = fate.answers;
            self.at(time, Event::Arrives { node, life, op: id, answers, what: op, begun: now });
        }
    }

    fn client(&mut self, at: usize) {
        let count = match self.rng.random_range(0..100) {
            0..70 => 1,
            70..97 => self.rng.random_range(2..6),
            _ if self.big => self.rng.random_range(2000..6000),
            _ => 50,
        };
        let node = self.clients[at].node;
        if self.nodes[node].alive
            && let Some(publish) = self.clients[at].next(self.now, count)
        {
            let client = &self.clients[at];
            let again =
                publish.sent_before.then(|| Duration::from_millis(self.now - publish.first_sent));
            let request = Request {
                connection: client.connection,
                channel: Channel::parse("sim:log").unwrap(),
                user: Arc::clone(&client.user),
                producer: client.producer.clone(),
                seq: publish.seq,
                again,
                events: events(&format!("{at}"), publish.seq, publish.count),
                trace: None,
            };
            let ticket = Ticket { client: at, connection: client.connection, seq: publish.seq };
            self.submit(node, request, ticket);
        }
        if !self.clients[at].is_done() {
            let time = self.now + self.rng.random_range(1..if self.calm { 20 } else { 200 });
            self.at(time, Event::Client { client: at });
        }
    }

    fn submit(&mut self, node: usize, request: Request, ticket: Ticket) {
        let now = self.time(node);
        // A limiter stands before the lane, and tells it what it refuses.
        if request.producer.is_some() && !self.calm && self.rng.random_bool(0.02) {
            self.nodes[node].lane.refused(request.connection, request.seq, true);
            self.answer(ticket, Err(Refusal::new(ErrorCode::Limited, "slow down")));
            return self.turn(node);
        }
        if let Err((ticket, refusal)) = self.nodes[node].lane.submit(now, request, ticket) {
            self.answer(ticket, Err(refusal));
        }
        self.turn(node);
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Result<(Epoch, Stored), Refusal>) {
        let now = self.now;
        let wait = self.rng.random_range(10..400);
        if answer.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Forgotten) {
            self.may_forget();
        }
        let says_less = self.says_less();
        let Some(client) = self.clients.get_mut(ticket.client) else { return };
        if client.connection != ticket.connection {
            return;
        }
        let has_producer = client.producer.is_some();
        match answer {
            Ok((epoch, Stored { first, last, duplicate })) => {
                self.summary.duplicates += usize::from(duplicate);
                client.end(ticket.seq, End::Acknowledged { epoch, first, last });
            }
            Err(refusal) => {
                let unknown = refusal.code == ErrorCode::UnknownOutcome;
                self.summary.unknown += usize::from(unknown);
                self.summary.out_of_order += usize::from(refusal.code == ErrorCode::OutOfOrder);
                let Some(publish) = client.window.iter_mut().find(|p| p.seq == ticket.seq) else {
                    return;
                };
                publish.uncertain |= unknown;
                publish.unknowns += u32::from(unknown);
                if says_less && publish.unknowns > 8 {
                    // Nobody can tell before the horizon has passed it: that client does not wait so long.
                    client.end(ticket.seq, End::Uncertain);
                    return self.reconnect(ticket.client);
                }
                publish.outstanding = false;
                client.wait_until = now + wait;
                if !refusal.is_temporary() {
                    assert_eq!(refusal.code, ErrorCode::Forgotten, "{refusal}");
                    self.summary.forgotten += 1;
                    client.end(ticket.seq, End::Uncertain);
                } else if !has_producer {
                    let end = if publish.uncertain { End::Uncertain } else { End::Refused };
                    client.end(ticket.seq, end);
                }
            }
        }
    }

    fn reconnect(&mut self, client: usize) {
        let (node, connection) = (self.clients[client].node, self.clients[client].connection);
        self.nodes[node].lane.closed(connection);
        self.connections += 1;
        let living: Vec<_> = (0..self.nodes.len()).filter(|at| self.nodes[*at].alive).collect();
        let to = living.get(self.rng.random_range(0..living.len().max(1))).copied().unwrap_or(node);
        self.clients[client].reconnect(to, self.connections);
    }

    /// One thing goes wrong, or is done at a bad moment.
    fn chaos(&mut self) {
        if self.calm {
            return self.look_after();
        }
        let node = self.rng.random_range(0..self.nodes.len());
        let client = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..100) {
            0..25 => self.nodes[node].wants = true,
            25..32 => self.crash(node),
            32..50 => self.reconnect(client),
            50..60 => self.give_up(node),
            60..64 => self.nodes[node].appender.release(),
            64..68 => self.log.full = !self.log.full,
            68..75 => self.trim(),
            75..78 => self.nodes[node].appender.give_up(),
            78..92 => self.probe(client),
            92..94 if self.goes_back => self.go_back(),
            _ => {}
        }
        self.turn(node);
        let time = self.now + self.rng.random_range(5..1500);
        self.at(time, Event::Chaos);
    }

    /// A number that was used before, without `again`: it must never be stored.
    fn probe(&mut self, at: usize) {
        let client = &self.clients[at];
        let used = client.ended.iter().find(|(_, end)| matches!(end, End::Acknowledged { .. }));
        let forgets = self.tight || self.goes_back || self.trims != Trims::Nothing;
        if let (Some((publish, _)), Some(producer), false) = (used, &client.producer, forgets) {
            let request = Request {
                connection: u64::MAX,
                channel: Channel::parse("sim:log").unwrap(),
                user: Arc::clone(&client.user),
                producer: Some(Arc::clone(producer)),
                seq: publish.seq,
                again: None,
                events: events("bad", publish.seq, 1),
                trace: None,
            };
            let node = client.node;
            if self.nodes[node].alive {
                self.submit(node, request, Ticket { client: at, connection: 0, seq: 0 });
            }
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for client in 0..self.clients.len() {
            if self.clients[client].node == node {
                self.reconnect(client);
            }
        }
        for other in 0..self.nodes.len() {
            self.give_up_on(other, node);
        }
        let time = self.now + self.rng.random_range(10..3000);
        self.at(time, Event::Restart { node });
    }

    fn restart(&mut self, node: usize) {
        if !self.nodes[node].alive {
            let life = self.nodes[node].life + 1;
            self.nodes[node] = Node::new(node, life, self.tight, &mut self.rng);
        }
    }

    fn heal(&mut self) {
        (self.calm, self.log.full) = (true, false);
        for node in 0..self.nodes.len() {
            self.restart(node);
            self.give_up(node);
        }
        for client in 0..self.clients.len() {
            if !self.nodes[self.clients[client].node].alive {
                self.reconnect(client);
            }
        }
        self.at(self.now, Event::Chaos);
    }

    /// After healing somebody owns the partition and everybody hears of it.
    fn look_after(&mut self) {
        let claims = self.nodes.iter().map(|node| node.appender.owned().map_or(0, |(_, seq)| seq));
        let newest = claims.enumerate().max_by_key(|(_, claim)| *claim);
        let heard = self.nodes.iter().map(Node::newest_claim).max().unwrap_or(0);
        match newest {
            Some(owner @ (_, claim)) if claim > 0 && claim >= heard => {
                for node in 0..self.nodes.len() {
                    self.soon(Event::Rumour { node, owner });
                }
            }
            _ => self.nodes[0].wants = true,
        }
        for node in 0..self.nodes.len() {
            self.turn(node);
        }
        self.at(self.now + 500, Event::Chaos);
    }
}

/// `count` events whose data names client and number.
fn events(who: &str, seq: u64, count: usize) -> EncodedEvents {
    let mut builder = EventsBuilder::default();
    for number in seq..seq + count as u64 {
        let data = format!("\"{who}:{number}\"");
        builder.push(&EventParts { data: data.as_bytes(), ..Default::default() }).unwrap();
    }
    builder.take()
}

impl Client {
    fn is_done(&self) -> bool {
        self.left == 0 && self.window.is_empty()
    }
}

pub(crate) type Peer = (usize, u64, usize);

/// Where a peer's batch came from, as the appender keeps it.
pub(crate) const fn peer(from: Peer) -> Origin {
    Origin::Peer(from)
}
