//! How a command fails: one clear line with the remedy, and an exit code.

use std::fmt;

/// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
pub(crate) const USAGE: u8 = 64;
/// Something that is needed is not there (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Anything else.
pub(crate) const FAILED: u8 = 1;

/// Why the process ends without having done what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What a person reads.
    pub(crate) message: String,
    /// What a script reads.
    pub(crate) code: u8,
}

impl Failure {
    /// The command line or the configuration is wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: USAGE }
    }

    /// Something that is needed is not there.
    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: UNAVAILABLE }
    }

    /// Anything else.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: FAILED }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
