//! The description of the REST surface, OpenAPI 3.1, made from the handlers and the table of codes.

use axum::Router;
use axum::routing::get;
use stormwire_core::ErrorCode;
use stormwire_web::{described, json};
use utoipa::openapi::{ComponentsBuilder, OpenApi, OpenApiBuilder};
use utoipa::{ToResponse, ToSchema};

/// A refusal, RFC 9457.
#[derive(ToSchema, ToResponse)]
#[response(
    description = "A refusal: application/problem+json",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct Problem {
    /// `urn:stormwire:error:` and the code.
    r#type: String,
    /// What the code means.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what to do.
    detail: String,
    /// What a program branches on; see docs/errors.md.
    code: String,
    /// The code again.
    error: String,
    /// The detail again.
    message: String,
    /// Whether the same request may succeed later.
    temporary: bool,
    /// Finds the request in the server's logs.
    request_id: String,
    /// When to come back.
    retry_after_ms: Option<u64>,
}

/// Events of one channel, ascending.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct Page {
    channel: String,
    /// The journal's incarnation that all of these events are of.
    epoch: u32,
    events: Vec<Event>,
    /// Whether there is more in the direction that was asked for.
    more: bool,
    /// Where the next page begins: `after` or `before`, as it was asked for.
    next: Option<String>,
    /// Stretches that are missing and always will be.
    gaps: Option<Vec<Gap>>,
}

/// Events of all channels that a pattern matches: of each channel in order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct PatternPage {
    pattern: String,
    events: Vec<PlacedEvent>,
    /// Whether there is more already.
    more: bool,
    /// The cursor where the next page begins: `after`.
    next: String,
    /// Stretches of the log that are missing and always will be.
    gaps: Option<Vec<PlacedGap>>,
}

/// An event that names its channel.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct PlacedEvent {
    channel: String,
    /// The journal's incarnation.
    epoch: u32,
    #[serde(flatten)]
    event: Event,
}

/// A page of a channel or of a pattern.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) enum Pages {
    /// Of a channel.
    Channel(Page),
    /// Of a pattern.
    Pattern(PatternPage),
}

/// The newest events, of one key or of several.
#[derive(ToSchema)]
#[schema(as = LatestEvents)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct LatestPage {
    channel: String,
    epoch: u32,
    /// One, none, or one a key, ascending by key.
    events: Vec<Event>,
    more: bool,
    /// `keys_after` of the next page, if there is more.
    next: Option<String>,
}

/// A stretch that is missing.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct Gap {
    /// `epoch:offset`.
    from: String,
    /// `epoch:offset`.
    to: String,
}

/// A stretch that is missing of one partition, which holds some of the channels.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct PlacedGap {
    partition: u32,
    /// `epoch:offset`.
    from: String,
    /// `epoch:offset`.
    to: String,
}

/// A stored event.
#[derive(ToSchema)]
#[schema(as = StoredEvent)]
#[expect(dead_code, reason = "describes what wire writes")]
pub(crate) struct Event {
    offset: u64,
    /// When the journal took it, Unix milliseconds.
    ts: i64,
    /// The publisher's, else `partition-epoch-offset`.
    id: String,
    r#type: Option<String>,
    key: Option<String>,
    /// The user who published it.
    from: String,
    /// The JSON that was published, byte for byte.
    data: Option<serde_json::Value>,
    /// In place of `data`: bytes.
    data_base64: Option<String>,
}

/// The whole document.
pub(super) fn document(parts: impl IntoIterator<Item = OpenApi>) -> OpenApi {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let description = format!(
        "Publish events to channels and read them. Every refusal is a problem (RFC 9457) with one of \
         these codes: {}. Every answer carries X-Request-ID.",
        codes.join(", ")
    );
    let (problem, response) = <Problem as ToResponse<'_>>::response();
    let components = ComponentsBuilder::new().response(problem, response).build();
    let mut document = OpenApiBuilder::new().components(Some(components)).build();
    parts.into_iter().for_each(|part| document.merge(part));
    described(document, "Stormwire", description)
}

pub(super) fn router(document: OpenApi) -> Router {
    // A description that cannot be written is a bug of this program, found by its test.
    let text = document.to_json().unwrap_or_default();
    Router::new().route("/v1/openapi.json", get(move || async move { json(text) }))
}
