//! The command line: what can be said, with examples.

mod beside;
mod upkeep;

use crate::commands::admin::Admin;
pub(crate) use beside::{LatestArgs, PresenceArgs, SignalArgs};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use stormwire_core::{Epoch, Offset, Pattern, Position};
use stormwire_tokens::Role;
pub(crate) use upkeep::{
    BackupArgs, CanaryArgs, Journal, NewEpochArgs, RestoreArgs, TraceArgs, VerifyArgs,
};

/// Durable events on ordered channels, over WebSocket and REST.
///
/// Without a command: the embedded server, everything in one process and one file. Its first line on
/// standard output is its address; it is ready when GET /readyz answers 200.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  stormwire                                     a server on 127.0.0.1:8080, data in ./stormwire-data
  stormwire --listen 0.0.0.0:9000 --data-dir /var/lib/stormwire
  stormwire publish room:lobby '{\"hello\":\"world\"}'
  stormwire subscribe room:lobby --last 10
All fields of the configuration: docs/configuration.md, or `stormwire config`."
)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The configuration
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

/// Flags that set fields of the configuration, stronger than file and environment.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingFlags {
    /// The configuration file; stormwire.toml in the working folder if it is there
    #[arg(long, global = true, value_name = "FILE", env = "STORMWIRE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Which defaults apply: development, staging or production
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Where clients connect
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Where probes and metrics are served as well
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) management_listen: Option<String>,
    /// The folder of the embedded engine and of the development key
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Any other field, as in --set gateway.linger=1ms; may be repeated
    #[arg(long, global = true, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A gateway of a cluster: WebSocket and REST, lanes and appenders
    #[command(after_help = "\
Examples:
  NATS_URL=nats://a:4222,nats://b:4222 DATABASE_URL=postgres://u:p@h/d REDIS_URL=redis://h stormwire gateway
  stormwire gateway --config /etc/stormwire.toml --listen 0.0.0.0:8080")]
    Gateway,
    /// A worker of a cluster: from the journal into the archive, each event once
    #[command(after_help = "\
Examples:
  NATS_URL=nats://a:4222 DATABASE_URL=postgres://u:p@h/d stormwire messages --management-listen 0.0.0.0:9090")]
    Messages,
    /// The identity service of a cluster: accounts, sign-ins, signing keys
    #[command(after_help = "\
Examples:
  DATABASE_URL=postgres://u:p@h/d REDIS_URL=redis://h stormwire identity --listen 0.0.0.0:8080
  stormwire identity grant alice admin          the first admin
  stormwire identity rotate-key                 a new signing key, published before it signs
  stormwire identity reseal                     after a new line was put first in the key ring")]
    Identity {
        /// A command in place of the service
        #[command(subcommand)]
        command: Option<IdentityCommand>,
    },
    /// Namespaces, connections, accounts and the audit, through the routes under /v1/admin/
    #[command(after_help = "\
Examples:
  stormwire admin namespaces
  stormwire admin declare desk '{\"rules\":{\"subscribe\":\"channel_token\"}}'
  stormwire admin block 019a7c…
  stormwire admin audit --limit 20 --url https://events.example --token $ADMIN")]
    Admin {
        /// What to do
        #[command(subcommand)]
        command: Admin,
        /// A gateway [default: $STORMWIRE_URL, the first of $STORMWIRE_URLS, http://127.0.0.1:8080]
        #[arg(long, global = true)]
        url: Option<String>,
        /// A token with the role admin [default: $STORMWIRE_TOKEN, else one signed with the key in the data directory]
        #[arg(long, global = true)]
        token: Option<String>,
    },
    /// Brings the archive's schema up to this program's version, and ends
    #[command(after_help = "\
Examples:
  DATABASE_URL=postgres://u:p@h/d stormwire migrate
  DATABASE_URL=postgres://owner:p@h/d stormwire migrate --accounts")]
    Migrate {
        /// The tables of the accounts as well, where `stormwire identity` may not make them itself
        #[arg(long)]
        accounts: bool,
    },
    /// Prints a token signed with the development key, and nothing else
    #[command(after_help = "\
Examples:
  stormwire token --user alice --publish 'room:*' --subscribe 'room:*' --ttl 8h
  STORMWIRE_TOKEN=$(stormwire token --user root --publish '*' --subscribe '*')")]
    Token(TokenArgs),
    /// Publishes events on a channel, in order, and prints where they are stored
    #[command(after_help = "\
Examples:
  stormwire publish room:lobby '{\"text\":\"hello\"}' '{\"text\":\"again\"}'
  some-program | stormwire publish room:lobby -       one JSON value a line from standard input")]
    Publish(PublishArgs),
    /// Prints the events of a channel, one JSON object a line
    #[command(after_help = "\
Examples:
  stormwire subscribe room:lobby                     from now on
  stormwire subscribe room:lobby --last 10 --count 10
  stormwire subscribe room:lobby --since 1:4104192   everything after a position
  stormwire subscribe 'room:*'                       every channel of a namespace")]
    Subscribe(SubscribeArgs),
    /// Prints the newest event of a channel, of a key, or of each key, one JSON object a line
    #[command(after_help = "\
