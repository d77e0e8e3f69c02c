//! Presence: five scripts, each one step inside Redis, by Redis's own clock.
//!
//! What the keys hold is said in `presence_room.lua`, which stands before each of the scripts.

use crate::link::{ConnectError, Link, RedisConfig};
use async_trait::async_trait;
use fred::types::Value;
use fred::types::scripts::Script;
use std::fmt;
use std::time::Duration;
use stormwire_core::{Channel, Partition};
use stormwire_guard::BreakerState;
use stormwire_presence::{
    Change, Changed, Counts, Difference, Life, Member, MemberPage, Presence, PresenceError,
    Renewed, SWEEP_MAX, Swept, coalesce,
};

/// Longest time for one command. Nobody waits for one who could not wait this long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections: a gateway's partitions take turns.
const CONNECTIONS: usize = 2;

macro_rules! script {
    ($file:literal) => {
        Script::from_lua(concat!(include_str!("presence_room.lua"), include_str!($file)))
    };
}

/// Who is there, in Redis. Clones share connections and breaker.
#[derive(Clone)]
pub struct RedisPresence {
    link: Link,
    lease: Duration,
    leases: Script,
    applies: Script,
    sweeps: Script,
    pages: Script,
    differences: Script,
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").field("breaker", &self.breaker()).finish_non_exhaustive()
    }
}

impl RedisPresence {
    /// Begins to connect, and goes on trying for as long as it lives: a Redis that is away is an error of
    /// each call, not of this one. A life lasts `lease` from renewal to renewal.
    ///
    /// # Errors
    /// [`ConnectError`] for a URL that is none.
    pub async fn connect(url: String, lease: Duration) -> Result<Self, ConnectError> {
        let config = RedisConfig {
            connections: CONNECTIONS,
            command_timeout: COMMAND_TIMEOUT,
            ..RedisConfig::new(url)
        };
        Ok(Self {
            link: Link::connect(config, "redis_presence").await?,
            lease,
            leases: script!("presence_lease.lua"),
            applies: script!("presence_apply.lua"),
            sweeps: script!("presence_sweep.lua"),
            pages: script!("presence_page.lua"),
            differences: script!("presence_differences.lua"),
        })
    }

