//! Requests and their answers over one connection.
//!
//! The client library's own requests keep an entry for each until an answer comes, which after an outage
//! is never, and do not fail when the connection does. Here all answers come to one subscription,
//! the entry goes with the future that waits, and losing the connection ends every wait at once.

use crate::link::Link;
use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It was not sent.
    #[error("NATS is not connected: {0}")]
    NotConnected(String),
    /// It was not sent: it breaks a limit of the server.
    #[error("NATS does not take the message: {0}")]
    Rejected(String),
    /// Nobody listens to the subject; it was not delivered.
    #[error("nobody answers on {0}")]
    NoResponders(String),
    /// The connection was lost while waiting; it may have been delivered.
    #[error("the connection to NATS was lost")]
    Lost,
}

/// The waiting requests by number; dropping a sender ends the wait.
type Waiting = Arc<Mutex<HashMap<u64, mpsc::Sender<Message>>>>;

/// Makes requests over a link.
pub(crate) struct Caller {
    link: Link,
    inbox: String,
    next: AtomicU64,
    waiting: Waiting,
    pump: AbortHandle,
}

impl Caller {
    pub(crate) async fn new(link: Link) -> Result<Self, CallError> {
        let inbox = link.client().new_inbox();
        let answers = link
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| CallError::NotConnected(error.to_string()))?;
        let waiting = Waiting::default();
        let pump = tokio::spawn(hand_out(link.clone(), answers, Arc::clone(&waiting)));
        Ok(Self { link, inbox, next: AtomicU64::new(0), waiting, pump: pump.abort_handle() })
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends a request and waits for its one answer, for as long as the connection stands.
    pub(crate) async fn call(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Message, CallError> {
        self.call_many(subject, headers, body, 1).await?.next().await
    }

    /// Sends a request that may have up to `answers` answers.
    pub(crate) async fn call_many(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        body: Bytes,
        answers: usize,
    ) -> Result<Answers, CallError> {
        self.link.check().map_err(CallError::NotConnected)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(answers);
        self.waiting.lock().insert(number, sender);
        let answers = Answers {
            subject: subject.clone(),
            number,
            receiver,
            waiting: Arc::clone(&self.waiting),
        };
        let reply = format!("{}.{number}", self.inbox);
        let client = self.link.client();
        let sent = match headers {
            Some(headers) => {
                client.publish_with_reply_and_headers(subject, reply, headers, body).await
            }
            None => client.publish_with_reply(subject, reply, body).await,
        };
        sent.map_err(|error| CallError::Rejected(error.to_string()))?;
        Ok(answers)
    }

    /// How many requests wait now.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Returns once the server has read everything that was sent on this connection before.
    pub(crate) async fn echo(&self) -> Result<(), CallError> {
        self.link.check().map_err(CallError::NotConnected)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(1);
        self.waiting.lock().insert(number, sender);
        let subject = format!("{}.{number}", self.inbox);
        let mut answers = Answers {
            subject: subject.clone(),
            number,
            receiver,
            waiting: Arc::clone(&self.waiting),
        };
        let sent = self.link.client().publish(subject, Bytes::new()).await;
        sent.map_err(|error| CallError::Rejected(error.to_string()))?;
        answers.next().await.map(drop)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// The answers to one request; the request is forgotten when they are dropped.
pub(crate) struct Answers {
    subject: String,
    number: u64,
    receiver: mpsc::Receiver<Message>,
    waiting: Waiting,
}

impl Answers {
    pub(crate) async fn next(&mut self) -> Result<Message, CallError> {
        match self.receiver.recv().await {
            Some(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(CallError::NoResponders(std::mem::take(&mut self.subject)))
            }
            Some(message) => Ok(message),
            None => Err(CallError::Lost),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}

/// Gives each answer to whoever waits for it, and ends all waits when the connection is lost.
async fn hand_out(link: Link, mut answers: async_nats::Subscriber, waiting: Waiting) {
    let mut state = link.watch();
    let mut losses = state.borrow_and_update().losses;
    loop {
        tokio::select! {
            answer = answers.next() => {
                let Some(answer) = answer else { break };
                let number = answer.subject.rsplit_once('.').and_then(|(_, n)| n.parse().ok());
                let sender = number.and_then(|n: u64| waiting.lock().get(&n).cloned());
                if let Some(sender) = sender {
                    // Full: more answers than were asked for. Whoever waits counts them and sees it.
                    sender.try_send(answer).ok();
                }
            }
            changed = state.changed() => {
                let now = if changed.is_ok() { state.borrow_and_update().losses } else { losses + 1 };
                if now != losses {
                    losses = now;
                    waiting.lock().clear();
                }
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    waiting.lock().clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NatsConfig;
    use std::time::Duration;
    use stormwire_testkit::nats::NatsServer;
    use tokio::time::timeout;

    async fn caller(server: &NatsServer) -> Caller {
        let config = NatsConfig { urls: vec![server.url()], ..NatsConfig::default() };
        let link = Link::connect(&config, "test", 1024).await.unwrap();
        link.settle().await;
        Caller::new(link).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_is_forgotten() {
        let Some(server) = NatsServer::start().await else { return };
        let caller = caller(&server).await;
        let client = caller.link().client().clone();
        let _silent = client.subscribe("silent").await.unwrap();
        caller.echo().await.unwrap();
        for _ in 0..100 {
            let call = caller.call("silent".to_owned(), None, Bytes::new());
            assert!(timeout(Duration::from_millis(1), call).await.is_err());
        }
        assert_eq!(caller.waiting(), 0);
    }

    #[tokio::test]
    async fn nobody_there_is_told_at_once() {
        let Some(server) = NatsServer::start().await else { return };
        let caller = caller(&server).await;
        let refused = caller.call("nobody".to_owned(), None, Bytes::new()).await;
        assert_eq!(refused.unwrap_err(), CallError::NoResponders("nobody".to_owned()));
        let huge = caller.call("nobody".to_owned(), None, Bytes::from(vec![0; 2 << 20])).await;
        assert!(matches!(huge, Err(CallError::Rejected(_))));
        assert_eq!(caller.waiting(), 0);
    }
}
