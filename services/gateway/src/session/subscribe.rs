//! `subscribe` and `unsubscribe`: channels by name, each with an answer of its own.

use super::Session;
use crate::hub::{Joined, Selection, Subscription};
use crate::outbox::Parked;
use crate::reader::{Above, Reader};
use crate::render::Gathered;
use std::sync::Arc;
use stormwire_core::{Channel, Epoch, ErrorCode, Offset, Partition, Position, Refusal};
use stormwire_telemetry::metrics as names;
use stormwire_tokens::{Action, Target as Asked};
use stormwire_wire::protocol::{
    Mode, RequestId, ServerMessage, Since, Subscribe, Subscribed, Target,
};

/// Bytes that a subscription is given at once from memory before it goes on beside the connection.
const FIRST_PAGE_BYTES: usize = 64 * 1024;
/// Most events that `since {last}` goes back.
const LAST_MAX: u32 = 10_000;

impl Session {
    pub(super) async fn subscribe(
        &mut self,
        id: Option<RequestId>,
        subscribe: Subscribe,
    ) -> Result<(), Refusal> {
        let (since, mode, presence) =
            (subscribe.since.as_ref(), subscribe.mode, subscribe.presence);
        let channels = match subscribe.target {
            Target::Channels(channels) => channels,
            Target::Pattern(_) if presence => {
                let problem = "a pattern has no members; name the channels";
                return Err(Refusal::invalid_field("presence", problem));
            }
            Target::Pattern(pattern) => {
                return self.subscribe_pattern(id, &pattern, since, mode).await;
            }
        };
        for channel in channels {
            if let Err(refusal) =
                self.subscribe_one(id.clone(), channel, since, mode, presence).await
            {
                self.refuse(id.clone(), &refusal);
            }
        }
        Ok(())
    }

    async fn subscribe_one(
        &mut self,
        id: Option<RequestId>,
        channel: Channel,
        since: Option<&Since>,
        mode: Mode,
        presence: bool,
    ) -> Result<(), Refusal> {
        self.check_subscription(&channel)?;
        if presence {
            self.check_membership(&channel)?;
        }
        // The tail starts now, before the position is chosen: nothing is missed in between.
        let (outbox, codec) = (Arc::clone(&self.outbox), self.accepted.codec);
        let selection = Selection::Channel(channel.clone());
        let subscription = self.context.hub.subscription((selection, None), mode, codec, outbox);
        let start = self.start(&channel, since).await?;
        self.say(&ServerMessage::Subscribed(Subscribed::Channel {
            id,
            channel: channel.clone(),
            position: start.position,
            recovered: start.gap_from.is_none(),
        }));
        let behind: Vec<_> = self.begin(&subscription, &start).into_iter().collect();
        self.refill(behind);
        metrics::gauge!(names::SUBSCRIPTIONS).increment(1.0);
        self.subscriptions.insert(channel.clone(), subscription);
        self.enter(&channel, presence).await;
        Ok(())
    }

    /// Tells the gap that is known at once, and gives what memory holds; what is left is given back.
    pub(super) fn begin(&self, subscription: &Arc<Subscription>, start: &Start) -> Option<Parked> {
        if let Some(from) = start.gap_from {
            metrics::counter!(names::GAPS_TOLD).increment(1);
            let mut gathered = Gathered::new(subscription.codec);
            gathered.gap(from, start.position);
            subscription.answer(gathered, start.position);
        }
        let feed = subscription.feed();
        let position = match feed.join(subscription, start.position, FIRST_PAGE_BYTES) {
            Joined::Live => return None,
            Joined::Advanced(position) => position,
            Joined::Behind | Joined::Above | Joined::NotReady => start.position,
        };
        Some(Parked { subscription: Arc::clone(subscription), position })
    }

    fn check_subscription(&self, channel: &Channel) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        signed_in.claims.require(Action::Subscribe, Asked::Channel(channel.as_str()))?;
        if self.subscriptions.contains_key(channel) {
            let message = format!("this connection is subscribed to {channel} already");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        self.check_room(channel.as_str())
    }

    /// Whether one more subscription, to `what`, may be held.
    pub(super) fn check_room(&self, what: &str) -> Result<(), Refusal> {
        let max = self.context.config.subscriptions_max;
        if self.subscriptions.len() + self.patterns.len() < max {
            return Ok(());
        }
        let message =
            format!("{max} subscriptions are the most of one connection; {what} is one more");
        Err(Refusal::new(ErrorCode::TooManySubscriptions, message))
    }

    async fn start(&self, channel: &Channel, since: Option<&Since>) -> Result<Start, Refusal> {
        let reader = &self.reader();
        let selection = Selection::Channel(channel.clone());
        let partition = self.context.hub.feed(channel).partition;
        let seen = reader.tip_of(partition).await?;
        let position = match since {
            None => seen,
            Some(Since::Position(position)) => {
                return Start::at(reader, partition, *position, seen).await;
            }
            Some(Since::Time(time)) => reader.position_at(&selection, *time, seen).await?,
            Some(Since::Last(count)) if *count <= LAST_MAX => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                reader.position_of_last(channel, count, seen).await?
            }
            Some(Since::Last(count)) => {
                let problem = format!(
                    "at most {LAST_MAX} events, not {count}; page through history for more"
                );
                return Err(Refusal::invalid_field("since.last", problem));
            }
            Some(Since::Cursor(_)) => {
                return Err(Refusal::invalid_field(
                    "since.cursor",
                    "belongs to a pattern; a channel goes on from epoch and offset",
                ));
            }
        };
        Ok(Start { position, gap_from: None })
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: Option<RequestId>,
        target: &Target,
    ) -> Result<(), Refusal> {
        let channels = match target {
            Target::Channels(channels) => channels,
            Target::Pattern(pattern) => {
                let target = pattern.to_string();
                if !self.end_pattern(&target) {
                    let message =
                        format!("this connection is not subscribed to the pattern {pattern}");
                    return Err(Refusal::new(ErrorCode::NotFound, message));
                }
                self.say(&ServerMessage::Unsubscribed { id, target: target.into() });
                return Ok(());
            }
        };
        for channel in channels {
            if self.end_subscription(channel) {
                let target = channel.as_str().into();
                self.say(&ServerMessage::Unsubscribed { id: id.clone(), target });
            } else {
                let message = format!("this connection is not subscribed to {channel}");
                self.refuse(id.clone(), &Refusal::new(ErrorCode::NotFound, message));
            }
        }
        Ok(())
    }
}

/// Where a subscription begins.
pub(super) struct Start {
    pub(super) position: Position,
    /// It asked for this position, which is above everything that there is.
    pub(super) gap_from: Option<Position>,
}

impl Start {
    /// At `position`, unless that is above everything. `seen` is how far this gateway knows the log.
    pub(super) async fn at(
        reader: &Reader,
        partition: Partition,
        position: Position,
        seen: Position,
    ) -> Result<Self, Refusal> {
        if position.epoch == Epoch(0) {
            let first = Position { epoch: Epoch::FIRST, offset: Offset(0) };
            return Ok(Self { position: first, gap_from: None });
        }
        // Ahead of this gateway, or of everybody: the journal knows.
        if position > seen
            && let Above::Nothing(end) = reader.end_below(partition, position).await?
        {
            return Ok(Self { position: end, gap_from: Some(position) });
        }
        Ok(Self { position, gap_from: None })
    }
}
