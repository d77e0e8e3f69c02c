//! JetStream's API as this engine needs it: JSON requests, answered by the leader of a stream or of the
//! cluster. All of them may be repeated without harm, so all are retried within the guard's budget.

use crate::caller::{CallError, Caller};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use stormwire_guard::{Guard, GuardError};
use stormwire_journal::JournalError;

/// "stream not found".
pub(crate) const STREAM_NOT_FOUND: u32 = 10059;
/// "stream name already in use with a different configuration".
pub(crate) const STREAM_DIFFERS: u32 = 10058;
/// "no message found".
pub(crate) const MESSAGE_NOT_FOUND: u32 = 10037;
/// "insufficient storage resources available".
pub(crate) const NO_ROOM: u32 = 10047;

/// An error that JetStream answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub(crate) struct Refusal {
    /// As in HTTP.
    #[serde(default)]
    pub(crate) code: u16,
    /// Which of JetStream's errors.
    #[serde(default)]
    pub(crate) err_code: u32,
    /// Its sentence.
    #[serde(default)]
    pub(crate) description: String,
}

impl From<Refusal> for JournalError {
    fn from(refusal: Refusal) -> Self {
        Self::Unavailable(refusal.to_string())
    }
}

/// A request and its answer in one: either `error` or the rest.
#[derive(Deserialize)]
struct Envelope {
    error: Option<Refusal>,
}

/// Calls the API, guarded.
pub(crate) struct Api {
    caller: Caller,
    guard: Guard,
}

impl Api {
    pub(crate) fn new(caller: Caller, guard: Guard) -> Self {
        Self { caller, guard }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// `Err` while there is no connection. Known beforehand, it need not open the breaker, which would
    /// go on refusing after a reconnect.
    pub(crate) fn check(&self, operation: &str) -> Result<(), JournalError> {
        self.caller.link().check().map_err(|reason| {
            JournalError::Unavailable(format!("{operation}: {}", CallError::NotConnected(reason)))
        })
    }

    /// Asks `$JS.API.<subject>`. The outer error is a failure, the inner one JetStream's answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        subject: &str,
        body: &serde_json::Value,
    ) -> Result<Result<T, Refusal>, JournalError> {
        self.check(operation)?;
        let body = encode(body);
        let answer = self
            .guard
            .retry(operation, temporary, || self.caller.call(api(subject), None, body.clone()))
            .await;
        self.caller.link().note(answer.is_ok());
        parse(&answer.map_err(|error| unavailable(operation, &error))?.payload)
    }

    /// Publishes a message that a stream takes; its answer is as one of the API's.
    pub(crate) async fn publish(
        &self,
        operation: &'static str,
        subject: &str,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Bytes, GuardError<CallError>> {
        let lost = |error: &CallError| matches!(error, CallError::Lost);
        let call = || self.caller.call(subject.to_owned(), headers.clone(), body.clone());
        let answer = self.guard.retry(operation, lost, call).await;
        self.caller.link().note(answer.is_ok());
        answer.map(|answer| answer.payload)
    }

    /// [`Api::ask`], once, with a deadline of its own: for what is slow by nature.
    pub(crate) async fn ask_within<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        subject: &str,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<Result<T, Refusal>, JournalError> {
        self.check(operation)?;
        let answer = self
            .guard
            .call_within(operation, deadline, self.caller.call(api(subject), None, encode(body)))
            .await
            .map_err(|error| unavailable(operation, &error))?;
        parse(&answer.payload)
    }
}

/// The full subject of an API call.
pub(crate) fn api(subject: &str) -> String {
    format!("$JS.API.{subject}")
}

pub(crate) fn encode(body: &serde_json::Value) -> Bytes {
    if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) }
}

/// Whether asking again may help soon: a new connection or a new leader may be a moment away.
pub(crate) fn temporary(error: &CallError) -> bool {
    matches!(error, CallError::Lost | CallError::NoResponders(_))
}

pub(crate) fn unavailable(operation: &str, error: &GuardError<CallError>) -> JournalError {
    JournalError::Unavailable(match error {
        GuardError::Failed(CallError::NoResponders(_)) => {
            format!("{operation}: no JetStream server or stream leader answers")
        }
        error => format!("{operation}: {error}"),
    })
}

pub(crate) fn parse<T: DeserializeOwned>(
    answer: &[u8],
) -> Result<Result<T, Refusal>, JournalError> {
    let nonsense = |error: serde_json::Error| JournalError::Protocol(error.to_string());
    let envelope: Envelope = serde_json::from_slice(answer).map_err(nonsense)?;
    match envelope.error {
        Some(refusal) => Ok(Err(refusal)),
        None => serde_json::from_slice(answer).map(Ok).map_err(nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn an_error_is_an_answer_and_nonsense_is_not() {
        let refused = parse::<Value>(
            br#"{"error":{"code":404,"err_code":10059,"description":"stream not found"},"total":0}"#,
        );
        let Ok(Err(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!((refusal.code, refusal.err_code), (404, STREAM_NOT_FOUND));
        assert_eq!(refusal.to_string(), "stream not found (10059)");
        assert!(matches!(parse::<Value>(br#"{"seq":1}"#), Ok(Ok(_))));
        assert!(matches!(parse::<Value>(b"<html>"), Err(JournalError::Protocol(_))));
    }
}
