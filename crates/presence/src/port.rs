//! The port Presence: what an engine promises.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Channel, Partition};

/// How long a gateway's members stay without a renewal.
pub const LEASE: Duration = Duration::from_secs(5);
/// Most changes in one [`Presence::apply`].
pub const CHANGES_PER_CALL_MAX: usize = 500;
/// Most members taken out by one [`Presence::sweep`].
pub const SWEEP_MAX: usize = 500;
/// Most members in a page.
pub const PAGE_MAX: usize = 1000;
/// Changes of a channel that are remembered at least for as long as [`CHANGES_KEPT_FOR`], unless more
/// come.
pub const CHANGES_KEPT: usize = 2000;
/// How long changes are remembered after the last one.
pub const CHANGES_KEPT_FOR: Duration = Duration::from_secs(60);

/// Somebody who is there: one session of a user. Neither text holds a NUL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The user.
    pub user: Arc<str>,
    /// The session.
    pub session: Arc<str>,
}

impl Member {
    /// A member.
    pub fn new(user: impl Into<Arc<str>>, session: impl Into<Arc<str>>) -> Self {
        Self { user: user.into(), session: session.into() }
    }

    /// User and session as one text, whose order is the order of members.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}\0{}", self.user, self.session)
    }

    /// The member of a [`Member::key`].
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        let (user, session) = key.split_once('\0')?;
        Some(Self::new(user, session))
    }

    /// The member as the place where a page ends, for a client.
    #[must_use]
    pub fn to_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key())
    }

    /// The member of a [`Member::to_cursor`].
    #[must_use]
    pub fn from_cursor(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Self::from_key(std::str::from_utf8(&bytes).ok()?)
    }
}

/// One life of a gateway in one partition: what its members hang on. A name is used for one life only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Life {
    /// The partition.
    pub partition: Partition,
    /// Unique among all lives of all gateways, ever.
    pub name: Arc<str>,
}

/// A member came to a channel or left it, as one gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub channel: Channel,
    /// Who.
    pub member: Member,
    /// Whether the member is there now.
    pub here: bool,
}

/// A channel whose members are others than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub channel: Channel,
    /// The version that it has now.
    pub version: u64,
}

/// How many are there, exactly, in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Grows with every change of the channel's members, below 2^53; 0 where nobody was for long.
    pub version: u64,
    /// Users.
    pub users: u64,
    /// Members: sessions of users.
    pub sessions: u64,
}

/// A page of members, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPage {
    /// What it was read from.
    pub counts: Counts,
    /// At most as many as were asked for.
    pub members: Vec<Member>,
    /// Whether there are more behind them.
    pub more: bool,
    /// Whether every living gateway has had the time to report its members. Not so for one lease after the
    /// engine began empty.
    pub settled: bool,
}

/// What has changed since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The last change of each member that changed since then, and how many there are now.
    Known(Counts, Vec<(Member, bool)>),
    /// That is not remembered; the members must be read anew.
    Forgotten(Counts),
}

/// Whether a life goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// For another lease.
    Alive,
    /// It is over, or the engine has lost its memory: what hung on it is gone. Begin another one.
    Unknown,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Channels that members were taken out of.
    pub changed: Vec<Changed>,
    /// Whether there is more to take out.
    pub more: bool,
}

/// Why an answer is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// The life is over, or was never begun; nothing was changed.
    #[error("this life is over")]
    Unknown,
    /// The engine does not answer. It may have done what was asked, or still do it.
    #[error("presence does not answer: {0}")]
    Unavailable(String),
}

/// Who is there. Every call is one step: nobody sees half of it.
///
/// A member is there as long as it hangs on any life. A member that hangs on two is counted once, and
/// leaves when it has left both. So a session may move between gateways without being seen to leave.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Begins `life`, for one lease.
    ///
    /// # Errors
    /// [`PresenceError`]: also for a name whose life is over.
    async fn begin(&self, life: &Life) -> Result<(), PresenceError>;

    /// Lets `life` go on for another lease. A lease that ran out unseen is renewed; once a sweep has begun
    /// with it, never.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn renew(&self, life: &Life) -> Result<Renewed, PresenceError>;

    /// Ends `life` now, as if its lease had run out.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn end(&self, life: &Life) -> Result<(), PresenceError>;

    /// Makes up to [`CHANGES_PER_CALL_MAX`] changes under `life`, in order. What is so already changes nothing.
    /// `turn` grows from call to call of a life: a call that arrives after a later one changes nothing, so
    /// what was given up can be sent again. Answers with the channels whose members are others now.
    ///
    /// # Errors
    /// [`PresenceError`]: with `Unknown`, nothing was changed.
    async fn apply(
        &self,
        life: &Life,
        turn: u64,
        changes: &[Change],
    ) -> Result<Vec<Changed>, PresenceError>;

    /// Takes up to [`SWEEP_MAX`] members out that hang on a life whose lease ran out. Whichever gateway
    /// comes first takes the next ones, each once; a life is over for good when its sweep begins.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn sweep(&self, partition: Partition) -> Result<Swept, PresenceError>;

    /// Up to `limit` ([`PAGE_MAX`]) members of a channel behind `after`, and the counts of the same moment.
    /// Pages read one after the other may be of different versions: with all differences since the first
    /// page's version on top, they are the members of the last difference's version exactly.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn page(
        &self,
        partition: Partition,
        channel: &Channel,
        after: Option<&Member>,
        limit: usize,
    ) -> Result<MemberPage, PresenceError>;

    /// What has changed in each of some channels of one partition since the version given with it. Versions
    /// never come back: also after the engine has lost its memory, an old one is `Forgotten`.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn differences(
        &self,
        partition: Partition,
        since: &[(Channel, u64)],
    ) -> Result<Vec<Difference>, PresenceError>;

    /// Answers if the engine can be reached now.
    ///
    /// # Errors
    /// [`PresenceError::Unavailable`].
    async fn ping(&self) -> Result<(), PresenceError>;

    /// Whether all gateways see the same members; if not, each sees its own.
    fn is_shared(&self) -> bool;
}

/// The last of each member's changes. Not the sum: a reader who already knows some of them must come to
/// the same end.
pub fn coalesce(changes: impl IntoIterator<Item = (Member, bool)>) -> Vec<(Member, bool)> {
    let mut last: HashMap<Member, usize> = HashMap::new();
    let mut list: Vec<(Member, bool)> = Vec::new();
    for (member, here) in changes {
        match last.get(&member) {
            Some(&at) => list[at].1 = here,
            None => {
                last.insert(member.clone(), list.len());
                list.push((member, here));
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_comes_back_from_its_key_and_cursor() {
        for (user, session) in [("alice", "0198"), ("", ""), ("ü:*", "a\u{1}b")] {
            let member = Member::new(user, session);
            assert_eq!(Member::from_key(&member.key()), Some(member.clone()));
            assert_eq!(Member::from_cursor(&member.to_cursor()), Some(member));
        }
        for text in ["", "!", "YWxpY2U"] {
            assert_eq!(Member::from_cursor(text), None, "{text}");
        }
        // The order of keys is the order of members.
        let (short, long) = (Member::new("a", "z"), Member::new("a\u{1}", "a"));
        assert_eq!(short < long, short.key() < long.key());
    }

    #[test]
    fn of_each_member_the_last_change_counts() {
        let [a, b] = ["a", "b"].map(|user| Member::new(user, "1"));
        let changes = [(a.clone(), true), (b.clone(), false), (a.clone(), false)];
        assert_eq!(coalesce(changes), [(a, false), (b, false)]);
    }
}
