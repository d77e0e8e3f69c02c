//! Who is in a channel, kept up to date: the rules of docs/protocol.md, as a pure state machine.
//!
//! What a program is told is the difference between two complete states; a state is never told while its
//! pages are still being read.

use std::collections::BTreeSet;
use stormwire_wire::protocol::{Member, MemberChange, MembersPage};

/// Messages kept while pages are read. After more, the pages are read again.
const KEPT_MAX: usize = 500;

/// What a server says about members by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MembersTold {
    /// Where they stand.
    Stand(MembersPage),
    /// Some came.
    Joined(MemberChange),
    /// Some went.
    Left(MemberChange),
}

/// Who came and who went between two complete states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) joined: Vec<Member>,
    pub(crate) left: Vec<Member>,
}

/// Everybody in a channel. It is told what the server says, and says which page is to be asked for.
#[derive(Debug)]
pub(crate) struct MembersView {
    /// The last complete state, and its version.
    known: BTreeSet<Member>,
    version: Option<u64>,
    reading: Option<Reading>,
    /// How often reading has begun: an answer to an earlier question is no part of this one.
    readings: u64,
    /// Messages whose version has another one.
    half: Vec<MembersTold>,
    /// Version, users and members, as the server counted them last.
    counts: (u64, u64, u64),
    partial: bool,
}

/// Pages under way.
#[derive(Debug, Default)]
struct Reading {
    /// The first page's.
    version: Option<u64>,
    found: BTreeSet<Member>,
    /// Where the next page begins.
    next: Option<Box<str>>,
    kept: Vec<MembersTold>,
    partial: bool,
}

impl MembersView {
    /// Knows nobody, and wants the first page.
    pub(crate) fn new() -> Self {
        Self {
            known: BTreeSet::new(),
            version: None,
            reading: Some(Reading::default()),
            readings: 0,
            half: Vec::new(),
            counts: (0, 0, 0),
            partial: false,
        }
    }

    /// The page to ask for: `after` of the request. `None` when everybody is known.
    pub(crate) fn wants(&self) -> Option<Option<&str>> {
        self.reading.as_ref().map(|reading| reading.next.as_deref())
    }

    /// Tells the pages of one reading from those of the next.
    pub(crate) const fn readings(&self) -> u64 {
        self.readings
    }

    /// Everybody of the last complete state.
    pub(crate) const fn known(&self) -> &BTreeSet<Member> {
        &self.known
    }

    /// Users and members, as the server counted them last; right also while pages are read.
    pub(crate) const fn counts(&self) -> (u64, u64) {
        (self.counts.1, self.counts.2)
    }

    /// Whether everybody is known who was counted.
    pub(crate) fn is_complete(&self) -> bool {
        self.reading.is_none() && self.version >= Some(self.counts.0)
    }

    /// Whether members of some gateways may be missing from the last complete state.
    pub(crate) const fn is_partial(&self) -> bool {
        self.partial
    }

    /// Something was missed: everybody is to be read anew.
    pub(crate) fn read_again(&mut self) {
        self.readings += 1;
        self.half.clear();
        self.reading = Some(Reading::default());
    }

    /// The pages cannot be had: no more of them is wanted until the server says that there is news.
    pub(crate) fn give_up(&mut self) {
        self.reading = None;
    }

    /// Takes the page that was asked for; with the last one, what has changed since the last complete state.
    pub(crate) fn page(&mut self, page: MembersPage) -> Option<Changes> {
        let reading = self.reading.as_mut()?;
        reading.version.get_or_insert(page.version);
        reading.partial |= page.partial;
        reading.found.extend(page.members);
        reading.next = page.next;
        self.count(page.version, page.users, page.sessions);
        if self.reading.as_ref().is_some_and(|reading| reading.next.is_some()) {
            return None;
        }
        let reading = self.reading.take()?;
        let before = std::mem::replace(&mut self.known, reading.found);
        (self.version, self.partial) = (reading.version, reading.partial);
        for told in reading.kept {
            self.told(told);
        }
        if self.reading.is_some() {
            // Pages of several versions that nothing has made whole are no state.
            self.known = before;
            return None;
        }
        let joined = self.known.difference(&before).cloned().collect();
        let left = before.difference(&self.known).cloned().collect();
        Some(Changes { joined, left })
    }

    /// Takes what the server says by itself, in its order; what that changes.
    pub(crate) fn told(&mut self, told: MembersTold) -> Option<Changes> {
        let (version, users, sessions) = match &told {
            MembersTold::Stand(page) => (page.version, page.users, page.sessions),
            MembersTold::Joined(change) | MembersTold::Left(change) => {
                (change.version, change.users, change.sessions)
            }
        };
        self.count(version, users, sessions);
        if let Some(reading) = &mut self.reading {
            reading.kept.push(told);
            if reading.kept.len() > KEPT_MAX {
                self.read_again();
            }
            return None;
        }
        if Some(version) <= self.version {
            return None;
        }
        let (since, more) = match &told {
            MembersTold::Stand(_) => (None, false),
            MembersTold::Joined(change) | MembersTold::Left(change) => {
                (Some(change.since), change.more)
            }
        };
        if since.is_none() || since > self.version {
            self.read_again();
            return None;
        }
        self.half.push(told);
        if more {
            return None;
        }
        self.version = Some(version);
        Some(self.make())
    }

