//! The one table of refusals. The Rust enum, the HTTP answers, the WebSocket errors, OpenAPI, AsyncAPI
//! and `docs/errors.md` are all made from it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident $code:literal $status:literal $temporary:literal;)+) => {
        /// A stable code: what a program branches on. The text beside it is for people and may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as clients see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status that carries it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Whether the same request may succeed later without a change to it.
            #[must_use]
            pub const fn is_temporary(self) -> bool {
                match self { $(Self::$variant => $temporary,)+ }
            }

            /// What it means and what to do, one paragraph for the documents.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

error_codes! {
    /// The message is not what the protocol expects here: not JSON, not one of its shapes, or not in time.
    Malformed "malformed" 400 false;
    /// There is no such operation; see the protocol's list.
    UnknownOp "unknown_op" 400 false;
    /// One field has a value that its rule does not allow; the message names field, value and rule.
    InvalidField "invalid_field" 400 false;
    /// A message, an event or a batch is larger than its bound; split it or raise the bound.
    TooLarge "too_large" 413 false;
    /// No token, or one that cannot be verified; sign in again.
    Unauthenticated "unauthenticated" 401 false;
    /// The token has expired; send a fresh one.
    TokenExpired "token_expired" 401 false;
    /// The token does not grant this right.
    Forbidden "forbidden" 403 false;
    /// There is nothing of that name.
    NotFound "not_found" 404 false;
    /// The request contradicts what is already there, such as a sequence number used before.
    Conflict "conflict" 409 false;
    /// An earlier publish of this connection was refused or is unknown; send from the expected one on.
    OutOfOrder "out_of_order" 409 true;
    /// Whether the events were stored cannot be said yet; send them again with `again`.
    UnknownOutcome "unknown_outcome" 503 true;
    /// The events are too old to tell whether they were stored; final for this sequence number.
    Forgotten "forgotten" 410 false;
    /// Over a limit; come back after `retry_after_ms`.
    Limited "limited" 429 true;
    /// The server sheds load at a bound; come back after `retry_after_ms`.
    Overloaded "overloaded" 503 true;
    /// The journal does not answer or is full; nothing is acknowledged until it does.
    JournalUnavailable "journal_unavailable" 503 true;
    /// The journal of this partition has gone back in time; it waits for an operator.
    JournalRewound "journal_rewound" 503 true;
    /// The archive does not answer; publishing and live delivery go on.
    ArchiveUnavailable "archive_unavailable" 503 true;
    /// Who is there is not known now; subscriptions, events and signals go on.
    PresenceUnavailable "presence_unavailable" 503 true;
    /// This connection holds as many subscriptions as it may.
    TooManySubscriptions "too_many_subscriptions" 429 false;
    /// This process is going away; connect again, another one answers.
    ShuttingDown "shutting_down" 503 true;
    /// The server failed in a way that it did not foresee; the request id finds it in the logs.
    Internal "internal" 500 true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as data: a stable code, a sentence for people, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// What a program branches on.
    pub code: ErrorCode,
    /// What a person reads: names the field, the value and the remedy.
    pub message: Cow<'static, str>,
    /// How long to wait before trying again, where waiting helps.
    pub retry_after: Option<Duration>,
    /// For [`ErrorCode::OutOfOrder`]: the sequence number that is due.
    pub expected: Option<u64>,
}

impl Refusal {
    /// A refusal without a time to come back.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None, expected: None }
    }

    /// The field, what was found, and the rule that it breaks.
    pub fn invalid_field(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidField, format!("{field}: {problem}"))
    }

    /// The same refusal, to be tried again after `after`.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// An out-of-order refusal: `expected` is the sequence number that must come first.
    #[must_use]
    pub fn out_of_order(expected: u64) -> Self {
        let message = format!(
            "an earlier publish on this connection was not stored; send again from seq {expected}"
        );
        Self { expected: Some(expected), ..Self::new(ErrorCode::OutOfOrder, message) }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.code.is_temporary()
    }
}

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident $number:literal $come_back:literal;)+) => {
        /// Why the server closes a WebSocket, with the number that the client sees.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CloseCode {
            /// Every code, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The code of a number on the wire, if it is one of ours.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// Whether a client should connect again without a change on its side.
            #[must_use]
            pub const fn come_back(self) -> bool {
                match self { $(Self::$variant => $come_back,)+ }
            }

            /// What it means, one sentence for the documents.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

close_codes! {
    /// The connection ended as the client asked.
    Normal 1000 false;
    /// The server is moving its connections elsewhere; connect again.
    Moving 1001 true;
    /// The server has no room; connect again later.
    Overloaded 1013 true;
    /// A message that the protocol does not know.
    Malformed 4400 false;
    /// No valid token in time, or it ran out.
    Unauthenticated 4401 false;
    /// The token is valid, the right is missing or was withdrawn.
    Forbidden 4403 false;
    /// Nothing was heard for 60 seconds; connect again.
    Silent 4408 true;
    /// A newer connection of the same producer took over.
    Replaced 4409 false;
    /// A message larger than the bound.
    TooLarge 4413 false;
    /// Over a limit for connections; come back after the time that the error before it named.
    Limited 4429 true;
}

/// What an error says, and what each cause of it says, from the outermost on.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_documented() {
        let names: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.meaning().len() > 20, "{code}");
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }

    #[test]
    fn close_codes_round_trip() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(CloseCode::from_number(1006), None);
    }
}
