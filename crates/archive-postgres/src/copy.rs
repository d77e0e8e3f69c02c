//! Rows on their way into `events`: Postgres' binary COPY format, encoded from the frames' runs into
//! one buffer that is used again for every chunk and batch.

use crate::persist::Refused;
use crate::time::micros;
use sqlx::postgres::PgConnection;
use std::ops::RangeInclusive;
use stormwire_archive::Batch;
use stormwire_core::{FrameSeq, Offset, Partition, Timestamp};
use stormwire_wire::frame::{Event, Events, Run};

/// Goes to the server in pieces of about this size, so that it stores rows while we encode.
const CHUNK_BYTES: usize = 128 * 1024;

const STATEMENT: &str = r#"COPY events (ts, "offset", epoch, partition, channel, published_by, type, key, id, data, data_binary) FROM STDIN WITH (FORMAT binary)"#;
const COLUMNS: i16 = 11;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();
const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// What is copied: the rows of a batch within some offsets, less those that Postgres refuses.
pub(crate) struct Rows<'a> {
    pub(crate) partition: Partition,
    pub(crate) epoch: i32,
    pub(crate) batch: &'a Batch,
    pub(crate) within: RangeInclusive<Offset>,
    pub(crate) refused: &'a Refused,
}

/// Copies the rows and says how many there were.
pub(crate) async fn copy(
    connection: &mut PgConnection,
    rows: &Rows<'_>,
    buffer: &mut Vec<u8>,
) -> Result<u64, sqlx::Error> {
    let mut copy = connection.copy_in_raw(STATEMENT).await?;
    begin(buffer);
    for (seq, ts, frame) in &rows.batch.frames {
        let frames = rows.within.start().seq()..=rows.within.end().seq();
        let Some(events) = frame.events().filter(|_| frames.contains(seq)) else { continue };
        put_frame(buffer, rows, *seq, *ts, events);
        if buffer.len() >= CHUNK_BYTES {
            copy.send(&buffer[..]).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&TRAILER);
    copy.send(&buffer[..]).await?;
    copy.finish().await
}

fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(SIGNATURE);
    buffer.extend_from_slice(&[0; 8]);
}

fn put_frame(out: &mut Vec<u8>, rows: &Rows<'_>, seq: FrameSeq, ts: Timestamp, events: &Events) {
    let mut fixed = Fixed::new(ts, rows.epoch, rows.partition);
    let last = Offset::new(seq, events.len().saturating_sub(1));
    let all = rows.refused.range(Offset::new(seq, 0)..=last).next().is_none()
        && rows.within.contains(&Offset::new(seq, 0))
        && rows.within.contains(&last);
    let mut names = Vec::with_capacity(128);
    for run in events.runs() {
        put_names(&mut names, &run);
        for event in run.events() {
            let offset = Offset::new(seq, event.index);
            if all || (rows.within.contains(&offset) && !rows.refused.contains_key(&offset)) {
                put_row(out, fixed.at(offset), &names, &event);
            }
        }
    }
}

/// The fields of fixed size, of which only the offset changes within a frame.
struct Fixed([u8; Self::BYTES]);

impl Fixed {
    const BYTES: usize = 2 + (4 + 8) + (4 + 8) + (4 + 4) + (4 + 2);
    const OFFSET_AT: usize = 2 + (4 + 8) + 4;

    fn new(ts: Timestamp, epoch: i32, partition: Partition) -> Self {
        let mut bytes = [0; Self::BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&COLUMNS.to_be_bytes());
        put(&8i32.to_be_bytes());
        put(&micros(ts).to_be_bytes());
        put(&8i32.to_be_bytes());
        put(&[0; 8]);
        put(&4i32.to_be_bytes());
        put(&epoch.to_be_bytes());
        put(&2i32.to_be_bytes());
        put(&partition.0.to_be_bytes());
        Self(bytes)
    }

