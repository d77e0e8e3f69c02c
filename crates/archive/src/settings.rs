//! PORT: what operators set while the cluster runs, and the audit of what they did.
//!
//! It stands beside the archive because it lives in the same database. A setting is a document of a kind
//! with a name; the port does not look into it. Every change goes with a line of the audit in the same
//! transaction, so the number of the newest line says whether anything has changed.

use crate::ArchiveError;
use async_trait::async_trait;
use stormwire_core::Timestamp;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What it is about: `namespace`.
    pub kind: String,
    /// Unique in its kind.
    pub name: String,
    /// JSON.
    pub body: String,
    /// The number of the line that says who wrote it.
    pub version: u64,
}

/// What an operator did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorLine {
    /// When.
    pub at: Timestamp,
    /// Who: the token's user.
    pub by: String,
    /// From where.
    pub ip: String,
    /// What, in a word: `namespace_set`.
    pub what: String,
    /// To what: a namespace, a channel, a connection.
    pub target: String,
    /// As it was and is, for people and programs: JSON, or nothing.
    pub detail: String,
}

/// What operators set, and what they did.
#[async_trait]
pub trait Settings: Send + Sync + 'static {
    /// Every document, by kind and name.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn settings(&self) -> Result<Vec<Setting>, ArchiveError>;

    /// Writes a document, or removes it, together with `line`; the number of that line. Nothing happens, and
    /// `None` is the answer, if the document's version is not `expected` (0: it is not there), where that is
    /// said.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn set(
        &self,
        kind: &str,
        name: &str,
        body: Option<&str>,
        expected: Option<u64>,
        line: &OperatorLine,
    ) -> Result<Option<u64>, ArchiveError>;

    /// Writes a line by itself; its number.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn note(&self, line: &OperatorLine) -> Result<u64, ArchiveError>;

    /// Lines before number `before`, or the newest, the newest first.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn lines(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OperatorLine)>, ArchiveError>;

    /// The number of the newest line, 0 if there is none: while it stays the same, so do all documents.
    ///
    /// # Errors
    /// [`ArchiveError`].
    async fn newest_line(&self) -> Result<u64, ArchiveError>;
}
