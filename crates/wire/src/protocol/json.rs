//! The JSON codec: one pass over the text, no tree.

mod decode;
mod decode_server;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod write;

pub use decode::Requests;
pub(crate) use decode::{Problem, attribute, base64, push_data};
pub use decode_server::server_messages;

use scan::Scanner;
use stormwire_core::{ErrorCode, Refusal};

/// Checks that `text` is exactly one JSON value, nested at most [`super::DEPTH_MAX`] deep, and gives it
/// back without the white space around it.
///
/// # Errors
/// `malformed`, naming the byte.
pub fn check(text: &str) -> Result<&str, Refusal> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value().and_then(|value| scanner.end().map(|()| value));
    value.map_err(malformed)
}

pub(crate) fn malformed(error: scan::SyntaxError) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("this is not JSON: {error}"))
}
