//! `stormwire admin`: the routes under `/v1/admin/` from the command line, and nothing else.

use crate::cli::ConnectArgs;
use crate::config::Config;
use crate::connect;
use crate::failure::Failure;
use crate::output;
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use clap::Subcommand;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for an answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Largest answer.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an operator sees and changes. Each prints the server's answer, one JSON object.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Prints the declared namespaces
    Namespaces,
    /// Prints one
    Namespace {
        /// The part of a channel before the colon
        name: String,
    },
    /// Declares a namespace, in place of what was declared of it
    Declare {
        /// The part of a channel before the colon
        name: String,
        /// As in '{"rules":{"publish":"operators"}}'
        declaration: String,
        /// Only over this version; 0: only if it is not declared
        #[arg(long)]
        version: Option<u64>,
    },
    /// Takes a namespace's declaration back
    Undeclare {
        /// The part of a channel before the colon
        name: String,
        /// Only over this version
        #[arg(long)]
        version: Option<u64>,
    },
    /// Prints the connections of the gateway that answers
    Connections {
        /// Only this user's
        #[arg(long)]
        user: Option<String>,
    },
    /// Closes one of them
    Close {
        /// Its number
        connection: u64,
    },
    /// Prints the gateways and what they own
    Cluster,
    /// Prints what operators did, the newest first
    Audit {
        /// Only before this number
        #[arg(long)]
        before: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Publishes an event as the server
    Publish {
        /// The channel
        channel: String,
        /// Its data
        data: String,
    },
    /// Prints an account
    User {
        /// Its id
        user: String,
    },
    /// Blocks an account: its sessions end and its sockets close
    Block {
        /// Its id
        user: String,
    },
    /// Lets a blocked account in again
    Unblock {
        /// Its id
        user: String,
    },
    /// Ends every session of an account
    SignOut {
        /// Its id
        user: String,
    },
}

impl Admin {
    /// Method, path below `/v1/admin/` and body.
    fn request(&self) -> Result<(Method, String, Option<Value>), Failure> {
        let version = |version: &Option<u64>| {
            version.map(|version| format!("?version={version}")).unwrap_or_default()
        };
        let get = |path: String| (Method::GET, path, None);
        Ok(match self {
            Self::Namespaces => get("namespaces".to_owned()),
            Self::Namespace { name } => get(format!("namespaces/{}", part(name)?)),
            Self::Declare { name, declaration, version: over } => {
                let path = format!("namespaces/{}{}", part(name)?, version(over));
                (Method::PUT, path, Some(parse("DECLARATION", declaration)?))
            }
            Self::Undeclare { name, version: over } => {
                (Method::DELETE, format!("namespaces/{}{}", part(name)?, version(over)), None)
            }
            Self::Connections { user: None } => get("connections?limit=1000".to_owned()),
            Self::Connections { user: Some(user) } => {
                get(format!("connections?limit=1000&user={}", part(user)?))
            }
            Self::Close { connection } => {
                (Method::DELETE, format!("connections/{connection}"), None)
            }
            Self::Cluster => get("cluster".to_owned()),
            Self::Audit { before: None, limit } => get(format!("audit?limit={limit}")),
            Self::Audit { before: Some(before), limit } => {
                get(format!("audit?limit={limit}&before={before}"))
            }
            Self::Publish { channel, data } => {
                let event = json!({ "data": parse("DATA", data)? });
                (Method::POST, format!("channels/{}/events", part(channel)?), Some(event))
            }
            Self::User { user } => get(format!("users/{}", part(user)?)),
            Self::Block { user } => {
                let path = format!("users/{}/blocked", part(user)?);
                (Method::PUT, path, Some(json!({ "blocked": true })))
            }
            Self::Unblock { user } => {
                let path = format!("users/{}/blocked", part(user)?);
                (Method::PUT, path, Some(json!({ "blocked": false })))
            }
            Self::SignOut { user } => {
                (Method::POST, format!("users/{}/sign-out", part(user)?), None)
            }
        })
    }
}

/// Runs it against the first gateway that is named.
pub(crate) async fn run(
    command: &Admin,
    connect: &ConnectArgs,
    config: &Config,
) -> Result<(), Failure> {
    let (method, path, body) = command.request()?;
    let (url, token) = connect::endpoint(connect, config)?;
    let url = format!("{}/v1/admin/{path}", url.trim_end_matches('/'));
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(&url)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(Failure::usage)?;
    let (status, answer) = tokio::time::timeout(WITHIN, Box::pin(send(request)))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")))
        .map_err(|why| Failure::unavailable(format!("{url}: {why}")))?;
    if status.is_success() {
        return if answer.is_empty() { Ok(()) } else { output::line(answer.trim_end()) };
    }
    let problem: Value = serde_json::from_str(&answer).unwrap_or_default();
    let message = problem["message"].as_str().unwrap_or(&answer);
    Err(Failure::failed(format!("{url}: {status}: {message}")))
}

async fn send(request: Request<Full<Bytes>>) -> Result<(StatusCode, String), String> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| error.to_string())?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn parse(name: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("{name} {text:?} is not JSON: {error}")))
}

/// Part of a path, which must not become more than one.
fn part(text: &str) -> Result<&str, Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'~' | b'-' | b':');
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text);
    }
    Err(Failure::usage(format!("{text:?}: expected letters, digits and _ . ~ - :")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_the_path() {
        for bad in ["", "a/b", "a?b", "a b", "..%2f", "ä"] {
            assert!(part(bad).is_err(), "{bad:?}");
        }
        let declare = Admin::Declare {
            name: "room".to_owned(),
            declaration: "{}".to_owned(),
            version: Some(0),
        };
        let (method, path, body) = declare.request().unwrap();
        assert_eq!((method, path.as_str()), (Method::PUT, "namespaces/room?version=0"));
        assert_eq!(body, Some(json!({})));
        let block = Admin::Block { user: "019a-b".to_owned() }.request().unwrap();
        assert_eq!((block.0, block.1.as_str()), (Method::PUT, "users/019a-b/blocked"));
        let broken = Admin::Publish { channel: "a:b".to_owned(), data: "{".to_owned() };
        assert!(broken.request().is_err());
    }
}
