//! `stormwire subscribe`.

use crate::cli::SubscribeArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use stormwire_client::{Cursor, Delivery, Mode, Since};
use stormwire_core::Pattern;

/// Prints events until it has as many as asked for, or the server says that there will be no more.
pub(crate) async fn run(args: SubscribeArgs, config: &Config) -> Result<(), Failure> {
    let target = Pattern::parse(&args.channel).map_err(Failure::usage)?;
    let cursor = args.cursor.as_deref().map(|text| {
        Cursor::decode(text).ok_or_else(|| Failure::usage("--cursor: this is not a cursor"))
    });
    let since = args.since.map(Since::Position).or(args.last.map(Since::Last));
    let since = since.or(cursor.transpose()?.map(Since::Cursor));
    let mode = if args.latest { Mode::Latest } else { Mode::All };
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    let failed = |error| Failure::failed(format!("{target}: {error}"));
    let mut subscription = client.follow(&target, since, mode).await.map_err(failed)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(delivery) = subscription.next().await else { break };
        match delivery.map_err(failed)? {
            Delivery::Events(events) => {
                for event in events.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                    output::line(output::event_line(event.channel.as_str(), event))?;
                    left -= 1;
                }
            }
            Delivery::Gap { from, to } => {
                crate::warn(format!(
                    "{target}: the events after {from} up to {to} are not there any more"
                ));
            }
        }
    }
    drop(subscription);
    client.close().await;
    Ok(())
}
