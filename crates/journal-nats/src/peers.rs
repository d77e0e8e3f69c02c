//! [`NatsPeers`]: what gateways say to each other, over core NATS.
//!
//! Heartbeats have a thread and a connection of their own, so that neither a busy runtime nor a large
//! request makes a living gateway look dead.

use crate::caller::{CallError, Caller};
use crate::config::{NatsConfig, NatsError};
use crate::link::Link;
use crate::names;
use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use std::time::Duration;
use stormwire_core::Partition;
use stormwire_journal::{Beat, PeerError, PeerRequest, Peers};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Beats that wait to be read; the next ones make up for those dropped.
const BEATS_WAITING_MAX: usize = 1024;
/// Requests that wait to be read. A lane has one in flight, so this is gateways times partitions.
const REQUESTS_WAITING_MAX: usize = 4 * 1024;
/// Longest wait for the server to have read a subscription.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(2);

/// The way between gateways on NATS.
pub struct NatsPeers {
    beats: Caller,
    requests: Caller,
    /// Dropped with it, which ends the heartbeats' thread.
    _thread: oneshot::Sender<()>,
}

impl NatsPeers {
    /// Starts its connections and waits for them for a second; if NATS is not there they keep trying.
    ///
    /// # Errors
    /// [`NatsError`]: a configuration that cannot be used.
    pub async fn connect(config: NatsConfig) -> Result<Self, NatsError> {
        let requests = connect(&config, "peers", REQUESTS_WAITING_MAX).await?;
        let (stop, stopped) = oneshot::channel();
        let (ready, connected) = oneshot::channel();
        let start = |error: std::io::Error| NatsError::Start(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(start)?;
        let run = move || {
            runtime.block_on(async {
                ready.send(connect(&config, "beat", BEATS_WAITING_MAX).await).ok();
                stopped.await.ok();
            });
        };
        std::thread::Builder::new().name("stormwire-beats".to_owned()).spawn(run).map_err(start)?;
        let beats = connected
            .await
            .map_err(|_| NatsError::Start("the heartbeats' thread ended".to_owned()))??;
        beats.link().settle().await;
        requests.link().settle().await;
        Ok(Self { beats, requests, _thread: stop })
    }
}

pub(crate) async fn connect(
    config: &NatsConfig,
    purpose: &'static str,
    capacity: usize,
) -> Result<Caller, NatsError> {
    let link = Link::connect(config, purpose, capacity).await?;
    Caller::new(link).await.map_err(|error| NatsError::Start(error.to_string()))
}

fn lost(error: &CallError) -> PeerError {
    PeerError::Lost(error.to_string())
}

/// Subscribes and returns when the server knows of it.
pub(crate) async fn subscribe(caller: &Caller, subject: String) -> Result<Subscriber, PeerError> {
    let begin = async {
        caller.link().check().map_err(CallError::NotConnected)?;
        let subscriber = caller.link().client().subscribe(subject).await;
        let subscriber = subscriber.map_err(|error| CallError::Rejected(error.to_string()))?;
        caller.echo().await?;
        Ok(subscriber)
    };
    let subscribed = tokio::time::timeout(SUBSCRIBE_DEADLINE, begin).await;
    subscribed
        .map_err(|_| PeerError::Lost("NATS does not answer in time".to_owned()))?
        .map_err(|error: CallError| lost(&error))
}

#[async_trait]
impl Peers for NatsPeers {
    async fn beat(&self, beat: Beat) -> Result<(), PeerError> {
        let link = self.beats.link();
        link.check().map_err(PeerError::Lost)?;
        // Ready at once unless the connection's queue is full: then this beat is lost, the next may not.
        match link.client().publish(names::BEAT, beat).now_or_never() {
            Some(sent) => sent.map_err(|error| PeerError::Lost(error.to_string())),
            None => Err(PeerError::Lost("the connection does not take more".to_owned())),
        }
    }

    async fn beats(&self) -> Result<BoxStream<'static, Beat>, PeerError> {
        let subscriber = subscribe(&self.beats, names::BEAT.to_owned()).await?;
        Ok(subscriber.map(|message| message.payload).boxed())
    }

    async fn ask(
        &self,
        gateway: &str,
        partition: Partition,
        body: Bytes,
    ) -> Result<Bytes, PeerError> {
        match self.requests.call(names::ask(gateway, partition), None, body).await {
            Ok(answer) => Ok(answer.payload),
            Err(CallError::NoResponders(_)) => Err(PeerError::NoResponder),
            Err(error) => Err(lost(&error)),
        }
    }

    async fn serve(&self, gateway: &str) -> Result<BoxStream<'static, PeerRequest>, PeerError> {
        let subscriber = subscribe(&self.requests, names::ask_any(gateway)).await?;
        let link = self.requests.link().clone();
        let runtime = Handle::current();
        let requests = subscriber
            .filter_map(move |message| std::future::ready(request(&link, &runtime, message)));
        Ok(requests.boxed())
    }

    fn is_alone(&self) -> bool {
        false
    }
}

/// A message as a request; `None` if it asks for no answer or is about no partition.
fn request(link: &Link, runtime: &Handle, message: Message) -> Option<PeerRequest> {
    let partition = names::partition_of_ask(&message.subject)?;
    let (to, client, runtime) = (message.reply?, link.client().clone(), runtime.clone());
    let reply = move |answer: Bytes| {
        // A full queue towards the connection must hold up neither the caller nor the answer, without
        // which the asker would wait for ever. One answer a request bounds the tasks.
        runtime.spawn(async move {
            if let Err(error) = client.publish(to, answer).await {
                tracing::warn!(%error, "an answer to another gateway was not sent");
            }
        });
    };
    Some(PeerRequest { partition, body: message.payload, reply: Box::new(reply) })
}
