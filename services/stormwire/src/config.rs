//! The configuration: text at the edge of the process, typed and checked values inside.
//!
//! `fields` is the one table, `kind` reads a field's text, `load` joins the layers, `document` writes
//! `docs/configuration.md`. Here the values become the [`Config`] that the roles are started with, and
//! what contradicts itself is refused.

mod document;
mod fields;
mod kind;
mod load;
mod providers;
#[cfg(test)]
mod tests;

pub(crate) use document::markdown;
pub(crate) use fields::{FIELDS, Profile};
pub(crate) use kind::{show_span, span};
pub(crate) use load::{ConfigError, Settings, Sources};

use kind::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use stormwire_archive::{Retention, Rule};
use stormwire_core::{Channel, PartitionCount, Pattern};
use stormwire_engine::{ArchiveUrl, EngineConfig, JournalUrl, LimitsUrl, PresenceUrl, UrlError};
use stormwire_identity::{ProviderConfig, Registration, SigningAlgorithm};
use stormwire_tokens::RoleRights;
use stormwire_web::{Network, TrustedProxies};

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) profile: Profile,
    pub(crate) name: Option<String>,
    pub(crate) listen: SocketAddr,
    pub(crate) management_listen: Option<SocketAddr>,
    pub(crate) data_dir: PathBuf,
    pub(crate) partitions: PartitionCount,
    pub(crate) shutdown_spread: Duration,
    pub(crate) engine: EngineConfig,
    pub(crate) journal_monitor_url: Option<String>,
    pub(crate) limits: LimitValues,
    pub(crate) auth: Auth,
    pub(crate) identity: IdentityValues,
    pub(crate) gateway: GatewayValues,
    pub(crate) messages: MessagesValues,
    pub(crate) log: Log,
}

/// Section `limits`.
#[derive(Debug, Clone)]
pub(crate) struct LimitValues {
    pub(crate) rest_requests_per_minute: u64,
    pub(crate) rest_requests_per_minute_ip: u64,
    pub(crate) events_per_second: u64,
    pub(crate) signals_per_second: u64,
    pub(crate) signals_per_second_channel: u64,
    pub(crate) signals_per_second_connection: u64,
    pub(crate) connections_per_ip: u64,
}

/// Section `auth`.
#[derive(Debug, Clone)]
pub(crate) struct Auth {
    /// `None` is the development key.
    pub(crate) jwks: Option<String>,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) channel_jwks: Option<String>,
    pub(crate) channel_issuer: String,
    pub(crate) user_claim: String,
    pub(crate) roles_claim: String,
    /// What roles grant.
    pub(crate) role_rights: BTreeMap<String, RoleRights>,
}

/// Section `identity`.
#[derive(Debug, Clone)]
pub(crate) struct IdentityValues {
    pub(crate) url: IdentityUrl,
    pub(crate) public_url: Option<String>,
    pub(crate) key_ring: Option<PathBuf>,
    pub(crate) algorithm: SigningAlgorithm,
    pub(crate) rotate_every: Duration,
    pub(crate) access_ttl: Duration,
    pub(crate) refresh_ttl: Duration,
    pub(crate) registration: Registration,
    pub(crate) publish: Vec<Pattern>,
    pub(crate) subscribe: Vec<Pattern>,
    pub(crate) mail_to_log: bool,
    pub(crate) hash_places: usize,
    pub(crate) providers: Vec<ProviderConfig>,
    pub(crate) return_urls: Vec<String>,
}

/// Who keeps accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentityUrl {
    /// Nobody.
    None,
    /// This process.
    Own,
    /// The service there.
    At(String),
}

/// Section `gateway`.
#[derive(Debug, Clone)]
pub(crate) struct GatewayValues {
    pub(crate) event_bytes_max: usize,
    pub(crate) linger: Duration,
    /// Whether the web app is served.
    pub(crate) app: bool,
    pub(crate) connections_max: usize,
    pub(crate) history_reads: usize,
    pub(crate) history_waiting: usize,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) trusted_proxies: TrustedProxies,
}

