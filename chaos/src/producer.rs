//! A producer: pipelined publishes with numbers, sent again until each has its answer.
//!
//! What it records is what went over the wire: every attempt before it is sent, every answer as it
//! comes, and "unknown" for what was on the wire when the connection went. Nothing is left out because
//! it was sent before.

use crate::control::{Control, Phase};
use crate::recorder::{Recorder, now, recorded};
use crate::socket::Socket;
use crate::{Outcome, Target};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_checker::ProducerRecord;
use tokio::time::Instant;

/// Publishes on the wire or waiting to go again.
const WINDOW: usize = 24;
/// Longer than a server may take for an answer, 15 s and a hop.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
const PAUSE_MAX: Duration = Duration::from_secs(2);

struct Pending {
    seq: u64,
    channel: String,
    data: Vec<String>,
    /// The server's time before its first attempt.
    first_sent: Option<u64>,
    /// The attempt that is on the wire, and since when.
    attempt: Option<(u64, Instant)>,
}

/// One producer.
pub(crate) struct Producer {
    name: String,
    target: Arc<Target>,
    control: Arc<Control>,
    recorder: Recorder,
    random: StdRng,
    pending: VecDeque<Pending>,
    next_seq: u64,
    next_attempt: u64,
    /// After a temporary refusal: all goes again from this time on, once nothing is on the wire.
    hold: Option<Instant>,
    refusals: u32,
    /// The newest server time, and when it came.
    server: (u64, Instant),
}

/// What happens next on a connection.
enum Turn {
    Heard(Outcome<Vec<Value>>),
    Cut,
    Changed,
    Due,
}

impl Producer {
    pub(crate) fn new(
        number: usize,
        seed: u64,
        target: Arc<Target>,
        control: Arc<Control>,
        recorder: Recorder,
    ) -> Self {
        Self {
            name: format!("p{number}"),
            target,
            control,
            recorder,
            random: StdRng::seed_from_u64(seed ^ (number as u64) << 32),
            pending: VecDeque::new(),
            next_seq: 1,
            next_attempt: 1,
            hold: None,
            refusals: 0,
            server: (0, Instant::now()),
        }
    }

    /// Publishes until the run ends and everything is answered, or time is up.
    pub(crate) async fn run(mut self) -> Outcome {
        let phase = self.control.phase();
        let id = format!("{:032x}", self.random.random::<u128>());
        while !self.is_over(*phase.borrow()) {
            let port = self.target.port(&mut self.random);
            match Socket::open(port, &self.target.token, Some(&id)).await {
                Ok(socket) => self.converse(socket).await,
                Err(_) => self.pause().await,
            }
        }
        self.lost("the end");
        let unsettled = self.pending.iter().map(|pending| pending.seq).collect();
        self.recorder.note(&ProducerRecord::End { t: now(), unsettled });
        self.recorder.finish()
    }

