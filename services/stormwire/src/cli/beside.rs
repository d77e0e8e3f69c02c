//! What is asked of a channel besides its events.

use super::ConnectArgs;
use clap::Args;

/// `stormwire latest`.
#[derive(Debug, Args)]
pub(crate) struct LatestArgs {
    /// The channel, namespace:name
    pub(crate) channel: String,
    /// Of this key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Of each key
    #[arg(long, conflicts_with = "key")]
    pub(crate) keys: bool,
    /// Where from
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire presence`.
#[derive(Debug, Args)]
pub(crate) struct PresenceArgs {
    /// The channel, namespace:name
    pub(crate) channel: String,
    /// Go on with who comes and goes, and with signals
    #[arg(long)]
    pub(crate) watch: bool,
    /// Where from
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire signal`.
#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// The channel, namespace:name
    pub(crate) channel: String,
    /// What is told
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) data: String,
    /// Where to
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}
