//! The packed frame, version 1: what one journal message holds.
//!
//! All numbers are little-endian.
//!
//! ```text
//! frame    'S' version kind 0 | appender 16 | counter u64 | body
//! claim    gateway u8+text                                  (kind 2)
//! close    next epoch u32 | its first seq u64 | lost from u64 (kind 3)
//! rewound  lost from u64 | last seen u64                     (kind 4)
//! events   producers u16 × (user u8+text, producer u8+text)  (kind 1)
//!          channels  u16 × (u8+text)
//!          traces    u16 × (trace 16, span 8, flags u8)
//!          events u16 | runs u16 × run
//! run      bytes u32 | channel u16 | producer u16 | seq u64 | count u16 | trace u16 | event × count
//! event    flags u8 | data u32 | [type u8+text] [key u8+text] [id u8+text] | data
//! ```
//! A *run* is what one publish, or a part of it, put into this frame: events of one channel and one
//! producer with consecutive sequence numbers. A reader that wants other channels skips a run by its
//! length. `lost from` is the first number whose frame may be lost, 0 for none. `trace` and an absent producer sequence are written as 0xFFFF and 0.

use stormwire_core::MAX_EVENTS_PER_FRAME;

mod decode;
mod encode;
mod events;

pub use decode::{Body, Event, Events, Frame, FrameError, Run};
pub use encode::{FrameBuilder, claim, close, rewound};
pub use events::{EncodedEvents, EventParts, EventTooLarge, EventsBuilder};

/// The version that this process writes.
pub const VERSION: u8 = 1;
/// Most bytes of a frame; the journal takes twice as much.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a type, a key, an id or a user.
pub const ATTRIBUTE_BYTES_MAX: usize = 255;
/// Most bytes of a producer id.
pub const PRODUCER_BYTES_MAX: usize = 64;
/// Most bytes of one event's data by protocol; a namespace may set less (64 KiB by default).
pub const DATA_BYTES_MAX: usize = 128 * 1024;

const MAGIC: u8 = b'S';
const HEADER_BYTES: usize = 4 + 16 + 8;
const RUN_HEADER_BYTES: usize = 4 + 2 + 2 + 8 + 2 + 2;
const TRACE_BYTES: usize = 25;
const NO_TRACE: u16 = u16::MAX;
const KIND_EVENTS: u8 = 1;
const KIND_CLAIM: u8 = 2;
const KIND_CLOSE: u8 = 3;
const KIND_REWOUND: u8 = 4;
const HAS_TYPE: u8 = 1;
const HAS_KEY: u8 = 2;
const HAS_ID: u8 = 4;
const IS_BINARY: u8 = 8;

const _: () = assert!(MAX_EVENTS_PER_FRAME < NO_TRACE as usize);
const _: () = assert!(DATA_BYTES_MAX * 2 <= FRAME_BYTES_MAX);

/// Who wrote a frame, and which of its frames it is. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameId {
    /// One appender's life: drawn anew whenever a process takes a partition.
    pub appender: [u8; 16],
    /// Counts that appender's frames from 1 (1 is its claim).
    pub counter: u64,
}

/// A W3C trace context, binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Trace id.
    pub trace: [u8; 16],
    /// The span that published.
    pub span: [u8; 8],
    /// Flags; bit 0 is "sampled".
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent` header; `None` if it is not one that may be carried on.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let context = Self { trace: hex(trace)?, span: hex(span)?, flags: hex::<1>(flags)?[0] };
        (context.trace != [0; 16] && context.span != [0; 8]).then_some(context)
    }

    /// The `traceparent` header of this context.
    #[must_use]
    pub fn to_traceparent(self) -> String {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        for part in [&self.trace[..], &self.span[..], &[self.flags][..]] {
            if text.len() > 3 {
                text.push('-');
            }
            for byte in part {
                let _ = write!(text, "{byte:02x}");
            }
        }
        text
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