    fn is_over(&self, phase: Phase) -> bool {
        phase == Phase::End || phase == Phase::Finish && self.pending.is_empty()
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.random.random_range(100..500));
        tokio::time::sleep(pause).await;
    }

    async fn converse(&mut self, mut socket: Socket) {
        let (mut phases, mut cuts) = (self.control.phase(), self.control.cuts());
        cuts.mark_unchanged();
        self.server = (socket.server_time, Instant::now());
        self.hold = None;
        let mut due = Instant::now();
        loop {
            let phase = *phases.borrow_and_update();
            if self.is_over(phase) {
                return;
            }
            if phase == Phase::Run && Instant::now() >= due && self.pending.len() < WINDOW {
                self.make();
                due = Instant::now()
                    + self.target.interval.mul_f64(self.random.random_range(0.2..1.8));
            }
            if let Err(failure) = self.send_waiting(&mut socket).await {
                return self.lost(&failure.to_string());
            }
            let timer = self.timer(due);
            let turn = tokio::select! {
                heard = socket.next() => Turn::Heard(heard),
                _ = cuts.changed() => Turn::Cut,
                _ = phases.changed() => Turn::Changed,
                () = tokio::time::sleep_until(timer) => Turn::Due,
            };
            match turn {
                Turn::Heard(Ok(messages)) => {
                    for message in messages {
                        if message["op"] == "moving" {
                            return self.lost("the server asked to move");
                        }
                        self.heard(&message);
                    }
                }
                Turn::Heard(Err(failure)) => return self.lost(&failure.to_string()),
                Turn::Cut => return self.cut(socket).await,
                Turn::Changed => {}
                Turn::Due => {
                    let oldest = self.pending.iter().filter_map(|pending| pending.attempt).min();
                    if oldest.is_some_and(|(_, since)| since.elapsed() > ANSWER_WITHIN) {
                        return self.lost("no answer within 25 s");
                    }
                }
            }
        }
    }

    fn timer(&self, due: Instant) -> Instant {
        let soon = Instant::now() + Duration::from_millis(500);
        let hold = self.hold.unwrap_or(soon).max(Instant::now() + Duration::from_millis(5));
        let due = if self.pending.len() < WINDOW { due } else { soon };
        soon.min(hold).min(due.max(Instant::now() + Duration::from_millis(1)))
    }

    /// Makes the next publish of one to three events.
    fn make(&mut self) {
        let channels = self.target.channels.len();
        let channel = self.target.channels[self.random.random_range(0..channels)].clone();
        let seq = self.next_seq;
        let count = self.random.random_range(1..=3_u64);
        let padding = "x".repeat(self.target.event_bytes);
        let data = (seq..seq + count).map(|seq| format!("{}.{seq}{padding}", self.name)).collect();
        self.next_seq += count;
        let (first_sent, attempt) = (None, None);
        self.pending.push_back(Pending { seq, channel, data, first_sent, attempt });
    }

    fn in_flight(&self) -> usize {
        self.pending.iter().filter(|pending| pending.attempt.is_some()).count()
    }

    async fn send_waiting(&mut self, socket: &mut Socket) -> Outcome {
        if let Some(hold) = self.hold {
            if self.in_flight() > 0 || Instant::now() < hold {
                return Ok(());
            }
            self.hold = None;
        }
        for index in 0..self.pending.len() {
            if self.pending[index].attempt.is_none() {
                let text = self.attempt(index);
                socket.send(text).await?;
            }
        }
        Ok(())
    }

    /// Notes the attempt and writes its message.
    fn attempt(&mut self, index: usize) -> String {
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        let (heard, at) = self.server;
        let pending = &mut self.pending[index];
        let server_now = heard + u64::try_from(at.elapsed().as_millis()).unwrap_or_default();
        let again = pending.first_sent.map(|first| server_now.saturating_sub(first));
        pending.first_sent.get_or_insert(heard);
        pending.attempt = Some((attempt, Instant::now()));
        self.recorder.note(&ProducerRecord::Attempt {
            t: now(),
            attempt,
            seq: pending.seq,
            channel: pending.channel.clone(),
            data: pending.data.iter().map(|data| recorded(data)).collect(),
            again,
        });
        let events: Vec<Value> = pending.data.iter().map(|data| json!({"data": data})).collect();
        let mut publish = json!({"op": "publish", "id": attempt, "channel": pending.channel,
            "seq": pending.seq, "events": events});
        if let Some(again) = again {
            publish["again"] = again.into();
        }
        publish.to_string()
    }

    fn heard(&mut self, message: &Value) {
        if let Some(time) = message["server_time"].as_u64() {
            self.server = (time, Instant::now());
        }
        let Some(attempt) = message["id"].as_u64() else { return };
        let is_it = |pending: &Pending| pending.attempt.is_some_and(|(id, _)| id == attempt);
        let Some(index) = self.pending.iter().position(is_it) else { return };
        match message["op"].as_str() {
            Some("published") => self.published(attempt, index, message),
            Some("error") => self.refused(attempt, index, message),
            _ => {}
        }
    }

    fn published(&mut self, attempt: u64, index: usize, message: &Value) {
        let number = |field: &str| message[field].as_u64().unwrap_or_default();
        self.recorder.note(&ProducerRecord::Acknowledged {
            t: now(),
            attempt,
            epoch: u32::try_from(number("epoch")).unwrap_or_default(),
            first: number("first"),
            last: number("last"),
            duplicate: message["duplicate"] == true,
        });
        self.refusals = 0;
        if let Some(pending) = self.pending.remove(index) {
            let partition = self.target.partition(&pending.channel);
            self.control.acknowledge(partition, pending.data.len() as u64);
        }
    }

    fn refused(&mut self, attempt: u64, index: usize, message: &Value) {
        let code = message["code"].as_str().unwrap_or_default().to_owned();
        if code == "unknown_outcome" {
            self.control.unknown.fetch_add(1, Ordering::Relaxed);
            self.recorder.note(&ProducerRecord::Unknown { t: now(), attempt, why: code.clone() });
        } else {
            self.control.refused.fetch_add(1, Ordering::Relaxed);
            if code == "journal_unavailable" {
                self.control.journal_refused.fetch_add(1, Ordering::Relaxed);
            }
            self.recorder.note(&ProducerRecord::Refused { t: now(), attempt, code: code.clone() });
        }
        if message["temporary"] != true {
            self.pending.remove(index);
            return;
        }
        self.pending[index].attempt = None;
        self.refusals = (self.refusals + 1).min(6);
        let named = message["retry_after_ms"].as_u64().map(Duration::from_millis);
        let own = if code == "out_of_order" { Duration::ZERO } else { Duration::from_millis(25) };
        let pause = named.unwrap_or(own * 2_u32.pow(self.refusals)).min(PAUSE_MAX);
        let until = Instant::now() + pause;
        self.hold = Some(self.hold.map_or(until, |hold| hold.max(until)));
    }

    /// The connection has gone: nobody can say what became of what was on the wire.
    fn lost(&mut self, why: &str) {
        for pending in &mut self.pending {
            if let Some((attempt, _)) = pending.attempt.take() {
                self.control.unknown.fetch_add(1, Ordering::Relaxed);
                let why = why.to_owned();
                self.recorder.note(&ProducerRecord::Unknown { t: now(), attempt, why });
            }
        }
    }

    /// Breaks off in the middle of a publish.
    async fn cut(&mut self, socket: Socket) {
        if self.pending.len() < WINDOW {
            self.make();
        }
        match self.pending.iter().position(|pending| pending.attempt.is_none()) {
            Some(index) => {
                let text = self.attempt(index);
                socket.cut_in(&text).await;
            }
            None => socket.reset(),
        }
        self.control.sockets_cut.fetch_add(1, Ordering::Relaxed);
        self.lost("the socket was cut in mid-frame");
    }
}
