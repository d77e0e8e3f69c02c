//! `docs/errors.md` from the tables in core.

use std::fmt::Write as _;
use stormwire_core::{CloseCode, ErrorCode};
use stormwire_wire::problem::PROBLEM_TYPE_PREFIX;

pub(crate) fn markdown() -> String {
    let mut out = String::from(
        "# Errors\n\nMade from the table in `crates/core/src/error.rs` by `UPDATE_DOCS=1 cargo test -p \
         stormwire-wire`; do not edit.\n\nA refusal has a stable `code`, a `message` for people, whether \
         it is `temporary` (the same request may succeed later, without a change to it), and where \
         waiting helps `retry_after_ms`. On a WebSocket it is an `error` message with the `id` of the \
         request. Over REST it is a problem (RFC 9457, `application/problem+json`) with the HTTP status \
         below, the same members, `error` (the code again), `request_id`, and `Retry-After`; its `type` \
         is `",
    );
    let _ = writeln!(out, "{PROBLEM_TYPE_PREFIX}` and the code.\n");
    out.push_str("## Codes\n\n| code | HTTP | temporary | meaning |\n| --- | --- | --- | --- |\n");
    for code in ErrorCode::ALL {
        let temporary = if code.is_temporary() { "yes" } else { "no" };
        let (status, meaning) = (code.http_status(), code.meaning());
        let _ = writeln!(out, "| `{code}` | {status} | {temporary} | {meaning} |");
    }
    out.push_str(
        "\n`out_of_order` says in `expected` which sequence number is due. A path that does not take a \
         method answers 405 with `unknown_op`.\n\n## Close codes of a WebSocket\n\n| number | connect \
         again | meaning |\n| --- | --- | --- |\n",
    );
    for code in CloseCode::ALL {
        let again = match code {
            CloseCode::Normal => "as you like",
            CloseCode::Limited => "after `retry_after_ms`",
            code if code.come_back() => "yes, after a random wait",
            _ => "not before something has changed",
        };
        let _ = writeln!(out, "| {} | {again} | {} |", code.number(), code.meaning());
    }
    out.push_str(BAD_INPUT);
    out
}

/// Each line is a test: see `crates/wire/src/protocol/tests/refusals.rs`, `crates/wire/src/body/tests.rs`
/// and the gateway's tests.
const BAD_INPUT: &str = "
## Bad input and its code

| input | code | connection |
| --- | --- | --- |
| text that is not JSON, bytes that are not protobuf, a field given twice, nesting above 128 levels | `malformed` | closed with 4400 |
| an operation that does not exist | `unknown_op` | goes on |
| a field that is missing or of the wrong type; a channel that is too long, has a wildcard or control characters; control characters in type, key or id | `invalid_field`, names field, value and rule | goes on |
| an event or a publish above its bound | `too_large` | goes on |
| a message above its bound | `too_large` | closed with 4413 |
| no operation `connect` within 10 s; no token, or one that is wrongly signed | `unauthenticated` | closed with 4401 |
| a token that has expired | `token_expired` | closed with 4401 |
| a publish, subscription or page without the right to it | `forbidden` | goes on |
| more subscriptions than a connection may have | `too_many_subscriptions` | goes on |
| a text message where the subprotocol says binary, or the reverse | `malformed` | closed with 4400 |
| half a message and then silence; nothing for 60 s | | closed with 4408 |
| a client that never reads | | not read from; its subscriptions are parked |
";
