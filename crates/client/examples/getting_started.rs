//! The program of docs/getting-started.md: publishes, and reads back from the beginning.

use stormwire_client::{Client, ClientConfig, Delivery, NewEvent, Since};
use stormwire_core::Channel;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: getting_started URL TOKEN")?;
    let token = arguments.next().ok_or("usage: getting_started URL TOKEN")?;
    let client = Client::connect(ClientConfig::new(url, token)).await?;
    let room = Channel::parse("room:lobby")?;
    // Durable when it returns, and stored once, however often the connection is lost on the way.
    let published = client.publish(&room, &[NewEvent::json(r#"{"text":"from Rust"}"#)?]).await?;
    let mut feed = client.subscribe(&room, Some(Since::Last(10))).await?;
    while let Some(delivery) = feed.next().await {
        if let Delivery::Events(events) = delivery? {
            let is_ours = events.iter().any(|event| event.position.offset == published.last);
            if is_ours {
                break;
            }
        }
    }
    client.close().await;
    Ok(())
}
