//! `stormwire presence`.

use crate::cli::PresenceArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use serde_json::json;
use stormwire_client::{Attendance, Client, Member, News, Payload};
use stormwire_core::Channel;

/// Members of one page.
const PAGE: u32 = 1000;

/// Prints who is there and, if asked to, who comes and goes from then on.
pub(crate) async fn run(args: PresenceArgs, config: &Config) -> Result<(), Failure> {
    let channel = Channel::parse(&args.channel).map_err(Failure::usage)?;
    let client = connect::connect(connect::client_config(&args.connect, config)?).await?;
    let failed = |error| Failure::failed(format!("{channel}: {error}"));
    if args.watch {
        watch(client.attend(&channel, None).await.map_err(failed)?, &channel).await?;
    } else {
        list(&client, &channel).await?;
    }
    client.close().await;
    Ok(())
}

async fn list(client: &Client, channel: &Channel) -> Result<(), Failure> {
    let mut after: Option<Box<str>> = None;
    let mut partial = false;
    loop {
        let page = client.members(channel, after.as_deref(), PAGE).await;
        let page = page.map_err(|error| Failure::failed(format!("{channel}: {error}")))?;
        if page.partial && !std::mem::replace(&mut partial, true) {
            warn_partial(channel);
        }
        for Member { user, session } in &page.members {
            output::line(json!({"user": user, "session": session}))?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn watch(mut attendance: Attendance, channel: &Channel) -> Result<(), Failure> {
    let mut partial = false;
    while let Some(news) = attendance.next().await {
        match news.map_err(|error| Failure::failed(format!("{channel}: {error}")))? {
            News::Members { joined, left } => {
                if attendance.is_partial() && !std::mem::replace(&mut partial, true) {
                    warn_partial(channel);
                }
                for Member { user, session } in left {
                    output::line(json!({"left": {"user": user, "session": session}}))?;
                }
                for Member { user, session } in joined {
                    output::line(json!({"joined": {"user": user, "session": session}}))?;
                }
                let (users, sessions) = attendance.counts();
                output::line(json!({"users": users, "sessions": sessions}))?;
            }
            News::Signal { from, data } => output::line(signal_line(&from, &data))?,
            // `stormwire subscribe` is for events.
            News::Delivery(_) => {}
        }
    }
    Ok(())
}

fn warn_partial(channel: &Channel) {
    crate::warn(format!("{channel}: members of some gateways may be missing"));
}

/// A signal; its data stands in it byte for byte as it was told.
fn signal_line(from: &str, data: &Payload<'_>) -> String {
    let from = json!(from);
    match data {
        Payload::Json(text) => format!("{{\"signal\":{{\"from\":{from},\"data\":{text}}}}}"),
        Payload::Binary(bytes) => {
            json!({"signal": {"from": from, "data_base64": output::base64(bytes)}}).to_string()
        }
    }
}
