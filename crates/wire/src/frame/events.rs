//! Events in the frame's own encoding, before they are in a frame.

use super::{ATTRIBUTE_BYTES_MAX, DATA_BYTES_MAX, HAS_ID, HAS_KEY, HAS_TYPE, IS_BINARY};
use bytes::{BufMut, Bytes, BytesMut};

/// One event as its publisher gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventParts<'a> {
    /// What kind of event, at most [`ATTRIBUTE_BYTES_MAX`] bytes.
    pub kind: Option<&'a str>,
    /// What it is about, at most [`ATTRIBUTE_BYTES_MAX`] bytes.
    pub key: Option<&'a str>,
    /// The client's own id, at most [`ATTRIBUTE_BYTES_MAX`] bytes.
    pub id: Option<&'a str>,
    /// JSON text as it came in, or any bytes.
    pub data: &'a [u8],
    /// Whether `data` is bytes rather than JSON text.
    pub binary: bool,
}

/// A part of an event that does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {len} bytes, at most {max} are allowed")]
pub struct EventTooLarge {
    /// `type`, `key`, `id` or `data`.
    pub field: &'static str,
    /// Bytes found.
    pub len: usize,
    /// Bytes allowed.
    pub max: usize,
}

/// Some events of one publish, encoded as they will stand in a frame. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedEvents {
    bytes: Bytes,
    count: u32,
}

impl EncodedEvents {
    /// How many events.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The events, in order.
    pub fn iter(&self) -> impl Iterator<Item = EventParts<'_>> {
        let mut at = 0;
        (0..self.count).map_while(move |_| {
            let (event, next) = super::decode::event_at(&self.bytes, at).ok()?;
            at = next;
            let super::Event { kind, key, id, data, binary, .. } = event;
            Some(EventParts { kind, key, id, data, binary })
        })
    }

    /// Checks bytes that came from another process.
    ///
    /// # Errors
    /// [`super::FrameError`] if they are not exactly `count` events.
    pub fn from_wire(bytes: Bytes, count: u32) -> Result<Self, super::FrameError> {
        let mut at = 0;
        for _ in 0..count {
            at = super::decode::event_at(&bytes, at)?.1;
        }
        if at != bytes.len() {
            return Err(super::FrameError::Trailing { at });
        }
        Ok(Self { bytes, count })
    }

    /// The longest head of at most `events` events and `bytes` bytes, and the rest. Both share the
    /// bytes; the head may be empty.
    #[must_use]
    pub fn split(&self, events: usize, bytes: usize) -> (Self, Self) {
        if self.len() <= events && self.bytes.len() <= bytes {
            return (self.clone(), Self::default());
        }
        let (mut at, mut taken) = (0, 0u32);
        while (taken as usize) < events.min(self.len()) {
            let Ok((_, next)) = super::decode::event_at(&self.bytes, at) else { break };
            if next > bytes {
                break;
            }
            at = next;
            taken += 1;
        }
        let head = Self { bytes: self.bytes.slice(..at), count: taken };
        let rest = Self { bytes: self.bytes.slice(at..), count: self.count - taken };
        (head, rest)
    }
}

/// Encodes the events of one publish, one after the other, into one buffer.
#[derive(Debug, Default)]
pub struct EventsBuilder {
    bytes: BytesMut,
    count: u32,
}

impl EventsBuilder {
    /// Appends one event.
    ///
    /// # Errors
    /// [`EventTooLarge`] if a part does not fit its field; nothing is appended then.
    pub fn push(&mut self, event: &EventParts<'_>) -> Result<(), EventTooLarge> {
        let attributes =
            [("type", event.kind, HAS_TYPE), ("key", event.key, HAS_KEY), ("id", event.id, HAS_ID)];
        let mut flags = if event.binary { IS_BINARY } else { 0 };
        let mut size = 5 + event.data.len();
        for (field, text, flag) in attributes {
            let Some(text) = text else { continue };
            if text.len() > ATTRIBUTE_BYTES_MAX {
                return Err(EventTooLarge { field, len: text.len(), max: ATTRIBUTE_BYTES_MAX });
            }
            flags |= flag;
            size += 1 + text.len();
        }
        let data = u32::try_from(event.data.len())
            .ok()
            .filter(|_| event.data.len() <= DATA_BYTES_MAX)
            .ok_or(EventTooLarge { field: "data", len: event.data.len(), max: DATA_BYTES_MAX })?;
        self.bytes.reserve(size);
        self.bytes.put_u8(flags);
        self.bytes.put_u32_le(data);
        for text in attributes.into_iter().filter_map(|(_, text, _)| text) {
            #[expect(clippy::cast_possible_truncation, reason = "checked above")]
            self.bytes.put_u8(text.len() as u8);
            self.bytes.put_slice(text.as_bytes());
        }
        self.bytes.put_slice(event.data);
        self.count += 1;
        Ok(())
    }

    /// How many events it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Encoded bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The events, and an empty builder that goes on in what is left of the buffer.
    pub fn take(&mut self) -> EncodedEvents {
        let count = std::mem::take(&mut self.count);
        EncodedEvents { bytes: self.bytes.split().freeze(), count }
    }
}
