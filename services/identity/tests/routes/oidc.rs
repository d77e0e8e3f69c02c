//! Signing in through another provider, and links.

use crate::kit::{Answer, PASSWORD, Server, token_in};
use crate::provider::{NOW, Provider, SECRET};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use stormwire_identity::{IdentityConfig, Protocol, ProviderConfig, Registration};

const PAGE: &str = "https://app.example/signed-in";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

async fn server(provider: &Provider, change: impl FnOnce(&mut IdentityConfig)) -> Server {
    let url = provider.url.clone();
    Server::start_with(move |config| {
        let secret = config.data_dir.join("client-secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let openid = ProviderConfig {
            name: "other".to_owned(),
            protocol: Protocol::OpenId { issuer: url.clone() },
            client_id: "stormwire".to_owned(),
            client_secret_file: Some(secret),
            scopes: vec!["profile".to_owned(), "email".to_owned()],
            trust_email: true,
            registration: None,
        };
        let protocol = Protocol::OAuth {
            authorize_url: format!("{url}/authorize"),
            token_url: format!("{url}/token"),
            user_url: format!("{url}/user"),
            subject_field: "id".to_owned(),
            name_field: "login".to_owned(),
        };
        let forge = ProviderConfig {
            name: "forge".to_owned(),
            protocol,
            scopes: Vec::new(),
            trust_email: false,
            ..openid.clone()
        };
        config.providers = vec![openid, forge];
        config.return_urls = vec![PAGE.to_owned()];
        config.public_url = Some("https://events.example".to_owned());
        change(config);
    })
    .await
}

async fn get(server: &Server, path: &str, cookie: &str) -> Answer {
    let request = Request::get(path).header("cookie", cookie).body(axum::body::Body::empty());
    server.send(request.unwrap(), "192.0.2.1").await
}

/// Begins; where the browser is sent, and its cookie.
async fn begin(server: &Server, path: &str) -> (String, String) {
    let answer = get(server, path, "").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let text = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    let cookie = text("set-cookie");
    for part in ["Path=/v1/auth/oidc", "HttpOnly", "SameSite=Lax", "Secure", "Max-Age=600"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    (text("location"), cookie.split(';').next().unwrap().to_owned())
}

/// The whole way of a browser.
async fn sign_in(server: &Server, provider: &Provider, path: &str) -> Answer {
    let (location, cookie) = begin(server, path).await;
    get(server, &provider.approve(&location), &cookie).await
}

fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// A ticket for whoever signs in at the provider now.
async fn ticket(server: &Server, provider: &Provider, name: &str) -> Value {
    let path = format!("/v1/auth/oidc/{name}?challenge={}", challenge());
    let answer = sign_in(server, provider, &path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    json!({ "ticket": answer.text("ticket"), "verifier": VERIFIER })
}

#[tokio::test]
async fn whoever_the_provider_vouches_for_has_one_account() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let listed = get(&server, "/v1/auth/oidc", "").await;
    assert_eq!(listed.body, json!({ "providers": ["other", "forge"] }));
    let first = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let claims = server.verify(&first.text("access_token")).await.unwrap();
    assert_eq!(&*claims.user, first.text("user"));
    assert_eq!(server.refresh(&first.text("refresh_token")).await.status, 200);
    let second = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_eq!(second.text("user"), first.text("user"), "by its subject");
    provider.say(json!({ "sub": "somebody else", "preferred_username": "Alice" }));
    let other = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_eq!(other.status, 200, "a name that is taken gets digits: {other:?}");
    assert_ne!(other.text("user"), first.text("user"));
    // There is no password to guess.
    for guess in ["", "-", PASSWORD] {
        assert_eq!(server.login("alice", guess).await.refusal(), (401, "unauthenticated"));
    }
    assert_eq!(provider.discoveries(), 1, "metadata is kept");
}

#[tokio::test]
async fn plain_oauth_signs_in_by_the_id_that_stays() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let first = sign_in(&server, &provider, "/v1/auth/oidc/forge").await;
    assert_eq!(first.status, 200, "{first:?}");
    let second = sign_in(&server, &provider, "/v1/auth/oidc/forge").await;
    assert_eq!(second.text("user"), first.text("user"));
    let openid = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_ne!(openid.text("user"), first.text("user"), "another authority, another person");
}

