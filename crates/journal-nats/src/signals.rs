//! [`NatsSignals`]: what gateways tell each other's subscribers, over core NATS, on a connection of its own.

use crate::caller::Caller;
use crate::config::{NatsConfig, NatsError};
use crate::names;
use crate::peers::{connect, subscribe};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use stormwire_core::Partition;
use stormwire_presence::{SignalError, Signals};

/// Messages of one partition that wait to be read; more are missed.
const SIGNALS_WAITING_MAX: usize = 4 * 1024;

/// The way of signals between gateways on NATS.
pub struct NatsSignals {
    caller: Caller,
}

impl NatsSignals {
    /// Starts its connection and waits for it for a second; if NATS is not there it keeps trying.
    ///
    /// # Errors
    /// [`NatsError`]: a configuration that cannot be used.
    pub async fn connect(config: NatsConfig) -> Result<Self, NatsError> {
        let caller = connect(&config, "signals", SIGNALS_WAITING_MAX).await?;
        caller.link().settle().await;
        Ok(Self { caller })
    }
}

#[async_trait]
impl Signals for NatsSignals {
    async fn send(&self, partition: Partition, message: Bytes) -> Result<(), SignalError> {
        let link = self.caller.link();
        link.check().map_err(SignalError)?;
        // Ready at once unless the connection's queue is full: nobody waits for a signal.
        match link.client().publish(names::signal(partition), message).now_or_never() {
            Some(sent) => sent.map_err(|error| SignalError(error.to_string())),
            None => Err(SignalError("the connection does not take more".to_owned())),
        }
    }

    async fn listen(&self, partition: Partition) -> Result<BoxStream<'static, Bytes>, SignalError> {
        let subscriber = subscribe(&self.caller, names::signal(partition)).await;
        let subscriber = subscriber.map_err(|error| SignalError(error.to_string()))?;
        Ok(subscriber.map(|message| message.payload).boxed())
    }

    fn check(&self) -> Result<(), SignalError> {
        self.caller.link().check().map_err(SignalError)
    }
}
