//! `stormwire dead-letters`.

use crate::cli::{ConnectArgs, DeadLetters};
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use serde_json::{Value, json};
use std::sync::Arc;
use stormwire_archive::{DeadLetter, DeadLetterFilter};
use stormwire_client::ClientConfig;
use stormwire_core::{ErrorCode, Partition, SystemClock};
use stormwire_engine::Engines;
use stormwire_messages::{DeadLetters as Letters, Replayed};
use stormwire_wire::frame::{EventParts, EventsBuilder};

/// Does it.
pub(crate) async fn run(command: DeadLetters, config: &Config) -> Result<(), Failure> {
    let mut engines = Engines::new(config.engine.clone(), Arc::new(SystemClock));
    let letters = Letters::new(engines.archive().await.map_err(Failure::unavailable)?);
    let outcome = with(&letters, command, config).await;
    engines.close().await;
    outcome
}

async fn with(letters: &Letters, command: DeadLetters, config: &Config) -> Result<(), Failure> {
    match command {
        DeadLetters::List { partition, after, limit } => {
            let filter = DeadLetterFilter { partition: partition.map(Partition), after, limit };
            for letter in letters.list(&filter).await.map_err(Failure::unavailable)? {
                output::line(summary(&letter))?;
            }
            Ok(())
        }
        DeadLetters::Show { id } => {
            let letter = letters.show(id).await.map_err(Failure::unavailable)?;
            let letter = letter.ok_or_else(|| absent(id))?;
            let mut shown = summary(&letter);
            shown["bytes_base64"] = json!(output::base64(&letter.bytes));
            output::line(shown)
        }
        DeadLetters::Replay { id, connect } => replay(letters, id, &connect, config).await,
        DeadLetters::Drop { id } => {
            if !letters.drop(id).await.map_err(Failure::unavailable)? {
                return Err(absent(id));
            }
            output::line(json!({ "id": id, "removed": true }))
        }
    }
}

async fn replay(
    letters: &Letters,
    id: i64,
    args: &ConnectArgs,
    config: &Config,
) -> Result<(), Failure> {
    let client = connect::client_config(args, config)?;
    let published = letters.replay(id, |event| publish(client.clone(), event)).await;
    let count = published
        .map_err(|error| Failure::failed(format!("dead letter {id}: {error}; it is kept")))?;
    output::line(json!({ "id": id, "published": count, "removed": true }))
}

/// Publishes one event as a producer of its own, so that an attempt after a crash finds it stored.
async fn publish(config: ClientConfig, event: Replayed) -> Result<(), String> {
    let config = ClientConfig { producer: Some(event.idempotency.clone()), ..config };
    let client = connect::connect(config).await.map_err(|failure| failure.message)?;
    let mut builder = EventsBuilder::default();
    let parts = EventParts {
        kind: event.kind.as_deref(),
        key: event.key.as_deref(),
        id: event.id.as_deref(),
        data: &event.data,
        binary: event.binary,
    };
    builder.push(&parts).map_err(|error| error.to_string())?;
    let receipt = client.send_encoded(&event.channel, builder.take()).await;
    let answer = receipt.map_err(|error| error.to_string())?.await;
    client.close().await;
    match answer {
        Ok(_) => Ok(()),
        // The number is used up: an earlier attempt stored the event.
        Err(error) if error.code() == Some(ErrorCode::Conflict) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn absent(id: i64) -> Failure {
    Failure::failed(format!(
        "there is no dead letter {id}; `stormwire dead-letters list` shows those there are"
    ))
}

fn summary(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "partition": letter.partition.0,
        "epoch": letter.position.epoch.0,
        "offset": letter.position.offset.0,
        "ts": letter.ts.to_rfc3339(),
        "channel": letter.channel,
        "error": letter.error,
        "bytes": letter.bytes.len(),
        "whole_frame": letter.whole_frame,
    })
}