Examples:
  stormwire latest room:lobby
  stormwire latest prices:stocks --key ACME          the newest event of one key
  stormwire latest prices:stocks --keys              the newest of each key, by key
The exit code is 0 also where there is none.")]
    Latest(LatestArgs),
    /// Prints who is in a channel, one JSON object a line
    #[command(after_help = "\
Examples:
  stormwire presence room:lobby                      everybody who is there now
  stormwire presence room:lobby --watch              and who comes and goes, and signals; as a member itself")]
    Presence(PresenceArgs),
    /// Tells something to those who are subscribed to a channel now, without storing it
    #[command(after_help = "\
Examples:
  stormwire signal room:lobby '{\"typing\":true}'")]
    Signal(SignalArgs),
    /// Publishes a file of events (one JSON object a line), and ends with one line of figures
    #[command(after_help = "\
Examples:
  stormwire replay load/data/flights.ndjson --channel 'flights:{origin}-{carrier}'
  stormwire replay events.ndjson --channel 'orders:{region}' --rate 1000 --state events.state
Ends with {\"sent\":…,\"acknowledged\":…,\"refused\":…,\"seconds\":…} on standard output; the exit code is 1
if an event was refused. With --state a replay that was interrupted goes on where it stopped, without
storing an event twice, if it is started again within the server's memory of repeats (10 minutes).")]
    Replay(ReplayArgs),
    /// Checks the machine and every dependency: what is wrong, and how to mend it
    #[command(after_help = "\
Examples:
  stormwire doctor                                   the embedded server's machine
  stormwire doctor --config /etc/stormwire.toml      a cluster's dependencies as well
The exit code is 1 if something has to be mended.")]
    Doctor(DoctorArgs),
    /// Events and frames that could not be stored as what they are
    #[command(
        subcommand,
        after_help = "\
Examples:
  stormwire dead-letters list --limit 20
  stormwire dead-letters replay 17"
    )]
    DeadLetters(DeadLetters),
    /// How the journal's logs stand, and a new epoch for one that has gone back
    #[command(
        subcommand,
        after_help = "\
Examples:
  stormwire journal status
  stormwire journal new-epoch 3                      asks before it changes anything
  stormwire journal new-epoch --all --yes            after a restore of all of the journal's servers"
    )]
    Journal(Journal),
    /// Copies archive and journal into a folder of its own, while they are in use
    #[command(after_help = "\
Examples:
  stormwire backup /var/backups                      the embedded server's data directory
  NATS_URL=nats://a:4222 DATABASE_URL=postgres://u:p@h/d stormwire backup /var/backups --keep 30d
Of a cluster it runs pg_dump. Whatever was acknowledged before it began is in it; docs/backup.md.")]
    Backup(BackupArgs),
    /// Puts a backup into an empty database or data directory, with every server stopped
    #[command(after_help = "\
Examples:
  stormwire restore /var/backups/stormwire-2026-01-31T02-30-00Z --data-dir stormwire-data
  NATS_URL=nats://a:4222 DATABASE_URL=postgres://u:p@h/new stormwire restore /var/backups/stormwire-…
  stormwire restore … --keep-journal                 when only the archive was lost")]
    Restore(RestoreArgs),
    /// Compares the archive with the journal, event by event; one JSON object a partition
    #[command(after_help = "\
Examples:
  stormwire verify                                   what the journal still has
  stormwire verify --all                             and everything else in the archive, in itself
  stormwire verify --partition 3 --since 1:4104192
The embedded server must be stopped. The exit code is 1 if an event is lost, doubled or changed.")]
    Verify(VerifyArgs),
    /// Says where an event is: journal, ledger, archive, or the reason why it is missing
    #[command(after_help = "\
Examples:
  stormwire trace 5-1-4104192                        the id that subscribers see
  stormwire trace --channel room:lobby 1:4104192
  stormwire trace --channel orders:eu order-4711     an id that the publisher gave")]
    Trace(TraceArgs),
    /// Publishes and receives all the time, through every partition, and counts what is lost or doubled
    #[command(after_help = "\
Examples:
  stormwire canary --url https://events.example --token $TOKEN --management-listen 0.0.0.0:9090
  stormwire canary --for 10m --every 200ms           a check that ends: exit code 1 if something is wrong
It publishes on canary:*, once an interval in each partition; its metrics begin with stormwire_canary_.")]
    Canary(CanaryArgs),
    /// Prints the configuration that applies, and where each field was set
    #[command(after_help = "\
Examples:
  stormwire config --profile production
  stormwire config --markdown > docs/configuration.md")]
    Config {
        /// Print docs/configuration.md instead
        #[arg(long)]
        markdown: bool,
    },
}

/// `stormwire token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Who bears it
    #[arg(long)]
    pub(crate) user: String,
    /// Channels to publish on: a name, or a pattern such as room:*; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub(crate) publish: Vec<Pattern>,
    /// Channels to subscribe to and to read the history of; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub(crate) subscribe: Vec<Pattern>,
    /// A role; may be repeated
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<String>,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
}

