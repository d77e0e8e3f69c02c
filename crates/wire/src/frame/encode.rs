//! Writing frames.

use super::{
    EncodedEvents, FRAME_BYTES_MAX, FrameId, HEADER_BYTES, KIND_CLAIM, KIND_CLOSE, KIND_EVENTS,
    KIND_REWOUND, MAGIC, NO_TRACE, RUN_HEADER_BYTES, TRACE_BYTES, TraceContext, VERSION,
};
use bytes::{BufMut, Bytes, BytesMut};
use hashbrown::{Equivalent, HashMap};
use stormwire_core::{Channel, Epoch, FrameSeq, MAX_EVENTS_PER_FRAME};

/// Who a frame about a log that has gone back is from: nobody's life.
const REWOUND_BY: [u8; 16] = *b"journal-rewound!";

/// The frame with which a new owner of a partition begins.
#[must_use]
pub fn claim(id: FrameId, gateway: &str) -> Bytes {
    let mut out = header(id, KIND_CLAIM);
    put_text(&mut out, gateway);
    out.freeze()
}

/// The frame that ends an epoch: names the next one and the first sequence number of its log. With
/// `lost_from`, frames that were acknowledged under that number or above it may be lost.
#[must_use]
pub fn close(id: FrameId, next: Epoch, first_seq: FrameSeq, lost_from: Option<FrameSeq>) -> Bytes {
    let mut out = header(id, KIND_CLOSE);
    out.put_u32_le(next.0);
    out.put_u64_le(first_seq);
    out.put_u64_le(lost_from.unwrap_or(0));
    out.freeze()
}

/// The frame that says that the log has gone back: it once reached `seen`, and what stood at `lost_from`
/// and above is lost. Nothing but the epoch's close may follow. Whoever finds it out writes the same.
#[must_use]
pub fn rewound(lost_from: FrameSeq, seen: FrameSeq) -> Bytes {
    let id = FrameId { appender: REWOUND_BY, counter: seen };
    let mut out = header(id, KIND_REWOUND);
    out.put_u64_le(lost_from);
    out.put_u64_le(seen);
    out.freeze()
}

/// Packs the runs of many publishes into one frame, until it is full.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    producers: Table<(Box<str>, Box<str>)>,
    channels: Table<Channel>,
    traces: Vec<TraceContext>,
    table_bytes: usize,
    runs: BytesMut,
    run_count: u16,
    events: usize,
}

/// A user and a producer as they are looked up, without copying them.
#[derive(Hash)]
struct Named<'a>(&'a str, &'a str);

impl Equivalent<(Box<str>, Box<str>)> for Named<'_> {
    fn equivalent(&self, (user, producer): &(Box<str>, Box<str>)) -> bool {
        *self.0 == **user && *self.1 == **producer
    }
}

#[derive(Debug)]
struct Table<K> {
    index: HashMap<K, u16>,
    bytes: BytesMut,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { index: HashMap::new(), bytes: BytesMut::new() }
    }
}

impl FrameBuilder {
    /// Whether nothing was put in yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many events it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events
    }

    /// Bytes of the frame as it would be finished now.
    #[must_use]
    pub fn size(&self) -> usize {
        HEADER_BYTES + 10 + self.table_bytes + self.runs.len()
    }

    /// Puts in as many of `events` as fit, as one run, and gives back how many that were. `seq` is the
    /// producer's number of the first event, 0 without a producer (`producer` is empty then).
    pub fn push(
        &mut self,
        channel: &Channel,
        user: &str,
        producer: &str,
        seq: u64,
        trace: Option<TraceContext>,
        events: &EncodedEvents,
    ) -> usize {
        let overhead = RUN_HEADER_BYTES
            + channel.as_str().len()
            + user.len()
            + producer.len()
            + 3
            + trace.map_or(0, |_| TRACE_BYTES);
        let room = FRAME_BYTES_MAX.saturating_sub(self.size() + overhead);
        let (head, _) = events.split(MAX_EVENTS_PER_FRAME - self.events, room);
        if head.is_empty() {
            return 0;
        }
        let channel = self.channel(channel);
        let producer = self.producer(user, producer);
        let trace = trace.map_or(NO_TRACE, |trace| self.trace(trace));
        let body = head.as_bytes();
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame")]
        {
            self.runs.put_u32_le(body.len() as u32);
            self.runs.put_u16_le(channel);
            self.runs.put_u16_le(producer);
            self.runs.put_u64_le(seq);
            self.runs.put_u16_le(head.len() as u16);
            self.runs.put_u16_le(trace);
        }
        self.runs.put_slice(body);
        self.run_count += 1;
        self.events += head.len();
        head.len()
    }

    /// The finished frame; the builder is empty afterwards and keeps its allocations.
    pub fn finish(&mut self, id: FrameId) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        put_header(&mut out, id, KIND_EVENTS);
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame")]
        {
            out.put_u16_le(self.producers.index.len() as u16);
            out.put_slice(&self.producers.bytes);
            out.put_u16_le(self.channels.index.len() as u16);
            out.put_slice(&self.channels.bytes);
            out.put_u16_le(self.traces.len() as u16);
            for trace in &self.traces {
                out.put_slice(&trace.trace);
                out.put_slice(&trace.span);
                out.put_u8(trace.flags);
            }
            out.put_u16_le(self.events as u16);
        }
        out.put_u16_le(self.run_count);
        out.put_slice(&self.runs);
        self.clear();
        out.freeze()
    }

    fn clear(&mut self) {
        self.producers.index.clear();
        self.producers.bytes.clear();
        self.channels.index.clear();
        self.channels.bytes.clear();
        self.traces.clear();
        self.runs.clear();
        (self.table_bytes, self.run_count, self.events) = (0, 0, 0);
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most one entry an event")]
    fn channel(&mut self, channel: &Channel) -> u16 {
        if let Some(at) = self.channels.index.get(channel.as_str()) {
            return *at;
        }
        let at = self.channels.index.len() as u16;
        self.channels.index.insert(channel.clone(), at);
        put_text(&mut self.channels.bytes, channel.as_str());
        self.table_bytes += 1 + channel.as_str().len();
        at
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most one entry an event")]
    fn producer(&mut self, user: &str, producer: &str) -> u16 {
        if let Some(at) = self.producers.index.get(&Named(user, producer)) {
            return *at;
        }
        let at = self.producers.index.len() as u16;
        self.producers.index.insert((Box::from(user), Box::from(producer)), at);
        put_text(&mut self.producers.bytes, user);
        put_text(&mut self.producers.bytes, producer);
        self.table_bytes += 2 + user.len() + producer.len();
        at
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most one entry an event")]
    fn trace(&mut self, trace: TraceContext) -> u16 {
        if let Some(at) = self.traces.iter().rposition(|known| *known == trace) {
            return at as u16;
        }
        self.traces.push(trace);
        self.table_bytes += TRACE_BYTES;
        (self.traces.len() - 1) as u16
    }
}

fn header(id: FrameId, kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    put_header(&mut out, id, kind);
    out
}

fn put_header(out: &mut BytesMut, id: FrameId, kind: u8) {
    out.put_slice(&[MAGIC, VERSION, kind, 0]);
    out.put_slice(&id.appender);
    out.put_u64_le(id.counter);
}

/// Texts are checked at the edge to fit; one that does not is cut rather than corrupting the frame.
fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text.as_bytes()[..text.len().min(255)];
    #[expect(clippy::cast_possible_truncation, reason = "cut above")]
    out.put_u8(text.len() as u8);
    out.put_slice(text);
}
