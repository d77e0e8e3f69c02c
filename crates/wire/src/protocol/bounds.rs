//! What a message may hold at most, and the refusals that say so, the same in both codecs.

use super::{
    CHANNELS_PER_SUBSCRIBE_MAX, EVENT_BYTES_DEFAULT, EVENTS_PER_PUBLISH_MAX, MESSAGE_BYTES_MAX,
    OPERATIONS_PER_MESSAGE_MAX, Page, Target,
};
use crate::frame::{ATTRIBUTE_BYTES_MAX, EventTooLarge, PRODUCER_BYTES_MAX};
use std::fmt;
use stormwire_core::{Channel, ErrorCode, Pattern, Refusal};

/// The bounds of one message. They differ by connection only where a token or a namespace says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Most bytes of the message.
    pub message_bytes: usize,
    /// Most operations in it.
    pub operations: usize,
    /// Most events in one publish.
    pub events: usize,
    /// Most bytes of one event's data.
    pub event_bytes: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            message_bytes: MESSAGE_BYTES_MAX,
            operations: OPERATIONS_PER_MESSAGE_MAX,
            events: EVENTS_PER_PUBLISH_MAX,
            event_bytes: EVENT_BYTES_DEFAULT,
        }
    }
}

/// The bounds of events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventLimits {
    pub(crate) events: usize,
    pub(crate) event_bytes: usize,
}

impl From<&MessageLimits> for EventLimits {
    fn from(limits: &MessageLimits) -> Self {
        Self { events: limits.events, event_bytes: limits.event_bytes }
    }
}

/// Which event a message is about; written `events[3].`, or nothing where there is but one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventPath {
    pub(crate) list: &'static str,
    pub(crate) index: usize,
}

impl fmt::Display for EventPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.list.is_empty() { Ok(()) } else { write!(f, "{}[{}].", self.list, self.index) }
    }
}

impl EventPath {
    pub(crate) fn of(self, field: &str) -> String {
        format!("{self}{field}")
    }

    pub(crate) fn too_large(self, error: EventTooLarge) -> Refusal {
        let message = format!("{self}{error}; send less in one event");
        Refusal::new(ErrorCode::TooLarge, message)
    }
}

/// The channel of that name, or the refusal that a client sees.
///
/// # Errors
/// `invalid_field`, naming `field` and the rule that `text` breaks.
pub fn channel(field: &str, text: &str) -> Result<Channel, Refusal> {
    Channel::parse(text).map_err(|error| Refusal::invalid_field(field, error))
}

/// Checks a producer id: 1 to 64 bytes without control characters.
///
/// # Errors
/// `invalid_field`.
pub fn check_producer(text: &str) -> Result<(), Refusal> {
    check_text("producer", text, PRODUCER_BYTES_MAX)
}

/// Checks a type, a key or an id: 1 to 255 bytes without control characters.
pub(crate) fn check_attribute(
    path: &impl fmt::Display,
    field: &str,
    text: &str,
) -> Result<(), Refusal> {
    // What has only bytes of 32 to 126 needs no look at its characters.
    if text.len() <= ATTRIBUTE_BYTES_MAX
        && !text.is_empty()
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return Ok(());
    }
    check_text(&format!("{path}{field}"), text, ATTRIBUTE_BYTES_MAX)
}

/// The page of a key's newest event, if the key is one.
///
/// # Errors
/// `invalid_field`.
pub fn page_of_key(key: &str) -> Result<Page, Refusal> {
    check_text("key", key, ATTRIBUTE_BYTES_MAX)?;
    Ok(Page::Key(key.into()))
}

/// The page of the newest events of the keys behind `after`, if that is one or empty.
///
/// # Errors
/// `invalid_field`.
pub fn page_of_keys(after: &str) -> Result<Page, Refusal> {
    if !after.is_empty() {
        check_text("keys_after", after, ATTRIBUTE_BYTES_MAX)?;
    }
    Ok(Page::KeysAfter(after.into()))
}

fn check_text(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > max {
        let len = text.len();
        return Err(Refusal::invalid_field(field, format!("1 to {max} bytes are due, not {len}")));
    }
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(c) => Err(Refusal::invalid_field(
            field,
            format!("control characters are not allowed, and {:?} has {c:?}", excerpt(text)),
        )),
    }
}

/// At most 80 characters of what was found, for a message.
pub(crate) fn excerpt(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}

pub(crate) fn message_too_large(bytes: usize, max: usize) -> Refusal {
    let message =
        format!("the message has {bytes} bytes, at most {max} are taken; send less at once");
    Refusal::new(ErrorCode::TooLarge, message)
}

pub(crate) fn too_many_operations(max: usize) -> Refusal {
    let message = format!("at most {max} operations stand in one message; send several messages");
    Refusal::new(ErrorCode::TooLarge, message)
}

pub(crate) fn too_many_events(max: usize) -> Refusal {
    let message = format!("at most {max} events stand in one publish; send several");
    Refusal::new(ErrorCode::TooLarge, message)
}

pub(crate) fn unknown_op(name: &str) -> Refusal {
    let message = format!(
        "there is no operation {:?}; a client says connect, subscribe, publish, signal, history, \
         presence, unsubscribe, refresh or ping",
        excerpt(name)
    );
    Refusal::new(ErrorCode::UnknownOp, message)
}

pub(crate) fn too_many_channels() -> Refusal {
    let problem = format!("at most {CHANNELS_PER_SUBSCRIBE_MAX} channels stand in one operation");
    Refusal::invalid_field("channels", problem)
}

pub(crate) fn pattern(text: &str) -> Result<Target, Refusal> {
    let pattern = Pattern::parse(text);
    pattern.map(Target::Pattern).map_err(|error| Refusal::invalid_field("pattern", error))
}
