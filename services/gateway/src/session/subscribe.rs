//! `subscribe` and `unsubscribe`.

use super::Session;
use crate::hub::Joined;
use crate::outbox::Parked;
use crate::render;
use std::sync::Arc;
use stormwire_core::{Channel, Epoch, ErrorCode, Offset, Position, Refusal};
use stormwire_telemetry::metrics as names;
use stormwire_tokens::Action;
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
        let offered = |what: &str, problem: &str| Err(Refusal::invalid_field(what, problem));
        let channels = match subscribe.target {
            Target::Channels(channels) => channels,
            Target::Pattern(_) => {
                return offered("pattern", "not offered by this server; name the channels");
            }
        };
        if subscribe.mode == Mode::Latest {
            return offered(
                "mode",
                "\"latest\" is not offered by this server; leave it out for \"all\"",
            );
        }
        if subscribe.presence {
            return offered("presence", "not offered by this server; leave it out");
        }
        for channel in channels {
            if let Err(refusal) =
                self.subscribe_one(id.clone(), channel, subscribe.since.as_ref()).await
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
    ) -> Result<(), Refusal> {
        self.check_subscription(&channel)?;
        // The tail starts now, before the position is chosen: nothing is missed in between.
        let hub = &self.context.hub;
        let outbox = Arc::clone(&self.outbox);
        let subscription = hub.subscription(channel.clone(), self.accepted.codec, outbox);
        let start = self.start(&channel, since).await?;
        self.say(&ServerMessage::Subscribed(Subscribed::Channel {
            id,
            channel: channel.clone(),
            position: start.position,
            recovered: start.gap_from.is_none(),
        }));
        if let Some(from) = start.gap_from {
            metrics::counter!(names::GAPS_TOLD).increment(1);
            self.outbox.answer(render::gap(self.accepted.codec, &channel, from, start.position));
        }
        let feed = hub.feed(&channel);
        let position = match feed.join(&subscription, start.position, FIRST_PAGE_BYTES) {
            Joined::Live => None,
            Joined::Advanced(position) => Some(position),
            Joined::Behind | Joined::Above | Joined::NotReady => Some(start.position),
        };
        if let Some(position) = position {
            let subscription = Arc::clone(&subscription);
            self.refill(vec![Parked { subscription, position }]);
        }
        metrics::gauge!(names::SUBSCRIPTIONS).increment(1.0);
        self.subscriptions.insert(channel, subscription);
        Ok(())
    }

    fn check_subscription(&self, channel: &Channel) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        if !signed_in.claims.rights.may(Action::Subscribe, channel.as_str()) {
            let message = format!("this token may not subscribe to {channel}");
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        if self.subscriptions.contains_key(channel) {
            let message = format!("this connection is subscribed to {channel} already");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        let max = self.context.config.subscriptions_max;
        if self.subscriptions.len() >= max {
            let message = format!(
                "{max} subscriptions are the most of one connection; {channel} is one more"
            );
            return Err(Refusal::new(ErrorCode::TooManySubscriptions, message));
        }
        Ok(())
    }

    async fn start(&self, channel: &Channel, since: Option<&Since>) -> Result<Start, Refusal> {
        let reader = &self.context.reader;
        let seen = reader.tip(channel).await?;
        let position = match since {
            None => seen,
            Some(Since::Position(position)) if position.epoch == Epoch(0) => {
                Position { epoch: Epoch::FIRST, offset: Offset(0) }
            }
            Some(Since::Position(position)) if *position <= seen => *position,
            // Ahead of this gateway, or of everybody: the journal knows.
            Some(Since::Position(position)) => {
                let tip = reader.leader_tip(channel).await?;
                if *position > tip {
                    return Ok(Start { position: tip, gap_from: Some(*position) });
                }
                *position
            }
            Some(Since::Time(time)) => reader.position_at(channel, *time, seen).await?,
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
                let message = format!("this connection is not subscribed to the pattern {pattern}");
                return Err(Refusal::new(ErrorCode::NotFound, message));
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
struct Start {
    position: Position,
    /// It asked for this position, which is above everything that there is.
    gap_from: Option<Position>,
}
