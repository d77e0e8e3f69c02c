//! One subscription: where its reader stands, and what it is told.
//!
//! Pure, like the window. The position moves only when a delivery is in the reader's queue, so asking
//! the server again from there neither loses nor repeats anything. A reader whose queue is full rests:
//! it is unsubscribed, what comes meanwhile is dropped, and it goes on from its position once half of
//! its queue is free.

use crate::{ClientError, Delivery, Event};
use stormwire_core::{Channel, Epoch, Position};
use stormwire_wire::protocol::{DeliveredEvent, Mode, Operation, Since, Subscribe, Target};
use tokio::sync::{mpsc, oneshot};

/// What a reader's queue holds.
pub(crate) type Told = Result<Delivery, ClientError>;

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
    position: Option<Position>,
    /// Where it stands towards the server.
    pub(crate) stage: Stage,
    sink: mpsc::Sender<Told>,
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
        sink: mpsc::Sender<Told>,
        opened: oneshot::Sender<Result<(), ClientError>>,
    ) -> Self {
        let position = match &since {
            Some(Since::Position(position)) => Some(*position),
            _ => None,
        };
        Self { since, position, stage: Stage::Due, sink, opened: Some(opened) }
    }

    /// What is asked of the server: from where the reader stands, else as the caller said.
    pub(crate) fn request(&self, channel: &Channel) -> Operation<'static> {
        Operation::Subscribe(Subscribe {
            target: Target::Channels(vec![channel.clone()]),
            since: self.position.map(Since::Position).or_else(|| self.since.clone()),
            mode: Mode::All,
            presence: false,
        })
    }

    /// The server agrees: events after `position` follow.
    pub(crate) fn subscribed(&mut self, position: Position) {
        self.stage = Stage::Live;
        self.position.get_or_insert(position);
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(Ok(()));
        }
    }

    /// Hands over what is new among `events`.
    pub(crate) fn events(&mut self, epoch: Epoch, events: Vec<DeliveredEvent<'_>>) -> Handed {
        if self.stage != Stage::Live {
            return Handed::Over;
        }
        let known = self.position;
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| Some(Position { epoch, offset: event.offset }) > known)
            .map(|event| Event::new(epoch, event))
            .collect();
        let Some(last) = events.last().map(|event| event.position) else { return Handed::Over };
        self.hand(Delivery::Events(events), last)
    }

    /// Tells the reader of a gap.
    pub(crate) fn gap(&mut self, from: Position, to: Position) -> Handed {
        if self.stage != Stage::Live {
            return Handed::Over;
        }
        self.hand(Delivery::Gap { from, to }, to)
    }

    fn hand(&mut self, delivery: Delivery, position: Position) -> Handed {
        match self.sink.try_send(Ok(delivery)) {
            Ok(()) => {
                self.position = Some(position);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use stormwire_core::{Offset, Timestamp};
    use stormwire_wire::protocol::Payload;

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

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch(1), offset: Offset(offset) }
    }

    fn since(follow: &Follow) -> Option<Since> {
        match follow.request(&Channel::parse("a:b").unwrap()) {
            Operation::Subscribe(subscribe) => subscribe.since,
            other => panic!("{other:?}"),
        }
    }

    fn offsets(told: Option<Told>) -> Vec<u64> {
        match told {
            Some(Ok(Delivery::Events(events))) => {
                events.iter().map(|event| event.position.offset.0).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_repeat_after_a_reconnect_is_dropped_and_a_new_epoch_is_not_one() {
        let (sink, mut reader) = mpsc::channel(8);
        let (opened, is_open) = oneshot::channel();
        let mut follow = Follow::new(Some(Since::Last(10)), sink, opened);
        assert_eq!(since(&follow), Some(Since::Last(10)));
        assert_eq!(follow.events(Epoch(1), vec![event(1)]), Handed::Over, "not subscribed yet");
        follow.subscribed(at(4));
        is_open.await.unwrap().unwrap();
        follow.events(Epoch(1), vec![event(5), event(6)]);
        assert_eq!(offsets(reader.recv().await), [5, 6]);
        follow.stage = Stage::Due;
        assert_eq!(since(&follow), Some(Since::Position(at(6))));
        follow.subscribed(at(6));
        follow.events(Epoch(1), vec![event(6), event(7)]);
        assert_eq!(offsets(reader.recv().await), [7]);
        follow.events(Epoch(2), vec![event(3)]);
        assert_eq!(offsets(reader.recv().await), [3]);
        follow.gap(Position { epoch: Epoch(2), offset: Offset(3) }, at(9));
        assert!(matches!(reader.recv().await, Some(Ok(Delivery::Gap { .. }))));
    }

    #[tokio::test]
    async fn a_slow_reader_rests_and_goes_on_where_it_stopped() {
        let (sink, mut reader) = mpsc::channel(1);
        let mut follow = Follow::new(None, sink, oneshot::channel().0);
        follow.subscribed(at(0));
        assert_eq!(follow.events(Epoch(1), vec![event(1)]), Handed::Over);
        assert_eq!(follow.events(Epoch(1), vec![event(2)]), Handed::Full);
        assert_eq!(follow.events(Epoch(1), vec![event(3)]), Handed::Over, "dropped at rest");
        assert_eq!(offsets(reader.recv().await), [1]);
        assert_eq!(since(&follow), Some(Since::Position(at(1))));
        follow.subscribed(at(1));
        follow.events(Epoch(1), vec![event(2), event(3)]);
        assert_eq!(offsets(reader.recv().await), [2, 3]);
        drop(reader);
        assert_eq!(follow.events(Epoch(1), vec![event(4)]), Handed::Gone);
    }
}
