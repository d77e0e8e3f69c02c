//! Bytes: every format that leaves a process is made and read here.
//!
//! [`protocol`] is what clients and servers say to each other; [`frame`] is what one journal message holds. Inside a gateway an event is already carried in the
//! frame's own encoding ([`frame::EncodedEvents`]): it is checked and copied once at the edge and
//! copied once more into a frame, and nobody parses it in between.

pub mod body;
pub mod frame;
pub mod problem;
pub mod protocol;
