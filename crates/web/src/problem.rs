//! A refusal as an HTTP answer.

use crate::request::current_id;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use stormwire_core::{ErrorCode, Refusal};
use stormwire_wire::problem::PROBLEM_CONTENT_TYPE;

/// An answer that refuses: `application/problem+json` with the code's status, and `Retry-After` where
/// waiting helps. Handlers return it by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

/// The answer that tells `refusal`.
#[must_use]
pub fn problem(refusal: &Refusal) -> Problem {
    Problem(refusal.clone())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(refusal) = self;
        let status = StatusCode::from_u16(refusal.code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = stormwire_wire::problem::problem(&refusal, &current_id());
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            let invalid = refusal.code == ErrorCode::TokenExpired;
            let challenge = if invalid { "Bearer error=\"invalid_token\"" } else { "Bearer" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(after) = refusal.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_limit_says_when_to_come_back_in_whole_seconds() {
        let refusal =
            Refusal::new(ErrorCode::Limited, "slower").retry_after(Duration::from_millis(1200));
        let response = problem(&refusal).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn who_is_not_signed_in_is_told_how() {
        let response = problem(&Refusal::new(ErrorCode::TokenExpired, "old")).into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
    }
}
