//! Appending: one frame, stored after the expected one or not at all.

use crate::api::Refusal;
use crate::caller::{CallError, Caller};
use crate::names;
use crate::settings::MAX_MESSAGE_BYTES;
use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_LAST_SEQUENCE};
use bytes::Bytes;
use metrics::gauge;
use serde::Deserialize;
use stormwire_core::faults::{Fault, injected};
use stormwire_core::{Epoch, FrameSeq, Partition};
use stormwire_guard::{Guard, GuardError};
use stormwire_journal::AppendError;
use stormwire_telemetry::metrics as metric_names;

/// What the stream's leader says to a publish.
#[derive(Deserialize)]
struct Acknowledgement<'a> {
    error: Option<Refusal>,
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    seq: FrameSeq,
}

/// JetStream's errors that leave no doubt: the message was not stored and will not be.
mod certain {
    /// "wrong last sequence": checked at the leader before anything is proposed, and when it is applied.
    pub(super) const WRONG_LAST: [u32; 2] = [10071, 10164];
    /// "message store failed", which a full stream also is, told apart by its text.
    pub(super) const STORE_FAILED: u32 = 10077;
    /// What that text is then.
    pub(super) const FULL: &str = "maximum bytes exceeded";
    /// Checked before anything is proposed: message too large, header too large, no resources, stream
    /// sealed or offline, too many waiting.
    pub(super) const REFUSED: [u32; 8] = [10054, 10097, 10023, 10028, 10047, 10109, 10118, 10167];
}

/// The writing side of the journal.
pub(crate) struct Appends {
    caller: Caller,
    guard: Guard,
}

impl Appends {
    pub(crate) fn new(caller: Caller, guard: Guard) -> Self {
        Self { caller, guard }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// One attempt. It is never repeated here: what an unknown outcome means is the appender's to decide.
    pub(crate) async fn append(
        &self,
        partition: Partition,
        epoch: Epoch,
        expected_last: FrameSeq,
        frame: Bytes,
    ) -> Result<FrameSeq, AppendError> {
        if frame.len() > MAX_MESSAGE_BYTES {
            return Err(AppendError::Refused(format!(
                "a frame of {} bytes, more than {MAX_MESSAGE_BYTES}",
                frame.len()
            )));
        }
        // Known beforehand, it need not open the breaker, which would go on refusing after a reconnect.
        self.caller
            .link()
            .check()
            .map_err(|reason| AppendError::Refused(CallError::NotConnected(reason).to_string()))?;
        let _pending = Pending::begin();
        let mut headers = HeaderMap::new();
        if !injected(Fault::AppendWithoutExpectedSequence) {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, HeaderValue::from(expected_last));
        }
        let attempt = async {
            let call =
                self.caller.call(names::events(partition, epoch), Some(headers), frame).await;
            match call {
                // Says that this stream has no leader, nothing about the others or the connection.
                Err(error @ CallError::NoResponders(_)) => Ok(Err(error)),
                Err(error) => Err(error),
                Ok(answer) => Ok(Ok(answer)),
            }
        };
        let outcome = self.guard.call("append", attempt).await;
        self.caller.link().note(matches!(outcome, Ok(Ok(_))));
        match outcome {
            Ok(Ok(answer)) => {
                judge(&answer.payload, &names::stream(partition, epoch), expected_last)
            }
            Ok(Err(error)) | Err(GuardError::Failed(error)) => Err(match error {
                CallError::Lost => AppendError::Unknown(error.to_string()),
                CallError::NotConnected(_)
                | CallError::Rejected(_)
                | CallError::NoResponders(_) => AppendError::Refused(error.to_string()),
            }),
            Err(error @ GuardError::Open { .. }) => Err(AppendError::Refused(error.to_string())),
            Err(error @ GuardError::Deadline(_)) => Err(AppendError::Unknown(error.to_string())),
        }
    }
}

/// What an answer says about the attempt.
fn judge(answer: &[u8], stream: &str, expected_last: FrameSeq) -> Result<FrameSeq, AppendError> {
    let answer: Acknowledgement<'_> = serde_json::from_slice(answer)
        .map_err(|error| AppendError::Unknown(format!("an answer that is none: {error}")))?;
    match answer.error {
        None if answer.stream == stream && answer.seq == expected_last + 1 => Ok(answer.seq),
        None => Err(AppendError::Unknown(format!(
            "an acknowledgement by {} at {} instead of {stream} at {}",
            answer.stream,
            answer.seq,
            expected_last + 1
        ))),
        Some(error) if certain::WRONG_LAST.contains(&error.err_code) => {
            Err(AppendError::WrongLast { expected: expected_last })
        }
        Some(error)
            if error.err_code == certain::STORE_FAILED && error.description == certain::FULL =>
        {
            Err(AppendError::Full)
        }
        Some(error) if certain::REFUSED.contains(&error.err_code) => {
            Err(AppendError::Refused(error.to_string()))
        }
        Some(error) => Err(AppendError::Unknown(error.to_string())),
    }
}

/// Counts an append while it waits.
struct Pending;

impl Pending {
    fn begin() -> Self {
        gauge!(metric_names::NATS_APPENDS_PENDING).increment(1);
        Self
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        gauge!(metric_names::NATS_APPENDS_PENDING).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(err_code: u32, description: &str) -> Result<FrameSeq, AppendError> {
        let answer = serde_json::json!({
            "error": { "code": 400, "err_code": err_code, "description": description },
            "stream": "STORM_0_1",
            "seq": 0,
        });
        judge(answer.to_string().as_bytes(), "STORM_0_1", 4)
    }

    #[test]
    fn only_the_next_sequence_of_the_right_stream_is_an_acknowledgement() {
        let judge = |text: &str| judge(text.as_bytes(), "STORM_0_1", 4);
        assert_eq!(judge(r#"{"stream":"STORM_0_1","seq":5}"#), Ok(5));
        for odd in [
            r#"{"stream":"STORM_0_1","seq":6}"#,
            r#"{"stream":"STORM_0_2","seq":5}"#,
            r#"{"seq":5}"#,
            "{}",
            "",
            "[]",
        ] {
            assert!(matches!(judge(odd), Err(AppendError::Unknown(_))), "{odd}");
        }
    }

    #[test]
    fn a_refusal_is_certain_only_where_the_server_says_so_before_storing() {
        assert_eq!(
            error(10071, "wrong last sequence: 9"),
            Err(AppendError::WrongLast { expected: 4 })
        );
        assert_eq!(
            error(10164, "wrong last sequence"),
            Err(AppendError::WrongLast { expected: 4 })
        );
        assert_eq!(error(10077, "maximum bytes exceeded"), Err(AppendError::Full));
        assert!(matches!(error(10167, "too many requests"), Err(AppendError::Refused(_))));
        assert!(matches!(error(10077, "no space left on device"), Err(AppendError::Unknown(_))));
        assert!(matches!(error(10008, "temporarily unavailable"), Err(AppendError::Unknown(_))));
    }
}
