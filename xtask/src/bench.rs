//! `cargo xtask bench`: figures that anybody can measure again with the same command.
//!
//! Each bench starts servers of its own, warms up, measures several times and keeps the median and the
//! spread, with commit and machine, as a line of `load/results/NAME.jsonl`. `load/RESULTS.md` is made
//! from the last line of each. What is measured and what measures share the cores.

mod budgets;
mod curves;
mod fans;
mod history;
mod ingest;
mod peers;
pub(crate) mod results;
mod rig;
mod store;

use crate::shell;
use crate::up::{self, build_package, build_packages};
use crate::{Failure, Outcome, tools};
use results::Kept;
use rig::Rig;

/// What there is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Acknowledged events through one gateway, 100 a message, on JetStream with one replica
    IngestBatched,
    /// The same, one event a message
    IngestSingle,
    /// The same over REST
    IngestRest,
    /// Through three NATS nodes that write to disk before each acknowledgement
    IngestReplicated,
    /// Publish to acknowledged and to delivered at a quarter, a half and 0.8 of saturation
    Latency,
    /// One channel with 1,000 and with 10,000 subscribers
    FanoutOne,
    /// 100 channels with 100 subscribers each, and 1,000 with 10
    FanoutMany,
    /// One subscriber behind everything
    Firehose,
    /// Memory a connection at 10,000 and 50,000
    Idle,
    /// 100,000 connections over six gateways, each given its event
    #[value(name = "connections-100k")]
    Connections,
    /// Rows from the journal to Postgres, beside a bare COPY
    Persist,
    /// Published, delivered and in Postgres at once
    EndToEnd,
    /// One process, nothing else installed: its start, and how much it takes
    Embedded,
    /// A hundred clients that read history at once, beside live readers
    History,
    /// How cost grows with connections, subscribers, channels, partitions, size and gateways
    Curves,
}

/// Which bench, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One of them; all by default
    name: Option<Name>,
    /// Shorter and smaller, and not kept: whether it works, not how fast it is. Fails only where a
    /// ratio measured in the same run says that something is grossly slower than it was
    #[arg(long)]
    quick: bool,
    /// One JSON line a bench instead of a table
    #[arg(long)]
    json: bool,
    /// Build without optimising; not kept
    #[arg(long)]
    debug: bool,
    /// Measure nothing: hold the kept lines against the budgets, and load/RESULTS.md against the lines
    #[arg(long)]
    check: bool,
}

/// Measures and keeps, or checks what was kept.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.check {
        return results::check();
    }
    tools::provide()?;
    let [stormwire, load] = if options.debug {
        // Continuous integration has built the first one alone; both at once would build it anew.
        [up::build(true)?, build_package("stormwire-load", true)?]
    } else {
        build_packages(["stormwire", "stormwire-load"], false)?
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::doing("starting a runtime"))?;
    let mut slower = Vec::new();
    for name in Name::ALL.into_iter().filter(|name| options.wants(*name)) {
        shell::progress(&format!("== {}", name.text()));
        let rig =
            Rig { stormwire: stormwire.clone(), load: load.clone(), quick: options.quick, name };
        let kept = Kept::measured(name.text(), || runtime.block_on(rig.measure()))?;
        if options.json {
            println!("{}", kept.json()?);
        } else {
            println!("{}", kept.table());
        }
        slower.extend(budgets::gross(&kept));
        if !options.quick && !options.debug {
            results::keep(&kept)?;
        }
    }
    if slower.is_empty() { Ok(()) } else { Err(Failure::of(slower.join("\n"))) }
}

impl Options {
    /// Quick ones by themselves leave out the curves, which are the same benches again and again, and
    /// history, which has a program of its own to build.
    fn wants(&self, name: Name) -> bool {
        let long = matches!(name, Name::Curves | Name::History);
        self.name.map_or(!self.quick || !long, |only| only == name)
    }
}

