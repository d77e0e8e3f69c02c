//! A subscription: pages and streams as the messages of the protocol.

use super::web::{Refusal, Trouble};
use super::{Asked, Link, Outcome, Place, Since, parsed, told, unsupported};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use stormwire_core::Position;
use tokio::time::{sleep, timeout};

/// A stream that says nothing for so long after its beginning is held back on its way.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// A server says something on a stream every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a poll waits for its first event.
const WAIT: Duration = Duration::from_secs(25);
/// Events of one page.
const PAGE_EVENTS: u32 = 500;
/// Between two attempts where the server names no time.
const PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of a field: more than an event may have.
const FIELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page of a channel or of a pattern, read from REST and told as the protocol tells it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Page {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// Of a channel's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    events: Vec<Box<RawValue>>,
    more: bool,
    #[serde(skip_serializing)]
    next: Option<String>,
    #[serde(default)]
    gaps: Vec<GapEnds>,
}

#[derive(Debug, Deserialize, Serialize)]
struct GapEnds {
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u16>,
    #[serde(serialize_with = "as_place")]
    from: String,
    #[serde(serialize_with = "as_place")]
    to: String,
}

/// Where an event of a pattern belongs, and where any event is.
#[derive(Debug, Deserialize)]
struct Head {
    channel: Option<String>,
    epoch: Option<u32>,
    offset: u64,
}

#[derive(Serialize)]
struct Events<'a> {
    channel: &'a str,
    epoch: u32,
    events: [&'a RawValue; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

fn head_of(event: &RawValue) -> Result<Head, Trouble> {
    parsed(event.get().as_bytes())
}

fn place_of(text: &str) -> Option<Place> {
    let Position { epoch, offset } = text.parse().ok()?;
    Some(Place { epoch: epoch.0, offset: offset.0 })
}

fn as_place<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let wrong = || serde::ser::Error::custom(format!("{text:?} is not a position"));
    place_of(text).ok_or_else(wrong)?.serialize(serializer)
}

/// One subscription at work.
pub(super) struct Feed {
    link: Arc<Link>,
    asked: Asked,
    /// Where it stands, once the subscription is answered: a position, or a pattern's cursor.
    place: Option<String>,
}

impl Feed {
    pub(super) const fn new(link: Arc<Link>, asked: Asked) -> Self {
        Self { link, asked, place: None }
    }

    /// Tells what comes until the subscription or the connection ends.
    pub(super) async fn run(mut self) -> Outcome {
        let mut trouble = self.begin().await.err();
        loop {
            match trouble.take() {
                None => {}
                Some(Trouble::Refused(refusal)) if self.place.is_some() && refusal.temporary => {
                    let after = refusal.retry_after_ms.map_or(PAUSE, Duration::from_millis);
                    sleep(after).await;
                }
                Some(trouble) => {
                    let was_open = self.place.is_some();
                    let id = self.asked.id.filter(|_| !was_open);
                    self.link.refuse(id, trouble).await?;
                    if was_open {
                        let end = told("unsubscribed", None, &self.asked.named());
                        self.link.say(&[end]).await;
                    }
                    return Ok(());
                }
            }
            let read =
                if self.link.has_streams() { self.stream().await } else { self.poll().await };
            trouble = read.err();
        }
    }

    /// Finds out where to begin.
    async fn begin(&mut self) -> Result<(), Trouble> {
        if self.asked.presence {
            return Err(unsupported("membership needs a WebSocket"));
        }
        let is_pattern = self.asked.pattern.is_some();
        let place = match &self.asked.since {
            Some(Since::Position(place)) => place.to_string(),
            Some(Since::Cursor { cursor }) => cursor.clone(),
            Some(Since::Time { .. }) => {
                return Err(unsupported("a subscription that begins at a time needs a WebSocket"));
            }
            Some(Since::Last { .. }) if is_pattern => {
                let text = "since.last: a pattern has a cursor";
                return Err(Trouble::Refused(Refusal::new(
                    stormwire_core::ErrorCode::InvalidField,
                    text,
                )));
            }
            Some(Since::Last { last }) => {
                let page = self.page([("limit", Some(last.clamp(&1, &1_000).to_string()))]).await?;
                let Some(first) = page.events.first() else { return Ok(()) };
                let Head { offset, .. } = head_of(first)?;
                format!("{}:{}", page.epoch.unwrap_or(1), offset.saturating_sub(1))
            }
            // The stream says where it begins.
            None => return Ok(()),
        };
        self.begins_at(place).await;
        Ok(())
    }

