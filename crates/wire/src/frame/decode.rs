//! Reading frames. [`Frame::decode`] walks the whole frame once; what it returns cannot fail any more.

use super::{
    FrameId, HAS_ID, HAS_KEY, HAS_TYPE, HEADER_BYTES, IS_BINARY, KIND_CLAIM, KIND_CLOSE,
    KIND_EVENTS, KIND_REWOUND, MAGIC, NO_TRACE, RUN_HEADER_BYTES, TRACE_BYTES, TraceContext,
    VERSION,
};
use bytes::Bytes;
use std::ops::Range;
use stormwire_core::{Epoch, FrameSeq, MAX_EVENTS_PER_FRAME};

/// Why bytes are not a frame that this process can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not one of our frames at all.
    #[error("the bytes do not begin with a frame header")]
    NotAFrame,
    /// Written by a newer program: stop here, never skip.
    #[error("frame version {0} is newer than this program reads; upgrade it")]
    NewerVersion(u8),
    /// A kind of frame that version 1 does not have.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// It ends in the middle of something.
    #[error("the frame ends early, at byte {at}")]
    Truncated {
        /// Where more was due.
        at: usize,
    },
    /// Bytes after the end.
    #[error("the frame has bytes after its end, at byte {at}")]
    Trailing {
        /// Where the end should be.
        at: usize,
    },
    /// A number that contradicts another.
    #[error("the frame contradicts itself at byte {at}: {what}")]
    Inconsistent {
        /// Where it was found.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// A decoded frame. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Who wrote it.
    pub id: FrameId,
    /// What it holds.
    pub body: Body,
}

/// What a frame holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// Events of one partition.
    Events(Events),
    /// A new owner took the partition.
    Claim {
        /// The gateway it lives in.
        gateway: Box<str>,
    },
    /// The epoch ends here.
    Close {
        /// The epoch that follows.
        next: Epoch,
        /// Its first sequence number.
        first_seq: FrameSeq,
        /// The first number of this epoch whose frame may be lost, where the log had gone back.
        lost_from: Option<FrameSeq>,
    },
    /// The log has gone back; nothing but the epoch's close may follow.
    Rewound {
        /// The first number whose frame may be lost.
        lost_from: FrameSeq,
        /// The highest number that is known to have been there.
        seen: FrameSeq,
    },
}

/// The events of a frame.
#[derive(Debug, Clone)]
pub struct Events {
    bytes: Bytes,
    producers: Vec<(Range<usize>, Range<usize>)>,
    channels: Vec<Range<usize>>,
    traces: Range<usize>,
    runs: Range<usize>,
    len: u16,
}

/// Events of one publish: one channel, one producer, consecutive sequence numbers.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    events: &'a Events,
    body_at: usize,
    /// Index of the run's first event in the frame.
    pub first: u16,
    /// How many events.
    pub count: u16,
    /// Index of the channel in [`Events::channels`].
    pub channel_index: u16,
    /// Where the events go.
    pub channel: &'a str,
    /// Who published.
    pub user: &'a str,
    /// The producer, unless it has none.
    pub producer: Option<&'a str>,
    /// The producer's number of the first event; 0 without a producer.
    pub seq: u64,
    /// The trace of the publish.
    pub trace: Option<TraceContext>,
}

/// One event in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its place in the frame.
    pub index: u16,
    /// What kind of event.
    pub kind: Option<&'a str>,
    /// What it is about.
    pub key: Option<&'a str>,
    /// The client's own id.
    pub id: Option<&'a str>,
    /// JSON text as it came in, or bytes.
    pub data: &'a [u8],
    /// Whether `data` is bytes rather than JSON text.
    pub binary: bool,
}

