//! Who is live in a partition, and the fan-out of a frame to them.
//!
//! A frame's table of channels is looked at once: a channel's own subscriptions are found by its name,
//! patterns by its namespace and then by comparing prefixes. The events of a channel are encoded at most
//! once a codec, however many subscriptions and patterns get them.

use super::{Place, Selection, Subscription};
use crate::outbox::Parked;
use crate::render;
use axum::extract::ws::Message;
use std::collections::HashMap;
use std::sync::Arc;
use stormwire_core::{Channel, Offset, Position};
use stormwire_telemetry::metrics as names;
use stormwire_wire::frame::{Events, Run};
use stormwire_wire::protocol::{Codec, EventsBody, EventsEncoder, OutEvent};

/// The live subscriptions of one partition.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    channels: HashMap<Channel, Vec<Arc<Subscription>>>,
    /// By namespace.
    patterns: HashMap<Box<str>, Vec<PatternAudience>>,
}

/// All who are live on one prefix.
#[derive(Debug)]
struct PatternAudience {
    prefix: Arc<str>,
    live: Vec<Arc<Subscription>>,
}

/// A channel's part of a frame, encoded when it is first asked for.
struct Part<'a> {
    channel: &'a str,
    runs: Vec<Run<'a>>,
    count: u64,
    bodies: [Option<EventsBody>; Codec::ALL.len()],
    messages: [Option<Message>; Codec::ALL.len()],
}

/// What became of a frame's deliveries.
#[derive(Default)]
struct Tally {
    delivered: u64,
    parked: u64,
}

impl Audiences {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty()
    }

    pub(super) fn enter(&mut self, subscription: &Arc<Subscription>) {
        let live = match &subscription.selection {
            Selection::Channel(channel) => self.channels.entry(channel.clone()).or_default(),
            Selection::Prefix(_, prefix) => {
                let audiences = self.patterns.entry(namespace(prefix).into()).or_default();
                let known = audiences.iter().position(|audience| audience.prefix == *prefix);
                let at = known.unwrap_or_else(|| {
                    let prefix = Arc::clone(prefix);
                    audiences.push(PatternAudience { prefix, live: Vec::new() });
                    audiences.len() - 1
                });
                &mut audiences[at].live
            }
        };
        live.push(Arc::clone(subscription));
        if let Some(wide) = &subscription.wide {
            wide.entered(subscription.feed());
        }
    }

    pub(super) fn leave(&mut self, subscription: &Subscription) {
        let stays = |live: &Arc<Subscription>| live.id != subscription.id;
        subscription.left();
        match &subscription.selection {
            Selection::Channel(channel) => {
                let Some(live) = self.channels.get_mut(channel.as_str()) else { return };
                live.retain(stays);
                if live.is_empty() {
                    self.channels.remove(channel.as_str());
                }
            }
            Selection::Prefix(_, prefix) => {
                let namespace = namespace(prefix);
                let Some(audiences) = self.patterns.get_mut(namespace) else { return };
                audiences.retain_mut(|audience| {
                    if audience.prefix == *prefix {
                        audience.live.retain(stays);
                    }
                    !audience.live.is_empty()
                });
                if audiences.is_empty() {
                    self.patterns.remove(namespace);
                }
            }
        }
    }

    /// Everybody, who are not live any more.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Subscription>> {
        let channels = std::mem::take(&mut self.channels).into_values().flatten();
        let patterns = std::mem::take(&mut self.patterns).into_values().flatten();
        let all = channels.chain(patterns.flat_map(|audience| audience.live));
        all.inspect(|subscription| subscription.left())
    }

    /// Sends a frame's events to those who want them; who has no room for them is parked.
    pub(super) fn fan_out(&mut self, events: &Events, place: &Place) {
        let wanted = runs_by_channel(events, |channel| self.wants(channel));
        let mut parts: Vec<Part<'_>> = wanted.into_iter().map(Part::new).collect();
        let mut tally = Tally::default();
        for part in &mut parts {
            let Some(live) = self.channels.get_mut(part.channel) else { continue };
            live.retain(|subscription| part.deliver(subscription, place, &mut tally));
            if live.is_empty() {
                self.channels.remove(part.channel);
            }
        }
        if !self.patterns.is_empty() {
            self.fan_out_patterns(&mut parts, place, &mut tally);
        }
        metrics::counter!(names::EVENTS_DELIVERED).increment(tally.delivered);
        metrics::counter!(names::SUBSCRIPTIONS_PARKED).increment(tally.parked);
    }

    fn wants(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
            || !self.patterns.is_empty()
                && self.patterns.get(namespace(channel)).is_some_and(|audiences| {
                    audiences.iter().any(|audience| channel.starts_with(&*audience.prefix))
                })
    }

    fn fan_out_patterns(&mut self, parts: &mut [Part<'_>], place: &Place, tally: &mut Tally) {
        let mut namespaces: Vec<&str> = parts.iter().map(|part| namespace(part.channel)).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in namespaces {
            let Some(audiences) = self.patterns.get_mut(namespace) else { continue };
            audiences.retain_mut(|audience| {
                let matches = |part: &&mut Part<'_>| part.channel.starts_with(&*audience.prefix);
                let mut matched: Vec<_> = parts.iter_mut().filter(matches).collect();
                if !matched.is_empty() {
                    audience.live.retain(|subscription| {
                        deliver_wide(&mut matched, subscription, place, tally)
                    });
                }
                !audience.live.is_empty()
            });
            if audiences.is_empty() {
                self.patterns.remove(namespace);
            }
        }
    }
}

