//! `stormwire signal`.

use crate::cli::SignalArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use stormwire_client::{ClientError, Payload};
use stormwire_core::Channel;

/// Tells it, and ends when the server has taken it.
pub(crate) async fn run(args: SignalArgs, config: &Config) -> Result<(), Failure> {
    let channel = Channel::parse(&args.channel).map_err(Failure::usage)?;
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    let told = client.signal(&channel, Payload::Json(args.data.into())).await;
    client.close().await;
    told.map_err(|error| match error {
        ClientError::Invalid(why) => Failure::usage(format!("{why}; a text is written '\"text\"'")),
        error => Failure::failed(format!("{channel}: {error}")),
    })
}
