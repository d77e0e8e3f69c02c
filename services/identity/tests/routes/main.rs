//! The routes, one file a route's family, on the real store and the real verifier.

#![expect(clippy::unwrap_used, reason = "a test ends where it is not as expected")]

mod accounts;
mod admin;
mod api_keys;
mod keys;
mod kit;
mod login;
mod mail;
mod oidc;
mod provider;
mod refresh;
mod sessions;

#[test]
fn the_description_of_the_routes_is_up_to_date() {
    let document = stormwire_identity::openapi_document().to_pretty_json().unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi-identity.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document,
        "docs/openapi-identity.json is old; UPDATE_DOCS=1 cargo test -p stormwire-identity --test routes"
    );
}
