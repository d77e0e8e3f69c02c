//! `stormwire latest`.

use crate::cli::LatestArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use stormwire_client::Event;
use stormwire_core::Channel;

/// Keys of one page.
const PAGE: u32 = 1000;

/// Prints what is newest.
pub(crate) async fn run(args: LatestArgs, config: &Config) -> Result<(), Failure> {
    let channel = Channel::parse(&args.channel).map_err(Failure::usage)?;
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    let failed = |error| Failure::failed(format!("{channel}: {error}"));
    let print = |event: &Event| output::line(output::event_line(channel.as_str(), event));
    if args.keys {
        let mut after: Option<String> = None;
        loop {
            let page = client.latest_by_key(&channel, after.as_deref(), PAGE).await;
            let page = page.map_err(failed)?;
            page.events.iter().try_for_each(print)?;
            after = page.events.last().and_then(|event| event.key.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
    } else {
        let newest = client.latest(&channel, args.key.as_deref()).await.map_err(failed)?;
        newest.iter().try_for_each(print)?;
    }
    client.close().await;
    Ok(())
}
