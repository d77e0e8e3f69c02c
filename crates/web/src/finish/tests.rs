use super::*;
use axum::body::Body;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

fn router(config: &WebConfig) -> Router {
    let routes = Router::new()
        .route("/ok", get(|| async { "fine ".repeat(200) }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("oh")
                }
            }),
        )
        .route("/slow", get(|| async { std::future::pending::<()>().await }))
        .route(
            "/body",
            post(|request: Request| async {
                crate::body(request.into_body(), 8).await.map(|_| ()).map_err(Problem)
            }),
        );
    finish(routes, config)
}

async fn call(
    config: &WebConfig,
    request: http::request::Builder,
    body: &'static str,
) -> (Response, Vec<u8>) {
    let response = router(config).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    (Response::from_parts(parts, Body::empty()), bytes)
}

fn get_request(path: &str) -> http::request::Builder {
    http::Request::get(path)
}

fn code(bytes: &[u8]) -> (String, String) {
    let body: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("code"), text("request_id"))
}

#[tokio::test]
async fn a_request_keeps_its_id_or_is_given_one() {
    let config = WebConfig::default();
    let (response, _) = call(&config, get_request("/ok").header("x-request-id", "mine"), "").await;
    assert_eq!(response.headers()["x-request-id"], "mine");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let (response, bytes) =
        call(&config, get_request("/none").header("x-request-id", "a b"), "").await;
    let drawn = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(drawn.len(), 36);
    assert_eq!(code(&bytes), ("not_found".to_owned(), drawn));
}

#[tokio::test]
async fn a_panic_is_one_requests_own() {
    let (response, bytes) = call(&WebConfig::default(), get_request("/panic"), "").await;
    assert_eq!(response.status(), 500);
    assert_eq!(code(&bytes).0, "internal");
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_a_deadline() {
    let (response, bytes) = call(&WebConfig::default(), get_request("/slow"), "").await;
    assert_eq!((response.status().as_u16(), code(&bytes).0.as_str()), (503, "overloaded"));
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_body_has_a_bound_and_a_route_its_methods() {
    let config = WebConfig::default();
    let (response, bytes) = call(&config, http::Request::post("/body"), "123456789").await;
    assert_eq!((response.status().as_u16(), code(&bytes).0.as_str()), (413, "too_large"));
    let (response, _) = call(&config, http::Request::post("/body"), "12345678").await;
    assert_eq!(response.status(), 200);
    let (response, bytes) = call(&config, http::Request::post("/ok"), "").await;
    assert_eq!((response.status().as_u16(), code(&bytes).0.as_str()), (405, "unknown_op"));
}

#[tokio::test]
async fn pages_of_other_origins_are_let_in_only_where_they_are_named() {
    let asks = || get_request("/ok").header("origin", "https://a.example");
    let (response, _) = call(&WebConfig::default(), asks(), "").await;
    assert!(response.headers().get("access-control-allow-origin").is_none());
    let named =
        WebConfig { cors_origins: vec!["https://a.example".to_owned()], ..WebConfig::default() };
    let (response, _) = call(&named, asks(), "").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "https://a.example");
    let (response, _) =
        call(&named, get_request("/ok").header("origin", "https://b.example"), "").await;
    assert!(response.headers().get("access-control-allow-origin").is_none());
    let all = WebConfig { cors_origins: vec!["*".to_owned()], ..WebConfig::default() };
    let (response, _) = call(&all, asks(), "").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn answers_are_compressed_for_who_asks() {
    let config = WebConfig::default();
    let (response, bytes) =
        call(&config, get_request("/ok").header("accept-encoding", "gzip"), "").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(bytes.len() < 200);
    let (response, _) = call(&config, get_request("/ok"), "").await;
    assert!(response.headers().get("content-encoding").is_none());
}
