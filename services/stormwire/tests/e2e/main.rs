//! The executable from its users' side: what goes in comes out, whatever is killed in between.

#![expect(clippy::unwrap_used, reason = "a test ends where it is not as expected")]

mod cluster;
mod embedded;
mod epochs;
mod fencing;
mod fleet;
mod identity;
mod kit;
mod mass;
mod refusals;
mod rewound;
mod rolling;
mod small_journal;
mod stats;
