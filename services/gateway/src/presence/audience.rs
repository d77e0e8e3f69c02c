//! Who is subscribed here to the channels of one partition, and what they are told of members.

use super::rendered::Rendered;
use crate::outbox::Outbox;
use crate::render;
use axum::extract::ws::Message;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::Channel;
use stormwire_presence::{Counts, Difference, Member, SignalMessage};
use stormwire_telemetry::metrics as names;
use stormwire_wire::protocol::{self, Codec, MemberChange, MembersPage, Payload, ServerMessage};
use tokio::time::Instant;

/// Most changes that are told one by one; of more, only the counts are told.
const TOLD_MAX: usize = 200;
/// Watchers of a channel for whom it may be told every [`super::REPORT_EVERY`]; of so many more, as much
/// later.
const WATCHERS_A_STEP: usize = 1000;
/// However many watch, they are told as often as this.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// What a subscriber is told of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Changes,
    /// Its queue was full: it has to be told to read anew.
    Behind,
}

/// One connection's subscription to a channel.
#[derive(Debug)]
pub(super) struct Listener {
    connection: u64,
    outbox: Arc<Outbox>,
    told: Told,
}

impl Listener {
    pub(super) fn new(connection: u64, outbox: Arc<Outbox>, watches: bool) -> Self {
        let told = if watches { Told::Changes } else { Told::Nothing };
        Self { connection, outbox, told }
    }

    /// Tells this one where the members stand; whoever knows an older version reads them anew.
    fn stand(&mut self, standing: &mut Rendered, channel: &Channel, counts: Counts) {
        let codec = self.outbox.codec();
        let message =
            standing.get(codec, |codec| Some(render::message(codec, &stands(channel, counts))));
        if let Some(message) = message {
            self.told = if self.outbox.event(message) { Told::Changes } else { Told::Behind };
            metrics::counter!(names::PRESENCE_RESYNCS).increment(1);
        }
    }
}

/// One channel.
#[derive(Debug, Default)]
struct Room {
    listeners: Vec<Listener>,
    watchers: usize,
    /// What the watchers were told last.
    counts: Option<Counts>,
    /// It stands in the list of those to be asked after.
    stale: bool,
    told_at: Option<Instant>,
}

impl Room {
    fn due_at(&self) -> Option<Instant> {
        let steps = u32::try_from(self.watchers / WATCHERS_A_STEP).unwrap_or(u32::MAX);
        let pause = (super::REPORT_EVERY * steps.min(100)).min(TOLD_WITHIN);
        self.told_at.map(|told_at| told_at + pause)
    }
}

/// Everybody who is subscribed.
#[derive(Debug, Default)]
pub(super) struct Audience {
    rooms: HashMap<Channel, Room>,
    stale: Vec<Channel>,
}

impl Audience {
    /// Whether nobody is subscribed.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Adds a subscription. A watcher is told at once where the members stand, if that is known here.
    pub(super) fn add(&mut self, channel: &Channel, mut listener: Listener) {
        let room = match self.rooms.get_mut(channel) {
            Some(room) => room,
            None => self.rooms.entry(channel.clone()).or_default(),
        };
        if listener.told == Told::Changes {
            room.watchers += 1;
            if let Some(counts) = room.counts {
                listener.stand(&mut Rendered::default(), channel, counts);
            }
        }
        room.listeners.push(listener);
        self.changed(channel);
    }

    /// Takes a subscription out.
    pub(super) fn remove(&mut self, channel: &Channel, connection: u64) {
        let Some(room) = self.rooms.get_mut(channel) else { return };
        let at = room.listeners.iter().position(|listener| listener.connection == connection);
        let Some(at) = at else { return };
        if room.listeners.swap_remove(at).told != Told::Nothing {
            room.unwatch();
        }
        if room.listeners.is_empty() {
            self.rooms.remove(channel);
        }
    }

