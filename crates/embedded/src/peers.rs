//! The port Peers of a process that is alone.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use stormwire_core::Partition;
use stormwire_journal::{Beat, PeerError, PeerRequest, Peers};

/// Nobody else: beats go nowhere, requests never come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

#[async_trait]
impl Peers for Alone {
    async fn beat(&self, _beat: Beat) -> Result<(), PeerError> {
        Ok(())
    }

    async fn beats(&self) -> Result<BoxStream<'static, Beat>, PeerError> {
        Ok(stream::pending().boxed())
    }

    async fn ask(
        &self,
        _gateway: &str,
        _partition: Partition,
        _body: Bytes,
    ) -> Result<Bytes, PeerError> {
        Err(PeerError::NoResponder)
    }

    async fn serve(&self, _gateway: &str) -> Result<BoxStream<'static, PeerRequest>, PeerError> {
        Ok(stream::pending().boxed())
    }

    fn is_alone(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn alone_nobody_is_heard_and_nobody_answers() {
        let peers = Alone;
        assert!(peers.is_alone());
        peers.beat(Bytes::from_static(b"here")).await.unwrap();
        assert!(peers.beats().await.unwrap().next().now_or_never().is_none());
        assert!(peers.serve("me").await.unwrap().next().now_or_never().is_none());
        let answer = peers.ask("you", Partition(0), Bytes::new()).await;
        assert_eq!(answer, Err(PeerError::NoResponder));
    }
}
