//! Every gateway and every worker is restarted, one after the other, under load.

use crate::fleet::{Fleet, Load, end};
use std::time::Duration;

const SPREAD: Duration = Duration::from_secs(1);
/// The publish deadline.
const BEYOND_SPREAD: Duration = Duration::from_secs(15);
const CHANNELS: usize = 10;
const PACE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing_and_costs_each_client_one_reconnect_a_gateway() {
    let settings = [("STORMWIRE_SHUTDOWN_SPREAD", "1s"), ("STORMWIRE_MESSAGES_LEASE", "3s")];
    let Some(fleet) = Fleet::start("rolling", &settings).await else { return };
    let mut gateways = Vec::new();
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        gateways.push(fleet.gateway(name).await);
    }
    let workers = [fleet.worker("worker-1").await, fleet.worker("worker-2").await];
    let load = Load::start(&fleet, &gateways, CHANNELS, PACE).await;
    load.goes_on(500).await;
    for gateway in &gateways {
        let before = load.connections();
        let took = end(gateway).await;
        gateway.again().await;
        load.goes_on(500).await;
        let reconnects: Vec<u64> =
            load.connections().iter().zip(&before).map(|(after, before)| after - before).collect();
        println!("a gateway ended within {took:?}; reconnects a client: {reconnects:?}");
        assert!(took <= SPREAD + BEYOND_SPREAD, "{took:?}");
        assert!(reconnects.iter().any(|count| *count > 0), "somebody was there");
        assert!(reconnects.iter().all(|count| *count <= 1), "{reconnects:?}");
    }
    for worker in &workers {
        let took = end(worker).await;
        println!("a worker ended within {took:?}");
        assert!(took <= BEYOND_SPREAD, "{took:?}");
        worker.again().await;
        load.goes_on(500).await;
    }
    let outcome = load.finish().await;
    let count: usize = outcome.sent.values().map(Vec::len).sum();
    println!("{count} publishes, the longest wait for an answer {:?}", outcome.longest);
    fleet.assert_stored(&outcome.sent).await;
}
