//! A process full of subscribers: it opens them, counts what they are given, and answers its parent.
//!
//! Its parent ([`crate::crowd`]) speaks to it in lines: `begin` forgets what was counted, `keep` also
//! keeps latencies from then on, `tell` asks for what was counted since. The answers are JSON.

use crate::control::{histogram, record};
use crate::dialect::{Dialect, nanos_now, stamps};
use crate::report::say;
use crate::socket::{self, BINARY, CLOSE, PING, PONG, Socket, TEXT};
use crate::{Failure, Outcome};
use base64::Engine as _;
use bytes::{Buf as _, BytesMut};
use futures::StreamExt as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Bytes read at once, by all listeners in turn.
const READ_BYTES: usize = 256 * 1024;
/// Connections that are being opened at once.
const CONNECTING: usize = 64;
/// Connections from one source address: its ports are soon used up, and servers bound them.
const PER_SOURCE: usize = 10_000;
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The servers, one after the other in turn
    #[arg(long, value_delimiter = ',', required = true)]
    address: Vec<SocketAddr>,
    /// What they speak
    #[arg(long, value_enum, default_value = "stormwire")]
    dialect: Dialect,
    /// A token without limits
    #[arg(long, env = "STORMWIRE_TOKEN", default_value = "")]
    token: String,
    /// Number of the first of these subscribers
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// How many subscribers
    #[arg(long)]
    count: usize,
    /// Over how many channels they are spread; 0: each follows all
    #[arg(long)]
    channels: usize,
}

/// How the connections were opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
}

/// What came since the last `begin`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) delivered: u64,
    /// All since the start.
    pub(crate) ever: u64,
    /// Subscribers that were given something since the last `begin`.
    pub(crate) receivers: usize,
    pub(crate) bytes: u64,
    /// HDR, V2, base64; absent where latencies were not kept.
    pub(crate) latencies: Option<String>,
    pub(crate) failure: Option<String>,
}

#[derive(Default)]
struct Counts {
    delivered: Cell<u64>,
    ever: Cell<u64>,
    bytes: Cell<u64>,
    receivers: Cell<usize>,
    /// Counts the periods, so that a listener knows whether it was counted in this one.
    period: Cell<u64>,
    latencies: RefCell<Option<Histogram<u64>>>,
    failure: RefCell<Option<String>>,
    buffer: RefCell<Vec<u8>>,
}

pub(crate) async fn run(options: &Options) -> Outcome {
    LocalSet::new().run_until(serve(options)).await
}

