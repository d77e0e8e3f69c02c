//! The port itself: what an engine promises.

use async_trait::async_trait;
use std::time::Duration;

/// What a limit is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The signed-in user.
    User,
    /// The client's address (IPv6: its /64).
    Ip,
    /// The channel published to.
    Channel,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// What kind of thing `subject` is.
    pub scope: Scope,
    /// Which user, address or channel.
    pub subject: String,
    /// Which of its limits: `requests`, `events`, `bytes`, `signals`.
    pub unit: &'static str,
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Units in a window; 0 admits nothing.
    pub limit: u64,
    /// The window.
    pub window: Duration,
}

/// An answer: what may be spent, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Units granted: 0, or from the least to the most that was asked for.
    pub granted: u64,
    /// How long they may be spent; then they are void.
    pub valid: Duration,
    /// If nothing was granted: when the least asked for may be there.
    pub retry_after: Duration,
    /// Units left in the window after this grant.
    pub remaining: u64,
    /// When the window has all its units again if nothing more is spent.
    pub reset: Duration,
}

impl Grant {
    /// How long what is granted under `rule` may be spent: a tenth of the window, within 50 ms and 1 s. A
    /// unit may thus be spent that much later than the engine counted it.
    #[must_use]
    pub fn validity(rule: Rule) -> Duration {
        (rule.window / 10).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }
}

/// The limiter's engine did not answer; the caller falls back to a local share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the limiter does not answer: {0}")]
pub struct LimiterError(pub String);

/// Who counts, in two buckets a key: this window's and the one before it. The units spent are estimated as
/// all of this bucket's and, of the one before, the part that still lies within one window of now.
///
/// The error of that estimate: what came all at the end of a bucket is forgotten evenly along the next, so a
/// window may see up to twice the limit once; over many windows it is never more than the limit a
/// window and one limit on top. Steady traffic is counted exactly.
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Grants at once up to `most` units of `key` under `rule`, or nothing if fewer than `least` are left
    /// (so that a large batch is not starved by grants that are too small for it and go unspent).
    ///
    /// # Errors
    /// [`LimiterError`] when the engine is away.
    async fn grant(
        &self,
        key: &LimitKey,
        rule: Rule,
        least: u64,
        most: u64,
    ) -> Result<Grant, LimiterError>;

    /// Answers if the engine can be reached now.
    ///
    /// # Errors
    /// [`LimiterError`] with the reason.
    async fn ping(&self) -> Result<(), LimiterError>;

    /// Whether grants are shared by all gateways; if not, each one's limit is its own.
    fn is_shared(&self) -> bool;
}
