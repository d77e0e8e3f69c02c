//! What differs between the servers that are measured: how a client greets, subscribes and publishes.
//!
//! Everything else is the same for all of them. An event's data is a JSON string that begins with
//! [`STAMP`] and the time at which it was due, so that a delivery is recognised in any protocol.

use crate::Traffic;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// Begins the data of every event; occurs nowhere else in what a server sends.
pub(crate) const STAMP: &[u8] = b"\"@";
/// Digits of nanoseconds since 1970, behind [`STAMP`].
pub(crate) const STAMP_DIGITS: usize = 19;
/// Numbers of messages have ten digits from the first one on, so that they are written in place.
pub(crate) const FIRST_ID: u64 = 1_000_000_000;
const FIRST_SEQ: u64 = 1_000_000_000_000;
/// Ends the name of a channel whose number is written anew into each message.
pub(crate) const ANY: &str = "-any";
const CHANNEL_DIGITS: usize = 7;
const ID_DIGITS: usize = 10;
const SEQ_DIGITS: usize = 13;

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// Stormwire's, JSON over WebSocket
    Stormwire,
    /// Stormwire's REST interface: publishes only
    Rest,
    /// NATS over WebSocket: nothing is kept
    Nats,
    /// Socket.IO over WebSocket, with the peer's server of this repository
    SocketIo,
}

/// What a server says, by what marks it in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) connected: &'static str,
    pub(crate) subscribed: &'static str,
    pub(crate) acknowledged: &'static str,
    pub(crate) refused: &'static str,
}

