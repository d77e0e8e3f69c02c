//! One trace from publisher to consumer, and spans that reach a collector.

use super::*;
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt as _;

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

fn traced(sample_ratio: f64, work: impl FnOnce()) -> Vec<SpanData> {
    let kept = Kept::default();
    let config = TelemetryConfig::staging("test");
    let provider =
        Provider(builder(&config, sample_ratio).with_simple_exporter(kept.clone()).build());
    let subscriber = tracing_subscriber::registry().with(provider.layer());
    tracing::subscriber::with_default(subscriber, work);
    kept.0.lock().clone()
}

#[test]
fn one_trace_crosses_the_journal_by_traceparent() {
    let spans = traced(1.0, || {
        let publish = tracing::info_span!("publish");
        let header = publish.in_scope(|| SpanRef::current().unwrap().to_string());
        drop(publish);
        let consume = tracing::info_span!("consume");
        header.parse::<SpanRef>().unwrap().adopt(&consume);
        consume.in_scope(|| tracing::info_span!("persist").in_scope(|| {}));
    });
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (publish, consume, persist) = (named("publish"), named("consume"), named("persist"));
    assert_eq!(consume.parent_span_id, publish.span_context.span_id());
    assert!(consume.parent_span_is_remote);
    assert_eq!(persist.parent_span_id, consume.span_context.span_id());
    for span in [consume, persist] {
        assert_eq!(span.span_context.trace_id(), publish.span_context.trace_id());
    }
}

#[test]
fn a_batch_links_to_each_of_its_producers() {
    let producers: Vec<SpanRef> =
        (1..=3).map(|n| SpanRef { trace: [n; 16], span: [n; 8], flags: 1 }).collect();
    let spans = traced(1.0, || {
        let batch = tracing::info_span!("batch");
        producers.iter().for_each(|producer| producer.link(&batch));
        batch.in_scope(|| {});
    });
    let links: Vec<_> =
        spans[0].links.iter().map(|link| link.span_context.trace_id().to_bytes()).collect();
    assert_eq!(links, [[1; 16], [2; 16], [3; 16]]);
}

#[test]
fn the_ratio_decides_here_and_the_mark_of_a_parent_elsewhere() {
    let spans = traced(0.0, || {
        tracing::info_span!("ours").in_scope(|| {});
        for (name, flags) in [("kept", 1), ("dropped", 0)] {
            let span = tracing::info_span!("theirs", name);
            SpanRef { trace: [7; 16], span: [7; 8], flags }.adopt(&span);
            span.in_scope(|| {});
        }
    });
    assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["theirs"]);
}

#[test]
fn without_tracing_there_is_no_reference_and_adopting_one_is_harmless() {
    let span = tracing::info_span!("untraced");
    SpanRef { trace: [7; 16], span: [7; 8], flags: 1 }.adopt(&span);
    assert_eq!(SpanRef::of(&span), None);
    assert_eq!(SpanRef::current(), None);
}

#[test]
fn a_traceparent_is_read_strictly() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(good.parse::<SpanRef>().unwrap().to_string(), good);
    let zero = "0".repeat(16);
    for bad in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        &format!("00-{zero}{zero}-00f067aa0ba902b7-01"),
        &format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{zero}-01"),
    ] {
        assert_eq!(bad.parse::<SpanRef>(), Err(SpanRefError), "{bad}");
    }
}

/// A collector: keeps the bytes of each request and answers "success" as gRPC does.
async fn collector() -> (String, mpsc::Receiver<Bytes>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let sender = sender.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let _ = sender.send(body).await;
                    let trailers = http::HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        http::HeaderValue::from_static("0"),
                    )]);
                    let frames =
                        [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
                    let body =
                        StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
                    let answer = Response::builder().header("content-type", "application/grpc");
                    Ok::<_, Infallible>(answer.body(body).unwrap())
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(socket), answer));
        }
    });
    (endpoint, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_sends_the_buffered_spans_to_the_collector() {
    let (endpoint, mut received) = collector().await;
    let otlp = OtlpConfig { sample_ratio: 1.0, ..OtlpConfig::new(endpoint) };
    let provider = Provider::connect(&TelemetryConfig::staging("test"), &otlp).unwrap();
    let subscriber = tracing_subscriber::registry().with(provider.layer());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("the-last-span").in_scope(|| {});
    });
    provider.shutdown(Duration::from_secs(5)).await;
    let body =
        tokio::time::timeout(Duration::from_secs(5), received.recv()).await.unwrap().unwrap();
    let holds = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
    assert!(holds(b"the-last-span") && holds(b"stormwire-test"));
}

#[tokio::test]
async fn a_bad_endpoint_is_named() {
    let otlp = OtlpConfig::new("not a url");
    let error = Provider::connect(&TelemetryConfig::staging("test"), &otlp).unwrap_err();
    assert!(error.to_string().contains("not a url"), "{error}");
}
