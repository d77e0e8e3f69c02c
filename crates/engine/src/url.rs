//! What the URLs of the configuration mean.

use std::str::FromStr;

/// A URL whose scheme no engine of this port has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a URL of the {port}; expected {expected}")]
pub struct UrlError {
    /// What was given, without a password.
    pub url: String,
    /// Which port it was given for.
    pub port: &'static str,
    /// The URLs that the port has engines for.
    pub expected: &'static str,
}

/// Where the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalUrl {
    /// The embedded engine's file in the data directory.
    Sqlite,
    /// The servers of a NATS cluster.
    Nats(Vec<String>),
}

/// Where the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveUrl {
    /// The embedded engine's file in the data directory.
    Sqlite,
    /// A Postgres database.
    Postgres(String),
}

/// Who counts limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitsUrl {
    /// This process.
    Local,
    /// A Redis server.
    Redis(String),
}

/// Who knows who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceUrl {
    /// This process, of its own connections.
    Local,
    /// A Redis server, of every gateway's.
    Redis(String),
}

impl FromStr for JournalUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let urls: Vec<String> = text.split(',').map(|url| url.trim().to_owned()).collect();
        let is_nats = |url: &String| url.starts_with("nats://") || url.starts_with("tls://");
        if text == "sqlite:" {
            Ok(Self::Sqlite)
        } else if urls.iter().all(is_nats) {
            Ok(Self::Nats(urls))
        } else {
            let expected = "sqlite: (a file in the data directory) or nats://host:4222, tls://host:4222 (JetStream; several divided by commas)";
            Err(UrlError { url: redact(text), port: "journal", expected })
        }
    }
}

impl FromStr for ArchiveUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text == "sqlite:" {
            Ok(Self::Sqlite)
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self::Postgres(text.to_owned()))
        } else {
            let expected = "sqlite: (a file in the data directory) or postgres://user:password@host:5432/database";
            Err(UrlError { url: redact(text), port: "archive", expected })
        }
    }
}

impl FromStr for LimitsUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text == "local:" {
            Ok(Self::Local)
        } else if text.starts_with("redis://") || text.starts_with("rediss://") {
            Ok(Self::Redis(text.to_owned()))
        } else {
            let expected = "local: (this process alone) or redis://host:6379, rediss://host:6379";
            Err(UrlError { url: redact(text), port: "limiter", expected })
        }
    }
}

impl FromStr for PresenceUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.parse() {
            Ok(LimitsUrl::Local) => Ok(Self::Local),
            Ok(LimitsUrl::Redis(url)) => Ok(Self::Redis(url)),
            Err(error) => Err(UrlError { port: "presence", ..error }),
        }
    }
}

/// The URLs with `…` where a password stands.
#[must_use]
pub fn redact(text: &str) -> String {
    let one = |url: &str| {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        match authority.rsplit_once('@') {
            None => url.to_owned(),
            Some((user, host)) => {
                let user = user.split_once(':').map_or(user, |(user, _)| user);
                format!("{scheme}://{user}:…@{host}{path}")
            }
        }
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_chooses_the_engine() {
        assert_eq!("sqlite:".parse(), Ok(JournalUrl::Sqlite));
        let two = vec!["nats://a:4222".to_owned(), "nats://b:4222".to_owned()];
        assert_eq!("nats://a:4222, nats://b:4222".parse(), Ok(JournalUrl::Nats(two)));
        assert_eq!("sqlite:".parse(), Ok(ArchiveUrl::Sqlite));
        let url = "postgresql://u@h/d".to_owned();
        assert_eq!(url.parse(), Ok(ArchiveUrl::Postgres(url)));
        assert_eq!("local:".parse(), Ok(LimitsUrl::Local));
        let url = "rediss://h:6379".to_owned();
        assert_eq!(url.parse(), Ok(LimitsUrl::Redis(url.clone())));
        assert_eq!(url.parse(), Ok(PresenceUrl::Redis(url)));
        assert_eq!("local:".parse(), Ok(PresenceUrl::Local));
        assert_eq!("nats://h".parse::<PresenceUrl>().unwrap_err().port, "presence");
    }

    #[test]
    fn an_unknown_scheme_is_told_what_is_allowed_and_no_password_is_shown() {
        let error = "kafka://me:secret@h/x".parse::<JournalUrl>().unwrap_err().to_string();
        assert!(error.contains("nats://") && error.contains("sqlite:"), "{error}");
        assert!(error.contains("kafka://me:…@h/x") && !error.contains("secret"), "{error}");
        assert!("nats://a,http://b".parse::<JournalUrl>().is_err());
        assert!("mysql://h".parse::<ArchiveUrl>().unwrap_err().to_string().contains("postgres://"));
        assert!("memcached://h".parse::<LimitsUrl>().unwrap_err().to_string().contains("redis://"));
        assert_eq!(redact("postgres://h/d"), "postgres://h/d");
    }
}