#[tokio::test]
async fn an_answer_that_is_not_of_this_browsers_sign_in_signs_nobody_in() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let (location, cookie) = begin(&server, "/v1/auth/oidc/other").await;
    let back = provider.approve(&location);
    let (other_location, other_cookie) = begin(&server, "/v1/auth/oidc/other").await;
    let other_back = provider.approve(&other_location);
    let refused = async |path: &str, cookie: &str| {
        let answer = get(&server, path, cookie).await;
        assert_eq!(answer.refusal(), (401, "unauthenticated"), "{path} {cookie}: {answer:?}");
    };
    refused(&back, "").await;
    // The attacker's own answer in somebody's browser, and the other way round.
    refused(&other_back, &cookie).await;
    refused(&back, &other_cookie).await;
    refused(&back, &format!("{cookie}; {other_cookie}")).await;
    refused(&back.replace("/other/", "/forge/"), &cookie).await;
    refused(&back.replace("state=", "state=x"), &cookie).await;
    refused(&format!("{back}&iss=https%3A%2F%2Fevil.example"), &cookie).await;
    refused("/v1/auth/oidc/other/callback?error=access_denied", &cookie).await;
    let mut changed = cookie.clone().into_bytes();
    *changed.last_mut().unwrap() ^= 1;
    refused(&back, &String::from_utf8(changed).unwrap()).await;
    let code = back.split("code=").nth(1).unwrap().to_owned();
    refused(&back.replace(&code, "code-99"), &cookie).await;
    server.pass(Duration::from_secs(601));
    refused(&back, &cookie).await;
    assert_eq!(get(&server, "/v1/auth/oidc/nobody", "").await.refusal(), (404, "not_found"));
    let doubled = format!("{back}&state=x");
    assert_eq!(get(&server, &doubled, &cookie).await.refusal(), (400, "malformed"));
}

#[tokio::test]
async fn an_id_token_that_is_not_good_signs_nobody_in() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let refused = async |why: &str| {
        let answer = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
        assert_eq!(answer.refusal(), (401, "unauthenticated"), "{why}: {answer:?}");
    };
    for claims in [
        json!({ "nonce": "of another sign-in" }),
        json!({ "nonce": null }),
        json!({ "aud": "another client" }),
        json!({ "aud": ["stormwire", "another client"] }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": NOW - 1 }),
        json!({ "sub": "" }),
        json!({ "sub": "x".repeat(300) }),
    ] {
        provider.say(claims.clone());
        refused(&claims.to_string()).await;
    }
    provider.say(json!({}));
    // `none`, and the client's secret as the key, although the provider claims to use both.
    for head in
        [json!({ "alg": "none" }), json!({ "alg": "HS256" }), json!({ "alg": "RS256", "kid": "1" })]
    {
        provider.head(Some(head.clone()));
        refused(&head.to_string()).await;
    }
    provider.head(None);
    assert_eq!(sign_in(&server, &provider, "/v1/auth/oidc/other").await.status, 200);
}

#[tokio::test]
async fn an_address_links_only_where_both_sides_have_confirmed_it() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let email = "alice@example.com";
    let body = json!({ "email": email, "password": PASSWORD });
    let own = server.post("/v1/auth/register", body).await.text("user");
    let sign_in = async || sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    provider.say(json!({ "sub": "unverified", "email": email, "email_verified": false }));
    let stranger = sign_in().await;
    assert_ne!(stranger.text("user"), own, "an address that the provider has not verified");
    // The account's owner has not shown that the address is theirs either: it may be a trap.
    provider.say(json!({ "sub": "verified", "email": email, "email_verified": true }));
    assert_eq!(sign_in().await.refusal(), (409, "conflict"));
    let token = token_in(&server.mail(email, 1).await);
    let confirmed = server.post("/v1/auth/email/verify", json!({ "token": token })).await;
    assert_eq!(confirmed.status, 204);
    assert_eq!(sign_in().await.text("user"), own);
    provider.say(json!({ "sub": "verified" }));
    assert_eq!(sign_in().await.text("user"), own, "linked from then on");
}

#[tokio::test]
async fn a_provider_whose_word_is_not_taken_gives_no_address() {
    let provider = Provider::start().await;
    let server = server(&provider, |config| config.providers[0].trust_email = false).await;
    let email = "alice@example.com";
    let body = json!({ "email": email, "password": PASSWORD });
    let own = server.post("/v1/auth/register", body).await.text("user");
    let token = token_in(&server.mail(email, 1).await);
    server.post("/v1/auth/email/verify", json!({ "token": token })).await;
    provider.say(json!({ "email": email, "email_verified": true }));
    let answer = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_ne!(answer.text("user"), own);
}

#[tokio::test]
async fn a_page_gets_a_ticket_that_only_its_verifier_opens_once() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    let path = format!("/v1/auth/oidc/other?challenge={}&return_to={PAGE}", challenge());
    let answer = sign_in(&server, &provider, &path).await;
    assert_eq!(answer.status, 303);
    let to = answer.headers["location"].to_str().unwrap();
    let ticket = to.strip_prefix(&format!("{PAGE}#ticket=")).unwrap_or_else(|| panic!("{to}"));
    let exchange = async |ticket: &str, verifier: &str| {
        server.post("/v1/auth/ticket", json!({ "ticket": ticket, "verifier": verifier })).await
    };
    let signed_in = exchange(ticket, VERIFIER).await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    assert_eq!(exchange(ticket, VERIFIER).await.refusal(), (401, "unauthenticated"));
    // Whoever has only the ticket has used it up, and has nothing.
    let answer = sign_in(&server, &provider, &path).await;
    let ticket = answer.headers["location"].to_str().unwrap().split_once("ticket=").unwrap().1;
    let other = "x".repeat(43);
    assert_eq!(exchange(ticket, &other).await.refusal(), (401, "unauthenticated"));
    assert_eq!(exchange(ticket, VERIFIER).await.refusal(), (401, "unauthenticated"));
    let answer = sign_in(&server, &provider, &path).await;
    let ticket = answer.headers["location"].to_str().unwrap().split_once("ticket=").unwrap().1;
    server.pass(Duration::from_secs(121));
    assert_eq!(exchange(ticket, VERIFIER).await.refusal(), (401, "unauthenticated"));
    // What goes wrong is told to the page as well.
    let (_, cookie) = begin(&server, &path).await;
    let answer = get(&server, "/v1/auth/oidc/other/callback?error=access_denied", &cookie).await;
    assert_eq!(answer.headers["location"], format!("{PAGE}#error=unauthenticated"));
    for bad in [
        format!("return_to={PAGE}"),
        format!("challenge={}&return_to=https://evil.example", challenge()),
        "challenge=short".to_owned(),
    ] {
        let answer = get(&server, &format!("/v1/auth/oidc/other?{bad}"), "").await;
        assert_eq!(answer.refusal(), (400, "invalid_field"), "{bad}");
    }
}

