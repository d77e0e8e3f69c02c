//! The checker must be able to fail: a clean history passes, and each way to doctor it is found and
//! called by its name.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod doctored;
mod random;
mod world;