impl Dialect {
    /// As it is named on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stormwire => "stormwire",
            Self::Rest => "rest",
            Self::Nats => "nats",
            Self::SocketIo => "socket-io",
        }
    }

    /// Path and subprotocol of the WebSocket; `None` where there is none.
    pub(crate) const fn upgrade(self) -> Option<(&'static str, Option<&'static str>)> {
        match self {
            Self::Stormwire => Some(("/v1/ws", Some("stormwire.v1.json"))),
            Self::Rest => None,
            Self::Nats => Some(("/", None)),
            Self::SocketIo => Some(("/socket.io/?EIO=4&transport=websocket", None)),
        }
    }

    /// Whether messages are text rather than bytes.
    pub(crate) const fn is_text(self) -> bool {
        !matches!(self, Self::Nats)
    }

    pub(crate) const fn marks(self) -> Marks {
        match self {
            Self::Stormwire => Marks {
                connected: r#""op":"connected""#,
                subscribed: r#""op":"subscribed""#,
                acknowledged: r#""op":"published""#,
                refused: r#""op":"error""#,
            },
            Self::Rest => Marks {
                connected: "",
                subscribed: "",
                acknowledged: "HTTP/1.1 200",
                refused: "HTTP/1.1 4",
            },
            Self::Nats => Marks {
                connected: "PONG\r\n",
                subscribed: "PONG\r\n",
                acknowledged: "PONG\r\n",
                refused: "-ERR",
            },
            Self::SocketIo => {
                Marks { connected: "40{", subscribed: "431", acknowledged: "432", refused: "44{" }
            }
        }
    }

    /// The first message; nothing where none is due.
    pub(crate) fn hello(self, token: &str) -> String {
        match self {
            Self::Stormwire => {
                let producer = format!("{:032x}", rand::random::<u128>());
                format!(r#"{{"op":"connect","id":0,"token":"{token}","producer":"{producer}"}}"#)
            }
            Self::Rest => String::new(),
            Self::Nats => "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n".to_owned(),
            Self::SocketIo => "40".to_owned(),
        }
    }

    /// Asks for a channel, or for a pattern where it ends with `*`.
    pub(crate) fn subscribe(self, channel: &str) -> String {
        match self {
            Self::Stormwire => {
                let what = if channel.ends_with('*') { "pattern" } else { "channel" };
                format!(r#"{{"op":"subscribe","id":1,"{what}":"{channel}"}}"#)
            }
            Self::Rest => String::new(),
            Self::Nats => {
                let subject = if channel.ends_with('*') { ">" } else { channel };
                format!("SUB {subject} 1\r\nPING\r\n")
            }
            Self::SocketIo => format!(r#"421["subscribe","{channel}"]"#),
        }
    }

    /// What is answered to a server that asks whether we live.
    pub(crate) fn alive(self, message: &[u8]) -> Option<&'static [u8]> {
        match self {
            Self::Nats if message.starts_with(b"PING") => Some(b"PONG\r\n"),
            Self::SocketIo if message == b"2" => Some(b"3"),
            _ => None,
        }
    }

    /// A publish on `channel`, ready to be sent again and again with other numbers.
    /// A channel that ends with [`ANY`] is another one in each.
    pub(crate) fn publish(self, channel: &str, token: &str, traffic: &Traffic) -> Message {
        let mut message = Message::default();
        match self {
            Self::Stormwire => {
                message.text(r#"{"op":"publish","id":"#);
                message.id = Some(message.digits(ID_DIGITS));
                message.text(r#","channel":""#);
                message.channel(channel);
                message.text(r#"","seq":"#);
                message.seq = Some(message.digits(SEQ_DIGITS));
                message.text(r#","events":["#);
                message.events(traffic, r#"{"data":"#, "}", ",");
                message.text("]}");
            }
            Self::Rest => {
                let mut body = Message::default();
                body.text("[");
                body.events(traffic, r#"{"data":"#, "}", ",");
                body.text("]");
                message.text(&format!(
                    "POST /v1/channels/{channel}/events HTTP/1.1\r\nHost: load\r\nAuthorization: \
                     Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.bytes.len()
                ));
                message.append(&body);
            }
            Self::Nats => {
                let head = format!("PUB {channel} {}\r\n", data_bytes(traffic));
                message.events(traffic, &head, "\r\n", "");
                // One answer a message: it says that the server has taken all before it.
                message.text("PING\r\n");
            }
            Self::SocketIo => {
                message.text(&format!(r#"422["publish","{channel}","#));
                message.events(traffic, "", "", ",");
                message.text("]");
            }
        }
        message
    }
}

/// Bytes of an event's data; the quotes count: they are what is stored.
fn data_bytes(traffic: &Traffic) -> usize {
    traffic.bytes.max(STAMP.len() + STAMP_DIGITS + 1)
}

/// A message of which only numbers change, in place.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    id: Option<Range<usize>>,
    seq: Option<Range<usize>>,
    channel: Option<Range<usize>>,
    stamps: Vec<usize>,
}

impl Message {
    /// Gives it its number and the time at which it was due.
    pub(crate) fn set(&mut self, number: u64, batch: u64, due_nanos: u64) {
        if let Some(at) = self.id.clone() {
            write_digits(&mut self.bytes[at], FIRST_ID + number);
        }
        if let Some(at) = self.seq.clone() {
            // Every event uses a number of its own; the message names the first one's.
            write_digits(&mut self.bytes[at], FIRST_SEQ + number * batch);
        }
        let Some((first, others)) = self.stamps.split_first() else { return };
        let digits = *first..first + STAMP_DIGITS;
        write_digits(&mut self.bytes[digits.clone()], due_nanos);
        for at in others {
            self.bytes.copy_within(digits.clone(), *at);
        }
    }

    /// Sends it to the channel of that number, if it is for any.
    pub(crate) fn set_channel(&mut self, number: u64) {
        if let Some(at) = self.channel.clone() {
            write_digits(&mut self.bytes[at], number);
        }
    }

    fn channel(&mut self, name: &str) {
        match name.strip_suffix(ANY) {
            None => self.text(name),
            Some(stem) => {
                self.text(stem);
                self.channel = Some(self.digits(CHANNEL_DIGITS));
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn digits(&mut self, count: usize) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.resize(from + count, b'1');
        from..from + count
    }

    fn events(&mut self, traffic: &Traffic, before: &str, after: &str, between: &str) {
        let padding = data_bytes(traffic) - STAMP.len() - STAMP_DIGITS - 1;
        for number in 0..traffic.batch {
            if number > 0 {
                self.text(between);
            }
            self.text(before);
            self.bytes.extend_from_slice(STAMP);
            let digits = self.digits(STAMP_DIGITS);
            self.stamps.push(digits.start);
            self.bytes.resize(self.bytes.len() + padding, b'x');
            self.text("\"");
            self.text(after);
        }
    }

    fn append(&mut self, other: &Self) {
        let from = self.bytes.len();
        self.stamps.extend(other.stamps.iter().map(|at| at + from));
        self.bytes.extend_from_slice(&other.bytes);
    }
}

/// Right-aligned, with zeros before it.
fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// The time of this machine, which all its processes share.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock of the machine itself"
)]
pub(crate) fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// When each event in `text` was due.
pub(crate) fn stamps(text: &[u8]) -> impl Iterator<Item = u64> {
    memchr::memmem::find_iter(text, STAMP).filter_map(|at| {
        let from = at + STAMP.len();
        let digits = text.get(from..from + STAMP_DIGITS)?;
        digits.iter().try_fold(0_u64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic { publishers: 1, channels: 1, window: 1, batch: 2, bytes: 32 };

    #[test]
    fn an_event_has_as_many_bytes_as_were_asked_for() {
        let message = Dialect::Stormwire.publish("bench:0", "", &TRAFFIC);
        let value: serde_json::Value = serde_json::from_slice(&message.bytes).unwrap();
        let data = value["events"][1]["data"].as_str().unwrap();
        assert_eq!(data.len() + 2, 32);
    }

    #[test]
    fn numbers_and_times_are_written_in_place() {
        for dialect in [Dialect::Stormwire, Dialect::Rest, Dialect::Nats, Dialect::SocketIo] {
            let mut message = dialect.publish("bench:0", "secret", &TRAFFIC);
            let before = message.bytes.len();
            message.set(7, 2, 1_795_250_000_123_456_789);
            assert_eq!(message.bytes.len(), before, "{dialect:?}");
            let due: Vec<u64> = stamps(&message.bytes).collect();
            assert_eq!(due, [1_795_250_000_123_456_789; 2], "{dialect:?}");
        }
        let mut message = Dialect::Stormwire.publish("bench:0", "", &TRAFFIC);
        message.set(7, 2, 1);
        let value: serde_json::Value = serde_json::from_slice(&message.bytes).unwrap();
        assert_eq!(value["id"], FIRST_ID + 7);
        assert_eq!(value["seq"], FIRST_SEQ + 14);
    }

    #[test]
    fn a_message_for_any_channel_is_sent_to_another_one_each_time() {
        let mut message = Dialect::Stormwire.publish("bench:-any", "", &TRAFFIC);
        message.set(1, 2, 1);
        message.set_channel(123);
        let value: serde_json::Value = serde_json::from_slice(&message.bytes).unwrap();
        assert_eq!(value["channel"], "bench:0000123");
    }

    #[test]
    fn the_length_of_a_rest_request_is_that_of_its_body() {
        let message = Dialect::Rest.publish("bench:0", "secret", &TRAFFIC);
        let text = String::from_utf8(message.bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn a_stamp_that_is_cut_off_is_none() {
        assert_eq!(stamps(br#"{"data":"@12"}"#).count(), 0);
    }
}