/// Section `messages`.
#[derive(Debug, Clone)]
pub(crate) struct MessagesValues {
    pub(crate) lease: Duration,
    pub(crate) batch_events: usize,
    pub(crate) recovery_window: Duration,
    pub(crate) retention: Retention,
}

/// Sections `log` and `telemetry`.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) pretty: bool,
    pub(crate) level: String,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) trace_ratio: f64,
}

impl Config {
    /// Joins the layers and checks them.
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        Self::new(&Settings::read(sources)?)
    }

    fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let get = Getter(settings);
        let mut problems = Vec::new();
        let data_dir = get.path("data_dir");
        let engine = get.engine(&data_dir, &mut problems);
        let partitions = u16::try_from(get.count("partitions")).ok().and_then(PartitionCount::new);
        let config = Self {
            profile: settings.profile,
            name: get.optional("name"),
            listen: get
                .address("listen")
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            management_listen: get.address("management_listen"),
            data_dir,
            partitions: partitions.unwrap_or(PartitionCount::DEFAULT),
            shutdown_spread: get.span("shutdown_spread"),
            engine,
            journal_monitor_url: get.optional("journal.monitor_url"),
            limits: LimitValues {
                rest_requests_per_minute: get.count("limits.rest_requests_per_minute"),
                rest_requests_per_minute_ip: get.count("limits.rest_requests_per_minute_ip"),
                events_per_second: get.count("limits.events_per_second"),
                signals_per_second: get.count("limits.signals_per_second"),
                signals_per_second_channel: get.count("limits.signals_per_second_channel"),
                signals_per_second_connection: get.count("limits.signals_per_second_connection"),
                connections_per_ip: get.count("limits.connections_per_ip"),
            },
            auth: Auth {
                jwks: get.optional("auth.jwks"),
                issuer: get.text("auth.issuer"),
                audience: get.text("auth.audience"),
                channel_jwks: get.optional("auth.channel_jwks"),
                channel_issuer: get.text("auth.channel_issuer"),
                user_claim: get.text("auth.user_claim"),
                roles_claim: get.text("auth.roles_claim"),
                role_rights: providers::role_rights(&get, &mut problems),
            },
            identity: get.identity(&mut problems),
            gateway: GatewayValues {
                event_bytes_max: get.size("gateway.event_bytes_max"),
                linger: get.span("gateway.linger"),
                app: get.text("gateway.app") == "yes",
                connections_max: get.size("gateway.connections_max"),
                history_reads: get.size("gateway.history_reads"),
                history_waiting: get.size("gateway.history_waiting"),
                cors_origins: get.list("gateway.cors_origins"),
                trusted_proxies: get.networks("gateway.trusted_proxies", &mut problems),
            },
            messages: MessagesValues {
                lease: get.span("messages.lease"),
                batch_events: get.size("messages.batch_events"),
                recovery_window: get.span("messages.recovery_window"),
                retention: retention(&get, &mut problems),
            },
            log: Log {
                pretty: get.text("log.format") == "pretty",
                level: get.text("log.level"),
                otlp_endpoint: get.optional("telemetry.otlp_endpoint"),
                trace_ratio: f64::from(
                    u32::try_from(get.count("telemetry.trace_ratio")).unwrap_or(0),
                ) / 1000.0,
            },
        };
        config.contradictions(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// What each field allows and all together do not.
    fn contradictions(&self, problems: &mut Vec<String>) {
        let shared = matches!(self.engine.journal, JournalUrl::Nats(_));
        if shared && self.engine.archive == ArchiveUrl::Sqlite {
            problems.push("archive.url = \"sqlite:\": a journal that processes share (nats://) needs an archive that they share: expected postgres://… (DATABASE_URL)".to_owned());
        }
        if self.engine.archive_replica_keeps_all && self.engine.archive_replica_url.is_none() {
            problems.push("archive.replica_keeps_all = \"yes\": expected archive.replica_url, the replica that keeps all".to_owned());
        }
        if self.engine.journal_replicas.is_multiple_of(2) {
            let replicas = self.engine.journal_replicas;
            problems.push(format!(
                "journal.replicas = {replicas}: expected 1, 3 or 5, a number with a majority"
            ));
        }
        if self.profile != Profile::Production {
            return;
        }
        if self.auth.jwks.is_none() && self.identity.url == IdentityUrl::None {
            problems.push("auth.jwks is empty, which is the development key: production expects a file or a URL with the public keys of your identity provider, or accounts of its own (identity.url)".to_owned());
        }
        for provider in self.identity.providers.iter().filter(|one| !providers::is_private(one)) {
            let name = &provider.name;
            problems.push(format!("providers.{name} is reached over http://: production expects https://, since whoever is between could sign in as anybody"));
        }
        if !self.identity.providers.is_empty() && self.identity.public_url.is_none() {
            problems.push("identity.public_url is empty: production expects the https:// URL to which providers send browsers back".to_owned());
        }
        if self.identity.mail_to_log {
            problems.push("identity.mail = \"log:\": production expects that what mails say is not in the log".to_owned());
        }
        if self.gateway.cors_origins.iter().any(|origin| origin == "*") {
            problems.push(
                "gateway.cors_origins = \"*\": production expects the origins by name".to_owned(),
            );
        }
        if shared && self.engine.journal_replicas < 3 {
            problems.push("journal.replicas = 1: production expects 3 copies, so that an acknowledged event survives a machine".to_owned());
        }
    }

    /// Whether several processes can work on the same journal.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.engine.journal, JournalUrl::Nats(_))
    }
}

