//! Speaks to a Stormwire cluster: publishes that are stored once and in order, subscriptions without a
//! loss or a repeat, over connections that mend themselves.
//!
//! A [`Client`] is a handle to one task, which owns the connection. What must survive a connection is
//! in pure state machines: the publish window, one `Follow` a subscription, the `Session` that holds
//! them. The task itself only moves bytes and watches the clock. Every queue has a bound: publishes
//! wait in [`Client::send`], a slow reader's subscription rests at the server. [`Client::attend`] is a
//! subscription as a member of the channel: who is there is kept exact over reconnects as well.
//!
//! Where no WebSocket passes, a client goes on over HTTP (Server-Sent Events, or long polls where streams
//! are held back) with the same numbers and positions, and over a WebSocket again as soon as one does:
//! [`ClientConfig::transports`]. [`Client::status`] tells how it stands.
//!
//! ```no_run
//! use stormwire_client::{Client, ClientConfig, Delivery, NewEvent, Since};
//! use stormwire_core::Channel;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClientConfig::new("http://127.0.0.1:8080", "a token");
//! let client = Client::connect(config).await?;
//! let channel = Channel::parse("flights:JFK-AA")?;
//!
//! // One publish at a time: durable when it returns.
//! let event = NewEvent::json(r#"{"flight": 1141, "dep_delay": 2}"#)?.with_type("departure");
//! let published = client.publish(&channel, &[event.clone()]).await?;
//! println!("stored at {}:{}", published.epoch, published.first);
//!
//! // Many under way at once, in this order.
//! let mut receipts = Vec::new();
//! for _ in 0..100 {
//!     receipts.push(client.send(&channel, &[event.clone()]).await?);
//! }
//! for receipt in receipts {
//!     receipt.await?;
//! }
//!
//! // The last ten events, and everything from now on.
//! let mut flights = client.subscribe(&channel, Some(Since::Last(10))).await?;
//! while let Some(delivery) = flights.next().await {
//!     match delivery? {
//!         Delivery::Events(events) => println!("{} events", events.len()),
//!         Delivery::Gap { from, to } => println!("nothing left between {from} and {to}"),
//!     }
//! }
//! # Ok(()) }
//! ```

mod actor;
mod asides;
mod attend;
mod backoff;
mod client;
mod codec;
mod command;
mod config;
mod connection;
mod dial;
mod error;
mod event;
mod follow;
mod members;
mod over_http;
mod session;
mod socket;
mod status;
mod token;
mod window;

pub use attend::{Attendance, News};
pub use client::{Client, Published, Receipt, Subscription};
pub use config::{ClientConfig, Resume, TokenError, TokenProvider};
pub use error::{ClientError, End};
pub use event::{Delivery, Event, History, NewEvent};
pub use status::{Status, Transport, Transports};
pub use stormwire_wire::protocol::{
    Codec, Cursor, ErrorMessage, Member, MembersPage, Mode, Page, Payload, Since,
};
