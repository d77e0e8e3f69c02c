//! One publisher: a connection, a channel, a window of unanswered messages.

use crate::control::{Control, Mode};
use crate::dialect::{ANY, Dialect, FIRST_ID, Message, stamps};
use crate::socket::Socket;
use crate::{Failure, Outcome, Traffic};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// Longer than a server may take for an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What frees a place in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Window {
    /// The server's acknowledgement
    Acknowledged,
    /// The publisher's own subscription, so that publishing can't outrun delivery
    Delivered,
}

/// Where and as whom publishers connect.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Publishers take them in turn.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) dialect: Dialect,
    pub(crate) token: String,
    pub(crate) window: Window,
    /// Each message goes to the next channel.
    pub(crate) rotate: bool,
}

/// A connected publisher.
pub(crate) struct Publisher {
    socket: Socket,
    dialect: Dialect,
    window: Window,
    message: Message,
    batch: u64,
    /// When the message of that number should have been sent, by number modulo the window's size.
    intended: Vec<Instant>,
    next: u64,
    oldest: u64,
    /// Events that came back to the publisher and are not counted to a message yet.
    returned: u64,
    /// Messages of the present schedule that are sent.
    paced: u32,
    /// Publishers and channels, where each message goes to the next channel.
    stride: u64,
    channels: u64,
    number: u32,
    control: Rc<Control>,
}

impl Publisher {
    pub(crate) async fn connect(
        target: &Target,
        number: usize,
        traffic: &Traffic,
        control: Rc<Control>,
    ) -> Outcome<Self> {
        let address = target.addresses[number % target.addresses.len()];
        let channel = if target.rotate {
            format!("bench:{ANY}")
        } else {
            format!("bench:{}", number % traffic.channels())
        };
        let connecting = async {
            let mut socket = Socket::open(address, None, target.dialect).await?;
            socket.greet(&target.token).await?;
            if target.window == Window::Delivered {
                socket.subscribe(&channel).await?;
            }
            Ok(socket)
        };
        let socket = tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| Failure::of("no answer to a publisher that connects"))??;
        Ok(Self {
            socket,
            dialect: target.dialect,
            window: target.window,
            message: target.dialect.publish(&channel, &target.token, traffic),
            batch: traffic.batch as u64,
            intended: vec![Instant::now(); traffic.window.max(1)],
            next: 1,
            oldest: 1,
            returned: 0,
            paced: 0,
            stride: traffic.publishers as u64,
            channels: traffic.channels() as u64,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            control,
        })
    }

    /// Publishes until it is told to finish and everything is answered.
    /// `wake` tells it when a message is due.
    pub(crate) async fn run(mut self, wake: Rc<Notify>) {
        let mut mode = self.control.watch();
        if let Err(failure) = self.work(&mut mode, &wake).await {
            self.control.fail(&failure.to_string());
        }
    }

    async fn work(&mut self, mode: &mut watch::Receiver<Mode>, wake: &Notify) -> Outcome {
        let mut last = None;
        loop {
            let now = *mode.borrow_and_update();
            // Compared by value: a change that woke this task counts as seen.
            if last.replace(now) != Some(now) {
                self.paced = 0;
            }
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
                () = wake.notified() => {}
                changed = mode.changed() => changed.map_err(Failure::doing("the bench has ended"))?,
                () = silence, if self.oldest < self.next => {
                    return Err(Failure::of(format!("no answer within {SILENCE_MAX:?}")));
                }
            }
            while let Some(text) = self.socket.next_message()? {
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
            Mode::Paced(schedule) => {
                while self.has_room() {
                    // What could not go in time is late from when it was due.
                    let due = schedule.due(self.number, self.paced);
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
        self.message.set(number, self.batch, self.control.nanos(intended));
        self.message.set_channel((number * self.stride + u64::from(self.number)) % self.channels);
        self.socket.push(&self.message.bytes);
    }

    fn slot(&self, number: u64) -> usize {
        usize::try_from(number % self.intended.len() as u64).unwrap_or(0)
    }

    /// Counts the answers in a message, which holds one operation or several.
    fn read(&mut self, text: &[u8]) -> Outcome {
        let marks = self.dialect.marks();
        if memchr::memmem::find(text, marks.refused.as_bytes()).is_some() {
            let answer = String::from_utf8_lossy(text).into_owned();
            return Err(Failure::of(format!("the server refused: {answer}")));
        }
        if self.window == Window::Delivered {
            self.returned += stamps(text).count() as u64;
            while self.returned >= self.batch && self.oldest < self.next {
                self.returned -= self.batch;
                self.answered();
            }
            return Ok(());
        }
        for at in memchr::memmem::find_iter(text, marks.acknowledged.as_bytes()) {
            if self.dialect == Dialect::Stormwire {
                let id = id_after(&text[at..])
                    .ok_or_else(|| Failure::of("an acknowledgement without an id"))?;
                if id != FIRST_ID + self.oldest {
                    let wanted = FIRST_ID + self.oldest;
                    return Err(Failure::of(format!("acknowledged {id} before {wanted}")));
                }
            }
            self.answered();
        }
        Ok(())
    }

    fn answered(&mut self) {
        let latency =
            Instant::now().saturating_duration_since(self.intended[self.slot(self.oldest)]);
        self.oldest += 1;
        self.control.acknowledge(self.batch, latency);
    }
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
    fn the_id_is_the_number_after_its_name() {
        assert_eq!(id_after(br#""op":"published","id":907,"epoch":1"#), Some(907));
        assert_eq!(id_after(br#""op":"published","epoch":1"#), None);
    }
}
