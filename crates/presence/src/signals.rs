//! The port Signals: small messages between gateways, not stored.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use stormwire_core::Partition;

/// A message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signals do not reach the other gateways: {0}")]
pub struct SignalError(pub String);

/// The way of signals between gateways: at most once, in each sender's order, to all who listen now.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Tells all who listen to `partition`, on this gateway and every other, without waiting for anybody.
    ///
    /// # Errors
    /// [`SignalError`] while there is no connection, or if it takes no more; nobody was told then.
    async fn send(&self, partition: Partition, message: Bytes) -> Result<(), SignalError>;

    /// What is said of `partition` from now on. Runs until dropped, over reconnects. Who reads too slowly
    /// misses messages.
    ///
    /// # Errors
    /// [`SignalError`] while there is no connection.
    async fn listen(&self, partition: Partition) -> Result<BoxStream<'static, Bytes>, SignalError>;

    /// Answers whether messages can be sent now.
    ///
    /// # Errors
    /// [`SignalError`].
    fn check(&self) -> Result<(), SignalError>;
}
