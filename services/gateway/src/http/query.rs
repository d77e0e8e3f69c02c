//! Parameters in a URL, read with the refusals of the protocol.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use std::collections::HashMap;
use std::time::Duration;
use stormwire_core::{Channel, Pattern, Position, Refusal};
use stormwire_web::Problem;
use stormwire_wire::protocol::{Cursor, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, channel};

/// Most seconds that a long poll waits.
pub(super) const WAIT_SECONDS_MAX: u64 = 30;

/// The query of a URL. Parameters that nobody asks for are ignored; one given twice counts as its last.
pub(super) struct Parameters(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri);
        let Query(map) =
            query.map_err(|error| Refusal::invalid_field("query", error.body_text()))?;
        Ok(Self(map))
    }
}

impl Parameters {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        let problem = || format!("a whole number from {min} to {max} is due, not {text:?}");
        number.map(Some).ok_or_else(|| Refusal::invalid_field(name, problem()))
    }

    pub(super) fn position(&self, name: &str) -> Result<Option<Position>, Refusal> {
        self.text(name).map(|text| parse_position(name, text)).transpose()
    }

    /// The cursor of a pattern.
    pub(super) fn cursor(&self, name: &str) -> Result<Option<Cursor>, Refusal> {
        self.text(name).map(|text| parse_cursor(name, text)).transpose()
    }

    /// `limit`: how many events or channels a page holds at most.
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        let limit = self.number("limit", 1, u64::from(HISTORY_LIMIT_MAX))?;
        let limit = limit.unwrap_or(u64::from(HISTORY_LIMIT_DEFAULT));
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// `wait`: how long a long poll waits for the first event.
    pub(super) fn wait(&self) -> Result<Option<Duration>, Refusal> {
        Ok(self.number("wait", 0, WAIT_SECONDS_MAX)?.map(Duration::from_secs))
    }
}

pub(super) fn parse_position(name: &str, text: &str) -> Result<Position, Refusal> {
    text.parse().map_err(|error| Refusal::invalid_field(name, error))
}

pub(super) fn parse_cursor(name: &str, text: &str) -> Result<Cursor, Refusal> {
    let problem = "the cursor of a page, an event or a subscription of this pattern is due";
    Cursor::decode(text).ok_or_else(|| Refusal::invalid_field(name, problem))
}

/// The channel of the path, or the pattern in its place.
pub(super) struct TargetInPath(pub(super) Pattern);

impl<S: Send + Sync> FromRequestParts<S> for TargetInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) =
            path.map_err(|error| Refusal::invalid_field("channel", error.body_text()))?;
        let target = Pattern::parse(&text);
        Ok(Self(target.map_err(|error| Refusal::invalid_field("channel", error))?))
    }
}

/// The channel of the path.
pub(super) struct InPath(pub(super) Channel);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) =
            path.map_err(|error| Refusal::invalid_field("channel", error.body_text()))?;
        Ok(Self(channel("channel", &text)?))
    }
}
