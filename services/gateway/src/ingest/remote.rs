//! A lane's batch at the appender of another gateway.

use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Epoch, Partition};
use stormwire_journal::message::{Ask, Reply};
use stormwire_journal::owner::{Claim, Members};
use stormwire_journal::publish::{Now, Outcome, Publish};
use stormwire_journal::{PeerError, Peers};

/// How long a lane waits before it asks again where the owner said that it is none, or was not found.
const ASK_AGAIN: Duration = Duration::from_millis(50);

struct Asked {
    since: Duration,
    to: Claim,
    batch: Vec<Publish>,
    answer: BoxFuture<'static, Result<Bytes, PeerError>>,
}

/// What has become of a batch that another gateway was asked to write.
pub(super) struct Settled {
    pub(super) epoch: Epoch,
    pub(super) batch: Vec<Publish>,
    pub(super) outcomes: Vec<Outcome>,
}

/// At most one batch at another gateway.
#[derive(Default)]
pub(super) struct Remote {
    asked: Option<Asked>,
    not_before: Duration,
}

impl Remote {
    pub(super) const fn is_busy(&self) -> bool {
        self.asked.is_some()
    }

    /// When it may ask again.
    pub(super) const fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Asks `to` to write `batch`.
    pub(super) fn ask(
        &mut self,
        now: Now,
        peers: &Arc<dyn Peers>,
        me: &str,
        partition: Partition,
        to: Claim,
        batch: Vec<Publish>,
    ) {
        let body = Ask::encode(now.wall, me, &to, Some(&batch));
        let answer = ask(peers, partition, &to, body);
        self.asked = Some(Asked { since: now.mono, to, batch, answer });
    }

    /// Waits for the answer; for ever while nothing was asked.
    pub(super) async fn answered(&mut self) -> Result<Bytes, PeerError> {
        match &mut self.asked {
            Some(asked) => (&mut asked.answer).await,
            None => std::future::pending().await,
        }
    }

    /// Makes outcomes of an answer. `moved` is told the owner that the one who was asked named, if any.
    pub(super) fn settle(
        &mut self,
        now: Now,
        answer: Result<Bytes, PeerError>,
        moved: impl FnOnce(&Claim, Option<Claim>),
    ) -> Option<Settled> {
        let Asked { to, batch, .. } = self.asked.take()?;
        let all = |outcome: Outcome| vec![outcome; batch.len()];
        let (epoch, outcomes) = match answer.map(|bytes| Reply::decode(&bytes)) {
            Ok(Ok(Reply::Done { epoch, outcomes })) if outcomes.len() == batch.len() => {
                if outcomes.contains(&Outcome::NotStored) {
                    self.not_before = now.mono + ASK_AGAIN;
                }
                (epoch, outcomes)
            }
            Ok(Ok(Reply::Moved(owner))) => {
                self.not_before = now.mono + ASK_AGAIN;
                moved(&to, owner);
                (to.epoch, all(Outcome::NotStored))
            }
            // D2: nobody was there to take it; no reason to claim.
            Err(PeerError::NoResponder) => {
                self.not_before = now.mono + ASK_AGAIN;
                (to.epoch, all(Outcome::NotStored))
            }
            Ok(Ok(Reply::Done { .. }) | Err(_)) | Err(PeerError::Lost(_)) => {
                self.not_before = now.mono + ASK_AGAIN;
                (to.epoch, all(Outcome::Unknown))
            }
        };
        Some(Settled { epoch, batch, outcomes })
    }

    /// D4: gives up on an answer when the heartbeats of the one who was asked stop, or another has claimed
    /// since; not because it takes long. An answer can be lost on its way while both live, with the
    /// connection of the one who was asked: past `deadline` everybody in the batch has been told that the
    /// outcome is unknown, and the lane must not wait for ever for what nobody waits for.
    pub(super) fn give_up(
        &mut self,
        now: Now,
        deadline: Duration,
        partition: Partition,
        members: &Members,
    ) -> Option<Settled> {
        let Asked { since, to, .. } = self.asked.as_ref()?;
        let newer = members
            .owner(partition)
            .is_some_and(|owner| (owner.epoch, owner.seq) > (to.epoch, to.seq));
        let late = now.mono.saturating_sub(*since) > deadline;
        if members.is_alive(&to.gateway, now.mono) && !newer && !late {
            return None;
        }
        let Asked { to, batch, .. } = self.asked.take()?;
        let outcomes = vec![Outcome::Unknown; batch.len()];
        Some(Settled { epoch: to.epoch, batch, outcomes })
    }
}

/// Asks the gateway of `to`, without a time limit.
pub(super) fn ask(
    peers: &Arc<dyn Peers>,
    partition: Partition,
    to: &Claim,
    body: Bytes,
) -> BoxFuture<'static, Result<Bytes, PeerError>> {
    let (peers, gateway) = (Arc::clone(peers), Arc::clone(&to.gateway));
    Box::pin(async move { peers.ask(&gateway, partition, body).await })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_core::{PartitionCount, Timestamp};

    #[test]
    fn an_answer_that_was_lost_between_two_who_live_is_given_up_at_the_deadline() {
        let deadline = Duration::from_secs(15);
        let at = |mono| Now { mono, wall: Timestamp(0) };
        // A gateway is alive to itself, whatever the time.
        let members = Members::new("a", [1; 16], PartitionCount::DEFAULT, false, Duration::ZERO);
        let to = Claim { gateway: Arc::from("a"), epoch: Epoch(1), seq: 7 };
        let answer = Box::pin(std::future::pending());
        let asked = Asked { since: Duration::ZERO, to, batch: Vec::new(), answer };
        let mut remote = Remote { asked: Some(asked), not_before: Duration::ZERO };
        let partition = Partition(3);
        assert!(remote.give_up(at(deadline), deadline, partition, &members).is_none());
        assert!(remote.is_busy());
        let later = at(deadline + Duration::from_millis(1));
        assert!(remote.give_up(later, deadline, partition, &members).is_some());
        assert!(!remote.is_busy());
    }
}
