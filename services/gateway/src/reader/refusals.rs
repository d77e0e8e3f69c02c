//! What a reader is told when history cannot be read now.

use std::time::Duration;
use stormwire_archive::ArchiveError;
use stormwire_core::{ErrorCode, Refusal};
use stormwire_journal::JournalError;

/// The archive has not yet what the journal no longer has.
pub(super) fn behind() -> Refusal {
    let text = "the archive is behind the journal; ask again when it has caught up";
    Refusal::new(ErrorCode::ArchiveUnavailable, text).retry_after(Duration::from_secs(2))
}

pub(crate) fn archive_refusal(error: ArchiveError) -> Refusal {
    tracing::warn!(%error, "archive read failed");
    Refusal::new(
        ErrorCode::ArchiveUnavailable,
        "history cannot be read from the archive now; live events go on",
    )
    .retry_after(Duration::from_secs(2))
}

pub(crate) fn journal_refusal(error: JournalError) -> Refusal {
    tracing::warn!(%error, "journal read failed");
    Refusal::new(ErrorCode::JournalUnavailable, "the journal does not answer now")
        .retry_after(Duration::from_secs(1))
}
