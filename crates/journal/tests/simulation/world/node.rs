//! A gateway of the simulation: a lane, an appender, and what it believes about the owner.

use super::{Event, Peer, Replied, World, peer};
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq};
use stormwire_journal::appender::{self, Appender, AppenderConfig};
use stormwire_journal::lane::{Lane, LaneConfig};
use stormwire_journal::owner::Claim;
use stormwire_journal::publish::{Outcome, Publish};

pub(crate) struct Ticket {
    pub(crate) client: usize,
    pub(crate) connection: u64,
    pub(crate) seq: u64,
}

pub(crate) enum Origin {
    Lane,
    Peer(Peer),
}

pub(crate) struct Node {
    pub(crate) alive: bool,
    pub(crate) life: u64,
    pub(crate) lane: Lane<Ticket>,
    pub(crate) appender: Appender<Origin>,
    /// The operation under way.
    pub(crate) op: Option<usize>,
    /// The batch at another node: the number of the request, and whom it went to.
    asked: Option<(usize, usize, Vec<Publish>)>,
    asks: usize,
    owner: Option<(usize, FrameSeq)>,
    /// The newest claim that it has heard of.
    newest: FrameSeq,
    pub(crate) wants: bool,
    pub(crate) skew_ms: i64,
    wake: u64,
    /// How far it knows the log for certain: E1, it never claims below.
    pub(crate) seen: (Epoch, FrameSeq),
    /// The word that it has read of a log that has gone back.
    pub(crate) told: Option<(Epoch, FrameSeq)>,
}

impl Node {
    pub(crate) fn new(at: usize, life: u64, tight: bool, rng: &mut StdRng) -> Self {
        let lane = LaneConfig {
            producer: Arc::from(format!("lane{at}.{life}")),
            bytes_max: 200_000,
            connection_bytes_max: 150_000,
            deadline: Duration::from_millis(rng.random_range(1_000..6_000)),
        };
        let config = AppenderConfig {
            gateway: format!("node{at}"),
            linger: Duration::from_millis(if rng.random_bool(0.3) { 2 } else { 0 }),
            repeats_bytes_max: if tight { rng.random_range(300..2000) } else { 16 << 20 },
        };
        Self {
            alive: true,
            life,
            lane: Lane::new(lane),
            appender: Appender::new(config),
            op: None,
            asked: None,
            asks: 0,
            owner: None,
            newest: 0,
            wants: false,
            skew_ms: rng.random_range(-1000..1000),
            wake: u64::MAX,
            seen: (Epoch::FIRST, 0),
            told: None,
        }
    }
}

impl Node {
    pub(crate) const fn newest_claim(&self) -> FrameSeq {
        self.newest
    }
}

impl World {
    /// All that the node does at this moment.
    pub(crate) fn turn(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        let now = self.time(at);
        self.want(at);
        let mut wake = None;
        loop {
            self.take_events(at);
            self.take_answers(at);
            self.feed(at);
            let (op, again) = self.nodes[at].appender.poll(now);
            wake = again.or(wake);
            if let Some(op) = op {
                self.perform(at, op);
            }
            if !self.nodes[at].appender.has_news() {
                break;
            }
        }
        if let Some(table) = self.nodes[at].appender.table_to_save(now.mono) {
            self.save(at, table);
        }
        let node = &mut self.nodes[at];
        let wake = wake.into_iter().chain(node.lane.expires()).min();
        let Some(wake) = wake.map(|wake| (wake.as_millis() as u64).max(self.now + 1)) else {
            return;
        };
        if node.wake <= self.now || wake < node.wake {
            node.wake = wake;
            self.at(wake, Event::Wake { node: at });
        }
    }

    fn want(&mut self, at: usize) {
        let now = self.time(at);
        let id = self.rng.random();
        let node = &mut self.nodes[at];
        if !node.wants || node.appender.is_between() {
            return;
        }
        if node.appender.owned().is_some() {
            node.wants = false;
        } else if node.appender.log_end().is_some() {
            node.appender.claim(now, id);
        } else {
            node.appender.read_log();
        }
    }

    fn take_events(&mut self, at: usize) {
        let events: Vec<_> = self.nodes[at].appender.events().collect();
        for event in events {
            match event {
                appender::Event::Claimed { claim, .. } => {
                    self.nodes[at].wants = false;
                    for node in 0..self.nodes.len() {
                        if self.calm || self.rng.random_bool(0.7) {
                            let time = self.now + self.rng.random_range(1..800);
                            self.at(time, Event::Rumour { node, owner: (at, claim) });
                        }
                    }
                }
                appender::Event::Fenced => self.summary.fenced += 1,
                // D3: the table goes along, or is lost on the way.
                appender::Event::Released { table: Some(table) } => self.save(at, table),
                _ => {}
            }
        }
    }