    /// The subscription is told signals only from now on.
    pub(super) fn unwatch(&mut self, channel: &Channel, connection: u64) {
        let Some(room) = self.rooms.get_mut(channel) else { return };
        let found = room.listeners.iter_mut().find(|listener| listener.connection == connection);
        if let Some(listener) = found.filter(|listener| listener.told != Told::Nothing) {
            listener.told = Told::Nothing;
            room.unwatch();
        }
    }

    /// The members of `channel` may have changed; says whether somebody here wants to know.
    pub(super) fn changed(&mut self, channel: &Channel) -> bool {
        let Some(room) = self.rooms.get_mut(channel).filter(|room| room.watchers > 0) else {
            return false;
        };
        if !room.stale {
            room.stale = true;
            self.stale.push(channel.clone());
        }
        true
    }

    /// The members of every channel may have changed.
    pub(super) fn all_changed(&mut self) {
        for (channel, room) in &mut self.rooms {
            if room.watchers > 0 && !room.stale {
                room.stale = true;
                self.stale.push(channel.clone());
            }
        }
    }

    /// Whether some channel is to be asked after.
    pub(super) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// At most `max` channels to be asked after now, and the version that their watchers know.
    pub(super) fn take_stale(&mut self, now: Instant, max: usize) -> Vec<(Channel, u64)> {
        let mut taken = Vec::new();
        let rooms = &mut self.rooms;
        self.stale.retain(|channel| {
            let Some(room) = rooms.get_mut(channel) else { return false };
            if room.watchers == 0 {
                room.stale = false;
                return false;
            }
            if taken.len() >= max || room.due_at().is_some_and(|at| at > now) {
                return true;
            }
            room.stale = false;
            taken.push((channel.clone(), room.counts.map_or(0, |counts| counts.version)));
            false
        });
        taken
    }

    /// Tells the watchers of `channel` what has changed since version `since`.
    pub(super) fn tell(
        &mut self,
        channel: &Channel,
        since: u64,
        difference: Difference,
        now: Instant,
    ) {
        let Some(room) = self.rooms.get_mut(channel).filter(|room| room.watchers > 0) else {
            return;
        };
        let known = room.counts.is_some_and(|counts| counts.version == since);
        let (counts, changes) = match difference {
            Difference::Known(counts, changes) if known && changes.len() <= TOLD_MAX => {
                (counts, Some(changes))
            }
            Difference::Known(counts, _) | Difference::Forgotten(counts) => (counts, None),
        };
        let mut standing = Rendered::default();
        if changes.is_none() {
            let watching = room.listeners.iter_mut().filter(|one| one.told != Told::Nothing);
            watching.for_each(|listener| listener.stand(&mut standing, channel, counts));
        }
        if let Some(changes) = changes {
            let changes = changes_of(channel, since, counts, changes);
            let mut rendered: [Option<Vec<Message>>; Codec::ALL.len()] = Default::default();
            for listener in &mut room.listeners {
                match listener.told {
                    Told::Nothing => {}
                    Told::Behind => listener.stand(&mut standing, channel, counts),
                    Told::Changes => {
                        let codec = listener.outbox.codec();
                        let slot = &mut rendered[usize::from(codec == Codec::Protobuf)];
                        let messages = slot.get_or_insert_with(|| {
                            changes.iter().map(|change| render::message(codec, change)).collect()
                        });
                        if !messages.iter().all(|message| listener.outbox.event(message)) {
                            listener.told = Told::Behind;
                        }
                    }
                }
            }
        }
        if room.counts != Some(counts) {
            room.told_at = Some(now);
        }
        room.counts = Some(counts);
    }

    /// Tells a signal to everybody who is subscribed, except the connection `not`.
    pub(super) fn signal(&self, signal: &SignalMessage, not: Option<u64>) {
        let Some(room) = self.rooms.get(&signal.channel) else { return };
        let mut rendered = Rendered::default();
        let (mut delivered, mut dropped) = (0, 0);
        for listener in room.listeners.iter().filter(|one| Some(one.connection) != not) {
            let message = rendered.get(listener.outbox.codec(), |codec| say(codec, signal));
            match message.map(|message| listener.outbox.event(message)) {
                Some(true) => delivered += 1,
                Some(false) => dropped += 1,
                None => {}
            }
        }
        metrics::counter!(names::SIGNALS_DELIVERED, "outcome" => "delivered").increment(delivered);
        metrics::counter!(names::SIGNALS_DELIVERED, "outcome" => "dropped").increment(dropped);
    }
}