impl<'a> Part<'a> {
    fn new((channel, runs): (&'a str, Vec<Run<'a>>)) -> Self {
        let count = runs.iter().map(|run| u64::from(run.count)).sum();
        Self { channel, runs, count, bodies: [None, None], messages: [None, None] }
    }

    fn body(&mut self, codec: Codec, place: &Place) -> &EventsBody {
        let runs = &self.runs;
        self.bodies[index(codec)].get_or_insert_with(|| {
            let mut encoder = EventsEncoder::new(codec, place.partition, place.epoch);
            append(&mut encoder, runs.iter().copied(), place, place.before);
            encoder.body()
        })
    }

    /// Sends to one of the channel's own subscriptions; `false` if it is parked.
    fn deliver(
        &mut self,
        subscription: &Arc<Subscription>,
        place: &Place,
        tally: &mut Tally,
    ) -> bool {
        let codec = subscription.codec;
        if self.messages[index(codec)].is_none() {
            let channel = self.channel;
            let message = render::events(codec, channel, self.body(codec, place));
            self.messages[index(codec)] = Some(message);
        }
        let taken = match &self.messages[index(codec)] {
            Some(message) => subscription.outbox.live(message, subscription.id, place.before),
            None => Ok(()),
        };
        settle(taken, self.count, subscription, tally)
    }
}

/// Sends all of a frame that a pattern matches, in one message with its cursor; `false` if the
/// subscription is parked.
fn deliver_wide(
    parts: &mut [&mut Part<'_>],
    subscription: &Arc<Subscription>,
    place: &Place,
    tally: &mut Tally,
) -> bool {
    let Some(wide) = &subscription.wide else { return true };
    let codec = subscription.codec;
    let bodies: Vec<_> =
        parts.iter_mut().map(|part| (part.channel, part.body(codec, place).clone())).collect();
    let after = super::after_frame(place.epoch, place.seq);
    let taken = wide.advance(place.partition, after, |cursor| {
        let message = render::pattern_events(codec, &wide.text, &bodies, cursor);
        subscription.outbox.event(&message)
    });
    let count = parts.iter().map(|part| part.count).sum();
    // Every message that waits names all partitions in its cursor: none of them can be dropped.
    settle(taken.then_some(()).ok_or(place.before), count, subscription, tally)
}

/// Counts what became of a delivery; `false` if the subscription is parked, at the position given.
fn settle(
    taken: Result<(), Position>,
    count: u64,
    subscription: &Arc<Subscription>,
    tally: &mut Tally,
) -> bool {
    match taken {
        Ok(()) => tally.delivered += count,
        Err(position) => {
            subscription.left();
            subscription.outbox.park(Parked { subscription: Arc::clone(subscription), position });
            tally.parked += 1;
        }
    }
    taken.is_ok()
}

/// The part of a channel's name, or of a prefix, before the colon.
fn namespace(channel: &str) -> &str {
    channel.split_once(':').map_or(channel, |(namespace, _)| namespace)
}

const fn index(codec: Codec) -> usize {
    match codec {
        Codec::Json => 0,
        Codec::Protobuf => 1,
    }
}

/// The runs of each wanted channel, in one pass over the frame.
pub(crate) fn runs_by_channel<'a>(
    events: &'a Events,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(&'a str, Vec<Run<'a>>)> {
    let mut groups: Vec<Option<Vec<Run<'a>>>> =
        events.channels().map(|channel| wanted(channel).then(Vec::new)).collect();
    if groups.iter().any(Option::is_some) {
        for run in events.runs() {
            if let Some(Some(group)) = groups.get_mut(usize::from(run.channel_index)) {
                group.push(run);
            }
        }
    }
    let groups = groups.into_iter().flatten();
    groups.filter_map(|runs| Some((runs.first()?.channel, runs))).collect()
}

/// Renders the events of some runs that are behind `from`.
pub(crate) fn append<'a>(
    encoder: &mut EventsEncoder,
    runs: impl Iterator<Item = Run<'a>>,
    place: &Place,
    from: Position,
) {
    for run in runs {
        for event in run.events() {
            let offset = Offset::new(place.seq, event.index);
            if (Position { epoch: place.epoch, offset }) > from {
                encoder.push(&OutEvent::of(&run, &event, place.seq, place.ts));
            }
        }
    }
}
