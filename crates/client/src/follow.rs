//! One subscription: where its reader stands, and what it is told.
//!
//! Pure, like the window. The position moves only when a delivery is in the reader's queue, so asking
//! the server again from there neither loses nor repeats anything. A reader whose queue is full rests:
//! it is unsubscribed, what comes meanwhile is dropped, and it goes on from its position once half of
//! its queue is free.

use crate::asides::{Aside, AsidesSink};
use crate::{ClientError, Delivery, Event};
use stormwire_core::{Channel, Pattern, Position};
use stormwire_wire::protocol::{
    EventsMessage, Gap, GapTarget, Mode, Operation, Since, Subscribe, Target,
};
use tokio::sync::{mpsc, oneshot};

/// What a reader's queue holds: what it is told, and where it stands then.
pub(crate) type Told = Result<(Delivery, Since), ClientError>;

/// Where a subscription stands towards the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not asked for on this connection yet.
    Due,
    /// Asked for by the request of this number.
    Asked(i64),
    /// Events come.
    Live,
    /// The reader is slow; nothing is asked for.
    Resting,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Follow {
    since: Option<Since>,
    mode: Mode,
    /// A channel's position or a pattern's cursor, once it is known.
    place: Option<Since>,
    /// Events of a pattern whose cursor is still to come, within the same message.
    pending: Vec<Event>,
    /// Where it stands towards the server.
    pub(crate) stage: Stage,
    sink: mpsc::Sender<Told>,
    /// Told what is not stored; the subscription is one as a member then.
    asides: Option<AsidesSink>,
    opened: Option<oneshot::Sender<Result<(), ClientError>>>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The reader has it, or there was nothing new in it.
    Over,
    /// The reader's queue is full: it rests now.
    Full,
    /// The reader is gone.
    Gone,
}

impl Follow {
    /// A subscription that is not asked for yet; `opened` hears of the server's first answer.
    pub(crate) fn new(
        since: Option<Since>,
        mode: Mode,
        sink: mpsc::Sender<Told>,
        asides: Option<AsidesSink>,
        opened: oneshot::Sender<Result<(), ClientError>>,
    ) -> Self {
        let place = match &since {
            Some(Since::Position(_) | Since::Cursor(_)) => since.clone(),
            _ => None,
        };
        let (pending, opened) = (Vec::new(), Some(opened));
        Self { since, mode, place, pending, stage: Stage::Due, sink, asides, opened }
    }

