//! PORT: what gateways say to each other: heartbeats, and publishes for a partition that another owns.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use stormwire_core::Partition;

/// A gateway says that it lives. Content is the caller's (`stormwire_journal` encodes it).
pub type Beat = Bytes;

/// A request from another gateway, to be answered once; dropping it answers nothing.
pub struct PeerRequest {
    /// The partition it is about.
    pub partition: Partition,
    /// What is asked, at most 1 MiB.
    pub body: Bytes,
    /// Sends the answer, at most 1 MiB. Never blocks.
    pub reply: Box<dyn FnOnce(Bytes) + Send>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody serves that gateway's partition now. It was not delivered.
    #[error("no gateway of that name answers for this partition")]
    NoResponder,
    /// It may have been delivered.
    #[error("the connection between the gateways failed: {0}")]
    Lost(String),
}

/// The way between gateways. At most once, unordered between partitions. Alone in a process: there is
/// nobody, beats go nowhere, requests are never made.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Tells everybody, without waiting for anybody.
    ///
    /// # Errors
    /// [`PeerError::Lost`] while there is no connection.
    async fn beat(&self, beat: Beat) -> Result<(), PeerError>;

    /// Everybody's beats (one's own included) from now on. Runs until dropped, over reconnects.
    ///
    /// # Errors
    /// [`PeerError::Lost`] while there is no connection.
    async fn beats(&self) -> Result<BoxStream<'static, Beat>, PeerError>;

    /// Asks `gateway` about `partition` and waits for its answer without a time limit: the caller
    /// drops the future when it no longer believes that the peer lives.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn ask(
        &self,
        gateway: &str,
        partition: Partition,
        body: Bytes,
    ) -> Result<Bytes, PeerError>;

    /// Requests made to `gateway` (this process) for any partition. Runs until dropped.
    ///
    /// # Errors
    /// [`PeerError::Lost`] while there is no connection.
    async fn serve(&self, gateway: &str) -> Result<BoxStream<'static, PeerRequest>, PeerError>;

    /// Whether there can be other gateways at all.
    fn is_alone(&self) -> bool;
}
