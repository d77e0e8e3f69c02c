//! The answers that one request waits for.

use crate::ingest::{Answers, Published};
use parking_lot::Mutex;
use std::sync::Arc;
use stormwire_core::Refusal;
use tokio::sync::oneshot;

pub(super) type Answer = Result<Published, Refusal>;

/// The answers that one request waits for, by ticket.
pub(super) struct Waiting(Vec<Mutex<Option<oneshot::Sender<Answer>>>>);

pub(super) type Receivers = Vec<oneshot::Receiver<Answer>>;

impl Waiting {
    pub(super) fn new(count: usize) -> (Arc<Self>, Receivers) {
        let (senders, receivers) = (0..count)
            .map(|_| {
                let (sender, receiver) = oneshot::channel();
                (Mutex::new(Some(sender)), receiver)
            })
            .unzip();
        (Arc::new(Self(senders)), receivers)
    }
}

impl Answers for Waiting {
    fn answer(&self, ticket: u64, answer: Result<Published, Refusal>) {
        let slot = usize::try_from(ticket).ok().and_then(|ticket| self.0.get(ticket));
        if let Some(sender) = slot.and_then(|slot| slot.lock().take()) {
            // Nobody waits any more when the client has gone.
            let _ = sender.send(answer);
        }
    }
}
