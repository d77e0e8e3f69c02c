//! The messages of `proto/stormwire.v1.proto`, as structs. What each field means is said there.
#![expect(missing_docs, reason = "the .proto file says what each field means")]

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct ClientMessage {
    #[prost(message, repeated, tag = "1")]
    pub requests: Vec<Request>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(oneof = "RequestId", tags = "1, 2")]
    pub id: Option<RequestId>,
    #[prost(oneof = "RequestOp", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub op: Option<RequestOp>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum RequestId {
    #[prost(int64, tag = "1")]
    Number(i64),
    #[prost(string, tag = "2")]
    Text(String),
}

#[derive(Clone, PartialEq, Oneof)]
pub enum RequestOp {
    #[prost(message, tag = "3")]
    Connect(Connect),
    #[prost(message, tag = "4")]
    Subscribe(Subscribe),
    #[prost(message, tag = "5")]
    Publish(Publish),
    #[prost(message, tag = "6")]
    Signal(Signal),
    #[prost(message, tag = "7")]
    History(History),
    #[prost(message, tag = "8")]
    Presence(Presence),
    #[prost(message, tag = "9")]
    Unsubscribe(Unsubscribe),
    #[prost(message, tag = "10")]
    Refresh(Refresh),
    #[prost(message, tag = "11")]
    Ping(Ping),
}

