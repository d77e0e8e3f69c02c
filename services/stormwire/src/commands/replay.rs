//! `stormwire replay`: a file of events, published in order, many under way at once.
//!
//! Each line is one publish of one event. Receipts are awaited in the order of the lines, so that
//! "everything up to line n is answered" is one number, which the state file keeps.

mod state;
mod template;

use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use state::State;
use std::time::Duration;
use stormwire_client::{Client, ClientConfig, NewEvent, Published, Receipt, Resume};
use stormwire_core::Channel;
use template::Template;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Lines under way at once. The server takes 256 publishes of a connection; the rest is on its way.
const UNDER_WAY_MAX: usize = 512;
/// Lines that may be sent before the state file says so; each costs a sync of the disk.
const STATE_LINES: u64 = 256;
/// Longest line.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Refusals told one by one; the others are counted.
const REFUSALS_TOLD: u64 = 10;
/// How long one line is tried: just below the server's memory of repeats.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(9 * 60);

/// A line on its way, or why it never left.
struct Line {
    number: u64,
    bytes: u64,
    /// What the next line will be numbered by the producer.
    next_seq: u64,
    outcome: Result<Receipt, String>,
}

/// What has become of the lines.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    acknowledged: u64,
    duplicates: u64,
    refused: u64,
}

/// Publishes the file.
pub(crate) async fn run(args: ReplayArgs, config: &Config) -> Result<(), Failure> {
    let template = Template::parse(&args.channel).map_err(Failure::usage)?;
    let path = args.file.display();
    let file =
        File::open(&args.file).await.map_err(|error| Failure::usage(format!("{path}: {error}")))?;
    let size =
        file.metadata().await.map_err(|error| Failure::usage(format!("{path}: {error}")))?.len();
    let state = args.state.as_deref().map(|at| State::open(at, &args.file, size, &args.channel));
    let state = state.transpose()?;
    let mut client_config = connect::client_config(&args.connect, config)?;
    client_config.publish_timeout = PUBLISH_TIMEOUT;
    if let Some(state) = &state {
        resume(state, &mut client_config);
    }
    let client = connect::connect(client_config).await?;
    let start = Instant::now();
    let progress = bar(size);
    let (lines, answers) = mpsc::channel(UNDER_WAY_MAX);
    let sender = Sender {
        client: client.clone(),
        template,
        kind: args.kind.clone(),
        rate: args.rate,
        state: state.clone(),
        lines,
    };
    let reader = BufReader::new(file).lines();
    let sending = sender.run(reader);
    let collecting = collect(answers, state, &progress);
    let (sent, tally) = tokio::join!(sending, collecting);
    let tally = tally?;
    progress.finish_and_clear();
    client.close().await;
    output::line(json!({
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "duplicates": tally.duplicates,
        "refused": tally.refused,
        "seconds": (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    }))?;
    sent?;
    match tally.refused {
        0 => Ok(()),
        refused => Err(Failure::failed(format!("{refused} of {path}'s lines were refused"))),
    }
}

/// Goes on as the same producer, if an earlier replay of this file has sent anything.
fn resume(state: &State, config: &mut ClientConfig) {
    let saved = state.saved();
    config.producer = Some(saved.producer.clone());
    if let Some(first_sent) = saved.first_sent() {
        // One line is one event, so lines ahead are numbers ahead.
        let ahead = saved.sent_line().saturating_sub(saved.line);
        config.resume = Some(Resume {
            next_seq: saved.next_seq,
            sent_through: (saved.next_seq + ahead).saturating_sub(1),
            first_sent,
        });
    }
}

struct Sender {
    client: Client,
    template: Template,
    kind: Option<String>,
    rate: Option<u32>,
    state: Option<State>,
    lines: mpsc::Sender<Line>,
}

impl Sender {
    async fn run(self, mut reader: Lines<BufReader<File>>) -> Result<(), Failure> {
        let done = self.state.as_ref().map_or(0, |state| state.saved().line);
        let mut next_seq = self.state.as_ref().map_or(1, |state| state.saved().next_seq);
        let (start, mut number, mut paced) = (Instant::now(), 0, 0u32);
        while let Some(text) = reader.next_line().await.map_err(Failure::failed)? {
            number += 1;
            if number <= done {
                continue;
            }
            if let Some(state) = &self.state
                && number > state.sent_line()
            {
                let now = self.client.ping().await.map_err(Failure::unavailable)?;
                state.sending(number + STATE_LINES - 1, now)?;
            }
            if let Some(rate) = self.rate {
                tokio::time::sleep_until(start + Duration::from_secs(1) * paced / rate).await;
                paced += 1;
            }
            let bytes = text.len() as u64 + 1;
            let outcome = match self.event(&text) {
                Ok((channel, event)) => {
                    next_seq += 1;
                    self.client.send(&channel, &[event]).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error),
            };
            if self.lines.send(Line { number, bytes, next_seq, outcome }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn event(&self, text: &str) -> Result<(Channel, NewEvent), String> {
        if text.len() > LINE_BYTES_MAX {
            return Err(format!("{} bytes are more than {LINE_BYTES_MAX}", text.len()));
        }
        let channel = self.template.channel(text)?;
        let mut event = NewEvent::json(text).map_err(|error| error.to_string())?;
        event.kind.clone_from(&self.kind);
        Ok((channel, event))
    }
}

async fn collect(
    mut answers: mpsc::Receiver<Line>,
    state: Option<State>,
    progress: &ProgressBar,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    while let Some(line) = answers.recv().await {
        progress.inc(line.bytes);
        let answer: Result<Published, String> = match line.outcome {
            Ok(receipt) => {
                tally.sent += 1;
                receipt.await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(published) => {
                tally.acknowledged += 1;
                tally.duplicates += u64::from(published.duplicate);
            }
            Err(error) => {
                tally.refused += 1;
                if tally.refused <= REFUSALS_TOLD {
                    progress.suspend(|| crate::warn(format!("line {}: {error}", line.number)));
                }
            }
        }
        if let Some(state) = &state {
            state.answered(line.number, line.next_seq);
        }
    }
    if let Some(state) = &state {
        state.save()?;
    }
    Ok(tally)
}

/// A bar on standard error, where that is a terminal.
fn bar(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:40} {percent:>3} %  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
    );
    let bar = ProgressBar::new(size);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