    async fn begins_at(&mut self, place: String) {
        let id = self.asked.id;
        let mut at = match (&self.asked.pattern, place_of(&place)) {
            (None, Some(at)) => json!(at),
            _ => json!({ "cursor": place }),
        };
        at["recovered"] = true.into();
        if let (Some(at), serde_json::Value::Object(named)) =
            (at.as_object_mut(), self.asked.named())
        {
            at.extend(named);
        }
        self.place = Some(place);
        self.link.say(&[told("subscribed", id, &at)]).await;
    }

    async fn page<const N: usize>(
        &self,
        query: [(&str, Option<String>); N],
    ) -> Result<Page, Trouble> {
        let path = self.asked.path("events", query);
        let (_, body) = self.link.web.ask(Method::GET, &path, None, WAIT).await?;
        parsed(&body)
    }

    /// One long poll.
    async fn poll(&mut self) -> Result<(), Trouble> {
        let Some(place) = &self.place else {
            if self.asked.pattern.is_some() {
                return Err(unsupported("a pattern from now on needs a WebSocket or a stream"));
            }
            let page = self.page([("limit", Some("1".to_owned()))]).await?;
            let last = page.events.last().map(|event| head_of(event));
            let offset = last.transpose()?.map_or(0, |head| head.offset);
            self.begins_at(format!("{}:{offset}", page.epoch.unwrap_or(1))).await;
            return Ok(());
        };
        let query = [
            ("after", Some(place.clone())),
            ("limit", Some(PAGE_EVENTS.to_string())),
            ("wait", Some(WAIT.as_secs().to_string())),
        ];
        let page = self.page(query).await?;
        let next = page.next.clone().unwrap_or_else(|| place.clone());
        let messages = self.messages(&page, place, &next)?;
        self.place = Some(next);
        if !messages.is_empty() {
            self.link.say(&messages).await;
        }
        Ok(())
    }

    /// What a page says, so that a reader who stops at any of it stands where it has come to.
    fn messages(&self, page: &Page, place: &str, next: &str) -> Result<Vec<String>, Trouble> {
        if self.asked.pattern.is_some() {
            // A cursor says nothing of what lies within the page: until its last event, it is the old one.
            let at = if page.events.is_empty() { next } else { place };
            let mut messages: Vec<_> = page.gaps.iter().map(|gap| self.gap(gap, at)).collect();
            let last = page.events.len().saturating_sub(1);
            for (index, event) in page.events.iter().enumerate() {
                let at = Some(next).filter(|_| index == last);
                messages.push(self.event(event, &head_of(event)?, None, at));
            }
            return Ok(messages);
        }
        let epoch = page.epoch.unwrap_or(1);
        let mut messages = Vec::with_capacity(page.events.len() + page.gaps.len());
        for gap in &page.gaps {
            let to = place_of(&gap.to).map(|to| (to.epoch, to.offset)).unwrap_or_default();
            messages.push((to, self.gap(gap, next)));
        }
        for event in &page.events {
            let head = head_of(event)?;
            messages.push(((epoch, head.offset), self.event(event, &head, Some(epoch), None)));
        }
        messages.sort_by_key(|(at, _)| *at);
        Ok(messages.into_iter().map(|(_, message)| message).collect())
    }