#[derive(Clone, PartialEq, Message)]
pub struct Connect {
    #[prost(string, optional, tag = "1")]
    pub token: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub producer: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Subscribe {
    #[prost(string, repeated, tag = "1")]
    pub channels: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub pattern: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub since: Option<Since>,
    #[prost(enumeration = "Mode", tag = "4")]
    pub mode: i32,
    #[prost(bool, tag = "5")]
    pub presence: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Since {
    #[prost(oneof = "SincePoint", tags = "1, 2, 3, 4")]
    pub since: Option<SincePoint>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum SincePoint {
    #[prost(message, tag = "1")]
    Position(Position),
    #[prost(int64, tag = "2")]
    Time(i64),
    #[prost(uint32, tag = "3")]
    Last(u32),
    #[prost(string, tag = "4")]
    Cursor(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct Position {
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Mode {
    All = 0,
    Latest = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Receipt {
    Journal = 0,
    Archive = 1,
}

#[derive(Clone, PartialEq, Message)]
pub struct Publish {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint64, optional, tag = "2")]
    pub seq: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub again: Option<u64>,
    #[prost(enumeration = "Receipt", tag = "4")]
    pub receipt: i32,
    #[prost(message, repeated, tag = "5")]
    pub events: Vec<PublishEvent>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PublishEvent {
    #[prost(string, optional, tag = "1")]
    pub kind: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub id: Option<String>,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub binary: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(bool, tag = "3")]
    pub binary: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct History {
    #[prost(oneof = "HistoryPoint", tags = "2, 3, 5, 6")]
    pub page: Option<HistoryPoint>,
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum HistoryPoint {
    #[prost(message, tag = "2")]
    Before(Position),
    #[prost(message, tag = "3")]
    After(Position),
    #[prost(string, tag = "5")]
    Key(String),
    #[prost(string, tag = "6")]
    KeysAfter(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct Presence {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(string, optional, tag = "2")]
    pub after: Option<String>,
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Unsubscribe {
    #[prost(string, repeated, tag = "1")]
    pub channels: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub pattern: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Refresh {
    #[prost(string, tag = "1")]
    pub token: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ping {}

#[derive(Clone, PartialEq, Message)]
pub struct ServerMessages {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<ServerMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ServerMessage {
    #[prost(oneof = "RequestId", tags = "1, 2")]
    pub id: Option<RequestId>,
    #[prost(
        oneof = "ServerMessageOp",
        tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17"
    )]
    pub op: Option<ServerMessageOp>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum ServerMessageOp {
    #[prost(message, tag = "3")]
    Connected(Connected),
    #[prost(message, tag = "4")]
    Subscribed(Subscribed),
    #[prost(message, tag = "5")]
    Published(Published),
    #[prost(message, tag = "6")]
    Events(Events),
    #[prost(message, tag = "7")]
    Gap(Gap),
    #[prost(message, tag = "8")]
    History(HistoryPage),
    #[prost(message, tag = "9")]
    Presence(Members),
    #[prost(message, tag = "10")]
    Joined(MemberChange),
    #[prost(message, tag = "11")]
    Left(MemberChange),
    #[prost(message, tag = "12")]
    Signal(Signalled),
    #[prost(message, tag = "13")]
    Unsubscribed(Unsubscribed),
    #[prost(message, tag = "14")]
    Refreshed(Refreshed),
    #[prost(message, tag = "15")]
    Pong(Pong),
    #[prost(message, tag = "16")]
    Moving(Moving),
    #[prost(message, tag = "17")]
    Error(Error),
}

#[derive(Clone, PartialEq, Message)]
pub struct Connected {
    #[prost(string, tag = "1")]
    pub session: String,
    #[prost(string, tag = "2")]
    pub user: String,
    #[prost(uint64, tag = "3")]
    pub heartbeat_ms: u64,
    #[prost(message, optional, tag = "4")]
    pub limits: Option<ConnectedLimits>,
    #[prost(int64, tag = "5")]
    pub server_time: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ConnectedLimits {
    #[prost(uint32, tag = "1")]
    pub unacked: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Subscribed {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(bool, tag = "4")]
    pub recovered: bool,
    #[prost(string, optional, tag = "5")]
    pub pattern: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub cursor: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Published {
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint64, tag = "3")]
    pub last: u64,
    #[prost(int64, tag = "4")]
    pub server_time: i64,
    #[prost(bool, tag = "5")]
    pub duplicate: bool,
    #[prost(uint32, tag = "6")]
    pub dead_letters: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Events {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    #[prost(message, repeated, tag = "3")]
    pub events: Vec<Event>,
    #[prost(string, optional, tag = "4")]
    pub cursor: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub pattern: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    #[prost(int64, tag = "2")]
    pub ts: i64,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(string, optional, tag = "4")]
    pub kind: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub key: Option<String>,
    #[prost(string, tag = "6")]
    pub from: String,
    #[prost(bytes = "vec", tag = "7")]
    pub data: Vec<u8>,
    #[prost(bool, tag = "8")]
    pub binary: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Gap {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(message, optional, tag = "2")]
    pub from: Option<Position>,
    #[prost(message, optional, tag = "3")]
    pub to: Option<Position>,
    #[prost(string, optional, tag = "4")]
    pub pattern: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub cursor: Option<String>,
    #[prost(uint32, optional, tag = "6")]
    pub partition: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Stretch {
    #[prost(message, optional, tag = "1")]
    pub from: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub to: Option<Position>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HistoryPage {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    #[prost(message, repeated, tag = "3")]
    pub events: Vec<Event>,
    #[prost(bool, tag = "4")]
    pub more: bool,
    #[prost(message, repeated, tag = "5")]
    pub gaps: Vec<Stretch>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Member {
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(string, tag = "2")]
    pub session: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Members {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
    #[prost(uint64, tag = "3")]
    pub version: u64,
    #[prost(uint64, tag = "4")]
    pub users: u64,
    #[prost(uint64, tag = "5")]
    pub sessions: u64,
    #[prost(string, optional, tag = "6")]
    pub next: Option<String>,
    #[prost(bool, tag = "7")]
    pub partial: bool,
    #[prost(bool, tag = "8")]
    pub resync: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct MemberChange {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(uint64, tag = "2")]
    pub since: u64,
    #[prost(uint64, tag = "3")]
    pub version: u64,
    #[prost(uint64, tag = "4")]
    pub users: u64,
    #[prost(uint64, tag = "5")]
    pub sessions: u64,
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<Member>,
    #[prost(bool, tag = "7")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Signalled {
    #[prost(string, tag = "1")]
    pub channel: String,
    #[prost(string, tag = "2")]
    pub from: String,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub binary: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Unsubscribed {
    #[prost(string, tag = "1")]
    pub target: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Refreshed {
    #[prost(uint64, tag = "1")]
    pub expires_in_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pong {
    #[prost(int64, tag = "1")]
    pub server_time: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Moving {
    #[prost(uint64, tag = "1")]
    pub reconnect_after_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Error {
    #[prost(string, tag = "1")]
    pub code: String,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(bool, tag = "3")]
    pub temporary: bool,
    #[prost(uint64, optional, tag = "4")]
    pub retry_after_ms: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub expected: Option<u64>,
}