impl Room {
    fn unwatch(&mut self) {
        self.watchers -= 1;
        if self.watchers == 0 {
            // Whoever watches next is told from then on.
            (self.counts, self.told_at) = (None, None);
        }
    }
}

fn say(codec: Codec, signal: &SignalMessage) -> Option<Message> {
    let data = if signal.binary {
        Payload::Binary(Cow::Borrowed(&signal.data))
    } else {
        Payload::Json(Cow::Borrowed(std::str::from_utf8(&signal.data).ok()?))
    };
    let (channel, from) = (signal.channel.clone(), Cow::Borrowed(&*signal.from));
    Some(render::message(codec, &ServerMessage::Signal { channel, from, data }))
}

fn stands(channel: &Channel, counts: Counts) -> ServerMessage<'static> {
    ServerMessage::Presence(MembersPage {
        id: None,
        channel: channel.clone(),
        version: counts.version,
        users: counts.users,
        sessions: counts.sessions,
        members: Vec::new(),
        next: None,
        partial: false,
        resync: true,
    })
}

/// The messages of a difference: who left, then who came; none if nothing has changed.
fn changes_of(
    channel: &Channel,
    since: u64,
    counts: Counts,
    changes: Vec<(Member, bool)>,
) -> Vec<ServerMessage<'static>> {
    let (joined, left): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, here)| *here);
    let change = |members: &[(Member, bool)], more| MemberChange {
        channel: channel.clone(),
        since,
        version: counts.version,
        users: counts.users,
        sessions: counts.sessions,
        members: members.iter().map(|(member, _)| shown(member)).collect(),
        more,
    };
    let mut messages = Vec::new();
    if !left.is_empty() {
        messages.push(ServerMessage::Left(change(&left, !joined.is_empty())));
    }
    // Who came and went meanwhile is not told of, but the next change goes on from this version.
    if !joined.is_empty() || (left.is_empty() && since != counts.version) {
        messages.push(ServerMessage::Joined(change(&joined, false)));
    }
    messages
}