    fn take_answers(&mut self, at: usize) {
        let answers: Vec<_> = self.nodes[at].appender.answers().collect();
        for answer in answers {
            match answer.origin {
                Origin::Lane => {
                    self.nodes[at].lane.settle(answer.epoch, answer.items, answer.outcomes);
                }
                Origin::Peer(to) => self.reply(to, Some((answer.epoch, answer.outcomes))),
            }
        }
        self.deliver(at);
    }

    fn deliver(&mut self, at: usize) {
        for (ticket, answer) in self.nodes[at].lane.answers() {
            self.answer(ticket, answer);
        }
    }

    /// Carries the lane's batch to the appender here, or to the node that is believed to own.
    fn feed(&mut self, at: usize) {
        let now = self.time(at);
        let node = &mut self.nodes[at];
        node.lane.expire(now);
        if node.appender.owned().is_some() {
            if let Some(batch) = node.lane.take() {
                node.appender.push(now, Origin::Lane, batch);
            }
        } else if let Some((to, claim)) = node.owner.filter(|(to, _)| *to != at)
            && let Some(batch) = node.lane.take()
        {
            node.asks += 1;
            let from = (at, node.life, node.asks);
            node.asked = Some((node.asks, to, batch.clone()));
            // The network delivers at most once: soon, much later, or never.
            let delay = match self.rng.random_range(0..100) {
                _ if self.calm => self.rng.random_range(1..20),
                0..85 => self.rng.random_range(1..20),
                85..92 => self.rng.random_range(1..9000),
                _ => return self.deliver(at),
            };
            self.at(self.now + delay, Event::Asked { to, claim, from, items: batch });
        }
        self.deliver(at);
    }

    pub(crate) fn asked(&mut self, to: usize, claim: FrameSeq, from: Peer, items: Vec<Publish>) {
        if !self.nodes[to].alive {
            return;
        }
        let gateway = Arc::from(format!("node{to}"));
        // A claim's number is of one epoch alone.
        let epoch = self.nodes[to].appender.owned().map_or(Epoch::FIRST, |(epoch, _)| epoch);
        if !self.nodes[to].appender.serves(&Claim { gateway, epoch, seq: claim }) {
            return self.reply(from, None);
        }
        let now = self.time(to);
        self.nodes[to].appender.push(now, peer(from), items);
        self.turn(to);
    }

    fn reply(&mut self, to: Peer, outcomes: Replied) {
        if self.calm || self.rng.random_bool(0.93) {
            self.soon(Event::Replied { to, outcomes });
        }
    }

    pub(crate) fn replied(&mut self, (at, life, number): Peer, outcomes: Replied) {
        let node = &mut self.nodes[at];
        if node.life != life || !node.alive || node.asked.as_ref().is_none_or(|a| a.0 != number) {
            return;
        }
        let Some((_, _, batch)) = node.asked.take() else { return };
        let (epoch, outcomes) = outcomes.unwrap_or_else(|| {
            node.owner = None;
            (Epoch::FIRST, vec![Outcome::NotStored; batch.len()])
        });
        node.lane.settle(epoch, batch, outcomes);
        self.deliver(at);
        self.turn(at);
    }

    /// The node does not believe any longer that an answer will come.
    pub(crate) fn give_up(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some((_, _, batch)) = node.asked.take() {
            let outcomes = vec![Outcome::Unknown; batch.len()];
            node.lane.settle(Epoch::FIRST, batch, outcomes);
            self.deliver(at);
        }
        self.turn(at);
    }

    pub(crate) fn give_up_on(&mut self, at: usize, dead: usize) {
        if self.nodes[at].asked.as_ref().is_some_and(|asked| asked.1 == dead) {
            self.nodes[at].owner = None;
            self.give_up(at);
        }
    }

    pub(crate) fn hear(&mut self, at: usize, owner: (usize, FrameSeq)) {
        let node = &mut self.nodes[at];
        if !node.alive || owner.1 < node.newest {
            return;
        }
        node.newest = owner.1;
        if node.appender.owned().is_some_and(|(_, mine)| mine < owner.1) {
            // Another has claimed since: this one writes nothing more, and finds out when it tries.
            node.appender.release();
        }
        if node.owner != Some(owner) {
            node.owner = Some(owner);
            self.give_up(at);
        }
    }
}
