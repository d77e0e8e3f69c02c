//! What can go wrong, by what a caller does about it.

use std::time::Duration;
use stormwire_wire::protocol::ErrorMessage;

/// A refusal of the server that trying again does not mend, or a call without an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server refused for good; [`ErrorMessage::known`] is the code to branch on.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Box<ErrorMessage>),
    /// The publish was sent, and its deadline passed without an answer: it may be stored or not, and at
    /// most once.
    #[error("no answer within {0:?}; the events may or may not be stored")]
    Unknown(Duration),
    /// The deadline passed before anything was sent, or (other than for a publish) answered.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// There was no connection, or it was lost before the server had taken the signal: it may have been
    /// told or not, and is not sent again.
    #[error("no connection lasted until the signal was taken; it may or may not have been told")]
    Lost,
    /// What was given is not what the protocol carries.
    #[error("{0}")]
    Invalid(String),
    /// There is a subscription to this channel already.
    #[error("this client is subscribed to {0} already")]
    AlreadySubscribed(String),
    /// The client has ended and will not connect again.
    #[error("the connection has ended: {0}")]
    Ended(End),
}

impl From<ErrorMessage> for ClientError {
    fn from(error: ErrorMessage) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl ClientError {
    /// The server's code, if this is a refusal by a code that this program knows.
    #[must_use]
    pub fn code(&self) -> Option<stormwire_core::ErrorCode> {
        match self {
            Self::Refused(error) => error.known(),
            _ => None,
        }
    }
}

/// Why a client does not connect again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The caller closed it.
    #[error("closed by its owner")]
    Closed,
    /// The server closed it with a code that says not to come back.
    #[error("the server closed with {code}: {reason}")]
    Server {
        /// The WebSocket close code.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// The server answered the upgrade with a status that says not to come back.
    #[error("the server answers HTTP {status} at {url}: {body}")]
    Http {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The configuration cannot work.
    #[error("{0}")]
    Configuration(String),
    /// No connection within [`crate::ClientConfig::connect_within`].
    #[error("no connection to {url} within {within:?}: {last}")]
    Unreachable {
        /// The last URL tried.
        url: String,
        /// How long it was tried.
        within: Duration,
        /// What went wrong last.
        last: String,
    },
}
