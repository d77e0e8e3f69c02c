//! One GET of a small JSON document, for monitoring pages.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

/// Longest wait for the whole answer.
const WITHIN: Duration = Duration::from_secs(3);
/// Largest answer.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The document at `url` (http:// alone), or why there is none.
pub(super) async fn get(url: &str) -> Result<Value, String> {
    let uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let client: Client<_, Empty<axum::body::Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let work = async {
        let answer = client.get(uri).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if !status.is_success() {
            return Err(format!("status {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    };
    let answer = tokio::time::timeout(WITHIN, Box::pin(work)).await;
    answer
        .unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")))
        .map_err(|why| format!("{url}: {why}"))
}
