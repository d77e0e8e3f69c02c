//! The installed whole.

use super::*;
use ::metrics::{counter, histogram};

#[tokio::test]
async fn one_process_installs_once_and_serves_its_metrics() {
    let telemetry = install(&TelemetryConfig::production("test")).unwrap();
    let again = install(&TelemetryConfig::production("test"));
    assert!(matches!(again, Err(TelemetryError::Logs(_))), "{again:?}");

    let tasks = Tasks::new();
    telemetry.watch(&tasks);
    counter!(metrics::PUBLISH_ACKNOWLEDGED).increment(3);
    histogram!(metrics::DEPENDENCY_CALL_SECONDS, "dependency" => "test", "operation" => "op")
        .record(0.09);
    let rendered = async {
        loop {
            let text = telemetry.render();
            if text.contains("stormwire_runtime_workers") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(5), rendered).await.unwrap();
    let help =
        "# HELP stormwire_publish_acknowledged_total Events that the journal has acknowledged";
    assert!(text.contains(help), "{text}");
    assert!(text.contains("stormwire_publish_acknowledged_total 3"), "{text}");
    assert!(text.contains("le=\"0.1\"} 1"), "{text}");
    assert!(text.contains("stormwire_tasks_running{task=\"telemetry\"} 1"), "{text}");

    assert_eq!(tasks.drain(Duration::from_secs(5)).await, Ok(()));
    telemetry.metrics().upkeep();
    telemetry.shutdown(Duration::from_secs(1)).await;
}
