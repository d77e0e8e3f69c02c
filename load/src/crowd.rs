//! Subscribers in processes of their own: as many as sockets and cores need.

use crate::dialect::Dialect;
use crate::listener::{Ready, Told};
use crate::usage::Watched;
use crate::{Failure, Outcome};
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Until the last of very many has connected.
const READY_DEADLINE: Duration = Duration::from_secs(180);
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How long what was published may be on its way.
const ARRIVE_DEADLINE: Duration = Duration::from_secs(60);

/// What the subscribers are to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) dialect: Dialect,
    pub(crate) token: String,
    pub(crate) subscribers: usize,
    /// 0: each follows all.
    pub(crate) channels: usize,
    pub(crate) processes: usize,
}

#[derive(Debug)]
struct Member {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// All the subscribers.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    members: Vec<Member>,
    /// How many connected in a second.
    pub(crate) connects_per_second: f64,
    pub(crate) subscribers: usize,
}

/// What all of them were given since the last [`Crowd::begin`].
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) delivered: u64,
    pub(crate) ever: u64,
    pub(crate) receivers: usize,
    pub(crate) bytes: u64,
    pub(crate) latencies: Option<Histogram<u64>>,
}

impl Crowd {
    /// Starts the processes and waits until all subscribers are subscribed.
    pub(crate) async fn gather(plan: &Plan) -> Outcome<Self> {
        let program = std::env::current_exe().map_err(Failure::doing("finding this program"))?;
        let mut crowd = Self { subscribers: plan.subscribers, ..Self::default() };
        let share = plan.subscribers.div_ceil(plan.processes.max(1));
        for first in (0..plan.subscribers).step_by(share.max(1)) {
            let count = share.min(plan.subscribers - first);
            crowd.members.push(Member::start(&program, plan, first, count)?);
        }
        let started = Instant::now();
        let mut connections = 0;
        for member in &mut crowd.members {
            let ready: Ready = member.hear(READY_DEADLINE).await?;
            connections += ready.connections;
        }
        crowd.connects_per_second =
            as_float(connections as u64) / started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(crowd)
    }

    /// Their processes.
    pub(crate) fn watched(&self) -> Option<Watched> {
        let pids: Vec<u32> = self.members.iter().filter_map(|member| member.child.id()).collect();
        (!pids.is_empty()).then(|| Watched::of("subscribers", pids))
    }

    /// Forgets what was counted; keeps latencies from here on if asked to.
    pub(crate) async fn begin(&mut self, latencies: bool) -> Outcome {
        for member in &mut self.members {
            member.say(if latencies { "begin\nkeep\n" } else { "begin\n" }).await?;
        }
        Ok(())
    }

    /// What has come since.
    pub(crate) async fn tell(&mut self) -> Outcome<Taken> {
        for member in &mut self.members {
            member.say("tell\n").await?;
        }
        let mut taken = Taken::default();
        for member in &mut self.members {
            let told: Told = member.hear(ANSWER_DEADLINE).await?;
            if let Some(failure) = told.failure {
                return Err(Failure::of(format!("a subscriber: {failure}")));
            }
            taken.delivered += told.delivered;
            taken.ever += told.ever;
            taken.receivers += told.receivers;
            taken.bytes += told.bytes;
            if let Some(text) = told.latencies {
                let new = read(&text)?;
                match &mut taken.latencies {
                    Some(all) => all.add(new).map_err(Failure::doing("adding histograms"))?,
                    none => *none = Some(new),
                }
            }
        }
        Ok(taken)
    }

    /// Waits until so many events have been delivered in all, not one more and not one less.
    pub(crate) async fn all_arrived(&mut self, expected: u64) -> Outcome {
        let until = Instant::now() + ARRIVE_DEADLINE;
        loop {
            let ever = self.tell().await?.ever;
            if ever == expected {
                return Ok(());
            }
            if ever > expected || Instant::now() > until {
                return Err(Failure::of(format!("{ever} events arrived where {expected} are due")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Member {
    fn start(program: &std::path::Path, plan: &Plan, first: usize, count: usize) -> Outcome<Self> {
        let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
        let mut child = Command::new(program)
            .arg("listen")
            .args(["--address", &addresses.join(",")])
            .args(["--dialect", plan.dialect.name()])
            .args(["--first", &first.to_string(), "--count", &count.to_string()])
            .args(["--channels", &plan.channels.to_string()])
            .env("STORMWIRE_TOKEN", &plan.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::doing("starting subscribers"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::of("subscribers without pipes"));
        };
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    async fn say(&mut self, what: &str) -> Outcome {
        self.input.write_all(what.as_bytes()).await.map_err(Failure::doing("telling subscribers"))
    }

    async fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> Outcome<T> {
        let line = tokio::time::timeout(within, self.output.next_line())
            .await
            .map_err(|_| Failure::of(format!("the subscribers said nothing for {within:?}")))?
            .map_err(Failure::doing("hearing subscribers"))?
            .ok_or_else(|| Failure::of("the subscribers have ended"))?;
        serde_json::from_str(&line).map_err(Failure::doing(line))
    }
}

fn read(text: &str) -> Outcome<Histogram<u64>> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(Failure::doing("reading a histogram"))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| Failure::of(format!("reading a histogram: {error:?}")))
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}
