//! Workers that come and go share the partitions.

use crate::kit::{Engines, Running, SOON, cluster, config};
use std::collections::BTreeSet;
use stormwire_core::{Channel, Partition};
use stormwire_testkit::wait_until;

const COUNT: u16 = 8;

/// Until the workers hold so many each, and together every partition once.
async fn wait_shares(what: &str, due: &[(&Running, usize)]) {
    wait_until(what, SOON, || async move {
        let owned: Vec<BTreeSet<Partition>> =
            due.iter().map(|(worker, _)| worker.owned.borrow().clone()).collect();
        let all: BTreeSet<_> = owned.iter().flatten().collect();
        all.len() == usize::from(COUNT)
            && owned.iter().zip(due).all(|(owned, (_, due))| owned.len() == *due)
    })
    .await;
}

#[tokio::test]
async fn joining_and_leaving_workers_spread_the_partitions_anew() {
    let Some(engines) = cluster().await else { return };
    let one = Running::start(&engines, config(COUNT));
    wait_shares("one holds all", &[(&one, 8)]).await;
    let two = Running::start(&engines, config(COUNT));
    wait_shares("two hold half each", &[(&one, 4), (&two, 4)]).await;
    write_all(&engines, 1, 20).await;
    two.stop().await;
    wait_shares("one holds all again", &[(&one, 8)]).await;
    let three = Running::start(&engines, config(COUNT));
    wait_shares("two hold half each", &[(&one, 4), (&three, 4)]).await;
    drop(one);
    wait_shares("the dead one's leases are taken over", &[(&three, 8)]).await;
    write_all(&engines, 21, 30).await;
    for p in 0..COUNT {
        engines.wait_persisted(Partition(p), 30).await;
    }
    three.stop().await;
    let free = engines.archive.acquire("test", config(COUNT).partitions, 8, SOON).await.unwrap();
    assert_eq!(free.len(), 8, "given back");
    let channel = Channel::parse("a:x").unwrap();
    let info = engines.archive.channel(&channel).await.unwrap().unwrap();
    assert_eq!(info.count, 8 * 30 * 5);
}

async fn write_all(engines: &Engines, from: u64, to: u64) {
    for p in 0..COUNT {
        engines.write(Partition(p), from, to).await;
    }
}
