//! One publisher: a connection, a channel, a window of unacknowledged messages.

use crate::control::{Control, Mode};
use crate::socket::Socket;
use crate::{Failure, Outcome, Traffic};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// Longer than a server may take for an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A connected publisher.
pub(crate) struct Publisher {
    socket: Socket,
    /// What stands before and after the numbers of a message.
    channel: Vec<u8>,
    events: Vec<u8>,
    batch: u64,
    /// When the message of that number should have been sent, by number modulo the window's size.
    intended: Vec<Instant>,
    next: u64,
    oldest: u64,
    /// Messages of the present schedule that are sent.
    paced: u32,
    control: Rc<Control>,
}

impl Publisher {
    pub(crate) async fn connect(
        address: &str,
        token: &str,
        number: usize,
        traffic: &Traffic,
        control: Rc<Control>,
    ) -> Outcome<Self> {
        let mut socket = Socket::open(address).await?;
        let producer = format!("{:032x}", rand::random::<u128>());
        let hello =
            format!(r#"{{"op":"connect","id":0,"token":"{token}","producer":"{producer}"}}"#);
        socket.push(&[hello.as_bytes()]);
        socket.flush().await?;
        let answer = tokio::time::timeout(CONNECT_DEADLINE, first_text(&mut socket));
        let answer = answer.await.map_err(|_| Failure::of("no answer to connect"))??;
        if memchr::memmem::find(&answer, br#""op":"connected""#).is_none() {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            return Err(Failure::of(format!("the server refused to connect: {answer}")));
        }
        let window = traffic.window.max(1);
        Ok(Self {
            socket,
            channel: format!(r#","channel":"bench:{number}","seq":"#).into_bytes(),
            events: events(traffic),
            batch: traffic.batch as u64,
            intended: vec![Instant::now(); window],
            next: 1,
            oldest: 1,
            paced: 0,
            control,
        })
    }

    /// Publishes until it is told to finish and everything is answered.
    pub(crate) async fn run(mut self, mut ticks: watch::Receiver<u64>) {
        let mut mode = self.control.watch();
        if let Err(failure) = self.work(&mut mode, &mut ticks).await {
            self.control.fail(&failure.to_string());
        }
    }

    async fn work(
        &mut self,
        mode: &mut watch::Receiver<Mode>,
        ticks: &mut watch::Receiver<u64>,
    ) -> Outcome {
        loop {
            if mode.has_changed().unwrap_or(false) {
                self.paced = 0;
            }
            let now = *mode.borrow_and_update();
            self.send_due(now);
            if now == Mode::Finish && self.oldest == self.next {
                return Ok(());
            }
            if self.socket.has_outgoing() {
                self.socket.flush().await?;
            }
            let silence = tokio::time::sleep(SILENCE_MAX);
            tokio::select! {
                read = self.socket.fill() => read?,
                _ = ticks.changed(), if matches!(now, Mode::Paced { .. }) => {}
                changed = mode.changed() => changed.map_err(Failure::doing("the bench has ended"))?,
                () = silence, if self.oldest < self.next => {
                    return Err(Failure::of(format!("no answer within {SILENCE_MAX:?}")));
                }
            }
            while let Some(text) = self.socket.next_text()? {
                self.read(&text)?;
            }
        }
    }

    fn send_due(&mut self, mode: Mode) {
        match mode {
            Mode::Finish => {}
            Mode::Saturate => {
                while self.has_room() && self.control.may_send(self.batch) {
                    self.send(Instant::now());
                }
            }
            Mode::Paced { since, interval } => {
                while self.has_room() {
                    // What could not go in time is late from when it was due.
                    let due = since + interval * self.paced;
                    if due > Instant::now() || !self.control.may_send(self.batch) {
                        break;
                    }
                    self.paced += 1;
                    self.send(due);
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.next - self.oldest < self.intended.len() as u64
    }

    fn send(&mut self, intended: Instant) {
        let number = self.next;
        self.next += 1;
        let slot = self.slot(number);
        self.intended[slot] = intended;
        // Every event uses a number of its own; the message names the first one's.
        let seq = (number - 1) * self.batch + 1;
        self.socket.push(&[
            br#"{"op":"publish","id":"#,
            number.to_string().as_bytes(),
            &self.channel,
            seq.to_string().as_bytes(),
            &self.events,
        ]);
    }

    fn slot(&self, number: u64) -> usize {
        usize::try_from(number % self.intended.len() as u64).unwrap_or(0)
    }

    /// Counts the acknowledgements in a message, which holds one operation or several.
    fn read(&mut self, text: &[u8]) -> Outcome {
        if memchr::memmem::find(text, br#""op":"error""#).is_some() {
            let answer = String::from_utf8_lossy(text).into_owned();
            return Err(Failure::of(format!("the server refused: {answer}")));
        }
        let now = Instant::now();
        for at in memchr::memmem::find_iter(text, br#""op":"published""#) {
            let id = id_after(&text[at..])
                .ok_or_else(|| Failure::of("an acknowledgement without an id"))?;
            if id != self.oldest {
                let wanted = self.oldest;
                return Err(Failure::of(format!("acknowledged {id} before {wanted}")));
            }
            self.oldest += 1;
            let latency = now.saturating_duration_since(self.intended[self.slot(id)]);
            self.control.acknowledge(self.batch, latency);
        }
        Ok(())
    }
}

async fn first_text(socket: &mut Socket) -> Outcome<bytes::BytesMut> {
    loop {
        if let Some(text) = socket.next_text()? {
            return Ok(text);
        }
        socket.fill().await?;
    }
}

/// The events of every message, from the comma after its `seq`.
fn events(traffic: &Traffic) -> Vec<u8> {
    // The quotes count: they are what is stored.
    let data = "x".repeat(traffic.bytes.saturating_sub(2));
    let event = format!(r#"{{"data":"{data}"}}"#);
    format!(r#","events":[{}]}}"#, vec![event; traffic.batch].join(",")).into_bytes()
}

fn id_after(text: &[u8]) -> Option<u64> {
    const NAME: &[u8] = br#""id":"#;
    let from = memchr::memmem::find(text, NAME)? + NAME.len();
    let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.copied().map(|digit| u64::from(digit - b'0')).reduce(|id, digit| id * 10 + digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_as_many_bytes_as_were_asked_for() {
        let traffic = Traffic { publishers: 1, window: 1, batch: 2, bytes: 8 };
        assert_eq!(events(&traffic), br#","events":[{"data":"xxxxxx"},{"data":"xxxxxx"}]}"#);
    }

    #[test]
    fn the_id_is_the_number_after_its_name() {
        assert_eq!(id_after(br#""op":"published","id":907,"epoch":1"#), Some(907));
        assert_eq!(id_after(br#""op":"published","epoch":1"#), None);
    }
}
