//! A program that handles each event of a pattern's channels, and goes on where it stood when it is
//! started again: `consumer URL TOKEN FILE`. How it is connected, it says beside.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]

use std::path::PathBuf;
use stormwire_client::{Client, ClientConfig, Cursor, Delivery, Mode, Since};
use stormwire_core::Pattern;

const USAGE: &str = "usage: consumer URL TOKEN FILE";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, token) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let file = PathBuf::from(arguments.next().ok_or(USAGE)?);

    let client = Client::connect(ClientConfig::new(url, token)).await?;
    let mut status = client.status();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            eprintln!("{:?}", *status.borrow_and_update());
        }
    });

    let saved = std::fs::read_to_string(&file).ok();
    let since = saved.and_then(|text| Cursor::decode(text.trim())).map(Since::Cursor);
    let mut orders = client.follow(&Pattern::parse("orders:*")?, since, Mode::All).await?;
    while let Some(delivery) = orders.next().await {
        match delivery? {
            Delivery::Events(events) => {
                for event in events {
                    println!("{} {} {:?}", event.channel, event.position, event.data);
                }
            }
            // Older than what is kept: what is not here any more is told, never left out in silence.
            Delivery::Gap { from, to } => eprintln!("nothing left between {from} and {to}"),
        }
        // After the events, so that none is skipped; those of the last delivery may be handled twice.
        if let Some(Since::Cursor(cursor)) = orders.place() {
            std::fs::write(&file, cursor.encode())?;
        }
    }
    Ok(())
}
