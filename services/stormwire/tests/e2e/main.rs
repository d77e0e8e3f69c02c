//! The executable from its users' side: what goes in comes out, whatever is killed in between.

#![expect(clippy::unwrap_used, reason = "a test ends where it is not as expected")]

mod asides;
mod backups;
mod cluster;
#[expect(dead_code, reason = "the measurements use the rest")]
mod crowd;
mod embedded;
mod epochs;
mod fallback;
mod fencing;
mod fleet;
#[expect(dead_code, reason = "the measurements use the rest")]
mod herd;
mod identity;
mod keycloak;
mod kit;
mod mass;
mod measured;
mod members;
mod refusals;
#[expect(dead_code, reason = "the measurements use the rest")]
mod replays;
mod rewound;
mod roles;
mod rolling;
mod small_journal;
#[expect(dead_code, reason = "the measurements use the rest")]
mod stalled;
mod stats;
mod window;