    /// What is asked of the server: from where the reader stands, else as the caller said.
    pub(crate) fn request(&self, target: &Pattern) -> Operation<'static> {
        Operation::Subscribe(Subscribe {
            target: target_of(target),
            since: self.place.clone().or_else(|| self.since.clone()),
            mode: self.mode,
            presence: self.asides.is_some(),
        })
    }

    /// The server agrees: events after `place` follow.
    pub(crate) fn subscribed(&mut self, place: Since) {
        self.stage = Stage::Live;
        self.pending.clear();
        self.place.get_or_insert(place);
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Ok(()));
        }
    }

    /// Hands over what is new among the events of a message.
    pub(crate) fn events(&mut self, channel: &Channel, message: EventsMessage<'_>) -> Handed {
        if self.stage != Stage::Live {
            return Handed::Over;
        }
        let EventsMessage { epoch, events, pattern, cursor, .. } = message;
        let known = match &self.place {
            Some(Since::Position(known)) => Some(*known),
            _ => None,
        };
        let new = events
            .into_iter()
            .filter(|event| Some(Position { epoch, offset: event.offset }) > known)
            .map(|event| Event::new(channel.clone(), epoch, event));
        if pattern.is_none() {
            let events: Vec<_> = new.collect();
            let Some(last) = events.last().map(|event| event.position) else { return Handed::Over };
            return self.hand(Delivery::Events(events), Since::Position(last));
        }
        self.pending.extend(new);
        let Some(cursor) = cursor else { return Handed::Over };
        let events = std::mem::take(&mut self.pending);
        self.hand(Delivery::Events(events), Since::Cursor(cursor))
    }

    /// Tells the reader of a gap.
    pub(crate) fn gap(&mut self, gap: Gap) -> Handed {
        if self.stage != Stage::Live {
            return Handed::Over;
        }
        let Gap { target, from, to } = gap;
        let place = match target {
            GapTarget::Channel(_) => Since::Position(to),
            GapTarget::Pattern { cursor, .. } => Since::Cursor(cursor),
        };
        self.hand(Delivery::Gap { from, to }, place)
    }

    /// Tells what is not stored to whoever wants to know.
    pub(crate) fn aside(&self, aside: Aside) {
        if let Some(asides) = &self.asides {
            asides.tell(aside);
        }
    }

    fn hand(&mut self, delivery: Delivery, place: Since) -> Handed {
        match self.sink.try_send(Ok((delivery, place.clone()))) {
            Ok(()) => {
                self.place = Some(place);
                Handed::Over
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.stage = Stage::Resting;
                Handed::Full
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Handed::Gone,
        }
    }

    /// The reader's queue, to wait for room in it.
    pub(crate) fn sink(&self) -> mpsc::Sender<Told> {
        self.sink.clone()
    }

    /// The subscription is over. The reader hears why if there is room, and finds its queue closed.
    pub(crate) fn end(mut self, error: ClientError) {
        match self.opened.take() {
            Some(opened) => drop(opened.send(Err(error))),
            None => drop(self.sink.try_send(Err(error))),
        }
    }
}

