//! Who answers a read of history: the replica where it has what the read needs, else the primary.
//!
//! A replica shows an earlier moment of the primary, whole: rows and ledger of one snapshot belong
//! together, so a page of it is never wrong, only early. Early is good enough while the journal goes on
//! where its ledger ends. What lies between a ledger that is too far behind and the first frame of the
//! journal would be told by nobody: such a replica is passed over.

use crate::history::{self, Ask};
use crate::latest;
use crate::prefix;
use crate::server::Server;
use metrics::counter;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{
    ArchiveError, Counted, HistoryPage, HistoryQuery, LatestPage, LedgerEntry,
};
use stormwire_core::{Channel, Epoch, Offset, Partition, Position, Timestamp};
use stormwire_guard::BreakerState;
use stormwire_telemetry::metrics as names;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Longest wait for a turn among the readers.
const TURN_DEADLINE: Duration = Duration::from_secs(5);

/// The servers that answer history, and how many may ask at a time.
pub(crate) struct Readers {
    pub(crate) primary: Arc<Server>,
    pub(crate) replica: Option<Server>,
    pub(crate) permits: Semaphore,
}

impl Readers {
    pub(crate) async fn page(
        &self,
        ask: &Ask<'_>,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let page = ask.of(replica).await;
            let is_enough = |page: &HistoryPage| {
                reaches(page.ledger, journal_from) || is_whole(page, ask.query)
            };
            if let Some(page) = chosen(page, is_enough) {
                return Ok(page);
            }
        }
        read(PRIMARY);
        ask.of(&self.primary).await
    }

    pub(crate) async fn prefix_page(
        &self,
        ask: &prefix::Ask<'_>,
        journal_from: Position,
    ) -> Result<HistoryPage, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let page = ask.of(replica).await;
            let is_enough = |page: &HistoryPage| reaches(page.ledger, journal_from) || is_cut(page);
            if let Some(page) = chosen(page, is_enough) {
                return Ok(page);
            }
        }
        read(PRIMARY);
        ask.of(&self.primary).await
    }

    pub(crate) async fn latest(
        &self,
        ask: &latest::Ask<'_>,
        journal_from: Position,
    ) -> Result<LatestPage, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let page = ask.of(replica).await;
            if let Some(page) = chosen(page, |page| reaches(page.ledger, journal_from)) {
                return Ok(page);
            }
        }
        read(PRIMARY);
        ask.of(&self.primary).await
    }

    /// As [`Readers::position_at`], of a partition.
    pub(crate) async fn place_at(
        &self,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let place = prefix::place_at(replica, partition, since).await;
            if let Some(place) = chosen(place, Option::is_some) {
                return Ok(place);
            }
        }
        read(PRIMARY);
        prefix::place_at(&self.primary, partition, since).await
    }

    pub(crate) async fn count_after(
        &self,
        channel: &Channel,
        partition: Partition,
        after: Position,
        bound: u64,
        journal_from: Position,
    ) -> Result<Counted, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let counted = history::count(replica, channel, partition, after, bound).await;
            let is_enough = |counted: &Counted| {
                reaches(counted.ledger, journal_from) || counted.events >= bound
            };
            if let Some(counted) = chosen(counted, is_enough) {
                return Ok(counted);
            }
        }
        read(PRIMARY);
        history::count(&self.primary, channel, partition, after, bound).await
    }

    /// What a replica finds is the first on the primary as well, for it holds everything before that;
    /// what it does not find may have come since.
    pub(crate) async fn position_at(
        &self,
        channel: &Channel,
        partition: Partition,
        since: Timestamp,
    ) -> Result<Option<Position>, ArchiveError> {
        let _turn = self.turn().await?;
        if let Some(replica) = self.replica() {
            let position = history::position_at(replica, channel, partition, since).await;
            if let Some(position) = chosen(position, Option::is_some) {
                return Ok(position);
            }
        }
        read(PRIMARY);
        history::position_at(&self.primary, channel, partition, since).await
    }

    /// The replica, unless its breaker refuses.
    fn replica(&self) -> Option<&Server> {
        let replica = self.replica.as_ref()?;
        if replica.guard.state() == BreakerState::Open {
            read(AWAY);
            return None;
        }
        Some(replica)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, ArchiveError> {
        match timeout(TURN_DEADLINE, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ArchiveError::Unavailable("too many history pages at a time".to_owned())),
        }
    }
}

