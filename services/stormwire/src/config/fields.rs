//! The one table of fields. Reading, messages, `docs/configuration.md` and `stormwire.toml`'s checks are
//! all made from it.

use super::kind::Kind;
use std::time::Duration;

/// Which defaults apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// One machine, readable logs, a key made on the spot.
    Development,
    /// As production, with more to see.
    Staging,
    /// Nothing that is only good enough for trying out.
    Production,
}

impl Profile {
    /// All, in the order of [`Field::defaults`].
    pub(crate) const ALL: [Self; 3] = [Self::Development, Self::Staging, Self::Production];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// The profile of that name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == text)
    }
}

/// One field of the configuration.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in the file, sections divided by dots; a `*` stands for a name that is given there.
    pub(crate) key: &'static str,
    /// What it may hold.
    pub(crate) kind: Kind,
    /// Its text where nothing is set: development, staging, production.
    pub(crate) defaults: [&'static str; 3],
    /// Other variables that set it, each weaker than its own.
    pub(crate) also: &'static [&'static str],
    /// Whether its text may hold a password.
    pub(crate) secret: bool,
    /// What it does, for the document.
    pub(crate) doc: &'static str,
}

impl Field {
    /// The name that stands in `key` in the place of this field's `*`, if it is this field's key.
    pub(crate) fn name_in<'k>(&self, key: &'k str) -> Option<&'k str> {
        let (before, after) = self.key.split_once('*')?;
        key.strip_prefix(before)?.strip_suffix(after).filter(|name| !name.is_empty())
    }

    /// Whether it is set for names, in the file alone.
    pub(crate) fn is_named(&self) -> bool {
        self.key.contains('*')
    }

    /// Its variable in the environment.
    pub(crate) fn variable(&self) -> String {
        format!("STORMWIRE_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// Its flag, where the command line has one.
    pub(crate) fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// Its text where nothing is set.
    pub(crate) const fn default_in(&self, profile: Profile) -> &'static str {
        self.defaults[profile as usize]
    }

    /// What a common variable's text means for this field: `PORT` is a port alone, for all addresses.
    pub(crate) fn adapt(&self, variable: &str, text: &str) -> String {
        if variable == "PORT" { format!("0.0.0.0:{text}") } else { text.to_owned() }
    }
}

const fn field(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Field {
    Field { key, kind, defaults: [default; 3], also: &[], secret: false, doc }
}

impl Field {
    const fn per_profile(mut self, defaults: [&'static str; 3]) -> Self {
        self.defaults = defaults;
        self
    }

    const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max, optional: false }
}

const fn span(min_ms: u64, max_ms: u64) -> Kind {
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    Kind::Span { min, max, optional: false }
}

/// How old events may become; empty is for ever.
const AGE: Kind = Kind::Span {
    min: Duration::from_millis(MINUTE),
    max: Duration::from_millis(36_500 * 24 * HOUR),
    optional: true,
};
/// How many bytes events may take; empty is without a bound.
const BYTES: Kind = Kind::Size { min: MIB, max: 1 << 60, optional: true };

const fn url(schemes: &'static [&'static str], optional: bool) -> Kind {
    Kind::Url { schemes, optional }
}