async fn serve(options: &Options) -> Outcome {
    let counts = Rc::new(Counts::default());
    counts.buffer.borrow_mut().resize(READ_BYTES, 0);
    let started = Instant::now();
    let opening = (0..options.count).map(|index| open(options, options.first + index));
    let mut opening = futures::stream::iter(opening).buffer_unordered(CONNECTING);
    let mut connections = 0;
    while let Some(opened) = opening.next().await {
        let (stream, rest) = opened?.into_parts();
        let listener = Listener {
            stream,
            rest,
            dialect: options.dialect,
            counts: Rc::clone(&counts),
            period: 0,
        };
        tokio::task::spawn_local(listener.run());
        connections += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    say(&Ready { connections, seconds });
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(Failure::doing("standard input"))? {
        match line.as_str() {
            "begin" => counts.begin(),
            "keep" => *counts.latencies.borrow_mut() = Some(histogram()?),
            "tell" => say(&counts.tell()?),
            other => return Err(Failure::of(format!("{other:?} means nothing here"))),
        }
    }
    Ok(())
}

async fn open(options: &Options, number: usize) -> Outcome<Socket> {
    let address = options.address[number % options.address.len()];
    let source = address.ip().is_loopback().then(|| source(std::process::id(), number));
    let channel = match options.channels {
        0 => "bench:*".to_owned(),
        channels => format!("bench:{}", number % channels),
    };
    let opening = async {
        let mut socket = Socket::open(address, source, options.dialect).await?;
        socket.greet(&options.token).await?;
        socket.subscribe(&channel).await?;
        Ok(socket)
    };
    tokio::time::timeout(CONNECT_DEADLINE, opening)
        .await
        .map_err(|_| Failure::of("no answer to a subscriber that connects"))?
}

/// Where a subscriber connects from: of all of 127.0.0.0/8, addresses that are this process's own. Those
/// of an earlier run are short of ports for a minute after it, and a port that comes again before that
/// is answered a second late.
fn source(process: u32, number: usize) -> Ipv4Addr {
    let [_, _, high, low] = process.to_be_bytes();
    // 127.0 is everybody else's, and neither .0 nor .255 is meant to be a machine's.
    let last = u8::try_from(1 + number / PER_SOURCE).unwrap_or(u8::MAX).min(254);
    Ipv4Addr::new(127, 1 | high, low, last)
}

impl Counts {
    fn begin(&self) {
        self.delivered.set(0);
        self.bytes.set(0);
        self.receivers.set(0);
        self.period.set(self.period.get() + 1);
        *self.latencies.borrow_mut() = None;
    }

    fn tell(&self) -> Outcome<Told> {
        let latencies = match &*self.latencies.borrow() {
            None => None,
            Some(histogram) => {
                let mut bytes = Vec::new();
                V2Serializer::new()
                    .serialize(histogram, &mut bytes)
                    .map_err(Failure::doing("writing a histogram"))?;
                Some(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
        };
        Ok(Told {
            delivered: self.delivered.get(),
            ever: self.ever.get(),
            receivers: self.receivers.get(),
            bytes: self.bytes.get(),
            latencies,
            failure: self.failure.borrow().clone(),
        })
    }

    /// Counts the events of a message.
    fn take(&self, text: &[u8]) -> u64 {
        let mut events = 0;
        let mut latencies = self.latencies.borrow_mut();
        let now = latencies.as_ref().map_or(0, |_| nanos_now());
        for due in stamps(text) {
            events += 1;
            if let Some(latencies) = &mut *latencies {
                record(latencies, Duration::from_nanos(now.saturating_sub(due)));
            }
        }
        self.delivered.set(self.delivered.get() + events);
        self.ever.set(self.ever.get() + events);
        events
    }
}

/// One subscriber. What it has not read whole is all that it holds.
struct Listener {
    stream: TcpStream,
    rest: BytesMut,
    dialect: Dialect,
    counts: Rc<Counts>,
    period: u64,
}

impl Listener {
    async fn run(mut self) {
        if let Err(failure) = self.work().await {
            self.counts.failure.borrow_mut().get_or_insert_with(|| failure.to_string());
        }
    }

    async fn work(&mut self) -> Outcome {
        let mut answers = BytesMut::new();
        loop {
            self.parse(&mut answers)?;
            if !answers.is_empty() {
                let written = self.stream.write_all_buf(&mut answers).await;
                written.map_err(Failure::doing("writing to the server"))?;
            }
            if self.rest.is_empty() {
                // An idle subscriber holds no buffer.
                self.rest = BytesMut::new();
            }
            poll_fn(|cx| self.poll_read(cx)).await?;
        }
    }

    /// Reads into the buffer that all share and keeps a copy: most often one message, of which little
    /// remains.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let counts = Rc::clone(&self.counts);
        let mut shared = counts.buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut shared);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(Failure::doing("reading from the server")(error)))
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(Failure::of("the server closed the connection")))
            }
            Poll::Ready(Ok(())) => {
                counts.bytes.set(counts.bytes.get() + buffer.filled().len() as u64);
                self.rest.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(()))
            }
        }
    }

    fn parse(&mut self, answers: &mut BytesMut) -> Outcome {
        while let Some((kind, head, length)) = socket::parse(&self.rest)? {
            if self.rest.len() < head + length {
                break;
            }
            let payload = &self.rest[head..head + length];
            match kind {
                TEXT | BINARY => {
                    let events = self.counts.take(payload);
                    if events > 0 && self.period != self.counts.period.get() {
                        self.period = self.counts.period.get();
                        self.counts.receivers.set(self.counts.receivers.get() + 1);
                    }
                    if let Some(answer) = self.dialect.alive(payload) {
                        socket::header(answers, kind, answer.len());
                        answers.extend_from_slice(answer);
                    }
                }
                PING => {
                    socket::header(answers, PONG, length);
                    answers.extend_from_slice(payload);
                }
                CLOSE => return Err(socket::closed(payload)),
                _ => {}
            }
            self.rest.advance(head + length);
        }
        Ok(())
    }
}