    /// One stream, until it ends.
    async fn stream(&mut self) -> Result<(), Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(place) = self.place.as_deref().and_then(|place| place.parse().ok()) {
            headers.insert("last-event-id", place);
        }
        let path = self.asked.path("events", []);
        let open = self.link.web.open(Method::GET, &path, headers, None);
        let first = async {
            let mut body = open.await?.into_body();
            let frame = body.frame().await;
            Ok::<_, Trouble>((body, frame))
        };
        let Ok(opened) = timeout(FIRST_WORD, first).await else {
            // Held back on its way: others will be, too.
            self.link.streams.store(false, Ordering::Relaxed);
            return Ok(());
        };
        let (mut body, mut frame) = opened?;
        let mut fields = Fields::default();
        loop {
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(Trouble::Lost(error.to_string())),
                None => break,
            };
            let mut messages = Vec::new();
            for field in fields.read(&bytes)? {
                messages.extend(self.take(field).await?);
            }
            if !messages.is_empty() {
                self.link.say(&messages).await;
            }
            let Ok(next) = timeout(SILENCE_MAX, body.frame()).await else {
                return Err(Trouble::Lost(format!("a stream said nothing for {SILENCE_MAX:?}")));
            };
            frame = next;
        }
        sleep(PAUSE).await;
        Ok(())
    }

    /// A field of a stream, as a message.
    async fn take(&mut self, field: Field) -> Result<Option<String>, Trouble> {
        let Field { name, id, data } = field;
        if name == ":" {
            if self.place.is_none() {
                self.begins_at(data).await;
            }
            return Ok(None);
        }
        let Some(id) = id else {
            // What the server refuses, it says last.
            return Err(Trouble::Refused(parsed(data.as_bytes())?));
        };
        let message = if name == "gap" {
            self.gap(&parsed(data.as_bytes())?, &id)
        } else {
            let epoch = place_of(&id).map(|place| place.epoch);
            let event: Box<RawValue> = parsed(data.as_bytes())?;
            self.event(&event, &head_of(&event)?, epoch, Some(&id))
        };
        self.place = Some(id);
        Ok(Some(message))
    }

    fn event(&self, event: &RawValue, head: &Head, epoch: Option<u32>, at: Option<&str>) -> String {
        let pattern = self.asked.pattern.as_deref();
        let events = Events {
            channel: head.channel.as_deref().unwrap_or_else(|| self.asked.target()),
            epoch: head.epoch.or(epoch).unwrap_or(1),
            events: [event],
            pattern,
            cursor: at.filter(|_| pattern.is_some()),
        };
        told("events", None, &events)
    }

    fn gap(&self, gap: &GapEnds, at: &str) -> String {
        #[derive(Serialize)]
        struct Gap<'a> {
            #[serde(flatten)]
            named: serde_json::Value,
            #[serde(flatten)]
            ends: &'a GapEnds,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<&'a str>,
        }
        let cursor = Some(at).filter(|_| self.asked.pattern.is_some());
        told("gap", None, &Gap { named: self.asked.named(), ends: gap, cursor })
    }
}

/// One event of a stream; a comment that names a place is called `:`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Field {
    name: String,
    id: Option<String>,
    data: String,
}

/// Puts Server-Sent Events together as they come.
#[derive(Debug, Default)]
struct Fields {
    rest: Vec<u8>,
    field: Field,
    has_data: bool,
}

impl Fields {
    fn read(&mut self, bytes: &[u8]) -> Result<Vec<Field>, Trouble> {
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(end) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + end]).into_owned();
            from += end + 1;
            found.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..from);
        if self.rest.len() + self.field.data.len() > FIELD_BYTES_MAX {
            return Err(Trouble::Lost("a field of a stream is too large".to_owned()));
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) -> Option<Field> {
        let Some((name, value)) = line.split_once(':') else {
            let field = std::mem::take(&mut self.field);
            return std::mem::take(&mut self.has_data).then_some(field);
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" if !value.is_empty() && !value.contains(' ') => {
                return Some(Field { name: ":".to_owned(), id: None, data: value.to_owned() });
            }
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.field.data.push('\n');
                }
                self.field.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.field.name),
            "id" => self.field.id = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        let text = "retry: 2000\n: 1:0\n\nid: 1:4096\ndata: {\"a\":\ndata: 1}\n\n: \n\nid: 1:9\nevent: gap\ndata: {}\n\nevent: error\ndata: {\"code\":\"x\"}\n\n";
        let field = |name: &str, id: Option<&str>, data: &str| Field {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        let due = [
            field(":", None, "1:0"),
            field("", Some("1:4096"), "{\"a\":\n1}"),
            field("gap", Some("1:9"), "{}"),
            field("error", None, "{\"code\":\"x\"}"),
        ];
        for size in 1..text.len() {
            let mut fields = Fields::default();
            let parts = text.as_bytes().chunks(size);
            let found: Vec<_> = parts.flat_map(|part| fields.read(part).unwrap()).collect();
            assert_eq!(found, due, "in pieces of {size}");
        }
    }

    #[test]
    fn a_page_is_told_as_the_protocol_tells_it() {
        let page = r#"{"channel":"a:b","epoch":2,"events":[{"offset":7,"data":1.10}],"more":true,"next":"2:7","gaps":[{"from":"1:3","to":"2:1"}]}"#;
        let page: Page = serde_json::from_str(page).unwrap();
        let text = told("history", Some(3), &page);
        let due = r#"{"op":"history","id":3,"channel":"a:b","epoch":2,"events":[{"offset":7,"data":1.10}],"more":true,"gaps":[{"from":{"epoch":1,"offset":3},"to":{"epoch":2,"offset":1}}]}"#;
        assert_eq!(text, due);
    }
}