impl Frame {
    /// Reads a frame, checking all of it.
    ///
    /// # Errors
    /// [`FrameError`], never a panic, whatever the bytes are.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let id = Self::peek_id(bytes)?;
        let mut reader = Reader { bytes, at: HEADER_BYTES };
        let body = match bytes[2] {
            KIND_EVENTS => Body::Events(Events::decode(bytes, &mut reader)?),
            KIND_CLAIM => {
                let gateway = reader.text()?;
                Body::Claim { gateway: text(bytes, &gateway).into() }
            }
            KIND_CLOSE => Body::Close {
                next: Epoch(reader.u32()?),
                first_seq: reader.u64()?,
                lost_from: Some(reader.u64()?).filter(|from| *from > 0),
            },
            KIND_REWOUND => Body::Rewound { lost_from: reader.u64()?, seen: reader.u64()? },
            kind => return Err(FrameError::UnknownKind(kind)),
        };
        if reader.at != bytes.len() {
            return Err(FrameError::Trailing { at: reader.at });
        }
        Ok(Self { id, body })
    }

    /// Reads only who wrote it.
    ///
    /// # Errors
    /// [`FrameError`] if there is no readable header.
    pub fn peek_id(bytes: &[u8]) -> Result<FrameId, FrameError> {
        if bytes.len() < 2 || bytes[0] != MAGIC {
            return Err(FrameError::NotAFrame);
        }
        if bytes[1] > VERSION {
            return Err(FrameError::NewerVersion(bytes[1]));
        }
        if bytes[1] == 0 {
            return Err(FrameError::NotAFrame);
        }
        let mut reader = Reader { bytes, at: 4 };
        let appender = reader.array()?;
        Ok(FrameId { appender, counter: reader.u64()? })
    }

    /// The events; none in a frame of another kind.
    #[must_use]
    pub const fn events(&self) -> Option<&Events> {
        match &self.body {
            Body::Events(events) => Some(events),
            Body::Claim { .. } | Body::Close { .. } | Body::Rewound { .. } => None,
        }
    }
}

impl Events {
    fn decode(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        let mut producers = Vec::new();
        for _ in 0..reader.u16()? {
            producers.push((reader.text()?, reader.text()?));
        }
        let mut channels = Vec::new();
        for _ in 0..reader.u16()? {
            channels.push(reader.text()?);
        }
        let traces_bytes = usize::from(reader.u16()?) * TRACE_BYTES;
        let traces = reader.take(traces_bytes)?;
        let len = reader.u16()?;
        if usize::from(len) > MAX_EVENTS_PER_FRAME {
            return Err(FrameError::Inconsistent { at: reader.at, what: "too many events" });
        }
        let run_count = reader.u16()?;
        let start = reader.at;
        let mut found = 0usize;
        for _ in 0..run_count {
            found += check_run(reader, channels.len(), producers.len(), &traces)?;
        }
        if found != usize::from(len) {
            return Err(FrameError::Inconsistent { at: reader.at, what: "the count of events" });
        }
        let runs = start..reader.at;
        Ok(Self { bytes: bytes.clone(), producers, channels, traces, runs, len })
    }

    /// How many events the frame holds.
    #[must_use]
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The channels that occur, each once.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.channels.iter().map(|range| text(&self.bytes, range))
    }

    /// The runs, in order. Skipping one costs the same whatever it holds.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let (mut at, mut first) = (self.runs.start, 0u16);
        std::iter::from_fn(move || {
            if at >= self.runs.end {
                return None;
            }
            let run = self.run_at(at, first)?;
            at = run.body_at + self.body_len(at)?;
            first += run.count;
            Some(run)
        })
    }

    fn body_len(&self, at: usize) -> Option<usize> {
        Reader { bytes: &self.bytes, at }.u32().ok().map(|len| len as usize)
    }

    fn run_at(&self, at: usize, first: u16) -> Option<Run<'_>> {
        let mut reader = Reader { bytes: &self.bytes, at: at + 4 };
        let channel_index = reader.u16().ok()?;
        let (user, producer) = self.producers.get(usize::from(reader.u16().ok()?))?;
        let seq = reader.u64().ok()?;
        let count = reader.u16().ok()?;
        let trace = self.trace(reader.u16().ok()?);
        let channel = text(&self.bytes, self.channels.get(usize::from(channel_index))?);
        let producer = Some(text(&self.bytes, producer)).filter(|name| !name.is_empty());
        let user = text(&self.bytes, user);
        let body_at = reader.at;
        Some(Run {
            events: self,
            body_at,
            first,
            count,
            channel_index,
            channel,
            user,
            producer,
            seq,
            trace,
        })
    }

    fn trace(&self, index: u16) -> Option<TraceContext> {
        if index == NO_TRACE {
            return None;
        }
        let at = self.traces.start + usize::from(index) * TRACE_BYTES;
        let mut reader = Reader { bytes: &self.bytes, at };
        let (trace, span) = (reader.array().ok()?, reader.array().ok()?);
        Some(TraceContext { trace, span, flags: *self.bytes.get(reader.at)? })
    }
}

