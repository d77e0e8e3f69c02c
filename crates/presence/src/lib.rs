//! PRESENCE: who is there, and what they tell each other without storing it.
//!
//! Two ports. [`Presence`] knows the members of every channel over all gateways. A member is one session
//! of a user; it is there for as long as any connection of that session is subscribed with `presence`.
//! What a gateway reports hangs on its *life*: one lease a partition and gateway, not one a member. A
//! gateway that dies stops renewing, the survivors take out what hung on its life, and a gateway that
//! slept past its lease is told that its life is over and reports everything anew under another name.
//! [`Signals`] carries small messages between gateways, at most once.
//!
//! [`Roster`] is what a gateway keeps: who is connected here, and how far the engine has been told. It is
//! a state, never a queue, so that no outage makes it grow.

mod local;
mod message;
mod port;
mod roster;
mod signals;

#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use local::{LocalPresence, LocalSignals};
pub use message::{Broken, Message, Sender, SignalMessage};
pub use port::{
    CHANGES_KEPT, CHANGES_KEPT_FOR, CHANGES_PER_CALL_MAX, Change, Changed, Counts, Difference,
    LEASE, Life, Member, MemberPage, PAGE_MAX, Presence, PresenceError, Renewed, SWEEP_MAX, Swept,
    coalesce,
};
pub use roster::Roster;
pub use signals::{SignalError, Signals};