/// What became of a read: answered by the replica, by the primary, or not by the replica because it was
/// behind or away.
const REPLICA: &str = "replica";
const PRIMARY: &str = "primary";
const BEHIND: &str = "replica_behind";
const AWAY: &str = "replica_away";

fn read(outcome: &'static str) {
    counter!(names::ARCHIVE_READS, "outcome" => outcome).increment(1);
}

/// The replica's answer, where it is enough.
fn chosen<T>(answer: Result<T, ArchiveError>, is_enough: impl FnOnce(&T) -> bool) -> Option<T> {
    match answer {
        Ok(answer) if is_enough(&answer) => {
            read(REPLICA);
            Some(answer)
        }
        Ok(_) => {
            read(BEHIND);
            None
        }
        Err(error) => {
            tracing::debug!(error = %error, "the replica does not answer");
            read(AWAY);
            None
        }
    }
}

/// Whether the journal goes on where the ledger ends.
fn reaches(ledger: Option<LedgerEntry>, journal_from: Position) -> bool {
    last(ledger) >= journal_from
}

/// The last position that a ledger covers.
fn last(ledger: Option<LedgerEntry>) -> Position {
    let (epoch, seq) = ledger.map_or((Epoch::FIRST, 0), |entry| (entry.epoch, entry.last_seq));
    Position { epoch, offset: Offset::new(seq, 4095) }
}

/// Whether a page ends at an event behind which there is more: what is newer than all that the server
/// has lies behind it.
fn is_cut(page: &HistoryPage) -> bool {
    page.more && !page.events.is_empty()
}

/// Whether nothing newer than this server has can belong to the page.
fn is_whole(page: &HistoryPage, query: &HistoryQuery) -> bool {
    match query {
        HistoryQuery::After(_) => is_cut(page),
        HistoryQuery::Before(end) => *end <= last(page.ledger),
        HistoryQuery::Last => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormwire_archive::StoredEvent;

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch::FIRST, offset: Offset::new(seq, 4095) }
    }

    fn ledger(last_seq: u64) -> Option<LedgerEntry> {
        Some(LedgerEntry { epoch: Epoch::FIRST, last_seq, last_frame: None })
    }

    #[test]
    fn a_copy_is_good_enough_where_the_journal_goes_on_from_it() {
        assert!(reaches(ledger(9), at(9)) && reaches(ledger(10), at(9)));
        assert!(!reaches(ledger(8), at(9)));
        assert!(reaches(None, at(0)), "a journal that has everything");
        assert!(!reaches(None, at(1)));
        let next_epoch = Position { epoch: Epoch(2), offset: Offset::new(0, 4095) };
        assert!(!reaches(ledger(9), next_epoch));
    }

    #[test]
    fn a_page_that_ends_before_the_ledger_does_is_whole() {
        let event = StoredEvent {
            channel: Channel::parse("a:x").unwrap(),
            position: at(3),
            ts: Timestamp(0),
            id: None,
            kind: None,
            key: None,
            user: String::new(),
            data: Vec::new().into(),
            binary: false,
        };
        let page = |more| HistoryPage {
            more,
            ledger: ledger(5),
            events: vec![event.clone()],
            ..HistoryPage::default()
        };
        assert!(is_whole(&page(true), &HistoryQuery::After(at(0))));
        assert!(!is_whole(&page(false), &HistoryQuery::After(at(0))));
        assert!(is_whole(&page(false), &HistoryQuery::Before(at(5))));
        assert!(!is_whole(&page(true), &HistoryQuery::Before(at(6))));
        assert!(!is_whole(&page(true), &HistoryQuery::Last));
    }
}
