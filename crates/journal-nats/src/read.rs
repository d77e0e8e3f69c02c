//! Reading stored frames: pages from any replica, single frames from the leader.

use crate::api::{self, Api, MESSAGE_NOT_FOUND, STREAM_NOT_FOUND};
use crate::caller::CallError;
use crate::names;
use async_nats::{HeaderMap, Message};
use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use stormwire_core::{Epoch, FrameSeq, Partition, Timestamp};
use stormwire_journal::{JournalError, StoredFrame};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;

/// Most frames in one page; the same again is the most that a page's answers wait in memory.
const PAGE_FRAMES_MAX: usize = 1024;
/// Most bytes in one page, but for its last frame.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Most pages read at once: reads hold up a stream's writes, and their answers are in memory.
const PAGES_AT_ONCE: usize = 8;
/// Most frames fetched one by one from the leader for one page.
const LEADER_FRAMES_MAX: usize = 64;
/// Longest time for one page, longer than for a single answer.
const PAGE_DEADLINE: Duration = Duration::from_secs(5);

/// Longest time for a read in all: its turn, the page, the leader's frames.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// The reading side of the journal.
pub(crate) struct Reads {
    pages: Semaphore,
}

impl Reads {
    pub(crate) fn new() -> Self {
        Self { pages: Semaphore::new(PAGES_AT_ONCE) }
    }

    /// A page from whichever replica answers; if that has nothing from `from` on, perhaps because it is
    /// behind, from the leader.
    pub(crate) async fn page(
        &self,
        api: &Api,
        log: Log,
        from: FrameSeq,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<StoredFrame>, JournalError> {
        let frames = frames.clamp(1, PAGE_FRAMES_MAX);
        let bytes = bytes.clamp(1, PAGE_BYTES_MAX);
        api.check("read")?;
        let page = async {
            let _permit = self.pages.acquire().await;
            let page = api
                .guard()
                .call_within("read", PAGE_DEADLINE, direct(api, log, from, frames, bytes))
                .await
                .map_err(|error| api::unavailable("read", &error))??;
            if page.is_empty() {
                from_leader(api, log, from, frames, bytes).await
            } else {
                Ok(page)
            }
        };
        let in_time = tokio::time::timeout(READ_DEADLINE, page).await;
        in_time.unwrap_or_else(|_| {
            Err(JournalError::Unavailable("read: the journal is too slow".to_owned()))
        })
    }
}

/// One partition's log in one epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
}

/// A batch by direct get.
async fn direct(
    api: &Api,
    log: Log,
    from: FrameSeq,
    frames: usize,
    bytes: usize,
) -> Result<Result<Vec<StoredFrame>, JournalError>, CallError> {
    let request = json!({ "seq": from.max(1), "batch": frames, "max_bytes": bytes });
    let subject = api::api(&format!("DIRECT.GET.{}", names::stream(log.partition, log.epoch)));
    let request = api::encode(&request);
    let mut answers = api.caller().call_many(subject, None, request, frames + 1).await?;
    let mut page = Page { log, frames: Vec::new() };
    loop {
        match answers.next().await {
            Ok(message) => match page.take(message) {
                Ok(Step::More) => {}
                Ok(Step::Complete) => return Ok(Ok(page.frames)),
                Err(error) => return Ok(Err(error)),
            },
            // No replica answers direct gets; perhaps the leader answers the API.
            Err(CallError::NoResponders(_)) => return Ok(Ok(Vec::new())),
            Err(error) => return Err(error),
        }
    }
}

/// A page as its answers come: the frames in order, then a status. Each answer names the one before it,
/// so that one lost on the way is noticed and is not taken for a hole.
struct Page {
    log: Log,
    frames: Vec<StoredFrame>,
}

#[derive(Debug, PartialEq)]
enum Step {
    More,
    Complete,
}

impl Page {
    fn take(&mut self, message: Message) -> Result<Step, JournalError> {
        let status = message.status.map_or(200, |status| status.as_u16());
        match status {
            200 | 204 => {}
            404 => return Ok(Step::Complete),
            _ => {
                let text = message.description.unwrap_or_default();
                return Err(JournalError::Unavailable(format!("direct get: {status} {text}")));
            }
        }
        let previous = message.headers.as_ref().and_then(|h| number(h, "Nats-Last-Sequence"));
        if previous != Some(self.frames.last().map_or(0, |frame| frame.seq)) {
            return Err(JournalError::Unavailable("an answer was lost on the way".to_owned()));
        }
        if status == 204 {
            return Ok(Step::Complete);
        }
        let frame = live_frame(self.log.partition, self.log.epoch, message).ok_or_else(|| {
            JournalError::Protocol("a direct get without sequence and time".to_owned())
        })?;
        self.frames.push(frame);
        Ok(Step::More)
    }
}

/// The same page one by one from the leader, which is never behind.
async fn from_leader(
    api: &Api,
    log: Log,
    from: FrameSeq,
    frames: usize,
    bytes: usize,
) -> Result<Vec<StoredFrame>, JournalError> {
    let subject = names::events(log.partition, log.epoch);
    let (mut page, mut next, mut size) = (Vec::new(), from.max(1), 0);
    while page.len() < frames.min(LEADER_FRAMES_MAX) && size < bytes {
        let request = json!({ "seq": next, "next_by_subj": subject });
        let Some(frame) = ask_leader(api, log, &request).await? else { break };
        next = frame.seq + 1;
        size += frame.bytes.len();
        page.push(frame);
    }
    Ok(page)
}