/// A member as a client sees it.
pub(crate) fn shown(member: &Member) -> protocol::Member {
    protocol::Member { user: (&*member.user).into(), session: (&*member.session).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;
    use serde_json::Value;
    use std::collections::VecDeque;
    use std::task::Context;

    fn room() -> Channel {
        Channel::parse("room:1").unwrap()
    }

    /// What the connection was told since the last time: which operation, from and to which version.
    fn told(outbox: &Outbox) -> Vec<(String, Option<u64>, u64)> {
        let (mut messages, mut behind) = (VecDeque::new(), VecDeque::new());
        let cx = Context::from_waker(noop_waker_ref());
        outbox.drain(&cx, &mut messages, &mut Vec::new());
        // Who asks for more has written what was taken before: it does not count any longer.
        outbox.drain(&cx, &mut behind, &mut Vec::new());
        let told = messages.iter().map(|message| {
            let Message::Text(text) = message else { panic!("{message:?}") };
            let value: Value = serde_json::from_str(text).unwrap();
            let op = value["op"].as_str().unwrap().to_owned();
            (op, value["since"].as_u64(), value["version"].as_u64().unwrap())
        });
        told.collect()
    }

    fn known(version: u64, changes: &[(&str, bool)]) -> Difference {
        let changes = changes.iter().map(|(user, here)| (Member::new(*user, "1"), *here));
        Difference::Known(Counts { version, users: 1, sessions: 1 }, changes.collect())
    }

    #[test]
    fn whoever_watches_is_told_a_chain_of_versions_without_a_hole() {
        let (mut audience, now) = (Audience::default(), Instant::now());
        let outbox = Outbox::new(1 << 20);
        audience.add(&room(), Listener::new(1, Arc::clone(&outbox), true));
        let mut tell = |since, difference| {
            audience.tell(&room(), since, difference, now);
            told(&outbox)
        };
        let stands = |version| vec![("presence".to_owned(), None, version)];
        let change = |op: &str, since, version| (op.to_owned(), Some(since), version);
        assert_eq!(tell(0, known(5, &[])), stands(5), "nothing was told yet");
        assert_eq!(tell(5, known(5, &[])), []);
        assert_eq!(tell(5, known(7, &[("a", true)])), [change("joined", 5, 7)]);
        let both = [change("left", 7, 8), change("joined", 7, 8)];
        assert_eq!(tell(7, known(8, &[("a", false), ("b", true)])), both);
        // Somebody came and went between two looks: the next change goes on from what was told last.
        assert_eq!(tell(8, known(10, &[])), [change("joined", 8, 10)]);
        assert_eq!(tell(10, known(11, &[("b", false)])), [change("left", 10, 11)]);
        // The answer to an older question, and one that the engine has forgotten: all is to be read anew.
        assert_eq!(tell(8, known(12, &[("c", true)])), stands(12));
        let counts = Counts { version: 14, users: 9, sessions: 9 };
        assert_eq!(tell(12, Difference::Forgotten(counts)), stands(14));
        let many: Vec<(String, bool)> = (0..=TOLD_MAX).map(|n| (n.to_string(), true)).collect();
        let many: Vec<(&str, bool)> = many.iter().map(|(user, here)| (&**user, *here)).collect();
        assert_eq!(tell(14, known(15, &many)), stands(15), "too many to be told one by one");
    }

    #[test]
    fn whoever_was_too_slow_is_told_to_read_anew_and_is_told_of_changes_again() {
        let (mut audience, outbox, now) = (Audience::default(), Outbox::new(600), Instant::now());
        audience.add(&room(), Listener::new(1, Arc::clone(&outbox), true));
        audience.tell(&room(), 0, known(1, &[]), now);
        let mut version = 1;
        for _ in 0..20 {
            audience.tell(&room(), version, known(version + 1, &[("a", true)]), now);
            version += 1;
        }
        let heard = told(&outbox);
        assert!(heard.len() < 20, "{heard:?}");
        audience.tell(&room(), version, known(version + 1, &[("b", true)]), now);
        assert_eq!(told(&outbox), [("presence".to_owned(), None, version + 1)]);
        audience.tell(&room(), version + 1, known(version + 2, &[("c", true)]), now);
        assert_eq!(told(&outbox), [("joined".to_owned(), Some(version + 1), version + 2)]);
    }

    #[test]
    fn the_more_watch_the_longer_are_changes_gathered() {
        let room = |watchers, told_at| Room { watchers, told_at, ..Room::default() };
        let now = Instant::now();
        let pause = |watchers| room(watchers, Some(now)).due_at().unwrap() - now;
        assert_eq!(room(5000, None).due_at(), None, "the first time at once");
        assert_eq!(pause(WATCHERS_A_STEP - 1), Duration::ZERO);
        assert_eq!(pause(3 * WATCHERS_A_STEP), 3 * super::super::REPORT_EVERY);
        assert_eq!(pause(100_000), TOLD_WITHIN);
        let mut audience = Audience::default();
        let outbox = Outbox::new(1 << 20);
        for connection in 0..(2 * WATCHERS_A_STEP as u64) {
            audience.add(&self::room(), Listener::new(connection, Arc::clone(&outbox), true));
        }
        audience.tell(&self::room(), 0, known(1, &[]), now);
        audience.changed(&self::room());
        let early = now + Duration::from_millis(199);
        assert_eq!(audience.take_stale(early, 10), [], "it stays to be asked after");
        let due = now + Duration::from_millis(200);
        assert_eq!(audience.take_stale(due, 10), [(self::room(), 1)]);
    }
}
