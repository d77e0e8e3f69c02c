//! Events as a program gives and gets them.

use crate::ClientError;
use std::borrow::Cow;
use stormwire_core::{Channel, Position, Timestamp};
use stormwire_wire::frame::{EncodedEvents, EventParts, EventsBuilder};
use stormwire_wire::protocol::{DeliveredEvent, HistoryPage, Payload, json};

/// An event to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What kind of event.
    pub kind: Option<String>,
    /// What it is about: readers that only want the newest state keep the last one of each key.
    pub key: Option<String>,
    /// An id of your own; derived from the position otherwise.
    pub id: Option<String>,
    data: Payload<'static>,
}

impl NewEvent {
    /// JSON text, kept as it is.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if it is not one JSON value.
    pub fn json(text: &str) -> Result<Self, ClientError> {
        let text =
            json::check(text).map_err(|refusal| ClientError::Invalid(refusal.to_string()))?;
        Ok(Self::of(Payload::Json(Cow::Owned(text.to_owned()))))
    }

    /// Any value that serde can write as JSON.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if serde cannot.
    pub fn serialize(value: &impl serde::Serialize) -> Result<Self, ClientError> {
        let text = serde_json::to_string(value);
        let text = text.map_err(|error| ClientError::Invalid(error.to_string()))?;
        Ok(Self::of(Payload::Json(Cow::Owned(text))))
    }

    /// Bytes that need not be text.
    pub fn binary(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Payload::Binary(Cow::Owned(bytes.into())))
    }

    /// With this type.
    #[must_use]
    pub fn with_type(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// With this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    const fn of(data: Payload<'static>) -> Self {
        Self { kind: None, key: None, id: None, data }
    }
}

/// Puts events into the encoding that they keep up to the server's log.
pub(crate) fn encode(events: &[NewEvent]) -> Result<EncodedEvents, ClientError> {
    let mut builder = EventsBuilder::default();
    for event in events {
        let (data, binary) = event.data.parts();
        let parts = EventParts {
            kind: event.kind.as_deref(),
            key: event.key.as_deref(),
            id: event.id.as_deref(),
            data,
            binary,
        };
        builder.push(&parts).map_err(|error| ClientError::Invalid(error.to_string()))?;
    }
    Ok(builder.take())
}

/// An event as a subscriber gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel it is on.
    pub channel: Channel,
    /// Where it stands in its channel's log.
    pub position: Position,
    /// When the journal took it.
    pub ts: Timestamp,
    /// Its id: the publisher's, or derived from its position.
    pub id: String,
    /// What kind of event.
    pub kind: Option<String>,
    /// What it is about.
    pub key: Option<String>,
    /// The user who published it.
    pub from: String,
    /// JSON text or bytes.
    pub data: Payload<'static>,
}

impl Event {
    pub(crate) fn new(
        channel: Channel,
        epoch: stormwire_core::Epoch,
        event: DeliveredEvent<'_>,
    ) -> Self {
        Self {
            channel,
            position: Position { epoch, offset: event.offset },
            ts: event.ts,
            id: event.id.into_owned(),
            kind: event.kind.map(Cow::into_owned),
            key: event.key.map(Cow::into_owned),
            from: event.from.into_owned(),
            data: event.data.into_owned(),
        }
    }

    /// The data, if it is JSON text.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        match &self.data {
            Payload::Json(text) => Some(text),
            Payload::Binary(_) => None,
        }
    }
}

/// What a subscription tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Events, each once, of each channel ascending.
    Events(Vec<Event>),
    /// Everything after `from` up to `to` cannot be given any more; of a pattern, in one partition of
    /// its log. Where `to` is the lower one, the reader stood above everything that there is.
    Gap {
        /// Where the reader stood.
        from: Position,
        /// Where it stands now.
        to: Position,
    },
}

/// A page of a channel's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whose.
    pub channel: Channel,
    /// The events, ascending.
    pub events: Vec<Event>,
    /// Whether there is more in the direction that was asked for.
    pub more: bool,
    /// Stretches in it that are missing and always will be: after the first position, up to the second.
    pub gaps: Vec<(Position, Position)>,
}

impl History {
    pub(crate) fn new(channel: Channel, page: HistoryPage<'_>) -> Self {
        let HistoryPage { epoch, events, more, gaps, .. } = page;
        let events = events.into_iter().map(|event| Event::new(channel.clone(), epoch, event));
        Self { events: events.collect(), channel, more, gaps }
    }
}
