//! What gateways tell each other over [`crate::Signals`], as bytes: version, kind, fields.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use stormwire_core::Channel;

const VERSION: u8 = 1;
const SIGNAL: u8 = 1;
const CHANGED: u8 = 2;

/// The connection that a signal came from, which is not told its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Drawn by each gateway's process.
    pub process: u64,
    /// Among the connections of that process; 0 for none.
    pub connection: u64,
}

/// A signal on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalMessage {
    /// Who is not told.
    pub sender: Sender,
    /// Where.
    pub channel: Channel,
    /// The user who says it.
    pub from: Box<str>,
    /// What is said.
    pub data: Bytes,
    /// Whether that is anything but JSON.
    pub binary: bool,
}

/// One message between gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To the subscribers of a channel.
    Signal(SignalMessage),
    /// The members of some channels have changed.
    Changed {
        /// The process that says it, which knows.
        process: u64,
        /// Which.
        channels: Vec<Channel>,
    },
}

/// Bytes that are no message of this version. They are skipped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message between gateways of this version")]
pub struct Broken;

impl Message {
    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        match self {
            Self::Signal(signal) => {
                out.put_u8(SIGNAL);
                out.put_u64_le(signal.sender.process);
                out.put_u64_le(signal.sender.connection);
                put_text(&mut out, signal.channel.as_str());
                put_text(&mut out, &signal.from);
                out.put_u8(u8::from(signal.binary));
                out.put_slice(&signal.data);
            }
            Self::Changed { process, channels } => {
                out.put_u8(CHANGED);
                out.put_u64_le(*process);
                channels.iter().for_each(|channel| put_text(&mut out, channel.as_str()));
            }
        }
        out.freeze()
    }

    /// The message that `bytes` are.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn decode(mut bytes: Bytes) -> Result<Self, Broken> {
        if bytes.remaining() < 2 || bytes.get_u8() != VERSION {
            return Err(Broken);
        }
        match bytes.get_u8() {
            SIGNAL => signal(bytes).map(Self::Signal),
            CHANGED if bytes.remaining() >= 8 => {
                let process = bytes.get_u64_le();
                let mut channels = Vec::new();
                while bytes.has_remaining() {
                    channels.push(channel(&mut bytes)?);
                }
                Ok(Self::Changed { process, channels })
            }
            _ => Err(Broken),
        }
    }
}

fn signal(mut bytes: Bytes) -> Result<SignalMessage, Broken> {
    if bytes.remaining() < 16 {
        return Err(Broken);
    }
    let sender = Sender { process: bytes.get_u64_le(), connection: bytes.get_u64_le() };
    let channel = channel(&mut bytes)?;
    let from = text(&mut bytes)?.into();
    let binary = if bytes.has_remaining() { bytes.get_u8() } else { return Err(Broken) };
    if binary > 1 || (binary == 0 && std::str::from_utf8(&bytes).is_err()) {
        return Err(Broken);
    }
    Ok(SignalMessage { sender, channel, from, data: bytes, binary: binary == 1 })
}

/// Longer texts than fit the length are cut by their checks long before this.
fn put_text(out: &mut BytesMut, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.put_u16_le(len);
    out.put_slice(&text.as_bytes()[..usize::from(len)]);
}

fn text(bytes: &mut Bytes) -> Result<String, Broken> {
    let len = if bytes.remaining() < 2 { return Err(Broken) } else { bytes.get_u16_le() };
    if bytes.remaining() < usize::from(len) {
        return Err(Broken);
    }
    String::from_utf8(bytes.split_to(usize::from(len)).into()).map_err(|_| Broken)
}

fn channel(bytes: &mut Bytes) -> Result<Channel, Broken> {
    Channel::parse(&text(bytes)?).map_err(|_| Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn examples() -> [Message; 3] {
        let channel = Channel::parse("chat:1").unwrap();
        let signal = |data: &'static [u8], binary| {
            let sender = Sender { process: 7, connection: 9 };
            let (channel, data) = (channel.clone(), Bytes::from_static(data));
            Message::Signal(SignalMessage { sender, channel, from: "alice".into(), data, binary })
        };
        let other = Channel::parse("chat:2").unwrap();
        [
            signal(b"{\"typing\":true}", false),
            signal(&[0, 255], true),
            Message::Changed { process: 7, channels: vec![channel.clone(), other] },
        ]
    }

    #[test]
    fn messages_come_back_and_cut_ones_are_broken_or_shorter() {
        for message in examples() {
            let bytes = message.encode();
            assert_eq!(Message::decode(bytes.clone()), Ok(message.clone()));
            for len in 0..bytes.len() {
                assert_ne!(Message::decode(bytes.slice(..len)), Ok(message.clone()), "{len}");
            }
        }
        assert_eq!(Message::decode(Bytes::from_static(&[2, 1])), Err(Broken));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..3,
        ) {
            let _ = Message::decode(Bytes::from(bytes.clone()));
            let mut mixed = examples()[at].encode().to_vec();
            mixed.truncate(mixed.len() - bytes.len().min(mixed.len()));
            mixed.extend(bytes);
            let _ = Message::decode(Bytes::from(mixed));
        }
    }
}
