//! `presence` and `signal`, and who is a member by a subscription.

use super::Session;
use crate::presence::shown;
use std::collections::HashSet;
use stormwire_core::{Channel, ErrorCode, Refusal};
use stormwire_limits::{Cost, Subject, Transport};
use stormwire_presence::Member;
use stormwire_tokens::{Action, Target};
use stormwire_wire::protocol::{MembersPage, PresenceQuery, RequestId, ServerMessage, Signal};

/// Most bytes of a signal's data.
pub(crate) const SIGNAL_BYTES_MAX: usize = 16 * 1024;

/// Where this connection is a member. Nothing is allocated before it is one.
#[derive(Debug, Default)]
pub(super) struct Membership {
    member: Option<Member>,
    channels: HashSet<Channel>,
}

impl Membership {
    fn of(&self, channel: &Channel) -> Option<&Member> {
        self.member.as_ref().filter(|_| self.channels.contains(channel))
    }
}

impl Session {
    /// Whether this connection may be a member of `channel`.
    pub(super) fn check_membership(&self, channel: &Channel) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        signed_in.claims.require(Action::Presence, Target::Channel(channel.as_str()))
    }

    /// A subscription has begun, as a member or not.
    pub(super) async fn enter(&mut self, channel: &Channel, as_member: bool) {
        if as_member {
            if let Some(signed_in) = &self.signed_in
                && self.membership.member.is_none()
            {
                let user = std::sync::Arc::clone(&signed_in.claims.user);
                self.membership.member = Some(Member::new(user, &*signed_in.session));
            }
            self.membership.channels.insert(channel.clone());
        }
        let (id, member) = (self.registered.id, self.membership.of(channel));
        self.context.rooms.enter(channel, id, &self.outbox, member).await;
    }

    /// A subscription has ended.
    pub(super) fn leave(&mut self, channel: &Channel) {
        let id = self.registered.id;
        self.context.rooms.leave(channel, id, self.membership.of(channel));
        self.membership.channels.remove(channel);
    }

    /// A fresh token may not have the right to be a member where this connection is one.
    pub(super) fn drop_withdrawn_memberships(&mut self) {
        let Some(signed_in) = &self.signed_in else { return };
        let Some(member) = &self.membership.member else { return };
        let claims = &signed_in.claims;
        let may = |channel: &Channel| claims.may(Action::Presence, channel.as_str());
        let withdrawn = self.membership.channels.iter().filter(|channel| !may(channel)).cloned();
        let withdrawn: Vec<Channel> = withdrawn.collect();
        for channel in &withdrawn {
            self.context.rooms.withdraw(channel, self.registered.id, member);
        }
        for channel in withdrawn {
            self.membership.channels.remove(&channel);
            let message = format!(
                "this token may no longer see who is in {channel}; the subscription goes on without"
            );
            self.refuse(None, &Refusal::new(ErrorCode::Forbidden, message));
        }
    }

    pub(super) async fn presence(
        &mut self,
        id: Option<RequestId>,
        query: PresenceQuery,
    ) -> Result<(), Refusal> {
        self.check_membership(&query.channel)?;
        let after = query.after.as_deref().map(cursor).transpose()?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let known = self.context.rooms.page(&query.channel, after.as_ref(), limit).await?;
        let (page, last) = (&known.page, known.page.members.last());
        self.say(&ServerMessage::Presence(MembersPage {
            id,
            channel: query.channel,
            version: page.counts.version,
            users: page.counts.users,
            sessions: page.counts.sessions,
            members: page.members.iter().map(shown).collect(),
            next: last.filter(|_| page.more).map(|last| last.to_cursor().into()),
            partial: known.partial,
            resync: false,
        }));
        Ok(())
    }

    pub(super) async fn signal(&mut self, signal: Signal<'_>) -> Result<(), Refusal> {
        let Some(signed_in) = &self.signed_in else { return Err(super::connect_first()) };
        let channel = &signal.channel;
        signed_in.claims.require(Action::Signal, Target::Channel(channel.as_str()))?;
        check_signal(signal.data.parts().0.len())?;
        self.accepted.place.signal(Some(&signed_in.limits))?;
        let subject = Subject {
            user: &signed_in.claims.user,
            ip: self.accepted.ip,
            channel: Some(channel.as_str()),
            limits: Some(&signed_in.limits),
            transport: Transport::WebSocket,
        };
        let cost = Cost { signals: 1, ..Cost::default() };
        match self.context.limits.try_admit(&subject, cost) {
            Some(decided) => decided?,
            None => self.context.limits.admit(&subject, cost).await?,
        }
        let user = &signed_in.claims.user;
        self.context.rooms.signal(channel, self.registered.id, user, signal.data).await
    }
}

/// The member behind which a page begins.
pub(crate) fn cursor(text: &str) -> Result<Member, Refusal> {
    Member::from_cursor(text)
        .ok_or_else(|| Refusal::invalid_field("after", "give the `next` of the page before"))
}

/// A signal is small: it is not kept, and goes to everybody at once.
pub(crate) fn check_signal(bytes: usize) -> Result<(), Refusal> {
    if bytes <= SIGNAL_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "data: a signal has {bytes} bytes, at most {SIGNAL_BYTES_MAX} are taken; publish larger ones"
    );
    Err(Refusal::new(ErrorCode::TooLarge, message))
}