/// The one frame `seq`, by the leader's own state.
pub(crate) async fn frame(
    api: &Api,
    log: Log,
    seq: FrameSeq,
) -> Result<Option<StoredFrame>, JournalError> {
    // The server takes 0 for a request that names no frame.
    if seq == 0 {
        return Ok(None);
    }
    ask_leader(api, log, &json!({ "seq": seq })).await
}

#[derive(Deserialize)]
struct Got {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    seq: FrameSeq,
    #[serde(default)]
    data: String,
    time: String,
}

async fn ask_leader(
    api: &Api,
    log: Log,
    request: &serde_json::Value,
) -> Result<Option<StoredFrame>, JournalError> {
    let subject = format!("STREAM.MSG.GET.{}", names::stream(log.partition, log.epoch));
    let stored = match api.ask::<Got>("frame", &subject, request).await? {
        Ok(got) => got.message,
        // The log of an epoch that has ended may be gone with all its frames.
        Err(refusal) if [MESSAGE_NOT_FOUND, STREAM_NOT_FOUND].contains(&refusal.err_code) => {
            return Ok(None);
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(stored.data)
        .map_err(|error| JournalError::Protocol(format!("frame {}: {error}", stored.seq)))?;
    let ts = timestamp(&stored.time)
        .ok_or_else(|| JournalError::Protocol(format!("{:?} is no time", stored.time)))?;
    Ok(Some(StoredFrame {
        partition: log.partition,
        epoch: log.epoch,
        seq: stored.seq,
        ts,
        bytes: Bytes::from(bytes),
    }))
}

/// A republished message, or one of a direct get, as a frame; `None` if its headers are not there.
pub(crate) fn live_frame(
    partition: Partition,
    epoch: Epoch,
    message: Message,
) -> Option<StoredFrame> {
    let headers = message.headers.as_ref()?;
    let seq = number(headers, "Nats-Sequence")?;
    let ts = timestamp(headers.get_last("Nats-Time-Stamp")?.as_str())?;
    Some(StoredFrame { partition, epoch, seq, ts, bytes: message.payload })
}

/// The server adds its headers behind those of the publisher, so the last one counts.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get_last(name)?.as_str().parse().ok()
}

/// Milliseconds of an RFC 3339 time.
fn timestamp(text: &str) -> Option<Timestamp> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanos.div_euclid(1_000_000)).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a direct get.
    fn answer(status: Option<u16>, seq: Option<FrameSeq>, previous: FrameSeq) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Last-Sequence", previous.to_string());
        if let Some(seq) = seq {
            headers.insert("Nats-Sequence", seq.to_string());
            headers.insert("Nats-Time-Stamp", "2026-11-21T11:57:24.170918982Z");
        }
        Message {
            subject: "_INBOX.1".into(),
            reply: None,
            payload: Bytes::from_static(b"frame"),
            headers: Some(headers),
            status: status.map(|status| status.try_into().unwrap()),
            description: None,
            length: 0,
        }
    }

    fn page() -> Page {
        Page { log: Log { partition: Partition(1), epoch: Epoch(1) }, frames: Vec::new() }
    }

    #[test]
    fn a_hole_in_the_log_is_no_answer_lost_on_the_way() {
        let mut page = page();
        assert_eq!(page.take(answer(None, Some(4), 0)), Ok(Step::More));
        assert_eq!(page.take(answer(None, Some(7), 4)), Ok(Step::More), "5 and 6 are not there");
        assert_eq!(page.take(answer(Some(204), None, 7)), Ok(Step::Complete));
        assert_eq!(page.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [4, 7]);
    }

    #[test]
    fn an_answer_lost_on_the_way_spoils_the_page() {
        for lost in [answer(None, Some(6), 5), answer(Some(204), None, 5)] {
            let mut page = page();
            assert_eq!(page.take(answer(None, Some(4), 0)), Ok(Step::More));
            assert!(matches!(page.take(lost), Err(JournalError::Unavailable(_))));
        }
        assert!(page().take(answer(None, Some(5), 4)).is_err(), "the first was lost");
    }

    #[test]
    fn nothing_there_is_an_empty_page_and_other_answers_are_errors() {
        assert_eq!(page().take(answer(Some(404), None, 0)), Ok(Step::Complete));
        let refused = page().take(answer(Some(408), None, 0)).unwrap_err().to_string();
        assert!(refused.contains("408"), "{refused}");
        assert!(matches!(page().take(answer(None, None, 0)), Err(JournalError::Protocol(_))));
    }

    #[test]
    fn the_journals_time_is_cut_to_milliseconds() {
        assert_eq!(timestamp("1970-01-01T00:00:01.234999999Z"), Some(Timestamp(1234)));
        assert_eq!(timestamp("2026-11-21T11:57:24Z"), Some(Timestamp(1_795_262_244_000)));
        assert_eq!(timestamp("yesterday"), None);
    }
}
