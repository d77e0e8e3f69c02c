//! Faults that a build carries on purpose, so that the proof of the guarantees can be seen to fail.
//!
//! Each switches one safety rule off. Without the feature `faults` none exists and [`injected`] is
//! `false` at compile time: no release carries one. With it, a process has at most one, chosen once at
//! its start. `cargo xtask chaos --fault NAME` runs a scenario that shows it; its checker must turn red.

/// A safety rule that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A publish is acknowledged when its frame is sent, not when the journal has it.
    EarlyAcknowledgement,
    /// The archive takes a batch whatever its lease and ledger say.
    LedgerCheckSkipped,
    /// A tail and a worker take the frame that comes for the frame that is due.
    ContiguityCheckOff,
    /// A tail that sees a hole goes on behind it as if it had been filled.
    HoleRepairOff,
    /// A repeat is written again.
    RepeatsLetThrough,
    /// What stands above a refused number is taken.
    FailStopOff,
    /// Frames are appended whatever the log's last sequence is.
    AppendWithoutExpectedSequence,
    /// The journal is trimmed of frames that nobody has persisted.
    TrimBelowTheLedger,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::EarlyAcknowledgement,
        Self::LedgerCheckSkipped,
        Self::ContiguityCheckOff,
        Self::HoleRepairOff,
        Self::RepeatsLetThrough,
        Self::FailStopOff,
        Self::AppendWithoutExpectedSequence,
        Self::TrimBelowTheLedger,
    ];

    /// Its name on command lines and in `STORMWIRE_FAULT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EarlyAcknowledgement => "early-acknowledgement",
            Self::LedgerCheckSkipped => "ledger-check-skipped",
            Self::ContiguityCheckOff => "contiguity-check-off",
            Self::HoleRepairOff => "hole-repair-off",
            Self::RepeatsLetThrough => "repeats-let-through",
            Self::FailStopOff => "fail-stop-off",
            Self::AppendWithoutExpectedSequence => "append-without-expected-sequence",
            Self::TrimBelowTheLedger => "trim-below-the-ledger",
        }
    }

    /// The fault of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

#[cfg(feature = "faults")]
static CHOSEN: std::sync::OnceLock<Fault> = std::sync::OnceLock::new();

/// Switches one rule off for the life of this process; only the first call counts.
#[cfg(feature = "faults")]
pub fn inject(fault: Fault) {
    let _ = CHOSEN.set(fault);
}

/// Whether this process runs with `fault`.
#[cfg(feature = "faults")]
#[inline]
#[must_use]
pub fn injected(fault: Fault) -> bool {
    CHOSEN.get() == Some(&fault)
}

/// Whether this process runs with `fault`: this build has none.
#[cfg(not(feature = "faults"))]
#[inline]
#[must_use]
pub const fn injected(_fault: Fault) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for fault in Fault::ALL {
            assert_eq!(Fault::parse(fault.name()), Some(fault));
        }
        assert_eq!(Fault::parse("none"), None);
    }

    #[test]
    fn nothing_is_injected_unless_it_was_asked_for() {
        assert!(Fault::ALL.into_iter().all(|fault| !injected(fault)));
    }
}
