//! A pattern: one subscription in every partition, one cursor, one answer.

use super::Session;
use super::subscribe::Start;
use crate::hub::{Selection, Wide};
use futures::future::try_join_all;
use std::sync::Arc;
use stormwire_core::{ErrorCode, Partition, Pattern, Refusal};
use stormwire_telemetry::metrics as names;
use stormwire_tokens::{Action, Target};
use stormwire_wire::protocol::{Cursor, Mode, RequestId, ServerMessage, Since, Subscribed};

impl Session {
    pub(super) async fn subscribe_pattern(
        &mut self,
        id: Option<RequestId>,
        pattern: &Pattern,
        since: Option<&Since>,
        mode: Mode,
    ) -> Result<(), Refusal> {
        let prefix = prefix_of(pattern)?;
        let text = pattern.to_string();
        self.check_pattern(pattern, &text)?;
        let (hub, reader) = (Arc::clone(&self.context.hub), self.reader());
        let selections: Vec<_> = hub
            .partitions()
            .all()
            .map(|partition| Selection::Prefix(partition, Arc::clone(prefix)))
            .collect();
        // The tails start now, before the positions are chosen: nothing is missed in between.
        let _wanted: Vec<_> = hub.feeds().iter().map(|feed| feed.want()).collect();
        let starts = selections.iter().map(|selection| start(&reader, &hub, selection, since));
        let starts = try_join_all(starts).await?;
        let positions = hub.partitions().all().zip(starts.iter().map(|start| start.position));
        let cursor = Cursor::new(positions);
        let wide = Arc::new(Wide::new(text.as_str().into(), cursor.clone()));
        self.say(&ServerMessage::Subscribed(Subscribed::Pattern {
            id,
            pattern: text.as_str().into(),
            cursor,
            recovered: starts.iter().all(|start| start.gap_from.is_none()),
        }));
        let (mut subscriptions, mut behind) = (Vec::new(), Vec::new());
        for (selection, start) in selections.into_iter().zip(&starts) {
            let part = (selection, Some(Arc::clone(&wide)));
            let (codec, outbox) = (self.accepted.codec, Arc::clone(&self.outbox));
            let subscription = hub.subscription(part, mode, codec, outbox);
            behind.extend(self.begin(&subscription, start));
            subscriptions.push(subscription);
        }
        self.refill(behind);
        metrics::gauge!(names::SUBSCRIPTIONS).increment(1.0);
        self.patterns.insert(text.into(), subscriptions);
        Ok(())
    }

    fn check_pattern(&self, pattern: &Pattern, text: &str) -> Result<(), Refusal> {
        let signed_in = self.signed_in.as_ref().ok_or_else(super::connect_first)?;
        signed_in.claims.require(Action::Subscribe, Target::Pattern(pattern))?;
        if self.patterns.contains_key(text) {
            let message = format!("this connection is subscribed to {pattern} already");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        self.check_room(text)
    }

    pub(super) fn end_pattern(&mut self, text: &str) -> bool {
        let Some(subscriptions) = self.patterns.remove(text) else { return false };
        for subscription in subscriptions {
            subscription.feed().leave(&subscription);
        }
        metrics::gauge!(names::SUBSCRIPTIONS).decrement(1.0);
        true
    }
}

/// What the names of a pattern's channels begin with. A pattern stays within one namespace.
pub(crate) fn prefix_of(pattern: &Pattern) -> Result<&Arc<str>, Refusal> {
    match pattern {
        Pattern::Prefix(prefix) if !prefix.is_empty() => Ok(prefix),
        Pattern::Prefix(_) => Err(Refusal::invalid_field(
            "pattern",
            "* alone is every namespace; name one, as in orders:*",
        )),
        Pattern::Exact(_) => Err(Refusal::invalid_field(
            "pattern",
            "ends in *, as in orders:*; one channel is asked for by its name, as channel",
        )),
    }
}

/// Where a cursor stands in a partition; a cursor of another cluster is refused by the name of its field.
pub(crate) fn place_in(
    field: &str,
    cursor: &Cursor,
    partition: Partition,
) -> Result<stormwire_core::Position, Refusal> {
    cursor.get(partition).ok_or_else(|| {
        Refusal::invalid_field(field, "is not a cursor of this cluster: a partition is missing")
    })
}

async fn start(
    reader: &crate::reader::Reader,
    hub: &crate::hub::Hub,
    selection: &Selection,
    since: Option<&Since>,
) -> Result<Start, Refusal> {
    let refused = |field: &str, problem: &str| Err(Refusal::invalid_field(field, problem));
    let partition = hub.feed_of(selection).partition;
    match since {
        None => Ok(Start { position: reader.tip_of(partition).await?, gap_from: None }),
        Some(Since::Cursor(cursor)) => {
            let position = place_in("since.cursor", cursor, partition)?;
            let seen = reader.tip_of(partition).await?;
            Start::at(reader, partition, position, seen).await
        }
        Some(Since::Time(time)) => {
            let seen = reader.tip_of(partition).await?;
            let position = reader.position_at(selection, *time, seen).await?;
            Ok(Start { position, gap_from: None })
        }
        Some(Since::Position(_)) => refused(
            "since.offset",
            "belongs to a channel; a pattern goes on from the cursor that came with its events",
        ),
        Some(Since::Last(_)) => {
            refused("since.last", "belongs to a channel; a pattern begins at a time or at a cursor")
        }
    }
}
