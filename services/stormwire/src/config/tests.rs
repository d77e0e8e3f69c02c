//! The layers, the refusals, and that the document is the table's.

use super::kind::Value;
use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
    Sources {
        file: (!file.is_empty()).then(|| ("stormwire.toml".to_owned(), file.to_owned())),
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        flags: flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
    }
}

fn problems(sources: &Sources) -> String {
    Config::read(sources).unwrap_err().to_string()
}

#[test]
fn every_default_is_a_value_of_its_field_in_every_profile() {
    for field in FIELDS {
        for profile in Profile::ALL {
            let default = field.default_in(profile);
            assert!(field.kind.parse(default).is_some(), "{}: {default:?}", field.key);
        }
        assert!(field.doc.ends_with('.'), "{} is documented in sentences", field.key);
    }
    let config = Config::read(&Sources::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(!config.is_cluster());
}

#[test]
fn later_layers_win_and_a_fields_own_variable_beats_the_common_one() {
    let file = "listen = \"1.1.1.1:1\"\n[gateway]\nlinger = \"1ms\"\ncors_origins = [\"https://a\", \"https://b\"]";
    let config = Config::read(&sources(file, &[], &[])).unwrap();
    assert_eq!(config.listen.to_string(), "1.1.1.1:1");
    assert_eq!(config.gateway.linger, Duration::from_millis(1));
    assert_eq!(config.gateway.cors_origins, ["https://a", "https://b"]);
    let environment = [("PORT", "2"), ("DATABASE_URL", "postgres://h/d"), ("PATH", "/bin")];
    let config = Config::read(&sources(file, &environment, &[])).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:2");
    assert_eq!(config.engine.archive, ArchiveUrl::Postgres("postgres://h/d".to_owned()));
    let environment = [("PORT", "2"), ("STORMWIRE_LISTEN", "3.3.3.3:3")];
    let config = Config::read(&sources(file, &environment, &[])).unwrap();
    assert_eq!(config.listen.to_string(), "3.3.3.3:3");
    let config = Config::read(&sources(file, &environment, &[("listen", "4.4.4.4:4")])).unwrap();
    assert_eq!(config.listen.to_string(), "4.4.4.4:4");
}

#[test]
fn what_is_unknown_or_bad_is_named_with_its_value_and_what_was_expected() {
    let text = problems(&sources("[gateway]\nlingr = \"1ms\"\n[journl]\nurl = \"x\"", &[], &[]));
    assert!(text.contains("unknown field gateway.lingr; did you mean gateway.linger?"), "{text}");
    assert!(text.contains("unknown field journl"), "{text}");
    let text = problems(&sources("partitions = 65\n[gateway]\nlinger = 5", &[], &[]));
    assert!(
        text.contains("stormwire.toml: partitions = \"65\": expected a whole number from 1 to 64"),
        "{text}"
    );
    assert!(text.contains("gateway.linger = \"5\": expected a time from 0s to 1s"), "{text}");
    let text = problems(&sources("", &[("STORMWIRE_LISTN", "x")], &[]));
    assert!(text.contains("did you mean STORMWIRE_LISTEN?"), "{text}");
    let text = problems(&sources("", &[("STORMWIRE_LISTEN", "8080")], &[]));
    assert!(text.contains("STORMWIRE_LISTEN: listen = \"8080\": expected an address"), "{text}");
    let text = problems(&sources("", &[("NATS_URL", "http://secret@h")], &[]));
    assert!(text.contains("NATS_URL: journal.url") && !text.contains("secret"), "{text}");
    let text = problems(&sources("listen = ", &[], &[]));
    assert!(text.contains("stormwire.toml: not TOML"), "{text}");
    for fine in ["STORMWIRE_TOKEN", "STORMWIRE_URLS", "STORMWIRE_TEST_REQUIRE"] {
        Config::read(&sources("", &[(fine, "x")], &[])).unwrap();
    }
}

#[test]
fn production_refuses_what_is_only_good_enough_for_trying_out() {
    let text = problems(&sources(
        "profile = \"production\"\n[gateway]\ncors_origins = [\"*\"]",
        &[("NATS_URL", "nats://a:4222"), ("STORMWIRE_JOURNAL_REPLICAS", "1")],
        &[],
    ));
    for due in ["auth.jwks is empty", "cors_origins = \"*\"", "journal.replicas = 1", "archive.url"]
    {
        assert!(text.contains(due), "{due} in {text}");
    }
    let fine = "profile = \"production\"\n[auth]\njwks = \"/etc/keys.json\"";
    let config = Config::read(&sources(fine, &[], &[])).unwrap();
    assert_eq!((config.profile, config.log.pretty), (Profile::Production, false));
    let own = "profile = \"production\"\n[identity]\nurl = \"self:\"";
    Config::read(&sources(own, &[], &[])).unwrap();
    let mail = problems(&sources(&format!("{own}\nmail = \"log:\""), &[], &[]));
    assert!(mail.contains("identity.mail = \"log:\""), "{mail}");
    assert!(problems(&sources("[journal]\nreplicas = 2", &[], &[])).contains("expected 1, 3 or 5"));
}

#[test]
fn a_namespaces_rules_stand_in_its_own_section() {
    let file = "[retention]\nage = \"30d\"\n[namespaces.audit]\nretention_age = \"\"\n\
                [namespaces.\"a.b\"]\nretention_bytes = \"2GiB\"";
    let config = Config::read(&sources(file, &[], &[])).unwrap();
    let retention = config.messages.retention;
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    assert_eq!(retention.of("chat"), Rule { age: days(30), bytes: None });
    assert_eq!(retention.of("audit"), Rule::default(), "an empty bound is none");
    assert_eq!(retention.of("a.b"), Rule { age: days(30), bytes: Some(2 << 30) });
    let text = problems(&sources("[namespaces.\"a b\"]\nretention_age = \"1h\"", &[], &[]));
    assert!(text.contains("namespaces.a b.retention_age: expected a namespace"), "{text}");
    let text = problems(&sources("[namespaces.a]\nretention_age = \"1s\"", &[], &[]));
    assert!(
        text.contains("namespaces.a.retention_age = \"1s\": expected a time from 1m"),
        "{text}"
    );
    let text = problems(&sources("[namespaces.a]\nretention = \"1h\"", &[], &[]));
    assert!(text.contains("unknown field namespaces.a.retention"), "{text}");
}

#[test]
fn a_provider_is_one_of_two_kinds_and_in_production_behind_tls() {
    let google =
        "[providers.google]\nissuer = \"https://accounts.google.com\"\nclient_id = \"a\"\n";
    let config = Config::read(&sources(google, &[], &[])).unwrap();
    assert_eq!(config.identity.providers.len(), 1);
    assert_eq!(config.identity.providers[0].scopes, ["profile", "email"]);
    assert!(!config.identity.providers[0].trust_email);
    let forge = "[providers.forge]\nauthorize_url = \"http://f/a\"\ntoken_url = \"http://f/t\"\nuser_url = \"http://f/u\"\nclient_id = \"a\"\n";
    Config::read(&sources(forge, &[], &[])).unwrap();
    for (file, expected) in [
        ("[providers.Google]\nissuer = \"https://a\"\nclient_id = \"a\"", "at most 32 of a-z"),
        ("[providers.a]\nissuer = \"https://a\"", "expected client_id"),
        ("[providers.a]\nclient_id = \"a\"", "expected issuer (OpenID Connect)"),
        (
            "[providers.a]\nissuer = \"https://a\"\ntoken_url = \"https://a\"\nclient_id = \"a\"",
            "expected issuer",
        ),
        ("[roles.editor]\npublish = [\"a*b\"]", "roles.editor: "),
    ] {
        let text = problems(&sources(file, &[], &[]));
        assert!(text.contains(expected), "{file}: {text}");
    }
    let production = format!("profile = \"production\"\n{forge}");
    let text = problems(&sources(&production, &[], &[]));
    assert!(text.contains("providers.forge is reached over http://"), "{text}");
    assert!(text.contains("identity.public_url is empty"), "{text}");
}

#[test]
fn roles_of_another_provider_grant_channels() {
    let file = "[auth]\nroles_claim = \"realm_access.roles\"\n[roles.editor]\npublish = [\"room:*\", \"inbox:{user}\"]";
    let auth = Config::read(&sources(file, &[], &[])).unwrap().auth;
    assert_eq!(auth.roles_claim, "realm_access.roles");
    assert_eq!(auth.role_rights["editor"].publish, ["room:*", "inbox:{user}"]);
    assert!(auth.role_rights["editor"].subscribe.is_empty());
}

#[test]
fn a_replica_that_keeps_all_must_be_named() {
    let text = problems(&sources("[archive]\nreplica_keeps_all = \"yes\"", &[], &[]));
    assert!(text.contains("expected archive.replica_url"), "{text}");
}

#[test]
fn the_config_reads_every_field_of_the_table() {
    let source = concat!(include_str!("../config.rs"), include_str!("providers.rs"));
    for field in FIELDS.iter().filter(|field| field.key != "profile") {
        assert!(source.contains(&format!("\"{}\"", field.key)), "{} is not read", field.key);
    }
}

#[test]
fn the_document_is_the_one_made_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/configuration.md is out of date: cargo run -p stormwire -- config --markdown > docs/configuration.md"
    );
}

#[test]
fn settings_remember_where_they_were_set() {
    let settings = Settings::read(&sources("partitions = 4", &[], &[])).unwrap();
    assert_eq!(settings.get("partitions").map(|(value, _)| value), Some(&Value::Count(4)));
    assert_eq!(settings.origin("partitions"), "stormwire.toml");
    assert_eq!(settings.origin("listen"), "default");
}
