//! How long it takes to read a publish and to write events, in nanoseconds an event:
//! `cargo run --release -p stormwire-wire --example codec_speed`. The last lines are `serde_json` reading the
//! same publishes into borrowed structs, without packing them.
#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};
use stormwire_core::{Epoch, Offset, Partition, Timestamp};
use stormwire_wire::frame::{EventParts, EventsBuilder};
use stormwire_wire::protocol::{
    Codec, EventsEncoder, MessageLimits, Operation, OutEvent, Publish, Receipt, Request, RequestId,
    json, proto, request,
};

const FOR: Duration = Duration::from_millis(500);
const DATA: &[u8] = br#"{"flight":"UA1545","tail":"N14228","from":"EWR","to":"IAH","delay":2.0,"distance":1400,"at":"2013-01-01T05:00:00Z","ok":true}"#;

/// Nanoseconds that this thread has spent on a processor: what others do meanwhile is not counted. Where
/// the system does not tell (it is not Linux), the time that has passed.
fn spent(start: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split(' ').next()?.parse().ok());
    told.unwrap_or_else(|| start.elapsed().as_nanos() as f64)
}

/// Nanoseconds an event of `work`, which handles `events` of them.
fn measure(events: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let before = spent(start);
    let mut rounds = 0u32;
    while start.elapsed() < FOR {
        for _ in 0..64 {
            work();
        }
        rounds += 64;
    }
    (spent(start) - before) / (f64::from(rounds) * events as f64)
}

fn publish(codec: Codec, count: usize) -> BytesMut {
    let mut events = EventsBuilder::default();
    for _ in 0..count {
        let event = EventParts { kind: Some("flight"), data: DATA, ..Default::default() };
        if events.push(&event).is_err() {
            return BytesMut::new();
        }
    }
    let (seq, again, receipt, events) = (Some(1), None, Receipt::Journal, events.take());
    let channel = Cow::Borrowed("flights:EWR-UA");
    let op = Operation::Publish(Publish { channel, seq, again, receipt, events });
    let mut out = BytesMut::new();
    request(codec, &mut out, &Request { id: Some(RequestId::Number(1)), op });
    out
}

/// The members of a publish, as one would write them for `serde_json`.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only read")]
struct Plain<'a> {
    op: &'a str,
    id: u64,
    channel: &'a str,
    seq: u64,
    #[serde(borrow)]
    events: Vec<PlainEvent<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only read")]
struct PlainEvent<'a> {
    r#type: Option<&'a str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn main() {
    println!("{} bytes of data an event", DATA.len());
    for codec in Codec::ALL {
        for count in [1, 10, 100] {
            let message = publish(codec, count);
            let text = std::str::from_utf8(&message).unwrap_or_default();
            let limits = MessageLimits::default();
            let mut builder = EventsBuilder::default();
            let read = measure(count, || match codec {
                Codec::Json => {
                    black_box(json::Requests::new(text, limits, &mut builder).next());
                }
                Codec::Protobuf => {
                    black_box(proto::Requests::new(&message, limits, &mut builder).next());
                }
            });
            let mut encoder = EventsEncoder::new(codec, Partition(5), Epoch(1));
            let write = measure(count, || {
                for at in 0..count as u64 {
                    encoder.push(&OutEvent {
                        offset: Offset(4_104_192 + at),
                        ts: Timestamp(1_795_250_000_003),
                        id: None,
                        kind: Some("flight"),
                        key: None,
                        from: "alice",
                        data: DATA,
                        binary: false,
                    });
                }
                black_box(encoder.events("flights:EWR-UA"));
            });
            println!("{codec:?}, {count:3} a message: read {read:6.0} ns, write {write:6.0} ns");
        }
    }
    for count in [1, 10, 100] {
        let message = publish(Codec::Json, count);
        let text = std::str::from_utf8(&message).unwrap_or_default();
        let read = measure(count, || {
            black_box(serde_json::from_str::<Plain<'_>>(text).is_ok());
        });
        println!("serde_json, {count:3} a message: read {read:6.0} ns");
    }
}
