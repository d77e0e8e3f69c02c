//! A WebSocket server that only writes: no rights, no order, nothing kept. A publish becomes one frame,
//! which is encoded once and queued for each subscriber; a connection's task writes what is queued at
//! once. What a gateway does beside this is what it costs.

use crate::dialect::Dialect;
use crate::report::say;
use crate::socket::{FINAL, MASKED, TEXT};
use crate::{Failure, Outcome};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// As many threads as a gateway takes on two cores.
const THREADS: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Where it listens.
#[derive(Debug, Serialize)]
struct Listening {
    address: SocketAddr,
}

/// What waits to be written to one connection.
#[derive(Default)]
struct Queue {
    frames: Mutex<Vec<Bytes>>,
    some: Notify,
}

type Channels = Arc<Mutex<HashMap<String, Vec<Arc<Queue>>>>>;

pub(crate) async fn run(options: &Options) -> Outcome {
    let address = options.listen;
    // The program's own runtime has one thread, for the generator's sake.
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .map_err(Failure::doing("starting a runtime"))?;
        runtime.block_on(serve(address))
    });
    let ended = tokio::task::spawn_blocking(move || serving.join()).await;
    match ended.map_err(Failure::doing("the writer"))? {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::of("the writer panicked")),
    }
}

async fn serve(address: SocketAddr) -> Outcome {
    let listener =
        TcpListener::bind(address).await.map_err(Failure::doing(format!("binding {address}")))?;
    let address = listener.local_addr().map_err(Failure::doing("the address"))?;
    say(&Listening { address });
    let channels = Channels::default();
    loop {
        let (stream, _) = listener.accept().await.map_err(Failure::doing("accepting"))?;
        stream.set_nodelay(true).map_err(Failure::doing("setting TCP_NODELAY"))?;
        tokio::spawn(connection(stream, Arc::clone(&channels)));
    }
}

/// Ends with the connection; why is of no interest here.
async fn connection(mut stream: TcpStream, channels: Channels) -> Outcome {
    let mut incoming = BytesMut::with_capacity(4096);
    shake_hands(&mut stream, &mut incoming).await?;
    let queue = Arc::new(Queue::default());
    let (mut reader, mut writer) = stream.into_split();
    let writing = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut joined = BytesMut::new();
            loop {
                queue.some.notified().await;
                let mut frames = std::mem::take(&mut *queue.frames.lock());
                let written = match frames.len() {
                    0 => continue,
                    1 => writer.write_all(&frames.remove(0)).await,
                    _ => {
                        joined.clear();
                        frames.iter().for_each(|frame| joined.extend_from_slice(frame));
                        writer.write_all(&joined).await
                    }
                };
                if written.is_err() {
                    return;
                }
            }
        })
    };
    loop {
        if let Some(text) = next_message(&mut incoming) {
            handle(&text, &queue, &channels);
            continue;
        }
        match reader.read_buf(&mut incoming).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    writing.abort();
    Ok(())
}