    /// The state of the circuit breaker, for health reports.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.link.breaker()
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.link.close().await;
    }

    /// Runs a script on the keys of `partition`.
    async fn run(
        &self,
        operation: &'static str,
        script: &Script,
        partition: Partition,
        arguments: impl IntoIterator<Item = Value>,
    ) -> Result<Value, PresenceError> {
        let prefix = format!("stormwire:presence:{{{partition}}}:");
        // The one key that is named: it says on which node of a cluster the script runs.
        let key = format!("{prefix}lives");
        let mut all = vec![Value::from(prefix)];
        all.extend(arguments);
        let client = self.link.client();
        let run = script.evalsha_with_reload::<Value, _, _>(client, key, all);
        self.link.call(operation, Box::pin(run)).await.map_err(PresenceError::Unavailable)
    }

    async fn lease(&self, life: &Life, what: &'static str) -> Result<bool, PresenceError> {
        let arguments = [text(&life.name), what.into(), number(millis(self.lease))];
        let answer = self.run(what, &self.leases, life.partition, arguments).await?;
        Ok(answer.as_i64() == Some(1))
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn begin(&self, life: &Life) -> Result<(), PresenceError> {
        self.lease(life, "begin").await?.then_some(()).ok_or(PresenceError::Unknown)
    }

    async fn renew(&self, life: &Life) -> Result<Renewed, PresenceError> {
        let alive = self.lease(life, "renew").await?;
        Ok(if alive { Renewed::Alive } else { Renewed::Unknown })
    }

    async fn end(&self, life: &Life) -> Result<(), PresenceError> {
        self.lease(life, "end").await.map(drop)
    }

    async fn apply(
        &self,
        life: &Life,
        turn: u64,
        changes: &[Change],
    ) -> Result<Vec<Changed>, PresenceError> {
        let mut arguments = Vec::with_capacity(2 + changes.len() * 3);
        arguments.extend([text(&life.name), number(turn)]);
        for change in changes {
            let (channel, member) = (text(change.channel.as_str()), change.member.key().into());
            arguments.extend([channel, member, number(u64::from(change.here))]);
        }
        let answer = self.run("apply", &self.applies, life.partition, arguments).await?;
        let mut answer = Answer::of(answer)?;
        if answer.number()? == 0 {
            return Err(PresenceError::Unknown);
        }
        if answer.is_empty() { Ok(Vec::new()) } else { answer.list()?.changed() }
    }

    async fn sweep(&self, partition: Partition) -> Result<Swept, PresenceError> {
        let arguments = [number(SWEEP_MAX as u64)];
        let mut answer = Answer::of(self.run("sweep", &self.sweeps, partition, arguments).await?)?;
        Ok(Swept { changed: answer.list()?.changed()?, more: answer.number()? == 1 })
    }

    async fn page(
        &self,
        partition: Partition,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<MemberPage, PresenceError> {
        let after = after.map(Member::key).unwrap_or_default();
        // One more says whether there are more.
        let most = number(limit as u64 + 1);
        let arguments = [text(channel.as_str()), after.into(), most, number(millis(self.lease))];
        let mut answer = Answer::of(self.run("page", &self.pages, partition, arguments).await?)?;
        let counts = answer.counts()?;
        let settled = answer.number()? == 1;
        let mut members = answer.list()?.members()?;
        let more = members.len() > limit;
        members.truncate(limit);
        Ok(MemberPage { counts, members, more, settled })
    }

    async fn differences(
        &self,
        partition: Partition,
        since: &[(Channel, u64)],
    ) -> Result<Vec<Difference>, PresenceError> {
        let pairs = since.iter();
        let arguments = pairs.flat_map(|(channel, since)| [text(channel.as_str()), number(*since)]);
        let arguments: Vec<Value> = arguments.collect();
        let answer = self.run("differences", &self.differences, partition, arguments).await?;
        let mut answer = Answer::of(answer)?;
        let mut differences = Vec::with_capacity(since.len());
        while !answer.is_empty() {
            let mut one = answer.list()?;
            let counts = one.counts()?;
            let known = one.number()? == 1;
            let changes = one.list()?.changes()?;
            differences.push(if known {
                Difference::Known(counts, coalesce(changes))
            } else {
                Difference::Forgotten(counts)
            });
        }
        Ok(differences)
    }

    async fn ping(&self) -> Result<(), PresenceError> {
        self.link.ping().await.map_err(PresenceError::Unavailable)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn number(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A list that a script answered with, read from its beginning.
struct Answer(std::vec::IntoIter<Value>);

type Read<T> = Result<T, PresenceError>;

fn unreadable() -> PresenceError {
    PresenceError::Unavailable("an answer that no script of this version gives".to_owned())
}

impl Answer {
    fn of(value: Value) -> Read<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            Value::Null => Ok(Self(Vec::new().into_iter())),
            _ => Err(unreadable()),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn number(&mut self) -> Read<u64> {
        self.0.next().and_then(|value| value.as_u64()).ok_or_else(unreadable)
    }

    fn text(&mut self) -> Read<String> {
        self.0.next().and_then(Value::into_string).ok_or_else(unreadable)
    }

    fn list(&mut self) -> Read<Self> {
        Self::of(self.0.next().ok_or_else(unreadable)?)
    }

    fn counts(&mut self) -> Read<Counts> {
        Ok(Counts { version: self.number()?, users: self.number()?, sessions: self.number()? })
    }

    fn changed(mut self) -> Read<Vec<Changed>> {
        let mut all = Vec::new();
        while !self.is_empty() {
            let channel = Channel::parse(&self.text()?).map_err(|_| unreadable())?;
            all.push(Changed { channel, version: self.number()? });
        }
        Ok(all)
    }

    fn members(mut self) -> Read<Vec<Member>> {
        let mut all = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            all.push(Member::from_key(&self.text()?).ok_or_else(unreadable)?);
        }
        Ok(all)
    }

    fn changes(mut self) -> Read<Vec<(Member, bool)>> {
        let mut all = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            let text = self.text()?;
            let here = text.starts_with('+');
            let key = text.get(1..).ok_or_else(unreadable)?;
            all.push((Member::from_key(key).ok_or_else(unreadable)?, here));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
