//! Heartbeats and notices, and the requests of other gateways on their way to the partitions' tasks.

use super::{Shared, notices};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use stormwire_journal::message::{Heartbeat, Notice, Reply};
use stormwire_journal::owner::BEAT_EVERY;
use stormwire_journal::{PeerRequest, Peers};
use stormwire_telemetry::{Quiet, Tasks};
use tokio::sync::mpsc;

const RETRY: Duration = Duration::from_millis(200);
/// While there is no connection, each attempt fails the same way: one line in ten seconds will do.
static UNHEARD: Quiet = Quiet::new(Duration::from_secs(10));
static UNASKED: Quiet = Quiet::new(Duration::from_secs(10));

/// Starts both. `inboxes` are the partitions' tasks, ascending.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    peers: &Arc<dyn Peers>,
    inboxes: Vec<mpsc::Sender<PeerRequest>>,
    tasks: &Tasks,
) {
    tasks.spawn("ingest_requests", serve(Arc::clone(shared), Arc::clone(peers), inboxes));
    // D2: a thread and a runtime of their own, so that a busy gateway does not look like a dead one.
    let (for_thread, on_thread) = (Arc::clone(shared), Arc::clone(peers));
    let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    () = for_thread.stop.cancelled() => {}
                    () = beat(&for_thread, &*on_thread) => {}
                    () = notices::tell(&for_thread, &*on_thread) => {}
                    () = listen(&for_thread, &*on_thread) => {}
                }
            }),
            Err(error) => tracing::error!(%error, "no runtime for the heartbeats"),
        }
    });
    if let Err(error) = thread {
        tracing::error!(%error, "no thread for the heartbeats; other gateways take this one for gone");
    }
}

async fn beat(shared: &Shared, peers: &dyn Peers) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shared.beat_now.notified() => {}
        }
        let _ = tokio::time::timeout(BEAT_EVERY, peers.beat(shared.heartbeat().encode())).await;
    }
}

async fn listen(shared: &Shared, peers: &dyn Peers) {
    loop {
        match peers.beats().await {
            Ok(mut beats) => {
                while let Some(beat) = beats.next().await {
                    if let Ok(beat) = Heartbeat::decode(&beat) {
                        hear(shared, &beat);
                    } else if let Ok(notice) = Notice::decode(&beat) {
                        notices::hear(shared, &notice);
                    }
                }
            }
            Err(error) => {
                if let Some(suppressed) = UNHEARD.ready() {
                    tracing::warn!(%error, suppressed, "heartbeats cannot be heard");
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn hear(shared: &Shared, beat: &Heartbeat) {
    let heard = shared.members.lock().hear(shared.now(), beat);
    match heard {
        Ok(true) => shared.members_changed(),
        Ok(false) => {}
        Err(_) => tracing::error!(
            gateway = beat.gateway,
            "another process uses this gateway's name; every gateway needs its own"
        ),
    }
}

async fn serve(
    shared: Arc<Shared>,
    peers: Arc<dyn Peers>,
    inboxes: Vec<mpsc::Sender<PeerRequest>>,
) {
    let stop = shared.stop.clone();
    let work = async {
        loop {
            match peers.serve(&shared.config.gateway).await {
                Ok(mut requests) => {
                    while let Some(request) = requests.next().await {
                        route(&inboxes, request);
                    }
                }
                Err(error) => {
                    if let Some(suppressed) = UNASKED.ready() {
                        tracing::warn!(%error, suppressed, "other gateways cannot ask this one");
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Each lane has one batch under way, so a full inbox means copies of requests that were given up.
fn route(inboxes: &[mpsc::Sender<PeerRequest>], request: PeerRequest) {
    let refused = match inboxes.get(usize::from(request.partition.0)) {
        Some(inbox) => match inbox.try_send(request) {
            Ok(()) => return,
            Err(error) => error.into_inner(),
        },
        None => request,
    };
    (refused.reply)(Reply::Moved(None).encode());
}

impl Shared {
    fn heartbeat(&self) -> Heartbeat {
        let owned = self.cells.iter().filter_map(|cell| {
            let view = cell.view.lock();
            let owner = view.role == super::Role::Owner;
            owner.then(|| view.epoch.map(|epoch| (cell.partition, epoch, view.claim))).flatten()
        });
        Heartbeat {
            gateway: self.config.gateway.clone(),
            process: self.process,
            owned: owned.collect(),
            leaving: self.members.lock().is_leaving(),
        }
    }
}