const TEXT: Kind = Kind::Text { optional: false };
const OPTIONAL: Kind = Kind::Text { optional: true };
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Every field, in the order of the document.
pub(crate) const FIELDS: &[Field] = &[
    field("profile", Kind::Choice(&["development", "staging", "production"]), "development",
        "Which defaults apply. Production refuses what is only good enough for trying out: the development key, a journal that is not replicated when it is shared, every origin in CORS."),
    field("name", OPTIONAL, "",
        "The name of this process among its peers, the same at every start. Empty: the host's name."),
    field("listen", Kind::Address { optional: false }, "127.0.0.1:8080",
        "Where clients connect: WebSocket and REST. `PORT` alone means that port on all addresses.")
        .per_profile(["127.0.0.1:8080", "0.0.0.0:8080", "0.0.0.0:8080"]).also(&["PORT"]),
    field("management_listen", Kind::Address { optional: true }, "",
        "Where probes and metrics are served as well, out of reach of clients. Empty: nowhere for a gateway; `stormwire messages` takes 127.0.0.1:9090.")
        .per_profile(["", "0.0.0.0:9090", "0.0.0.0:9090"]),
    field("data_dir", Kind::Path, "stormwire-data",
        "The folder of the embedded engine and of the development key. One process at a time."),
    field("partitions", count(1, 64), "16",
        "How many partitions the cluster has. The same in every process, fixed for the cluster's life."),
    field("shutdown_spread", span(0, HOUR), "5s",
        "Over how long the connections are told to move when the process is asked to end.")
        .per_profile(["1s", "5s", "30s"]),

    field("journal.url", url(&["sqlite:", "nats://", "tls://"], false), "sqlite:",
        "The short durable log: `sqlite:` is a file in `data_dir`, `nats://host:4222,nats://other:4222` is JetStream.")
        .also(&["NATS_URL"]).secret(),
    field("journal.monitor_url", url(&["http://", "https://"], true), "",
        "The monitoring address of a NATS server, as in http://nats:8222; `stormwire doctor` reads version and sync settings there."),
    field("journal.replicas", count(1, 5), "1",
        "Copies of every JetStream stream: 1, 3 or 5. Production wants 3.")
        .per_profile(["1", "1", "3"]),
    field("journal.bytes_max", size(16 * MIB, 1024 * GIB), "1GiB",
        "Bytes of one partition's log; from half of it on the worker trims what is persisted, at the bound publishes are refused.")
        .per_profile(["256MiB", "1GiB", "1GiB"]),
    field("journal.tables_bytes_max", size(64 * MIB, 64 * GIB), "512MiB",
        "Bytes that JetStream reserves for what the gateways remember of producers, all partitions together: twice what that takes in their memory.")
        .per_profile(["128MiB", "512MiB", "512MiB"]),
    field("archive.url", url(&["sqlite:", "postgres://", "postgresql://"], false), "sqlite:",
        "The long store: `sqlite:` is a file in `data_dir`, `postgres://user:password@host/database` is Postgres. Of several hosts, `postgres://user:password@one,two/database`, the one that takes writes is used; when it is promoted, another one.")
        .also(&["DATABASE_URL"]).secret(),
    field("archive.replica_url", url(&["postgres://", "postgresql://"], true), "",
        "A streaming replica of the archive, one host, for reads of history; where it is away or too far behind, the primary is read. Empty: always the primary.").secret(),
    field("archive.replica_keeps_all", Kind::Choice(&["no", "yes"]), "no",
        "Whether the journal keeps what the replica does not have yet. For a replica that Postgres waits for (`synchronous_standby_names`) and that is promoted when the primary is lost: nothing is lost with it then. While the replica is away the journal grows, up to its bound."),
    field("archive.connections", count(2, 500), "20",
        "Most connections to the archive from this process."),
    field("limits.url", url(&["local:", "redis://", "rediss://"], false), "local:",
        "Who counts limits: `local:` this process alone, `redis://host:6379` all gateways together.")
        .also(&["REDIS_URL"]).secret(),
    field("limits.rest_requests_per_minute", count(1, 1_000_000_000), "1000",
        "REST requests of one user in a minute."),
    field("limits.rest_requests_per_minute_ip", count(1, 1_000_000_000), "10000",
        "REST requests of one address (IPv6: its /64) in a minute."),
    field("limits.events_per_second", count(1, 1_000_000_000), "1000",
        "Events that one user publishes over WebSocket in a second, unless the token says otherwise."),
    field("limits.connections_per_ip", count(1, 1_000_000), "20000",
        "WebSocket connections of one address (IPv6: its /64) to one gateway."),

    field("limits.signals_per_second", count(1, 1_000_000_000), "100",
        "Signals of one user in a second, unless the token says otherwise; they are counted apart from events."),
    field("limits.signals_per_second_channel", count(1, 1_000_000_000), "1000",
        "Signals on one channel in a second, each of which goes to all of its subscribers."),
    field("limits.signals_per_second_connection", count(1, 1_000_000), "50",
        "Signals of one connection in a second."),

    field("presence.url", url(&["local:", "redis://", "rediss://"], true), "",
        "Who knows who is there: `local:` this process its own connections, `redis://host:6379` all gateways together. Empty: as `limits.url`. Gateways of a cluster with `local:` each answer with their own members, marked `partial`.")
        .secret(),

    field("auth.jwks", OPTIONAL, "",
        "The public keys that sign tokens: a file or an https:// URL of a JWKS, or the URL of a provider's `/.well-known/openid-configuration`, which names its JWKS and must name `auth.issuer`. Empty: the development key in `data_dir`, refused in production."),
    field("auth.issuer", TEXT, "stormwire", "What a token's `iss` must say."),
    field("auth.audience", TEXT, "stormwire", "What a token's `aud` must hold."),
    field("auth.user_claim", TEXT, "sub", "The claim that names the user; names divided by dots lead into it."),
    field("auth.roles_claim", TEXT, "roles",
        "The claim with the roles, a list or a text divided by spaces: `realm_access.roles` for Keycloak."),
    field("auth.channel_jwks", OPTIONAL, "",
        "The public keys with which your application's backend signs channel tokens: a file or an https:// URL of a JWKS. Empty: there are none."),
    field("auth.channel_issuer", TEXT, "application",
        "What a channel token's `iss` must say. Its `aud` is `auth.audience` with `:channel` behind it."),

    field("identity.url", url(&["self:", "http://", "https://"], true), "",
        "Who keeps accounts and signs tokens: `self:` is this process (the server without a command; a role of a cluster takes it for nobody), `http://identity:8080` the service to which gateways forward `/v1/auth/*`, `/v1/admin/users/*` and `/.well-known/*` and whose keys and revocations they trust, unless `auth.jwks` names others. Empty: nobody.")
        .per_profile(["self:", "", ""]),
    field("identity.public_url", url(&["http://", "https://"], true), "",
        "Where clients reach the routes under `/v1/auth/` and `/.well-known/`, for the discovery document. Empty: where the request was sent."),
    field("identity.key_ring", OPTIONAL, "",
        "The file of the keys that seal mail addresses and signing keys, the same for all identity processes; see docs/identity.md. Empty: `identity-keys` in `data_dir`, made at the first start; `stormwire identity` in production wants it named."),
    field("identity.algorithm", Kind::Choice(&["RS256", "ES256", "EdDSA"]), "RS256",
        "How tokens are signed."),
    field("identity.rotate_every", span(HOUR, 366 * 24 * HOUR), "30d",
        "How often a new signing key is made. It is published ten minutes before it signs, and its predecessor until nothing that it signed is valid."),
    field("identity.access_ttl", span(MINUTE, 24 * HOUR), "15m", "How long an access token is valid."),
    field("identity.refresh_ttl", span(HOUR, 366 * 24 * HOUR), "7d",
        "How long a refresh token is valid; each is good once."),
    field("identity.registration", Kind::Choice(&["open", "closed"]), "open",
        "Whether whoever asks gets an account."),
    field("identity.publish", Kind::List, "",
        "Channels or patterns that every account may publish and signal on; an admin may on all. Empty: none.")
        .per_profile(["*", "", ""]),
    field("identity.subscribe", Kind::List, "",
        "Channels or patterns that every account may subscribe to and read the history and the presence of; an admin may all. Empty: none.")
        .per_profile(["*", "", ""]),
    field("identity.mail", url(&["log:"], true), "",
        "Who takes mails: `log:` writes them to the log, refused in production. Empty: nobody, and addresses are not confirmed and forgotten passwords not replaced.")
        .per_profile(["log:", "log:", ""]),
    field("identity.hash_places", count(1, 64), "1",
        "Passwords that one process hashes at a time, each on a core of its own; for each place 32 requests are taken, and the next one is told to come back."),

    field("identity.return_urls", Kind::List, "",
        "Pages of your application, letter for letter, to which a browser may be sent after a sign-in at another provider. Empty: the answer is JSON."),

    field("providers.*.issuer", url(&["https://", "http://"], true), "",
        "OpenID Connect: the provider's issuer, letter for letter; everything else is discovered. See docs/identity.md."),
    field("providers.*.client_id", OPTIONAL, "", "What the provider calls this server."),
    field("providers.*.client_secret_file", OPTIONAL, "",
        "The file of the client's secret. Empty: PKCE alone."),
    field("providers.*.scopes", Kind::List, "",
        "What is asked for beside `openid`; left out, `profile` and `email`, and nothing of OAuth 2.0."),
    field("providers.*.trust_email", Kind::Choice(&["yes", "no"]), "no",
        "Whether the provider's word for a verified mail address is taken: who has it signs in to the account that has confirmed the same one. Only for providers that check."),
    field("providers.*.registration", Kind::Choice(&["open", "closed"]), "closed",
        "Whether who comes for the first time gets an account; left out, as `identity.registration`."),
    field("providers.*.authorize_url", url(&["https://", "http://"], true), "",
        "OAuth 2.0 without OpenID Connect: where the browser is sent."),
    field("providers.*.token_url", url(&["https://", "http://"], true), "",
        "OAuth 2.0: where the code is exchanged."),
    field("providers.*.user_url", url(&["https://", "http://"], true), "",
        "OAuth 2.0: what tells, as JSON, whose token it is."),
    field("providers.*.subject_field", TEXT, "id",
        "OAuth 2.0: the field of that answer that never changes."),
    field("providers.*.name_field", TEXT, "login",
        "OAuth 2.0: the field of that answer with a name for a new account."),
    field("roles.*.publish", Kind::List, "",
        "Channels or patterns that whoever has this role may publish and signal on, beside those of the token; `{user}` is the user."),
    field("roles.*.subscribe", Kind::List, "",
        "Channels or patterns that whoever has this role may subscribe to and read the history and the presence of."),

    field("gateway.event_bytes_max", size(1, 128 * KIB), "64KiB", "Most bytes of one event's data."),
    field("gateway.linger", span(0, 1000), "0ms",
        "How long an idle partition waits for more events before it writes: up to 1ms halves the journal's work at moderate rates and adds 1 to 2 ms."),
    field("gateway.connections_max", count(1, 1_000_000), "19000",
        "WebSocket connections of this process; the next one is refused with 503."),
    field("gateway.history_reads", count(1, 1024), "4",
        "Pages of history that this process reads and writes out at the same time, for whatever transport; live events are never behind them. More help where the archive is far away, fewer leave more of a small machine to live events."),
    field("gateway.history_waiting", count(1, 65_536), "64",
        "Pages of one connection, or of one user over HTTP, that may wait for their turn; the next one is refused as `limited`. Connections and users are served in turn."),
    field("gateway.cors_origins", Kind::List, "",
        "Origins of web pages that may call: `https://app.example`, or `*` for every one. Empty: none."),
    field("gateway.app", Kind::Choice(&["no", "yes"]), "yes",
        "Whether the web app is served at `/`: the one that the program was built with, or a plain page.")
        .per_profile(["yes", "yes", "no"]),

    field("gateway.trusted_proxies", Kind::List, "",
        "Networks of proxies in front of the gateways, as in `10.0.0.0/8, fd00::/8`: the client's address is read from the `X-Forwarded-For` that they send, from its end for as long as who added an entry is one of them. Empty: the address of the connection counts, and behind a proxy all clients share its limits."),

    field("messages.lease", span(1_000, 10 * MINUTE), "6s",
        "How long a partition stays with a worker that is not heard of; also how long a take-over takes after a kill."),
    field("messages.batch_events", count(1, 1_000_000), "10000", "Most events in one transaction."),
    field("messages.recovery_window", span(MINUTE, 24 * HOUR), "10m",
        "How long persisted frames stay in the journal for subscribers that come back."),

    field("retention.age", AGE, "",
        "How long the archive keeps an event. A whole table of events goes at once where all in it is past its age, so an event may stay for a day longer. Empty: for ever."),
    field("retention.bytes", BYTES, "",
        "How many bytes of data the archive keeps of one namespace; above it the oldest events go. Empty: all."),
    field("namespaces.*.retention_age", AGE, "",
        "As `retention.age`, for the events of one namespace; empty is for ever, left out is `retention.age`."),
    field("namespaces.*.retention_bytes", BYTES, "",
        "As `retention.bytes`, for the events of one namespace; empty is all, left out is `retention.bytes`."),

    field("log.format", Kind::Choice(&["pretty", "json"]), "json", "How log lines are written.")
        .per_profile(["pretty", "json", "json"]),
    field("log.level", TEXT, "info",
        "What is logged: a level, or directives such as `warn,stormwire_gateway=debug`.")
        .per_profile(["info,stormwire=debug,async_nats=warn", "info,async_nats=warn", "warn"]).also(&["RUST_LOG"]),
    field("telemetry.otlp_endpoint", url(&["http://", "https://"], true), "",
        "Where traces are sent by OTLP over gRPC, as in http://collector:4317. Empty: nowhere.")
        .also(&["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    field("telemetry.trace_ratio", count(0, 1000), "10",
        "How many of 1,000 traces that begin here are sent.").per_profile(["1000", "100", "10"]),
];
