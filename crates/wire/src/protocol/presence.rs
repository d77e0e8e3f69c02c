//! Who is there: the question, a page of the answer, and what changes afterwards.

use super::RequestId;
use stormwire_core::Channel;

/// Most members in a page.
pub const MEMBERS_LIMIT_MAX: u32 = 1000;
/// Members in a page that asks for no number.
pub const MEMBERS_LIMIT_DEFAULT: u32 = 100;
/// Most bytes of the place where a page begins.
pub const MEMBERS_CURSOR_BYTES_MAX: usize = 2048;

/// `presence`: a page of a channel's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceQuery {
    /// Where.
    pub channel: Channel,
    /// Behind which one: `next` of the page before.
    pub after: Option<Box<str>>,
    /// At most so many members.
    pub limit: u32,
}

/// Somebody who is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The user.
    pub user: Box<str>,
    /// One of that user's sessions.
    pub session: Box<str>,
}

/// `presence`: a page of members, in the order of user and session; or, without a request, that too
/// much has changed to be told one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersPage {
    /// The request it answers.
    pub id: Option<RequestId>,
    /// Where.
    pub channel: Channel,
    /// The version of the channel's members that this is read from.
    pub version: u64,
    /// How many users are there in that version.
    pub users: u64,
    /// How many members (sessions of users) are there in that version.
    pub sessions: u64,
    /// Who.
    pub members: Vec<Member>,
    /// Where the next page begins, if there is one.
    pub next: Option<Box<str>>,
    /// Members of some gateways may be missing.
    pub partial: bool,
    /// What was known of the members is out of date: read the pages again.
    pub resync: bool,
}

/// `joined` and `left`: some members of one channel came, or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Where.
    pub channel: Channel,
    /// The version that it follows. It holds for every version from here to `version`.
    pub since: u64,
    /// The version that it leads to.
    pub version: u64,
    /// How many users are there in that version.
    pub users: u64,
    /// How many members are there in that version.
    pub sessions: u64,
    /// Who.
    pub members: Vec<Member>,
    /// Whether another message of the same two versions follows.
    pub more: bool,
}