/// The default rule, and those of the namespaces that have their own.
fn retention(get: &Getter<'_>, problems: &mut Vec<String>) -> Retention {
    let mut retention = Retention {
        default: Rule { age: get.age("retention.age"), bytes: get.bound("retention.bytes") },
        namespaces: BTreeMap::new(),
    };
    for (key, name, value, origin) in get.0.named() {
        if !key.starts_with("namespaces.") {
            continue;
        }
        if Channel::parse(&format!("{name}:any")).is_err() {
            let key = key.replace('*', name);
            problems.push(format!("{origin}: {key}: expected a namespace in the place of {name:?}, 1 to 64 bytes of A-Z a-z 0-9 _ . ~ -"));
            continue;
        }
        let rule = retention.namespaces.entry(name.to_owned()).or_insert(retention.default);
        match (key, value) {
            ("namespaces.*.retention_age", value) => rule.age = age(value),
            ("namespaces.*.retention_bytes", value) => rule.bytes = bound(value),
            _ => {}
        }
    }
    retention
}

const fn age(value: &Value) -> Option<Duration> {
    match value {
        Value::Span(span) => Some(*span),
        _ => None,
    }
}

const fn bound(value: &Value) -> Option<u64> {
    match value {
        Value::Count(count) => Some(*count),
        _ => None,
    }
}

/// Takes values out of the settings. The table's test proves that each key exists with its kind, so a
/// default stands in for what cannot be.
struct Getter<'a>(&'a Settings);

