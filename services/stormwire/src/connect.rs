//! How the command line's clients connect: where, as whom.

use crate::cli::ConnectArgs;
use crate::config::Config;
use crate::failure::Failure;
use std::time::Duration;
use stormwire_client::{Client, ClientConfig, ClientError, End};
use stormwire_core::SystemClock;
use stormwire_identity::{DevelopmentKey, TokenRequest};

/// The embedded server's address where nothing else is said.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";
/// The user of a token that is made on the spot.
pub(crate) const DEVELOPER: &str = "developer";
/// How long it is valid: a replay may take its time.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Where and with which token, by flags, then environment, then defaults; several addresses are divided by
/// commas.
fn addresses(args: &ConnectArgs, config: &Config) -> Result<(String, String), Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let urls = args.url.clone().or_else(|| variable("STORMWIRE_URL"));
    let urls =
        urls.or_else(|| variable("STORMWIRE_URLS")).unwrap_or_else(|| URL_DEFAULT.to_owned());
    let token = match args.token.clone().or_else(|| variable("STORMWIRE_TOKEN")) {
        Some(token) => token,
        None => development_token(config)?,
    };
    Ok((urls, token))
}

/// Where to send a request, and its token: the first gateway that is named.
pub(crate) fn endpoint(args: &ConnectArgs, config: &Config) -> Result<(String, String), Failure> {
    let (urls, token) = addresses(args, config)?;
    let first = urls.split(',').next().unwrap_or_default().trim().to_owned();
    Ok((first, token))
}

/// The client's configuration.
pub(crate) fn client_config(args: &ConnectArgs, config: &Config) -> Result<ClientConfig, Failure> {
    let (urls, token) = addresses(args, config)?;
    let mut urls = urls.split(',').map(|url| url.trim().to_owned());
    let mut client = ClientConfig::new(urls.next().unwrap_or_default(), token).with_urls(urls);
    if let Some(path) = &args.ca {
        let pem = std::fs::read(path)
            .map_err(|error| Failure::usage(format!("--ca {}: {error}", path.display())))?;
        client = client
            .with_roots(&pem)
            .map_err(|error| Failure::usage(format!("--ca {}: {error}", path.display())))?;
    }
    Ok(client)
}

/// Connects, or says what to do.
pub(crate) async fn connect(client: ClientConfig) -> Result<Client, Failure> {
    let urls = client.urls.join(", ");
    Client::connect(client).await.map_err(|error| match error {
        ClientError::Ended(End::Unreachable { last, .. }) => Failure::unavailable(format!(
            "nobody answers at {urls} ({last}); start a server with `stormwire`, or name one with --url or STORMWIRE_URL"
        )),
        ClientError::Ended(End::Server { code: 4401, reason }) => Failure::failed(format!(
            "{urls} does not accept the token ({reason}); give a valid one with --token or STORMWIRE_TOKEN (`stormwire token` makes one with the development key of a --data-dir)"
        )),
        ClientError::Ended(End::Configuration(why)) => Failure::usage(why),
        other => Failure::failed(format!("{urls}: {other}")),
    })
}

/// A token with all rights, if the development key is on this machine.
fn development_token(config: &Config) -> Result<String, Failure> {
    let dir = &config.data_dir;
    if config.auth.jwks.is_some() || !dir.is_dir() {
        return Err(Failure::usage(format!(
            "no token: give one with --token or STORMWIRE_TOKEN (there is no development key in {} either)",
            dir.display()
        )));
    }
    let key = DevelopmentKey::load_or_create(dir).map_err(Failure::failed)?;
    sign(&key, TokenRequest { ttl: TOKEN_TTL, ..TokenRequest::new(DEVELOPER).all_rights() })
}

/// Signs a token.
pub(crate) fn sign(key: &DevelopmentKey, request: TokenRequest) -> Result<String, Failure> {
    key.sign(request, &SystemClock).map_err(Failure::usage)
}
