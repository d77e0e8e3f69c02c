//! The body of a REST refusal: a problem as in RFC 9457, with the members that a WebSocket `error` has.

use crate::protocol::json::write::Object;
use bytes::{Bytes, BytesMut};
use stormwire_core::Refusal;

/// The media type of [`problem`].
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What begins the `type` of a problem; the code follows.
pub const PROBLEM_TYPE_PREFIX: &str = "urn:stormwire:error:";

/// The problem that tells `refusal`: `type`, `title`, `status` and `detail` as in RFC 9457; `code`,
/// `message` and `temporary` as in the client protocol (`error` is the code again, `message` the
/// detail), the request's id, and where they apply `retry_after_ms` and `expected`.
#[must_use]
pub fn problem(refusal: &Refusal, request_id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    let code = refusal.code.as_str();
    let mut object = Object::new(&mut out);
    object.text("type", &[PROBLEM_TYPE_PREFIX, code].concat());
    object.text("title", refusal.code.meaning());
    object.number("status", refusal.code.http_status());
    object.text("detail", &refusal.message);
    object.text("code", code);
    object.text("error", code);
    object.text("message", &refusal.message);
    object.flag("temporary", refusal.is_temporary());
    object.text("request_id", request_id);
    if let Some(after) = refusal.retry_after {
        object.number("retry_after_ms", crate::protocol::encode::millis_up(after));
    }
    if let Some(expected) = refusal.expected {
        object.number("expected", expected);
    }
    object.end();
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use stormwire_core::ErrorCode;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_of_the_protocol() {
        let refusal = Refusal::new(ErrorCode::Limited, "say \"less\"")
            .retry_after(Duration::from_micros(249_001));
        let body: serde_json::Value = serde_json::from_slice(&problem(&refusal, "r-1")).unwrap();
        assert_eq!(body["type"], "urn:stormwire:error:limited");
        assert_eq!(
            (&body["status"], &body["code"], &body["error"]),
            (&429.into(), &"limited".into(), &"limited".into())
        );
        assert_eq!(
            (&body["detail"], &body["message"]),
            (&"say \"less\"".into(), &"say \"less\"".into())
        );
        assert_eq!((&body["request_id"], &body["retry_after_ms"]), (&"r-1".into(), &250.into()));
        assert_eq!(body["temporary"], true);
        assert!(body.get("expected").is_none());
    }
}