impl Getter<'_> {
    fn engine(&self, data_dir: &Path, problems: &mut Vec<String>) -> EngineConfig {
        // What is not said follows the limits: both want what all gateways share.
        let presence_key = match self.optional("presence.url") {
            Some(_) => "presence.url",
            None => "limits.url",
        };
        EngineConfig {
            name: "stormwire".to_owned(),
            data_dir: data_dir.to_owned(),
            journal: self.url("journal.url", problems).unwrap_or(JournalUrl::Sqlite),
            journal_replicas: u8::try_from(self.count("journal.replicas")).unwrap_or(u8::MAX),
            journal_bytes_max: self.count("journal.bytes_max"),
            journal_tables_bytes_max: self.count("journal.tables_bytes_max"),
            archive: self.url("archive.url", problems).unwrap_or(ArchiveUrl::Sqlite),
            archive_replica_url: self.optional("archive.replica_url"),
            archive_replica_keeps_all: self.text("archive.replica_keeps_all") == "yes",
            archive_connections: u32::try_from(self.count("archive.connections"))
                .unwrap_or(u32::MAX),
            migrate_at_start: true,
            limits: self.url("limits.url", problems).unwrap_or(LimitsUrl::Local),
            presence: self.url(presence_key, problems).unwrap_or(PresenceUrl::Local),
        }
    }

    fn value(&self, key: &'static str) -> Option<&Value> {
        self.0.get(key).map(|(value, _)| value)
    }

    fn text(&self, key: &'static str) -> String {
        match self.value(key) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    fn optional(&self, key: &'static str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    fn url<T: FromStr<Err = UrlError>>(
        &self,
        key: &'static str,
        problems: &mut Vec<String>,
    ) -> Option<T> {
        let parsed = self.text(key).parse();
        parsed
            .map_err(|error| problems.push(format!("{}: {key}: {error}", self.0.origin(key))))
            .ok()
    }

    fn path(&self, key: &'static str) -> PathBuf {
        match self.value(key) {
            Some(Value::Path(path)) => path.clone(),
            _ => PathBuf::new(),
        }
    }

    fn address(&self, key: &'static str) -> Option<SocketAddr> {
        match self.value(key) {
            Some(Value::Address(address)) => *address,
            _ => None,
        }
    }

    fn count(&self, key: &'static str) -> u64 {
        match self.value(key) {
            Some(Value::Count(count)) => *count,
            _ => 0,
        }
    }

    fn size(&self, key: &'static str) -> usize {
        usize::try_from(self.count(key)).unwrap_or(usize::MAX)
    }

    fn span(&self, key: &'static str) -> Duration {
        match self.value(key) {
            Some(Value::Span(span)) => *span,
            _ => Duration::ZERO,
        }
    }

    /// Section `identity`.
    fn identity(&self, problems: &mut Vec<String>) -> IdentityValues {
        IdentityValues {
            url: match self.optional("identity.url") {
                None => IdentityUrl::None,
                Some(url) if url == "self:" => IdentityUrl::Own,
                Some(url) => IdentityUrl::At(url),
            },
            public_url: self.optional("identity.public_url"),
            key_ring: self.optional("identity.key_ring").map(PathBuf::from),
            algorithm: SigningAlgorithm::parse(&self.text("identity.algorithm"))
                .unwrap_or(SigningAlgorithm::Rs256),
            rotate_every: self.span("identity.rotate_every"),
            access_ttl: self.span("identity.access_ttl"),
            refresh_ttl: self.span("identity.refresh_ttl"),
            registration: match self.text("identity.registration").as_str() {
                "open" => Registration::Open,
                _ => Registration::Closed,
            },
            publish: self.patterns("identity.publish", problems),
            subscribe: self.patterns("identity.subscribe", problems),
            mail_to_log: self.optional("identity.mail").is_some(),
            hash_places: self.size("identity.hash_places"),
            providers: providers::providers(self, problems),
            return_urls: self.list("identity.return_urls"),
        }
    }

    fn patterns(&self, key: &'static str, problems: &mut Vec<String>) -> Vec<Pattern> {
        let parse = |text: String| {
            let parsed = Pattern::parse(&text);
            parsed
                .map_err(|error| problems.push(format!("{}: {key}: {error}", self.0.origin(key))))
                .ok()
        };
        self.list(key).into_iter().filter_map(parse).collect()
    }

    fn networks(&self, key: &'static str, problems: &mut Vec<String>) -> TrustedProxies {
        let parse = |text: String| {
            let parsed: Result<Network, _> = text.parse();
            parsed
                .map_err(|error| problems.push(format!("{}: {key}: {error}", self.0.origin(key))))
                .ok()
        };
        TrustedProxies::new(self.list(key).into_iter().filter_map(parse).collect())
    }

    fn age(&self, key: &'static str) -> Option<Duration> {
        self.value(key).and_then(age)
    }

    fn bound(&self, key: &'static str) -> Option<u64> {
        self.value(key).and_then(bound)
    }

    fn list(&self, key: &'static str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }
}