#[tokio::test]
async fn an_account_links_others_and_keeps_a_way_in() {
    let provider = Provider::start().await;
    let server = server(&provider, |_| {}).await;
    server.register("bob").await;
    let (bob, _) = server.sign_in("bob").await;
    let proof = ticket(&server, &provider, "other").await;
    assert_eq!(server.post_as(&bob, "/v1/auth/links", proof).await.status, 204);
    let as_bob = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    let claims = server.verify(&bob).await.unwrap();
    assert_eq!(as_bob.text("user"), &*claims.user);
    // Somebody else's account cannot have the same person.
    server.register("carol").await;
    let (carol, _) = server.sign_in("carol").await;
    let proof = ticket(&server, &provider, "other").await;
    let taken = server.post_as(&carol, "/v1/auth/links", proof).await;
    assert_eq!(taken.refusal(), (409, "conflict"));
    let links = server.get(&bob, "/v1/auth/links").await;
    assert_eq!(links.body["links"][0]["provider"], "other");
    let path = format!("/v1/auth/links/{}", links.body["links"][0]["id"].as_str().unwrap());
    let remove =
        async |token: &str| server.call(Method::DELETE, &path, Some(token), "", "192.0.2.1").await;
    assert_eq!(remove(&carol).await.refusal(), (404, "not_found"));
    assert_eq!(remove(&bob).await.status, 204);
    // An account that a provider made has nothing else.
    let made = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    let token = made.text("access_token");
    let links = server.get(&token, "/v1/auth/links").await;
    let path = format!("/v1/auth/links/{}", links.body["links"][0]["id"].as_str().unwrap());
    let last = server.call(Method::DELETE, &path, Some(&token), "", "192.0.2.1").await;
    assert_eq!(last.refusal(), (409, "conflict"));
}

#[tokio::test]
async fn closed_means_that_only_linked_people_come_in_and_blocked_ones_do_not() {
    let provider = Provider::start().await;
    let server = server(&provider, |config| {
        config.registration = Registration::Closed;
        config.providers[1].registration = Some(Registration::Open);
    })
    .await;
    let answer = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_eq!(answer.refusal(), (403, "forbidden"));
    let made = sign_in(&server, &provider, "/v1/auth/oidc/forge").await;
    assert_eq!(made.status, 200, "{made:?}");
    server.identity.grant("octo", stormwire_tokens::Role::Admin).await.unwrap();
    let admin = sign_in(&server, &provider, "/v1/auth/oidc/forge").await.text("access_token");
    let proof = ticket(&server, &provider, "other").await;
    assert_eq!(server.post_as(&admin, "/v1/auth/links", proof).await.status, 204);
    let path = format!("/v1/admin/users/{}/blocked", made.text("user"));
    let body = json!({ "blocked": true }).to_string();
    let blocked = server.call(Method::PUT, &path, Some(&admin), body, "192.0.2.1").await;
    assert_eq!(blocked.status, 204, "{blocked:?}");
    let answer = sign_in(&server, &provider, "/v1/auth/oidc/other").await;
    assert_eq!(answer.refusal(), (403, "forbidden"));
}

#[tokio::test]
async fn new_keys_are_found_and_a_provider_that_is_away_is_told_as_temporary() {
    let provider = Provider::start().await;
    let server = server(&provider, |config| {
        config.providers[1].protocol = Protocol::OpenId { issuer: "http://127.0.0.1:9".to_owned() };
    })
    .await;
    let answer = get(&server, "/v1/auth/oidc/forge", "").await;
    assert_eq!(answer.refusal(), (503, "overloaded"));
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(sign_in(&server, &provider, "/v1/auth/oidc/other").await.status, 200);
    // A key that is not known leads to one discovery in ten seconds; tokio's clock has not moved on.
    provider.rotate();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(sign_in(&server, &provider, "/v1/auth/oidc/other").await.status, 200);
    assert_eq!(provider.discoveries(), 2);
}
