//! Several servers in one URL, `postgres://user@one:5432,two:5432/database`: a primary and those that may
//! be promoted in its place. The one that takes writes is in use: it is asked every second whether it
//! still does, and when it does not, the others are asked in the URL's order.
//!
//! Whoever promotes a replica keeps the old primary away; of two that take writes the one in use stays.

use crate::server::Server;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often the one in use is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// One URL for each server that `url` names.
pub(crate) fn split(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.to_owned()] };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{}{path}", host.trim())).collect()
}

/// Sees to it that the server which takes writes is in use, until the archive is gone.
pub(crate) async fn follow_primary(server: Weak<Server>) {
    let mut every = interval(ASK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open: Option<PgConnection> = None;
    loop {
        every.tick().await;
        let Some(server) = server.upgrade() else { return };
        if let Some(mut connection) = open.take()
            && takes_writes(&mut connection).await
        {
            open = Some(connection);
            continue;
        }
        open = look(&server).await;
    }
}

/// Asks the one in use first, then the others; the first that takes writes is in use from then on.
async fn look(server: &Server) -> Option<PgConnection> {
    let (hosts, used) = (server.hosts(), server.host());
    let others = (0..hosts.len()).filter(|host| *host != used);
    for host in std::iter::once(used).chain(others) {
        let Some(connection) = primary(&hosts[host]).await else { continue };
        if host != used {
            let (name, port) = (hosts[host].get_host(), hosts[host].get_port());
            tracing::warn!(host = name, port, "another server is the archive's primary now");
            server.moved_to(host);
        }
        return Some(connection);
    }
    tracing::debug!("none of the archive's servers takes writes now");
    None
}

async fn primary(host: &PgConnectOptions) -> Option<PgConnection> {
    let mut connection = timeout(ANSWER_WITHIN, host.connect()).await.ok()?.ok()?;
    if takes_writes(&mut connection).await {
        return Some(connection);
    }
    let _ = timeout(ANSWER_WITHIN, connection.close()).await;
    None
}

async fn takes_writes(connection: &mut PgConnection) -> bool {
    let question = sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()");
    matches!(timeout(ANSWER_WITHIN, question.fetch_one(connection)).await, Ok(Ok(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_url_of_its_own() {
        assert_eq!(split("postgres://h/d"), ["postgres://h/d"]);
        assert_eq!(
            split("postgres://u:p,w@a:1,b:2/d?sslmode=require"),
            ["postgres://u:p,w@a:1/d?sslmode=require", "postgres://u:p,w@b:2/d?sslmode=require"]
        );
        assert_eq!(split("nonsense"), ["nonsense"]);
    }
}
