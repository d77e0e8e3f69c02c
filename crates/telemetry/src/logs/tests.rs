//! What a log line looks like.

use super::*;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tracing_subscriber::layer::SubscriberExt as _;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(config: &TelemetryConfig, work: impl FnOnce()) -> String {
    let sink = Sink::default();
    let out = sink.clone();
    let layer = layer(config, move || out.clone()).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let bytes = sink.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_json_line_has_the_agreed_fields_and_those_of_its_spans() {
    let config = TelemetryConfig::staging("gateway");
    let text = logged(&config, || {
        let request =
            tracing::info_span!("request", request_id = "r-1", user_id = tracing::field::Empty);
        let _entered = request.enter();
        request.record("user_id", "alice");
        let error = io::Error::other("disk \"on\" fire\nnow");
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            duration_ms = 12_u64,
            "persist {}",
            "failed"
        );
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("{\"timestamp\":\""), "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("level", "warn"),
        ("service", "gateway"),
        ("message", "persist failed"),
        ("request_id", "r-1"),
        ("user_id", "alice"),
        ("error", "disk \"on\" fire\nnow"),
    ] {
        assert_eq!(line[name], value, "{text}");
    }
    assert_eq!(line["duration_ms"], 12);
    assert!(line["target"].as_str().unwrap().starts_with("stormwire_telemetry"));
}

#[test]
fn the_level_comes_from_the_profile() {
    let say = || {
        tracing::debug!("fine");
        tracing::info!("middling");
        tracing::warn!("grave");
        tracing::debug!(target: "h2", "chatter");
    };
    for (config, lines) in [
        (TelemetryConfig::production("x"), 1),
        (TelemetryConfig::staging("x"), 2),
        (TelemetryConfig::development("x"), 3),
    ] {
        assert_eq!(logged(&config, say).lines().count(), lines, "{}", config.level);
    }
}

#[test]
fn a_bad_level_is_named() {
    let config =
        TelemetryConfig { level: "stormwire=loud".to_owned(), ..TelemetryConfig::staging("x") };
    let error = layer::<tracing_subscriber::Registry, _>(&config, io::sink).err().unwrap();
    assert!(error.to_string().contains("stormwire=loud"), "{error}");
}

#[test]
fn long_fields_are_cut_and_types_are_kept() {
    let text = logged(&TelemetryConfig::staging("x"), || {
        let long = "ü".repeat(FIELD_BYTES_MAX);
        tracing::info!(long, ratio = 0.5, ok = true, change = -3, list = ?[1, 2], "many");
    });
    let line: Value = serde_json::from_str(&text).unwrap();
    assert!(line["long"].as_str().unwrap().len() <= FIELD_BYTES_MAX + '…'.len_utf8());
    assert_eq!(line["ratio"], 0.5);
    assert_eq!(line["ok"], true);
    assert_eq!(line["change"], -3);
    assert_eq!(line["list"], "[1, 2]");
}
