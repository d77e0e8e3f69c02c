//! The words of Stormwire: channels, partitions, offsets, events' attributes, refusals, and the ports
//! for time and ids.
//!
//! Everything else is written in these types. They are pure: no IO, no clock, no runtime. Text
//! becomes one of them at the edge of the process, by a parser that says which rule was broken;
//! after that nothing is checked again.

mod channel;
mod clock;
mod error;
pub mod faults;
mod position;

pub use channel::{
    Channel, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, NameError, Partition, PartitionCount, Pattern,
    fnv1a32,
};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{CloseCode, ErrorCode, Refusal, with_causes};
pub use position::{Epoch, FrameSeq, MAX_EVENTS_PER_FRAME, Offset, Position, PositionError};