async fn shake_hands(stream: &mut TcpStream, incoming: &mut BytesMut) -> Outcome {
    let end = loop {
        if let Some(at) = memchr::memmem::find(incoming, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(incoming).await.map_err(Failure::doing("the handshake"))? == 0 {
            return Err(Failure::of("closed in the handshake"));
        }
    };
    incoming.advance(end);
    // The generator sends one key only and does not look at the answer's.
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(answer).await.map_err(Failure::doing("the handshake"))
}

/// A client's message; the generator masks with zero, so that it is as it was written.
fn next_message(incoming: &mut BytesMut) -> Option<BytesMut> {
    let [_, second, rest @ ..] = &incoming[..] else { return None };
    let (head, length) = match (second & !MASKED, rest) {
        (126, [a, b, ..]) => (8, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (14, usize::try_from(length).unwrap_or(usize::MAX))
        }
        (126 | 127, _) => return None,
        (short, _) => (6, usize::from(short)),
    };
    if incoming.len() < head + length {
        return None;
    }
    incoming.advance(head);
    Some(incoming.split_to(length))
}

fn handle(text: &[u8], queue: &Arc<Queue>, channels: &Channels) {
    let marks = Dialect::Stormwire.marks();
    let channel = || word_after(text, br#""channel":""#).to_owned();
    if text.starts_with(br#"{"op":"connect""#) {
        queue.push(frame(format!("{{{}}}", marks.connected).as_bytes()));
    } else if text.starts_with(br#"{"op":"subscribe""#) {
        channels.lock().entry(channel()).or_default().push(Arc::clone(queue));
        queue.push(frame(format!("{{{}}}", marks.subscribed).as_bytes()));
    } else if text.starts_with(br#"{"op":"publish""#) {
        publish(text, &channel(), channels);
        let id = digits_after(text, br#""id":"#);
        let answer = format!(r#"{{{},"id":{id}}}"#, marks.acknowledged);
        queue.push(frame(answer.as_bytes()));
    }
}

/// One frame for all subscribers of the channel, as long as the gateway's.
fn publish(text: &[u8], channel: &str, channels: &Channels) {
    let Some(at) = memchr::memmem::find(text, br#""events":["#) else { return };
    let data = &text[at + br#""events":["#.len()..];
    let mut message = Vec::with_capacity(data.len() + 256);
    message.extend_from_slice(br#"{"op":"events","channel":""#);
    message.extend_from_slice(channel.as_bytes());
    message.extend_from_slice(br#"","epoch":1,"events":[{"offset":4104192,"ts":1795250000003,"id":"5-1-4104192","from":"developer","data":"#);
    let data = data.strip_prefix(br#"{"data":"#).unwrap_or(data);
    message.extend_from_slice(data);
    let frame = frame(&message);
    for subscriber in channels.lock().get(channel).into_iter().flatten() {
        subscriber.push(frame.clone());
    }
}

impl Queue {
    fn push(&self, frame: Bytes) {
        let mut frames = self.frames.lock();
        frames.push(frame);
        if frames.len() == 1 {
            drop(frames);
            self.some.notify_one();
        }
    }
}

/// A server's frame.
fn frame(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(FINAL | TEXT);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload.len() as u64);
        }
    }
    out.extend_from_slice(payload);
    out.freeze()
}

fn word_after<'a>(text: &'a [u8], name: &[u8]) -> &'a str {
    let Some(at) = memchr::memmem::find(text, name) else { return "" };
    let rest = &text[at + name.len()..];
    let end = memchr::memchr(b'"', rest).unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or("")
}

fn digits_after(text: &[u8], name: &[u8]) -> u64 {
    let Some(at) = memchr::memmem::find(text, name) else { return 0 };
    let digits = text[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{header, parse};

    #[test]
    fn what_a_client_says_is_read_and_what_is_written_can_be_read() {
        for length in [3, 200, 70_000] {
            let mut bytes = BytesMut::new();
            header(&mut bytes, TEXT, length);
            bytes.resize(bytes.len() + length, b'x');
            let whole = bytes.clone();
            bytes.truncate(whole.len() - 1);
            assert!(next_message(&mut bytes).is_none());
            bytes.extend_from_slice(b"x");
            assert_eq!(next_message(&mut bytes).unwrap().len(), length);
            let written = frame(&vec![b'x'; length]);
            let (kind, head, read) = parse(&written).unwrap().unwrap();
            assert_eq!((kind, head + read, read), (TEXT, written.len(), length));
        }
    }

    #[test]
    fn a_publish_reaches_the_subscribers_of_its_channel() {
        let channels = Channels::default();
        let (one, other, publisher) =
            (Arc::new(Queue::default()), Arc::new(Queue::default()), Arc::new(Queue::default()));
        handle(br#"{"op":"subscribe","id":1,"channel":"a:1"}"#, &one, &channels);
        handle(br#"{"op":"subscribe","id":1,"channel":"a:2"}"#, &other, &channels);
        let publish = br#"{"op":"publish","id":7,"channel":"a:1","seq":1,"events":[{"data":"x"}]}"#;
        handle(publish, &publisher, &channels);
        assert_eq!(one.frames.lock().len(), 2);
        assert_eq!(other.frames.lock().len(), 1);
        let answer = publisher.frames.lock().remove(0);
        assert!(answer.ends_with(br#""op":"published","id":7}"#), "{answer:?}");
        let event = one.frames.lock().remove(1);
        let value: serde_json::Value = serde_json::from_slice(&event[4..]).unwrap();
        assert_eq!(value["events"][0]["data"], "x");
    }
}