/// Where a client connects, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// Gateways, divided by commas [default: $STORMWIRE_URL, $STORMWIRE_URLS, http://127.0.0.1:8080]
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// A token [default: $STORMWIRE_TOKEN, else one signed with the key in the data directory]
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// A PEM file of certificate authorities to trust as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// `stormwire publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The channel, namespace:name
    pub(crate) channel: String,
    /// The events' data; - reads lines from standard input
    #[arg(required = true, value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) data: Vec<String>,
    /// The events' type
    #[arg(long = "type")]
    pub(crate) kind: Option<String>,
    /// The events' key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Where to
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire subscribe`.
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// The channel, namespace:name, or a pattern: 'namespace:*'
    pub(crate) channel: String,
    /// Everything after this position: epoch:offset, or an offset of epoch 1
    #[arg(long, value_name = "OFFSET", value_parser = position, conflicts_with = "last")]
    pub(crate) since: Option<Position>,
    /// The last so many events first
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<u32>,
    /// Of a pattern: everything after this cursor
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["since", "last"])]
    pub(crate) cursor: Option<String>,
    /// When this end is slow, only the newest event of each key
    #[arg(long)]
    pub(crate) latest: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Where from
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The file: one JSON object a line
    pub(crate) file: PathBuf,
    /// The channel of each line; {field} stands for a field of the object
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) channel: String,
    /// The type of the events
    #[arg(long = "type")]
    pub(crate) kind: Option<String>,
    /// Most events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// A file that remembers how far the replay has come
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Where to
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `stormwire doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stormwire dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Prints them, oldest first, one JSON object a line
    List {
        /// Only of this partition
        #[arg(long)]
        partition: Option<u16>,
        /// Only numbers above this one
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Prints one, with its bytes
    Show {
        /// Its number
        id: i64,
    },
    /// Publishes what can be read of one again, then removes it
    Replay {
        /// Its number
        id: i64,
        /// Where to
        #[command(flatten)]
        connect: Box<ConnectArgs>,
    },
    /// Removes one for good
    Drop {
        /// Its number
        id: i64,
    },
}

/// `stormwire identity …`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Makes a new signing key and prints its name and from when it signs
    RotateKey,
    /// Seals anew whatever is not sealed under the first key of the key ring, and prints how much it was
    Reseal,
    /// Gives an account a role
    Grant {
        /// The user name
        name: String,
        /// user, moderator or admin
        #[arg(value_parser = role)]
        role: Role,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "expected user, moderator or admin".to_owned())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::span(text).ok_or_else(|| "expected a time such as 15m, 1h or 7d".to_owned())
}

fn position(text: &str) -> Result<Position, String> {
    if let Ok(offset) = text.parse() {
        return Ok(Position { epoch: Epoch::FIRST, offset: Offset(offset) });
    }
    text.parse().map_err(|error: stormwire_core::PositionError| error.to_string())
}

impl SettingFlags {
    /// The fields that are set: key and text.
    pub(crate) fn fields(&self) -> Result<Vec<(&'static str, String)>, String> {
        let named = [
            ("profile", &self.profile),
            ("listen", &self.listen),
            ("management_listen", &self.management_listen),
            ("data_dir", &self.data_dir),
        ];
        let mut fields: Vec<_> =
            named.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))).collect();
        for pair in &self.set {
            let (key, text) = pair.split_once('=').ok_or_else(|| {
                format!("--set {pair:?}: expected FIELD=VALUE, as in --set gateway.linger=1ms")
            })?;
            let field = crate::config::FIELDS.iter().find(|field| field.key == key);
            let field = field.ok_or_else(|| {
                format!(
                    "--set {pair:?}: there is no field {key} (all fields: docs/configuration.md)"
                )
            })?;
            fields.push((field.key, text.to_owned()));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_examples() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn the_command_line_that_others_script_against_is_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("stormwire --listen 127.0.0.1:0 --data-dir /tmp/x").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.settings.fields().unwrap().len(), 2);
        let token = parse(
            "stormwire token --user me --publish a:* --publish b:c --subscribe * --ttl 2h --data-dir d",
        );
        let Some(Command::Token(token)) = token.unwrap().command else { panic!() };
        assert_eq!((token.publish.len(), token.ttl), (2, Duration::from_secs(7200)));
        let subscribe =
            parse("stormwire subscribe a:b --since 4104192 --count 5 --url u --token t");
        let Some(Command::Subscribe(subscribe)) = subscribe.unwrap().command else { panic!() };
        assert_eq!(subscribe.since.unwrap().to_string(), "1:4104192");
        for bad in [
            "subscribe a:b --since x",
            "token --user me --publish a*b",
            "replay f",
            "publish a:b",
            "nonsense",
        ] {
            assert!(parse(&format!("stormwire {bad}")).is_err(), "{bad}");
        }
        let cli = parse("stormwire --set nope=1").unwrap();
        assert!(cli.settings.fields().unwrap_err().contains("no field nope"));
    }
}