    /// Makes the changes that lead to one version.
    fn make(&mut self) -> Changes {
        let mut changes = Changes::default();
        for told in std::mem::take(&mut self.half) {
            match told {
                MembersTold::Stand(_) => {}
                MembersTold::Joined(change) => {
                    let new = change.members.into_iter();
                    changes.joined.extend(new.filter(|member| self.known.insert(member.clone())));
                }
                MembersTold::Left(change) => {
                    let gone = change.members.into_iter();
                    changes.left.extend(gone.filter(|member| self.known.remove(member)));
                }
            }
        }
        changes
    }

    fn count(&mut self, version: u64, users: u64, sessions: u64) {
        if version >= self.counts.0 {
            self.counts = (version, users, sessions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::Channel;

    fn member(user: &str) -> Member {
        Member { user: user.into(), session: "1".into() }
    }

    fn page(version: u64, users: &[&str], next: Option<&str>) -> MembersPage {
        MembersPage {
            id: None,
            channel: Channel::parse("room:1").unwrap(),
            version,
            users: 0,
            sessions: version,
            members: users.iter().map(|user| member(user)).collect(),
            next: next.map(Into::into),
            partial: false,
            resync: false,
        }
    }

    fn change(since: u64, version: u64, users: &[&str]) -> MemberChange {
        MemberChange {
            channel: Channel::parse("room:1").unwrap(),
            since,
            version,
            users: 0,
            sessions: version,
            members: users.iter().map(|user| member(user)).collect(),
            more: false,
        }
    }

    fn users(view: &MembersView) -> Vec<&str> {
        view.known().iter().map(|member| &*member.user).collect()
    }

    fn changes(joined: &[&str], left: &[&str]) -> Option<Changes> {
        let members = |users: &[&str]| users.iter().map(|user| member(user)).collect();
        Some(Changes { joined: members(joined), left: members(left) })
    }

    #[test]
    fn pages_that_grow_old_are_mended_by_what_came_meanwhile() {
        let mut view = MembersView::new();
        assert_eq!(view.page(page(5, &["a", "b"], Some("b"))), None);
        assert_eq!(view.wants(), Some(Some("b")));
        // "a" left and "aa" came behind the reader's back; "c" came and went between the pages.
        view.told(MembersTold::Left(change(3, 5, &["b"])));
        view.told(MembersTold::Left(MemberChange { more: true, ..change(4, 7, &["a", "c"]) }));
        view.told(MembersTold::Joined(change(4, 7, &["aa"])));
        assert_eq!(view.page(page(7, &["d"], None)), changes(&["aa", "b", "d"], &[]));
        assert_eq!((users(&view), view.wants()), (vec!["aa", "b", "d"], None));
    }

    #[test]
    fn a_change_of_two_messages_is_made_at_once_or_not_at_all() {
        let mut view = MembersView::new();
        view.page(page(5, &["a"], None));
        let left = || MembersTold::Left(MemberChange { more: true, ..change(5, 6, &["a"]) });
        assert_eq!(view.told(left()), None);
        assert_eq!(users(&view), ["a"]);
        assert_eq!(view.told(MembersTold::Joined(change(5, 6, &["b"]))), changes(&["b"], &["a"]));
        // The connection is lost between the two: the pages say it, against what was told.
        let left = MembersTold::Left(MemberChange { more: true, ..change(6, 7, &["b"]) });
        assert_eq!(view.told(left), None);
        view.told(MembersTold::Stand(page(7, &[], None)));
        assert_eq!(view.page(page(7, &["c"], None)), changes(&["c"], &["b"]));
    }

    #[test]
    fn a_change_that_does_not_follow_is_a_reason_to_read_again() {
        let mut view = MembersView::new();
        view.page(page(5, &["a"], None));
        assert_eq!(view.told(MembersTold::Joined(change(5, 6, &["b"]))), changes(&["b"], &[]));
        let before = view.readings();
        assert_eq!(view.told(MembersTold::Joined(change(8, 9, &["d"]))), None);
        assert_eq!((users(&view), view.wants()), (vec!["a", "b"], Some(None)));
        assert!(view.readings() > before, "a page of the reading before is none of this one");
        assert_eq!(view.counts().1, 9, "counts are known at once");
        assert_eq!(view.page(page(9, &["a", "d"], None)), changes(&["d"], &["b"]));
        assert!(view.is_complete());
        assert_eq!(view.told(MembersTold::Stand(page(9, &[], None))), None);
        assert_eq!((users(&view), view.wants()), (vec!["a", "d"], None));
        view.told(MembersTold::Stand(page(10, &[], None)));
        assert_eq!((view.wants(), view.is_complete()), (Some(None), false));
        // Somewhere else the members stand further still when the page comes.
        view.told(MembersTold::Stand(page(12, &[], None)));
        assert_eq!(view.page(page(11, &["x"], None)), None);
        assert_eq!((users(&view), view.wants()), (vec!["a", "d"], Some(None)), "no state");
    }

    #[test]
    fn a_reader_that_never_ends_keeps_only_so_much() {
        let mut view = MembersView::new();
        view.page(page(5, &["a"], Some("a")));
        for version in 0..=KEPT_MAX as u64 {
            view.told(MembersTold::Joined(change(version + 5, version + 6, &["b"])));
        }
        assert_eq!(view.wants(), Some(None));
        assert!(view.reading.as_ref().is_some_and(|reading| reading.kept.is_empty()));
    }
}