impl<'a> Run<'a> {
    /// The run's events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let (bytes, mut at, first) = (&self.events.bytes, self.body_at, self.first);
        (0..self.count).map_while(move |i| {
            let (event, next) = event_at(bytes, at).ok()?;
            at = next;
            Some(Event { index: first + i, ..event })
        })
    }

    /// The bytes of `event` (of this run) as a slice that shares the frame's memory.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.events.bytes.slice_ref(part)
    }
}

fn check_run(
    reader: &mut Reader<'_>,
    channels: usize,
    producers: usize,
    traces: &Range<usize>,
) -> Result<usize, FrameError> {
    let at = reader.at;
    let body = reader.u32()? as usize;
    let channel = usize::from(reader.u16()?);
    let producer = usize::from(reader.u16()?);
    reader.u64()?;
    let count = reader.u16()?;
    let trace = reader.u16()?;
    debug_assert_eq!(reader.at - at, RUN_HEADER_BYTES);
    if channel >= channels || producer >= producers {
        return Err(FrameError::Inconsistent {
            at,
            what: "a channel or producer that is not listed",
        });
    }
    if trace != NO_TRACE && usize::from(trace) * TRACE_BYTES >= traces.len() {
        return Err(FrameError::Inconsistent { at, what: "a trace that is not listed" });
    }
    let range = reader.take(body)?;
    let mut next = range.start;
    for _ in 0..count {
        next = event_at(&reader.bytes[..range.end], next)?.1;
    }
    if next != range.end {
        return Err(FrameError::Inconsistent { at, what: "the length of a run" });
    }
    Ok(usize::from(count))
}

/// The event that begins at `at`, and where the next one begins.
pub(super) fn event_at(bytes: &[u8], at: usize) -> Result<(Event<'_>, usize), FrameError> {
    let mut reader = Reader { bytes, at };
    let flags = reader.u8()?;
    if flags & !(HAS_TYPE | HAS_KEY | HAS_ID | IS_BINARY) != 0 {
        return Err(FrameError::Inconsistent { at, what: "unknown event flags" });
    }
    let data = reader.u32()? as usize;
    let mut attribute = |flag: u8| -> Result<Option<&str>, FrameError> {
        if flags & flag == 0 {
            return Ok(None);
        }
        let range = reader.text()?;
        Ok(Some(text(bytes, &range)))
    };
    let (kind, key, id) = (attribute(HAS_TYPE)?, attribute(HAS_KEY)?, attribute(HAS_ID)?);
    let data = &bytes[reader.take(data)?];
    let event = Event { index: 0, kind, key, id, data, binary: flags & IS_BINARY != 0 };
    Ok((event, reader.at))
}

/// The text at a range that [`Reader::text`] has checked.
fn text<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a str {
    std::str::from_utf8(&bytes[range.clone()]).unwrap_or_default()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<Range<usize>, FrameError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let range = self.at..end.ok_or(FrameError::Truncated { at: self.bytes.len() })?;
        self.at = range.end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let range = self.take(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[range]);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<Range<usize>, FrameError> {
        let len = usize::from(self.u8()?);
        let range = self.take(len)?;
        if std::str::from_utf8(&self.bytes[range.clone()]).is_err() {
            return Err(FrameError::Inconsistent {
                at: range.start,
                what: "a text that is not UTF-8",
            });
        }
        Ok(range)
    }
}