/// How a subscription's target is asked for.
pub(crate) fn target_of(target: &Pattern) -> Target {
    match target {
        Pattern::Exact(channel) => Target::Channels(vec![channel.clone()]),
        Pattern::Prefix(_) => Target::Pattern(target.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use stormwire_core::{Epoch, Offset, Partition, Timestamp};
    use stormwire_wire::protocol::{Cursor, DeliveredEvent, Payload};

    fn event(offset: u64) -> DeliveredEvent<'static> {
        DeliveredEvent {
            offset: Offset(offset),
            ts: Timestamp(1),
            id: Cow::Borrowed("i"),
            kind: None,
            key: None,
            from: Cow::Borrowed("u"),
            data: Payload::Json(Cow::Borrowed("1")),
        }
    }

    fn channel() -> Channel {
        Channel::parse("a:b").unwrap()
    }

    impl Follow {
        fn given(&mut self, epoch: u32, events: Vec<DeliveredEvent<'static>>) -> Handed {
            let channel = channel();
            let name = Cow::Owned(channel.to_string());
            let (epoch, pattern, cursor) = (Epoch(epoch), None, None);
            let message = EventsMessage { channel: name, epoch, events, pattern, cursor };
            self.events(&channel, message)
        }

        fn given_for_pattern(&mut self, offsets: &[u64], cursor: Option<u64>) -> Handed {
            let channel = channel();
            self.events(
                &channel,
                EventsMessage {
                    channel: Cow::Owned(channel.to_string()),
                    epoch: Epoch(1),
                    events: offsets.iter().map(|offset| event(*offset)).collect(),
                    pattern: Some("a:*".into()),
                    cursor: cursor.map(cursor_at),
                },
            )
        }
    }

    fn cursor_at(offset: u64) -> Cursor {
        Cursor::new([(Partition(0), at(offset))])
    }

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch(1), offset: Offset(offset) }
    }

    fn since(follow: &Follow) -> Option<Since> {
        match follow.request(&Pattern::Exact(channel())) {
            Operation::Subscribe(subscribe) => subscribe.since,
            other => panic!("{other:?}"),
        }
    }

    fn offsets(told: Option<Told>) -> Vec<u64> {
        match told {
            Some(Ok((Delivery::Events(events), _))) => {
                events.iter().map(|event| event.position.offset.0).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_repeat_after_a_reconnect_is_dropped_and_a_new_epoch_is_not_one() {
        let (sink, mut reader) = mpsc::channel(8);
        let (opened, is_open) = oneshot::channel();
        let mut follow = Follow::new(Some(Since::Last(10)), Mode::All, sink, None, opened);
        assert_eq!(since(&follow), Some(Since::Last(10)));
        assert_eq!(follow.given(1, vec![event(1)]), Handed::Over, "not subscribed yet");
        follow.subscribed(Since::Position(at(4)));
        is_open.await.unwrap().unwrap();
        follow.given(1, vec![event(5), event(6)]);
        assert_eq!(offsets(reader.recv().await), [5, 6]);
        follow.stage = Stage::Due;
        assert_eq!(since(&follow), Some(Since::Position(at(6))));
        follow.subscribed(Since::Position(at(6)));
        follow.given(1, vec![event(6), event(7)]);
        assert_eq!(offsets(reader.recv().await), [7]);
        follow.given(2, vec![event(3)]);
        assert_eq!(offsets(reader.recv().await), [3]);
        let from = Position { epoch: Epoch(2), offset: Offset(3) };
        follow.gap(Gap { target: GapTarget::Channel(channel()), from, to: at(9) });
        assert!(matches!(reader.recv().await, Some(Ok((Delivery::Gap { .. }, _)))));
    }

    #[tokio::test]
    async fn a_slow_reader_rests_and_goes_on_where_it_stopped() {
        let (sink, mut reader) = mpsc::channel(1);
        let mut follow = Follow::new(None, Mode::All, sink, None, oneshot::channel().0);
        follow.subscribed(Since::Position(at(0)));
        assert_eq!(follow.given(1, vec![event(1)]), Handed::Over);
        assert_eq!(follow.given(1, vec![event(2)]), Handed::Full);
        assert_eq!(follow.given(1, vec![event(3)]), Handed::Over, "dropped at rest");
        assert_eq!(offsets(reader.recv().await), [1]);
        assert_eq!(since(&follow), Some(Since::Position(at(1))));
        follow.subscribed(Since::Position(at(1)));
        follow.given(1, vec![event(2), event(3)]);
        assert_eq!(offsets(reader.recv().await), [2, 3]);
        drop(reader);
        assert_eq!(follow.given(1, vec![event(4)]), Handed::Gone);
    }

    #[tokio::test]
    async fn a_pattern_moves_with_its_cursor_alone() {
        let (sink, mut reader) = mpsc::channel(1);
        let mut follow = Follow::new(None, Mode::Latest, sink, None, oneshot::channel().0);
        follow.subscribed(Since::Cursor(cursor_at(4)));
        assert_eq!(follow.given_for_pattern(&[5], None), Handed::Over);
        assert_eq!(since(&follow), Some(Since::Cursor(cursor_at(4))), "the message goes on");
        assert_eq!(follow.given_for_pattern(&[3, 6], Some(7)), Handed::Over);
        assert_eq!(offsets(reader.recv().await), [5, 3, 6], "all of it at once");
        assert_eq!(since(&follow), Some(Since::Cursor(cursor_at(7))));
        assert_eq!(follow.given_for_pattern(&[8], Some(9)), Handed::Over);
        // What is not handed over whole is asked for again whole.
        follow.given_for_pattern(&[10], None);
        assert_eq!(follow.given_for_pattern(&[11], Some(12)), Handed::Full);
        assert_eq!(since(&follow), Some(Since::Cursor(cursor_at(9))));
        assert_eq!(offsets(reader.recv().await), [8]);
        follow.subscribed(Since::Cursor(cursor_at(9)));
        follow.given_for_pattern(&[10], None);
        // The connection is lost in the middle of nothing: what came without a cursor is forgotten.
        follow.stage = Stage::Due;
        follow.subscribed(Since::Cursor(cursor_at(9)));
        follow.given_for_pattern(&[10, 11], Some(12));
        assert_eq!(offsets(reader.recv().await), [10, 11]);
    }
}
