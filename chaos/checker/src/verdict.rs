//! What the checker says.

use crate::history::Position;
use std::collections::BTreeMap;
use std::fmt;

/// Examples kept of each kind: one is read, more show a pattern.
const EXAMPLES_MAX: usize = 3;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal;)+) => {
        /// How a guarantee can be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[doc = $doc])+ $kind,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

kinds! {
    /// An acknowledged event is not in the archive.
    Lost "lost";
    /// An acknowledged event is in the archive, but not where its acknowledgement says.
    Misplaced "misplaced";
    /// At the acknowledged offset the archive holds something else than what was sent.
    Altered "altered";
    /// An event is in the archive more than once.
    StoredTwice "stored-twice";
    /// An event is in the archive though every attempt was refused.
    RefusedStored "refused-stored";
    /// The archive holds what nobody sent.
    NeverSent "never-sent";
    /// Two attempts of one event were acknowledged with different offsets.
    AnswersDiffer "answers-differ";
    /// A later event of a producer stands before an earlier one in the same partition.
    ProducerReordered "producer-reordered";
    /// A publish got no final answer though everything was healed.
    NeverSettled "never-settled";
    /// A subscriber missed events and was not told.
    SilentGap "silent-gap";
    /// A subscriber got an event again.
    SeenTwice "seen-twice";
    /// A subscriber got an event after a later one.
    OutOfOrder "out-of-order";
    /// A subscriber saw an event that the archive does not hold.
    SeenNotStored "seen-not-stored";
    /// A subscriber saw another event at an offset than the archive holds there.
    FeedsDiffer "feeds-differ";
    /// A subscriber was connected to the end and did not get everything.
    CutShort "cut-short";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One broken guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which guarantee.
    pub kind: Kind,
    /// On which channel, where that is known.
    pub channel: Option<String>,
    /// The first position that it touches.
    pub from: Option<Position>,
    /// The last one; the same as the first for one event.
    pub through: Option<Position>,
    /// The producer and the sequence number.
    pub sent: Option<(String, u64)>,
    /// The subscriber.
    pub subscriber: Option<String>,
    /// The whole in one sentence.
    pub sentence: String,
}

impl Violation {
    pub(crate) fn new(kind: Kind, sentence: String) -> Self {
        let (channel, from, through, sent, subscriber) = (None, None, None, None, None);
        Self { kind, channel, from, through, sent, subscriber, sentence }
    }

    pub(crate) fn at(mut self, channel: &str, from: Position, through: Position) -> Self {
        self.channel = Some(channel.to_owned());
        (self.from, self.through) = (Some(from), Some(through));
        self
    }

    pub(crate) fn sent(mut self, producer: &str, seq: u64) -> Self {
        self.sent = Some((producer.to_owned(), seq));
        self
    }

    pub(crate) fn seen_by(mut self, subscriber: &str) -> Self {
        self.subscriber = Some(subscriber.to_owned());
        self
    }
}

/// What was counted on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Events sent, each once.
    pub sent: u64,
    /// Of these: acknowledged.
    pub acknowledged: u64,
    /// Of these: every attempt refused.
    pub refused: u64,
    /// Of these: not acknowledged, and not every attempt refused.
    pub unknown: u64,
    /// Of the unknown: in the archive.
    pub unknown_stored: u64,
    /// Rows of the archive.
    pub archived: u64,
    /// Events that came to subscribers.
    pub seen: u64,
    /// Archived events that subscribers were told not to get.
    pub told_as_gap: u64,
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What was counted.
    pub totals: Totals,
    found: BTreeMap<Kind, Found>,
}

#[derive(Debug, Clone, Default)]
struct Found {
    count: u64,
    examples: Vec<Violation>,
}

impl Verdict {
    pub(crate) fn add(&mut self, violation: Violation) {
        let found = self.found.entry(violation.kind).or_default();
        found.count += 1;
        found.examples.push(violation);
        // The smallest stretch is the easiest to understand; among equals the earliest.
        found.examples.sort_by_key(|example| {
            let ends = example.from.zip(example.through);
            let span = ends.map_or(0, |(from, through)| through.offset.saturating_sub(from.offset));
            (span, example.from)
        });
        found.examples.truncate(EXAMPLES_MAX);
    }

    /// Whether every guarantee held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// How often a guarantee was broken in this way.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.found.get(&kind).map_or(0, |found| found.count)
    }

    /// The kinds that were found.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.found.keys().copied().collect()
    }

    /// The smallest examples of each kind.
    pub fn examples(&self) -> impl Iterator<Item = &Violation> {
        self.found.values().flat_map(|found| &found.examples)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { sent, acknowledged, refused, unknown, archived, seen, .. } = self.totals;
        writeln!(
            f,
            "{sent} events sent: {acknowledged} acknowledged, {refused} refused, {unknown} unknown (of \
             which {} stored); {archived} archived, {seen} seen by subscribers, {} told as gaps",
            self.totals.unknown_stored, self.totals.told_as_gap
        )?;
        if self.is_clean() {
            return f.write_str("every guarantee held");
        }
        for (kind, found) in &self.found {
            writeln!(f, "BROKEN {kind}: {} times. {}", found.count, kind.meaning())?;
        }
        Ok(())
    }
}