impl Name {
    pub(crate) const ALL: [Self; 15] = [
        Self::IngestBatched,
        Self::IngestSingle,
        Self::IngestRest,
        Self::IngestReplicated,
        Self::Latency,
        Self::FanoutOne,
        Self::FanoutMany,
        Self::Firehose,
        Self::Idle,
        Self::Connections,
        Self::Persist,
        Self::EndToEnd,
        Self::Embedded,
        Self::History,
        Self::Curves,
    ];

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::IngestBatched => "ingest-batched",
            Self::IngestSingle => "ingest-single",
            Self::IngestRest => "ingest-rest",
            Self::IngestReplicated => "ingest-replicated",
            Self::Latency => "latency",
            Self::FanoutOne => "fanout-one",
            Self::FanoutMany => "fanout-many",
            Self::Firehose => "firehose",
            Self::Idle => "idle",
            Self::Connections => "connections-100k",
            Self::Persist => "persist",
            Self::EndToEnd => "end-to-end",
            Self::Embedded => "embedded",
            Self::History => "history",
            Self::Curves => "curves",
        }
    }

    /// For the table's readers: what stood where.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::IngestBatched => {
                "One gateway over WebSocket, JetStream R1 on disk, 128-byte events, 50 publishers, 100 \
                 events a message, at most 16 messages of each unacknowledged: more would pass the \
                 bound of a lane. Then latency at half of that rate, counted from when a message was due."
            }
            Self::IngestSingle => {
                "The same with one event a message, at most 100 of each publisher unacknowledged; \
                 latency also at 2,000 and 100,000 events a second."
            }
            Self::IngestRest => {
                "POST with one event and with 100, 64 connections that are kept, each with one request \
                 under way."
            }
            Self::IngestReplicated => {
                "Three NATS nodes on this machine's one disk, three replicas, each write on disk before \
                 it is acknowledged; 10 events a message and one."
            }
            Self::Latency => {
                "50 publishers, each with a channel and a subscriber of its own, one event a message. \
                 Latency counts from when a message was due."
            }
            Self::FanoutOne => {
                "One channel. Paced: 50,000 deliveries a second of single messages. Saturated: as fast \
                 as the publisher's own subscription lets it go on, at most 256 messages on their way. \
                 Interleaved with a minimal WebSocket writer, nats-server's WebSocket and Socket.IO, \
                 which keep nothing, with the same generator and bytes."
            }
            Self::FanoutMany => "The same with one publisher a channel.",
            Self::Firehose => {
                "One subscriber follows all 50 channels by a pattern, while 50 publishers send 200,000 \
                 events a second, 10 a message; then as many as go."
            }
            Self::Idle => {
                "Connections that are subscribed to one of 100 channels; 50,000 are spread over three \
                 gateways. Resident memory after less before, by connection; then one event on each \
                 channel."
            }
            Self::Connections => {
                "100,000 connections over six gateways, from eight processes and ten source addresses, \
                 each subscribed to one of 100 channels and given its event."
            }
            Self::Persist => {
                "One worker from JetStream R1 to Postgres, which writes to disk before it commits; the \
                 bare COPY writes the same rows into a table with the same indexes."
            }
            Self::EndToEnd => {
                "200,000 events a second, 10 a message: acknowledged, delivered to one subscriber of \
                 all channels, and stored in Postgres by one worker meanwhile."
            }
            Self::Embedded => {
                "One process with SQLite, which is on disk before it acknowledges; the start is timed \
                 from the process to the first acknowledged event, on a folder that exists."
            }
            Self::History => {
                "100 clients read 100,000 events of history each, all at once, while 10 subscribers follow \
                 what is published live; one process with SQLite, then a gateway with JetStream and \
                 Postgres."
            }
            Self::Curves => {
                "One thing grows, all else stays. What is worse than linear shows in what a CPU second \
                 of the server does, or in KiB a connection."
            }
        }
    }
}
