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
    /// Which of its limits: `requests`, `events`, `bytes`, `connections`.
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
    /// Units granted, 0 to what was asked for.
    pub granted: u64,
    /// How long they may be spent; then they are void.
    pub valid: Duration,
    /// If less was granted than asked for: when to ask again.
    pub retry_after: Duration,
}

/// The limiter's engine did not answer; the caller falls back to a local share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the limiter does not answer: {0}")]
pub struct LimiterError(pub String);

/// Who counts.
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Grants up to `want` units of `key` under `rule`, at once.
    ///
    /// # Errors
    /// [`LimiterError`] when the engine is away.
    async fn grant(&self, key: &LimitKey, rule: Rule, want: u64) -> Result<Grant, LimiterError>;

    /// Answers if the engine can be reached now.
    ///
    /// # Errors
    /// [`LimiterError`] with the reason.
    async fn ping(&self) -> Result<(), LimiterError>;

    /// Whether grants are shared by all gateways; if not, each one's limit is its own.
    fn is_shared(&self) -> bool;
}
