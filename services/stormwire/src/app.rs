//! The web app, served at `/` from within the program: files that the build took in (`build.rs`).
//!
//! A page of the app is a path without a file; the app itself looks at it. Files below `assets/` carry a
//! hash of their content in their name and may be kept for ever; all others are asked for anew.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

include!(concat!(env!("OUT_DIR"), "/app_files.rs"));

/// Paths of the app's own pages.
const PAGES: [&str; 6] = ["/", "/sign-in", "/sign-up", "/account", "/c/{channel}", "/console"];
/// What a page may load, and whom it may call: this server alone.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; \
     object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The routes of the app.
pub(crate) fn routes() -> Router {
    let mut router = Router::new();
    for page in PAGES {
        router = router.route(page, get(async |headers: HeaderMap| file("index.html", &headers)));
    }
    for (name, _) in FILES.iter().filter(|(name, _)| *name != "index.html") {
        let one = get(async move |headers: HeaderMap| file(name, &headers));
        router = router.route(&format!("/{name}"), one);
    }
    router
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = HeaderValue::from_str(&format!("\"{:016x}\"", hash(bytes)));
    let Ok(tag) = tag else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let keep = if name.starts_with("assets/") {
        HeaderValue::from_static("public, max-age=31536000, immutable")
    } else {
        HeaderValue::from_static("no-cache")
    };
    let described = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind(name))),
        (header::CACHE_CONTROL, keep),
        (header::ETAG, tag.clone()),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, described).into_response();
    }
    (described, *bytes).into_response()
}

/// What a file is, by the end of its name.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("webmanifest") => "application/manifest+json",
        Some("json" | "map") => "application/json",
        _ => "application/octet-stream",
    }
}

/// FNV-1a: tells one build's file from another's.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_and_every_file_has_a_kind() {
        assert!(FILES.iter().any(|(name, _)| *name == "index.html"));
        for (name, bytes) in FILES {
            assert_ne!(kind(name), "application/octet-stream", "{name}");
            assert!(!bytes.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = file("index.html", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let again = file("index.html", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file("no-such-file", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
        let policy = first.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
}