    fn at(&mut self, offset: Offset) -> &[u8] {
        self.0[Self::OFFSET_AT..][..8].copy_from_slice(&offset.0.to_be_bytes());
        &self.0
    }
}

/// Channel and user, the same for all events of a run.
fn put_names(out: &mut Vec<u8>, run: &Run<'_>) {
    out.clear();
    put_field(out, run.channel.as_bytes());
    put_field(out, run.user.as_bytes());
}

fn put_row(out: &mut Vec<u8>, fixed: &[u8], names: &[u8], event: &Event<'_>) {
    out.extend_from_slice(fixed);
    out.extend_from_slice(names);
    for attribute in [event.kind, event.key, event.id] {
        match attribute {
            Some(text) => put_field(out, text.as_bytes()),
            None => out.extend_from_slice(&NULL),
        }
    }
    if event.binary {
        out.extend_from_slice(&NULL);
        put_field(out, event.data);
    } else {
        put_field(out, event.data);
        out.extend_from_slice(&NULL);
    }
}

fn put_field(out: &mut Vec<u8>, value: &[u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "a part of a frame, far below 2 GiB")]
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use stormwire_core::{Channel, Epoch};
    use stormwire_wire::frame::{EventParts, EventsBuilder, Frame, FrameBuilder, FrameId};

    fn batch() -> Batch {
        let mut events = EventsBuilder::default();
        events.push(&EventParts { kind: Some("t"), data: b"[1]", ..Default::default() }).unwrap();
        events.push(&EventParts { data: &[0, 255], binary: true, ..Default::default() }).unwrap();
        let mut builder = FrameBuilder::default();
        let channel = Channel::parse("a:b").unwrap();
        builder.push(&channel, "u", "p", 1, None, &events.take());
        let bytes: Bytes = builder.finish(FrameId { appender: [1; 16], counter: 2 });
        let frame = Frame::decode(&bytes).unwrap();
        Batch {
            epoch: Epoch(1),
            expected_last: 0,
            through: 1,
            last_frame: Some(frame.id),
            frames: vec![(1, Timestamp(946_684_800_001), frame)],
            gaps: Vec::new(),
            undecodable: Vec::new(),
        }
    }

    fn encoded(within: RangeInclusive<Offset>, refused: &Refused) -> Vec<u8> {
        let batch = batch();
        let rows = Rows { partition: Partition(3), epoch: 1, batch: &batch, within, refused };
        let mut out = Vec::new();
        let (seq, ts, frame) = &batch.frames[0];
        put_frame(&mut out, &rows, *seq, *ts, frame.events().unwrap());
        out
    }

    #[test]
    fn a_row_has_eleven_fields_in_postgres_own_form() {
        let mut expected: Vec<u8> = Vec::new();
        expected.extend(b"\0\x0b\0\0\0\x08\0\0\0\0\0\0\x03\xe8\0\0\0\x08\0\0\0\0\0\0\x10\0");
        expected.extend(b"\0\0\0\x04\0\0\0\x01\0\0\0\x02\0\x03");
        expected.extend(b"\0\0\0\x03a:b\0\0\0\x01u\0\0\0\x01t\xff\xff\xff\xff\xff\xff\xff\xff");
        expected.extend(b"\0\0\0\x03[1]\xff\xff\xff\xff");
        let all = encoded(Offset(0)..=Offset::MAX, &Refused::new());
        assert_eq!(all[..expected.len()], expected);
        assert!(all.ends_with(b"\xff\xff\xff\xff\0\0\0\x02\0\xff"), "bytes go to the last column");
    }

    #[test]
    fn rows_outside_and_refused_rows_are_left_out() {
        let all = encoded(Offset(0)..=Offset::MAX, &Refused::new());
        let first = encoded(Offset(4096)..=Offset(4096), &Refused::new());
        let refused = Refused::from([(Offset(4096), "why".to_owned())]);
        let second = encoded(Offset(0)..=Offset::MAX, &refused);
        assert_eq!([first, second].concat(), all);
    }
}
