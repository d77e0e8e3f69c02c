//! What can be set.

use std::time::Duration;
use stormwire_guard::GuardConfig;
use stormwire_sql::PoolConfig;

/// How much time one table of events holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionSpan {
    /// An hour: for more than some hundred million events a day.
    Hour,
    /// A day, by UTC.
    #[default]
    Day,
}

/// The archive's settings. The defaults suit one worker or gateway process.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`. Of several hosts, divided by commas, the
    /// one that takes writes is used.
    pub url: String,
    /// A streaming replica for history pages; the primary answers where it is behind or away.
    pub replica_url: Option<String>,
    /// Whether nothing may be forgotten elsewhere that the replica does not have.
    pub replica_keeps_all: bool,
    /// Bounds of each pool (primary, replica).
    pub pool: PoolConfig,
    /// Most connections of a pool that history pages may use at a time, so that a crowd of readers
    /// cannot hold up persisting.
    pub readers: usize,
    /// Deadline, retries and breaker of every call but [`PostgresConfig::persist_deadline`]'s.
    pub guard: GuardConfig,
    /// Longest time for one batch.
    pub persist_deadline: Duration,
    /// How much time one table of events holds. Not to be changed once there are tables.
    pub span: PartitionSpan,
    /// Whether the schema is brought up to date as soon as the database answers.
    pub migrate_at_start: bool,
}

impl PostgresConfig {
    /// The defaults for the database at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            replica_url: None,
            replica_keeps_all: false,
            pool: PoolConfig::default(),
            readers: 12,
            guard: GuardConfig { deadline: Duration::from_secs(5), ..GuardConfig::default() },
            persist_deadline: Duration::from_secs(30),
            span: PartitionSpan::default(),
            migrate_at_start: true,
        }
    }
}

impl PartitionSpan {
    pub(crate) const fn millis(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}
