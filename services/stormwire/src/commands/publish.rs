//! `stormwire publish`.

use crate::cli::PublishArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use serde_json::json;
use stormwire_client::{Client, NewEvent, Receipt};
use stormwire_core::Channel;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Publishes under way at once when lines are read from standard input.
const UNDER_WAY_MAX: usize = 256;

/// Publishes what is on the command line, or standard input's lines.
pub(crate) async fn run(args: PublishArgs, config: &Config) -> Result<(), Failure> {
    let channel = Channel::parse(&args.channel).map_err(Failure::usage)?;
    let from_input = args.data == ["-"];
    let events = if from_input {
        Vec::new()
    } else {
        args.data.iter().map(|text| event(text, &args)).collect::<Result<Vec<_>, _>>()?
    };
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    if from_input {
        lines(&client, &channel, &args).await?;
    } else {
        let receipt = client.send(&channel, &events).await.map_err(Failure::failed)?;
        report(&channel, receipt).await?;
    }
    client.close().await;
    Ok(())
}

async fn lines(client: &Client, channel: &Channel, args: &PublishArgs) -> Result<(), Failure> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut under_way = std::collections::VecDeque::new();
    while let Some(line) = input.next_line().await.map_err(Failure::failed)? {
        if line.trim().is_empty() {
            continue;
        }
        let event = event(&line, args)?;
        under_way.push_back(client.send(channel, &[event]).await.map_err(Failure::failed)?);
        if under_way.len() >= UNDER_WAY_MAX
            && let Some(receipt) = under_way.pop_front()
        {
            report(channel, receipt).await?;
        }
    }
    for receipt in under_way {
        report(channel, receipt).await?;
    }
    Ok(())
}

fn event(text: &str, args: &PublishArgs) -> Result<NewEvent, Failure> {
    let event = NewEvent::json(text);
    let mut event = event.map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        Failure::usage(format!("{shown:?} is not JSON ({error}); a text is written '\"text\"'"))
    })?;
    event.kind.clone_from(&args.kind);
    event.key.clone_from(&args.key);
    Ok(event)
}

async fn report(channel: &Channel, receipt: Receipt) -> Result<(), Failure> {
    let published =
        receipt.await.map_err(|error| Failure::failed(format!("{channel}: {error}")))?;
    output::line(json!({
        "channel": channel.as_str(),
        "epoch": published.epoch.0,
        "first": published.first.0,
        "last": published.last.0,
    }))
}
