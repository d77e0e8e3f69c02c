//! Sections `[providers.NAME]` and `[roles.NAME]`: who people sign in with, and what roles of elsewhere grant.

use super::Getter;
use super::kind::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use stormwire_core::Pattern;
use stormwire_identity::{Protocol, ProviderConfig, Registration};
use stormwire_tokens::RoleRights;

/// Longest name of a provider: it stands in paths.
const NAME_BYTES_MAX: usize = 32;
/// Providers at most.
const PROVIDERS_MAX: usize = 32;

/// The fields of one section.
type Section<'a> = BTreeMap<&'a str, &'a Value>;

fn sections<'a>(get: &Getter<'a>, of: &str) -> BTreeMap<&'a str, Section<'a>> {
    let mut sections: BTreeMap<&str, Section<'_>> = BTreeMap::new();
    for (key, name, value, _) in get.0.named() {
        if key.starts_with(of) {
            sections.entry(name).or_default().insert(key, value);
        }
    }
    sections
}

fn text(section: &Section<'_>, field: &str) -> Option<String> {
    match section.get(field) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn list(section: &Section<'_>, field: &str) -> Option<Vec<String>> {
    match section.get(field) {
        Some(Value::List(list)) => Some(list.clone()),
        _ => None,
    }
}

/// The providers.
pub(super) fn providers(get: &Getter<'_>, problems: &mut Vec<String>) -> Vec<ProviderConfig> {
    let sections = sections(get, "providers.*");
    if sections.len() > PROVIDERS_MAX {
        problems.push(format!("providers: expected at most {PROVIDERS_MAX} of them"));
    }
    let mut all = Vec::new();
    for (name, section) in sections {
        match provider(name, &section) {
            Ok(provider) => all.push(provider),
            Err(problem) => problems.push(format!("providers.{name}: {problem}")),
        }
    }
    all
}

fn provider(name: &str, section: &Section<'_>) -> Result<ProviderConfig, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err("expected a name of at most 32 of a-z 0-9 -, which stands in paths".to_owned());
    }
    let endpoints = ["providers.*.authorize_url", "providers.*.token_url", "providers.*.user_url"];
    let endpoints = endpoints.map(|key| text(section, key));
    let protocol = match (text(section, "providers.*.issuer"), endpoints) {
        (Some(issuer), [None, None, None]) => Protocol::OpenId { issuer },
        (None, [Some(authorize_url), Some(token_url), Some(user_url)]) => Protocol::OAuth {
            authorize_url,
            token_url,
            user_url,
            subject_field: text(section, "providers.*.subject_field")
                .unwrap_or_else(|| "id".to_owned()),
            name_field: text(section, "providers.*.name_field")
                .unwrap_or_else(|| "login".to_owned()),
        },
        _ => {
            return Err("expected issuer (OpenID Connect), or authorize_url, token_url and user_url (OAuth 2.0)".to_owned());
        }
    };
    let scopes = match protocol {
        Protocol::OpenId { .. } => vec!["profile".to_owned(), "email".to_owned()],
        Protocol::OAuth { .. } => Vec::new(),
    };
    let client_id = text(section, "providers.*.client_id");
    Ok(ProviderConfig {
        name: name.to_owned(),
        protocol,
        client_id: client_id.ok_or("expected client_id, the provider's name for this server")?,
        client_secret_file: text(section, "providers.*.client_secret_file").map(PathBuf::from),
        scopes: list(section, "providers.*.scopes").unwrap_or(scopes),
        trust_email: text(section, "providers.*.trust_email").as_deref() == Some("yes"),
        registration: text(section, "providers.*.registration").map(|text| match text.as_str() {
            "open" => Registration::Open,
            _ => Registration::Closed,
        }),
    })
}

/// Whether everything of the provider that is known here is behind TLS.
pub(super) fn is_private(provider: &ProviderConfig) -> bool {
    let urls = match &provider.protocol {
        Protocol::OpenId { issuer } => vec![issuer],
        Protocol::OAuth { authorize_url, token_url, user_url, .. } => {
            vec![authorize_url, token_url, user_url]
        }
    };
    urls.iter().all(|url| url.starts_with("https://"))
}

/// What roles grant, beside what stands in a token itself.
pub(super) fn role_rights(
    get: &Getter<'_>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, RoleRights> {
    let mut rights = BTreeMap::new();
    for (name, section) in sections(get, "roles.*") {
        let publish = list(&section, "roles.*.publish").unwrap_or_default();
        let subscribe = list(&section, "roles.*.subscribe").unwrap_or_default();
        for text in publish.iter().chain(&subscribe) {
            // A user stands for itself only later; any name will do here.
            if let Err(error) = Pattern::parse(&text.replace("{user}", "user")) {
                problems.push(format!("roles.{name}: {error}"));
            }
        }
        let granted = RoleRights {
            history: subscribe.clone(),
            presence: subscribe.clone(),
            signal: publish.clone(),
            publish,
            subscribe,
        };
        rights.insert(name.to_owned(), granted);
    }
    rights
}
